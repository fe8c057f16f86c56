//! The page's account of the live part.

use controller_core::fleet::client::Kind;

use super::{Card, Section, decision_lines, figure, flags, prediction_card};
use crate::demo::chart::{Chart, Scale, Series, Stroke};
use crate::demo::compare;
use crate::demo::outcome::{Live, LiveSample};
use crate::format::{milliseconds, share};

/// The figures that stand alone.
pub(super) fn cards(live: &Live) -> Vec<Card> {
    let interactive = live.kinds.get(Kind::Interactive.name());
    let ttft = interactive.map_or(f64::NAN, |scores| scores.ttft().p90);
    let most = live
        .timeline
        .iter()
        .map(|sample| sample.ready)
        .max()
        .unwrap_or(0);
    let mut cards = vec![
        Card {
            name: "live: interactive that met both SLOs".into(),
            figure: compare::attainment(interactive),
            note: format!(
                "TTFT p90 {} against {}",
                milliseconds(ttft),
                milliseconds(live.settings.slo.ttft_ms)
            ),
            good: Some(ttft <= live.settings.slo.ttft_ms),
        },
        Card {
            name: "live: replicas".into(),
            figure: format!("{} – {most}", live.settings.min),
            note: format!(
                "{:.1} on average, {} decisions",
                live.mean_replicas,
                live.scalings.len()
            ),
            good: None,
        },
    ];
    cards.extend(prediction_card("live: prediction error", &live.predictor));
    cards
}

/// Timeline first, then the table.
pub(super) fn sections(live: &Live) -> Vec<Section> {
    vec![timeline(live), table(live)]
}

fn timeline(live: &Live) -> Section {
    Section {
        title: "Live, behind Envoy".into(),
        intro: vec![intro(live)],
        grid: None,
        first_is_ours: false,
        figures: vec![
            load(live),
            replicas(live),
            ttft(live),
            tpot(live),
            queue(live),
            error(live),
        ],
        decisions_title: "Scaling decisions, as numbered in the charts, and why".into(),
        decisions: decision_lines(&live.scalings),
    }
}

fn intro(live: &Live) -> String {
    let trained = match live.trained_at_s {
        Some(at) => format!("The latency model was trained after {at:.0} s of traffic."),
        None => "The latency model was not trained in time.".into(),
    };
    format!(
        "Open-loop clients sent requests through Envoy ({}) to simulated {} servers that took {} s to start. {trained} Latencies are what the clients saw, over the last five seconds.",
        live.settings.rates.phrase(),
        live.settings.profile,
        live.settings.startup.as_secs_f64()
    )
}

fn table(live: &Live) -> Section {
    let mut intro = vec![format!(
        "Of the prompt tokens served, {} came from a prefix cache; one infinite cache would have reached {} of the blocks. The latest request left its client {:.0} ms after it was due.",
        share(live.hit_share),
        share(live.hit_bound),
        live.client_lateness_ms
    )];
    for (problem, times) in &live.problems {
        intro.push(format!("{times} × {problem}"));
    }
    Section {
        title: "What became of the live requests".into(),
        intro,
        grid: Some(compare::live(live)),
        first_is_ours: false,
        figures: Vec::new(),
        decisions_title: String::new(),
        decisions: Vec::new(),
    }
}

fn load(live: &Live) -> super::Figure {
    let offered = series(
        live,
        "requests per second, over five seconds",
        "c3",
        Stroke::Area,
        &|sample| Some(sample.offered),
    );
    let chart = Chart {
        height: 120.0,
        ..chart(
            live,
            "Offered requests per second over time",
            "",
            vec![offered],
        )
    };
    figure("Offered load", "", &chart)
}

fn replicas(live: &Live) -> super::Figure {
    let series = vec![
        series(
            live,
            "starting ones included",
            "c2",
            Stroke::Step,
            &|sample| Some(f64::from(sample.ready + sample.starting)),
        ),
        series(live, "ready", "c1", Stroke::Area, &|sample| {
            Some(f64::from(sample.ready))
        }),
    ];
    let chart = Chart {
        marks: flags(&live.scalings),
        ..chart(
            live,
            "Ready and starting replicas over time, with the scaling decisions",
            "",
            series,
        )
    };
    figure("Replicas", "", &chart)
}

