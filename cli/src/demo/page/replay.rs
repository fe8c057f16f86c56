//! The page's account of the replay.

use controller_core::fleet::Sample;
use controller_core::fleet::client::Kind;

use super::{Card, Figure, Section, decision_lines, figure, prediction_card};
use crate::demo::chart::{Chart, Scale, Series, Stroke};
use crate::demo::compare;
use crate::demo::outcome::{Fleet, Replay, slo_phrase};
use crate::format::{count, milliseconds, span};

/// Colours by position: Headroom, round-robin, llm-d.
const CLASSES: [&str; 3] = ["c1", "c3", "c2"];

/// The figures that stand alone.
pub(super) fn cards(replay: &Replay) -> Vec<Card> {
    let Some((ours, others)) = replay.fleets.split_first() else {
        return Vec::new();
    };
    let met = |fleet: &Fleet| compare::attainment(fleet.kind(Kind::Interactive.name()));
    let ttft = ours
        .kind(Kind::Interactive.name())
        .map_or(f64::NAN, |scores| scores.ttft().p90);
    let against: Vec<String> = others
        .iter()
        .map(|fleet| format!("{} {}", fleet.policy, met(fleet)))
        .collect();
    let mut cards = vec![
        Card {
            name: "replay: interactive that met both SLOs".into(),
            figure: met(ours),
            note: against.join(", "),
            good: None,
        },
        Card {
            name: "replay: TTFT p90, interactive".into(),
            figure: milliseconds(ttft),
            note: format!(
                "against {}; {} on average",
                milliseconds(replay.settings.slo.ttft_ms),
                compare::replicas(ours.mean_replicas)
            ),
            good: Some(ttft <= replay.settings.slo.ttft_ms),
        },
    ];
    cards.extend(prediction_card("replay: prediction error", &ours.predictor));
    cards
}

/// Comparison, then timelines.
pub(super) fn section(replay: &Replay) -> Section {
    let ours = replay.fleets.first();
    Section {
        title: "Replay, on a virtual clock".into(),
        intro: vec![intro(replay)],
        grid: Some(compare::replay(replay)),
        first_is_ours: true,
        figures: vec![ttft(replay), replicas(replay), queued(replay)],
        decisions_title: format!(
            "Headroom's {} scaling decisions, and why",
            ours.map_or(0, |fleet| fleet.scalings.len())
        ),
        decisions: ours
            .map(|fleet| decision_lines(&fleet.scalings))
            .unwrap_or_default(),
    }
}

fn intro(replay: &Replay) -> String {
    let settings = &replay.settings;
    let lasted = replay.fleets.first().map_or(0.0, |fleet| fleet.makespan_s);
    format!(
        "{} unscaled requests over {} on simulated {} replicas that take {} s to start; SLO p90 {}. Headroom is autoscaled; the others get its mean count of replicas, rounded up, from the first second to the last, and the same priorities, queue limits and times to live.",
        count(replay.requests as u64),
        span(lasted),
        settings.profile.name,
        settings.startup.as_secs_f64(),
        slo_phrase(settings.slo)
    )
}

fn ttft(replay: &Replay) -> Figure {
    let limit = replay.settings.slo.ttft_ms;
    let chart = Chart {
        unit: "ms",
        scale: Scale::Log,
        height: 220.0,
        limit: Some((limit, format!("SLO {}", milliseconds(limit)))),
        ..chart(
            replay,
            "90th percentile of the time to first token over time, by policy",
            per_fleet(replay, Stroke::Line, |sample| sample.ttft_p90),
        )
    };
    figure(
        "TTFT p90 of the requests that got a first token in each half minute",
        "",
        &chart,
    )
}

fn replicas(replay: &Replay) -> Figure {
    let mut series = Vec::new();
    if let Some(ours) = replay.fleets.first() {
        series.push(points(
            ours,
            "requests/s offered",
            "c4",
            Stroke::Line,
            |sample| Some(sample.offered),
        ));
        series.push(points(
            ours,
            "headroom, ready",
            "c1",
            Stroke::Area,
            |sample| Some(f64::from(sample.ready)),
        ));
        series.push(points(
            ours,
            "starting and draining ones included",
            "c1",
            Stroke::Dashed,
            |sample| Some(f64::from(sample.ready + sample.in_transition)),
        ));
    }
    if let Some(fixed) = replay.fleets.get(1) {
        series.push(points(
            fixed,
            "the fixed fleets",
            "c3",
            Stroke::Step,
            |sample| Some(f64::from(sample.ready)),
        ));
    }
    figure(
        "Load and replicas",
        "",
        &chart(
            replay,
            "Offered requests per second and replicas over time",
            series,
        ),
    )
}

fn queued(replay: &Replay) -> Figure {
    let series = per_fleet(replay, Stroke::Line, |sample| Some(sample.queued as f64));
    figure(
        "Requests in the queue",
        "",
        &chart(replay, "Requests in the queue over time, by policy", series),
    )
}

fn per_fleet(
    replay: &Replay,
    stroke: Stroke,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Vec<Series> {
    // Headroom is drawn last, so that it lies on top.
    let fleets = replay.fleets.iter().zip(CLASSES).rev();
    fleets
        .map(|(fleet, class)| points(fleet, &fleet.policy, class, stroke, &value))
        .collect()
}

fn points(
    fleet: &Fleet,
    name: &str,
    class: &'static str,
    stroke: Stroke,
    value: impl Fn(&Sample) -> Option<f64>,
) -> Series {
    Series {
        name: name.into(),
        class,
        stroke,
        points: fleet
            .timeline
            .iter()
            .map(|sample| (sample.at, value(sample)))
            .collect(),
    }
}

fn chart(replay: &Replay, description: &str, series: Vec<Series>) -> Chart {
    let end = replay
        .fleets
        .iter()
        .map(|fleet| fleet.makespan_s)
        .fold(1.0, f64::max);
    Chart {
        description: description.into(),
        unit: "",
        scale: Scale::Linear,
        height: 176.0,
        end,
        series,
        limit: None,
        marks: Vec::new(),
    }
}
