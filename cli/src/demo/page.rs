//! The findings as one self-contained HTML page.

mod live;
mod replay;

use askama::Template;
use controller_core::fleet::client::Kind;

use super::chart::{Chart, Mark, Stroke};
use super::compare::attainment;
use super::outcome::{Findings, Fleet, Live, Replay, Scaling, slo_phrase};
use crate::format::{clock, count, percent, share, span};
use crate::table::Grid;

/// The page, ready to be written.
#[derive(Template)]
#[template(path = "demo.html")]
struct Page {
    headline: String,
    lede: Vec<String>,
    cards: Vec<Card>,
    sections: Vec<Section>,
    facts: Vec<Fact>,
}

/// A figure that stands alone.
struct Card {
    name: String,
    figure: String,
    note: String,
    /// Whether it is as wanted; unknown = neither.
    good: Option<bool>,
}

/// A part of the page.
struct Section {
    title: String,
    intro: Vec<String>,
    grid: Option<Grid>,
    /// Whether the first column is Headroom's, to be set apart.
    first_is_ours: bool,
    figures: Vec<Figure>,
    decisions_title: String,
    decisions: Vec<DecisionLine>,
}

/// A chart with its name and legend.
struct Figure {
    title: String,
    legend: Vec<Key>,
    svg: String,
    caption: String,
}

struct Key {
    name: String,
    class: &'static str,
    dashed: bool,
}

/// A change of the count of replicas, in words.
struct DecisionLine {
    number: usize,
    when: String,
    change: String,
    reasons: Vec<String>,
}

/// A line of how the page came about.
struct Fact {
    name: &'static str,
    value: String,
    code: bool,
}

/// Writes the page of `findings`.
///
/// # Errors
/// Only if the formatter fails, which a string never does.
pub(crate) fn render(findings: &Findings) -> Result<String, askama::Error> {
    let mut cards = Vec::new();
    let mut sections = Vec::new();
    if let Some(live) = &findings.live {
        cards.extend(live::cards(live));
        sections.extend(live::sections(live));
    }
    if let Some(replay) = &findings.replay {
        cards.extend(replay::cards(replay));
        sections.push(replay::section(replay));
    }
    let page = Page {
        headline: headline(findings),
        lede: lede(findings),
        cards,
        sections,
        facts: facts(findings),
    };
    page.render()
}

/// The outcome in a sentence for each part; also the last line in the terminal.
pub(crate) fn headline(findings: &Findings) -> String {
    let live = findings.live.as_ref().map(live_outcome);
    let replay = findings.replay.as_ref().map(replay_outcome);
    live.into_iter().chain(replay).collect::<Vec<_>>().join(" ")
}

fn live_outcome(live: &Live) -> String {
    let met = attainment(live.kinds.get(Kind::Interactive.name()));
    let ready = || live.timeline.iter().map(|sample| sample.ready);
    let (least, most) = (ready().min().unwrap_or(0), ready().max().unwrap_or(0));
    let fleet = match ready().next_back() {
        Some(last) if last < most => format!(
            "while the fleet followed the load from {least} to {most} replicas and back to {last}"
        ),
        Some(_) if least < most => format!("while the fleet grew from {least} to {most} replicas"),
        _ => format!("on {}", super::compare::replicas(f64::from(most))),
    };
    format!("Live, {met} of interactive requests met both SLOs {fleet}.")
}

fn replay_outcome(replay: &Replay) -> String {
    let met = |fleet: &Fleet| attainment(fleet.kind(Kind::Interactive.name()));
    let Some((ours, others)) = replay.fleets.split_first() else {
        return "No fleet was replayed.".into();
    };
    let fixed = others.first().map_or(0.0, |fleet| fleet.mean_replicas);
    let others: Vec<String> = others
        .iter()
        .map(|fleet| format!("{} ({})", met(fleet), fleet.policy))
        .collect();
    format!(
        "Replayed, {} of interactive requests met both SLOs with {:.1} replicas on average; fixed fleets of {fixed:.0} reached {}.",
        met(ours),
        ours.mean_replicas,
        others.join(" and ")
    )
}