fn ttft(live: &Live) -> super::Figure {
    let mut chart = chart(
        live,
        "Time to first token over time, median and 90th percentile, against the SLO",
        "ms",
        vec![
            series(live, "p90", "c1", Stroke::Line, &|sample| sample.ttft_p90),
            series(live, "p50", "c4", Stroke::Line, &|sample| sample.ttft_p50),
        ],
    );
    chart.scale = Scale::Log;
    chart.limit = Some((
        live.settings.slo.ttft_ms,
        format!("SLO {}", milliseconds(live.settings.slo.ttft_ms)),
    ));
    chart.marks = flags(&live.scalings);
    figure("Time to first token (TTFT)", "", &chart)
}

fn tpot(live: &Live) -> super::Figure {
    let mut chart = chart(
        live,
        "Time per output token over time, median and 90th percentile, against the SLO",
        "ms",
        vec![
            series(live, "p90", "c1", Stroke::Line, &|sample| sample.tpot_p90),
            series(live, "p50", "c4", Stroke::Line, &|sample| sample.tpot_p50),
        ],
    );
    chart.limit = Some((
        live.settings.slo.tpot_ms,
        format!("SLO {}", milliseconds(live.settings.slo.tpot_ms)),
    ));
    figure("Time per output token (TPOT)", "", &chart)
}

fn queue(live: &Live) -> super::Figure {
    let per_second = |value: fn(&LiveSample) -> u64| {
        let mut before = 0;
        live.timeline
            .iter()
            .map(|sample| {
                let now = value(sample);
                let new = now.saturating_sub(std::mem::replace(&mut before, now));
                (sample.at, Some(new as f64))
            })
            .collect()
    };
    let counted = |name: &str, class, value| Series {
        name: name.into(),
        class,
        stroke: Stroke::Step,
        points: per_second(value),
    };
    let chart = chart(
        live,
        "Requests in the queue, and requests shed or dropped per second, over time",
        "",
        vec![
            series(live, "queued", "c2", Stroke::Area, &|sample| {
                Some(sample.queued as f64)
            }),
            counted(
                "shed in that second (no server could meet the SLO)",
                "c5",
                |sample| sample.shed,
            ),
            counted("refused or expired otherwise", "bad", |sample| {
                sample.dropped + sample.failed
            }),
        ],
    );
    figure("Queue and refusals", "", &chart)
}

fn error(live: &Live) -> super::Figure {
    let chart = chart(
        live,
        "Median absolute error of the latency predictions over time, in percent",
        "%",
        vec![
            series(live, "TTFT", "c1", Stroke::Line, &|sample| {
                sample.ttft_error
            }),
            series(live, "TPOT", "c4", Stroke::Line, &|sample| {
                sample.tpot_error
            }),
        ],
    );
    let caption = "Each request is predicted when it is dispatched and scored when its answer comes; median of the absolute error over the latest labels.";
    figure("Prediction error", caption, &chart)
}

fn chart(live: &Live, description: &str, unit: &'static str, series: Vec<Series>) -> Chart {
    Chart {
        description: description.into(),
        unit,
        scale: Scale::Linear,
        height: 176.0,
        end: live.timeline.last().map_or(1.0, |sample| sample.at),
        series,
        limit: None,
        marks: Vec::new(),
    }
}

fn series(
    live: &Live,
    name: &str,
    class: &'static str,
    stroke: Stroke,
    value: &dyn Fn(&LiveSample) -> Option<f64>,
) -> Series {
    let points = live
        .timeline
        .iter()
        .map(|sample| (sample.at, value(sample)))
        .collect();
    Series {
        name: name.into(),
        class,
        stroke,
        points,
    }
}
