//! The findings as grids of text: printed in the terminal, set as tables on the page.

use controller_core::fleet::client::Kind;

use super::outcome::{Fleet, Live, PredictorScores, Replay, Scores};
use crate::format::{NOTHING, count, milliseconds, percent, share, trimmed};
use crate::table::{Better, Grid, Row, best};

/// The live part, one column per kind of client.
pub(crate) fn live(live: &Live) -> Grid {
    let kinds: Vec<&Scores> = Kind::ALL
        .iter()
        .filter_map(|kind| live.kinds.get(kind.name()))
        .collect();
    let row = |label: &str, cell: &dyn Fn(&Scores) -> String| Row {
        label: label.into(),
        cells: kinds.iter().map(|scores| cell(scores)).collect(),
        best: None,
    };
    let rows = vec![
        row("met both SLOs", &|scores| attainment(Some(scores))),
        row("TTFT p50", &|scores| milliseconds(scores.ttft().p50)),
        row("TTFT p90", &|scores| milliseconds(scores.ttft().p90)),
        row("TTFT p99", &|scores| milliseconds(scores.ttft().p99)),
        row("TPOT p90", &|scores| milliseconds(scores.score.tpot_ms.p90)),
        row("offered", &|scores| count(scores.score.offered)),
        row("served", &|scores| count(scores.score.served)),
        row("refused", &refusals),
        row("expired in the queue", &|scores| {
            count(scores.score.expired)
        }),
    ];
    let head = Kind::ALL
        .iter()
        .filter(|kind| live.kinds.contains_key(kind.name()))
        .map(|kind| kind.name().into());
    Grid {
        head: head.collect(),
        rows,
    }
}

/// The replay, one column per policy.
pub(crate) fn replay(replay: &Replay) -> Grid {
    let fleets = &replay.fleets;
    let interactive = |fleet: &Fleet, value: &dyn Fn(&Scores) -> f64| {
        fleet.kind(Kind::Interactive.name()).map_or(f64::NAN, value)
    };
    let figure =
        |label: &str, better, value: &dyn Fn(&Fleet) -> f64, shown: &dyn Fn(f64) -> String| {
            let values: Vec<f64> = fleets.iter().map(value).collect();
            Row {
                label: label.into(),
                cells: values.iter().map(|value| shown(*value)).collect(),
                best: best(&values, better),
            }
        };
    let text = |label: String, cell: &dyn Fn(&Fleet) -> String| Row {
        label,
        cells: fleets.iter().map(cell).collect(),
        best: None,
    };
    let latency = |label: &str, value: &dyn Fn(&Scores) -> f64| {
        figure(
            label,
            Better::Lower,
            &|fleet| interactive(fleet, value),
            &milliseconds,
        )
    };
    let mut rows = vec![
        figure(
            "interactive that met both SLOs",
            Better::Higher,
            &|fleet| interactive(fleet, &|scores| scores.attainment.unwrap_or(f64::NAN)),
            &share,
        ),
        latency("TTFT p50, interactive", &|scores| scores.ttft().p50),
        latency("TTFT p90, interactive", &|scores| scores.ttft().p90),
        latency("TTFT p99, interactive", &|scores| scores.ttft().p99),
        latency("TPOT p90, interactive", &|scores| scores.score.tpot_ms.p90),
    ];
    for kind in Kind::ALL {
        let label = format!("{}: served / refused / expired", kind.name());
        rows.push(text(label, &|fleet| {
            fleet.kind(kind.name()).map_or(NOTHING.into(), fates)
        }));
    }
    let hits = format!(
        "prompt tokens cached (infinite cache: {})",
        share(replay.hit_bound)
    );
    rows.push(figure(
        &hits,
        Better::Higher,
        &|fleet| fleet.hit_share,
        &share,
    ));
    rows.push(figure(
        "replicas, mean",
        Better::Lower,
        &|fleet| fleet.mean_replicas,
        &|value| format!("{value:.2}"),
    ));
    rows.push(text("replica-seconds".into(), &|fleet| {
        count(fleet.replica_seconds.round() as u64)
    }));
    for (index, name) in ["TTFT", "TPOT"].into_iter().enumerate() {
        let label = format!("{name} prediction: MAPE / median APE / under p90");
        rows.push(text(label, &|fleet| {
            fleet
                .predictor
                .get(index)
                .map_or(NOTHING.into(), prediction)
        }));
    }
    Grid {
        head: fleets.iter().map(|fleet| fleet.policy.clone()).collect(),
        rows,
    }
}

/// The predictor at the end of the live part, in words.
pub(crate) fn prediction(scores: &PredictorScores) -> String {
    format!(
        "{} / {} / {}",
        percent(scores.mape),
        percent(scores.median_ape),
        share(scores.coverage_p90)
    )
}

fn fates(scores: &Scores) -> String {
    format!(
        "{} / {} / {}",
        count(scores.score.served),
        count(scores.refused()),
        count(scores.score.expired)
    )
}

/// `9 slo-unattainable, 3 saturated`.
fn refusals(scores: &Scores) -> String {
    let reasons: Vec<String> = scores
        .score
        .refused
        .iter()
        .map(|(reason, times)| {
            format!(
                "{} {}",
                count(*times),
                reason.trim_start_matches("rejected-")
            )
        })
        .collect();
    match reasons.as_slice() {
        [] => "0".into(),
        reasons => reasons.join(", "),
    }
}

/// A share of requests that met both SLOs.
pub(crate) fn attainment(scores: Option<&Scores>) -> String {
    scores
        .and_then(|scores| scores.attainment)
        .map_or(NOTHING.into(), share)
}

/// `3.6 replicas` or `1 replica`.
pub(crate) fn replicas(number: f64) -> String {
    let shown = trimmed(number, 1);
    if shown == "1" {
        "1 replica".into()
    } else {
        format!("{shown} replicas")
    }
}