fn lede(findings: &Findings) -> Vec<String> {
    let [interactive, plain, sheddable] = findings.kinds_percent;
    let stats = &findings.trace.stats;
    vec![format!(
        "Trace: {}, {} requests in {}, {} of their prompt blocks seen before. Clients: {interactive} % interactive (with an SLO), {plain} % plain, {sheddable} % sheddable (same SLO, may be refused).",
        findings.trace.name,
        count(stats.requests as u64),
        span(stats.span_seconds),
        share(stats.prefix_hit_share),
    )]
}

fn facts(findings: &Findings) -> Vec<Fact> {
    let plain = |name, value: String| Fact {
        name,
        value,
        code: false,
    };
    let mut facts = vec![
        Fact {
            name: "command",
            value: findings.command.clone(),
            code: true,
        },
        plain("version", format!("headroom {}", findings.version)),
        plain("seed", findings.seed.to_string()),
        plain("trace", findings.trace.name.clone()),
    ];
    if let Some(live) = &findings.live {
        let settings = &live.settings;
        facts.push(plain(
            "live profile",
            format!("{} ({})", settings.profile, settings.model),
        ));
        facts.push(plain(
            "live load",
            format!(
                "{}; lengths divided by {}",
                settings.rates.phrase(),
                settings.shorten
            ),
        ));
        facts.push(plain(
            "live fleet",
            fleet_phrase(
                settings.min,
                settings.max,
                settings.startup.as_secs_f64(),
                settings.concurrency,
            ),
        ));
        facts.push(plain("live SLO", slo_phrase(settings.slo)));
        facts.push(plain("proxy", live.envoy.clone()));
    }
    if let Some(replay) = &findings.replay {
        let settings = &replay.settings;
        facts.push(plain(
            "replay profile",
            format!("{} ({})", settings.profile.name, settings.profile.model),
        ));
        facts.push(plain(
            "replay fleet",
            fleet_phrase(
                settings.min,
                settings.max,
                settings.startup.as_secs_f64(),
                settings.concurrency,
            ),
        ));
        facts.push(plain(
            "replay SLO",
            format!("p90 {}", slo_phrase(settings.slo)),
        ));
    }
    facts.push(plain(
        "percentiles",
        "nearest rank; a refused or expired request has an infinite TTFT, shown as “never”".into(),
    ));
    facts
}

fn fleet_phrase(min: u32, max: u32, startup: f64, concurrency: u32) -> String {
    format!(
        "{min} to {max} replicas, start-up {startup} s, at most {concurrency} requests in flight on each"
    )
}

/// A figure of `chart`, its legend taken from the series: what lies on top comes first.
fn figure(title: &str, caption: &str, chart: &Chart) -> Figure {
    let legend = chart
        .series
        .iter()
        .rev()
        .map(|series| Key {
            name: series.name.clone(),
            class: series.class,
            dashed: series.stroke == Stroke::Dashed,
        })
        .collect();
    Figure {
        title: title.into(),
        legend,
        svg: chart.svg(),
        caption: caption.into(),
    }
}

fn decision_lines(scalings: &[Scaling]) -> Vec<DecisionLine> {
    scalings
        .iter()
        .zip(1..)
        .map(|(scaling, number)| DecisionLine {
            number,
            when: clock(scaling.at),
            change: change(scaling),
            reasons: scaling.reasons.clone(),
        })
        .collect()
}

/// `1 → 3 replicas`.
pub(crate) fn change(scaling: &Scaling) -> String {
    let unit = if scaling.to == 1 {
        "replica"
    } else {
        "replicas"
    };
    format!("{} → {} {unit}", scaling.from, scaling.to)
}

/// Flags for the decisions, numbered as in the list.
fn flags(scalings: &[Scaling]) -> Vec<Mark> {
    scalings
        .iter()
        .zip(1..)
        .map(|(scaling, number)| Mark {
            at: scaling.at,
            label: number.to_string(),
            title: format!(
                "{} {}: {}",
                clock(scaling.at),
                change(scaling),
                scaling.reasons.join("; ")
            ),
        })
        .collect()
}

/// The predictor's scores as a card.
fn prediction_card(name: &str, scores: &[super::outcome::PredictorScores]) -> Option<Card> {
    let [ttft, tpot] = scores else { return None };
    Some(Card {
        name: name.into(),
        figure: percent(ttft.median_ape),
        note: format!(
            "median error of the TTFT prediction; TPOT {}, {} of TTFTs under their p90",
            percent(tpot.median_ape),
            share(ttft.coverage_p90)
        ),
        good: None,
    })
}

#[cfg(test)]
mod tests;
