//! The findings as grids of text: printed in the terminal, set as tables on the page.

use controller_core::fleet::client::Kind;

use super::format::{NOTHING, count, milliseconds, percent, share, trimmed};
use super::outcome::{Fleet, Live, PredictorScores, Replay, Scores};

/// A table: a head, and rows that begin with a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grid {
    /// Names of the columns after the label.
    pub(crate) head: Vec<String>,
    /// The rows.
    pub(crate) rows: Vec<Row>,
}

/// One row of a [`Grid`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    /// What the cells are of.
    pub(crate) label: String,
    /// One per column.
    pub(crate) cells: Vec<String>,
    /// The column with the best value, where one is better than the others.
    pub(crate) best: Option<usize>,
}

impl Row {
    /// Whether the best value stands in `column`.
    pub(crate) fn is_best(&self, column: &usize) -> bool {
        self.best == Some(*column)
    }
}

/// Which values are better.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Better {
    Higher,
    Lower,
}

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

/// The column that stands out; none where all show the same or nothing.
fn best(values: &[f64], better: Better) -> Option<usize> {
    let mut order: Vec<usize> = (0..values.len())
        .filter(|index| !values[*index].is_nan())
        .collect();
    order.sort_by(|a, b| values[*a].total_cmp(&values[*b]));
    if better == Better::Higher {
        order.reverse();
    }
    match order.as_slice() {
        [first, second, ..] if values[*first] != values[*second] => Some(*first),
        _ => None,
    }
}

impl Grid {
    /// The grid as lines of text, columns aligned; the best of a row is marked.
    pub(crate) fn text(&self) -> String {
        let label = self
            .rows
            .iter()
            .map(|row| width(&row.label))
            .max()
            .unwrap_or(0);
        let marked = |row: &Row, index: usize| {
            let mark = if row.is_best(&index) { "*" } else { " " };
            format!("{}{mark}", row.cells.get(index).map_or("", String::as_str))
        };
        let mut lines = vec![format!("  {:label$}", "")];
        lines.extend(
            self.rows
                .iter()
                .map(|row| format!("  {}{}", row.label, " ".repeat(label - width(&row.label)))),
        );
        for (index, name) in self.head.iter().enumerate() {
            let mut cells = vec![format!("{name} ")];
            cells.extend(self.rows.iter().map(|row| marked(row, index)));
            let column = cells.iter().map(|cell| width(cell)).max().unwrap_or(0) + 3;
            for (line, cell) in lines.iter_mut().zip(&cells) {
                line.push_str(&" ".repeat(column - width(cell)));
                line.push_str(cell);
            }
        }
        lines
            .iter()
            .map(|line| format!("{}\n", line.trim_end()))
            .collect()
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_the_best_is_marked() {
        let row = |label: &str, cells: [&str; 2], best| Row {
            label: label.into(),
            cells: cells.map(String::from).into(),
            best,
        };
        let grid = Grid {
            head: vec!["headroom".into(), "rr".into()],
            rows: vec![
                row("TTFT p90", ["1.2 s", "never"], Some(0)),
                row("≤ SLO", ["97 %", "–"], None),
            ],
        };
        let expected = concat!(
            "             headroom       rr\n",
            "  TTFT p90      1.2 s*   never\n",
            "  ≤ SLO          97 %        –\n",
        );
        assert_eq!(grid.text(), expected);
    }

    #[test]
    fn the_best_is_the_one_that_stands_out() {
        assert_eq!(best(&[1.0, 2.0, f64::INFINITY], Better::Lower), Some(0));
        assert_eq!(best(&[f64::NAN, 0.2, 0.1], Better::Higher), Some(1));
        assert_eq!(best(&[3.0, 3.0, 4.0], Better::Lower), None);
        assert_eq!(best(&[f64::NAN, 1.0], Better::Lower), None);
    }
}
