//! How the latency models do.

use super::{Page, Row};
use crate::extproc::hub::Hub;
use predictor::{State, Target, TargetReport};
use std::borrow::Cow;
use std::fmt::Error;

/// Labels of one target's rows; `class` is told apart only where endpoints name one.
fn labelled(target: Target, class: &str, classed: bool) -> Row<'_> {
    let mut labels: Row<'_> = vec![("target", target.name().into())];
    labels.extend(classed.then(|| ("class", Cow::from(class))));
    labels
}

impl Page<'_, '_> {
    /// How the latency models do; `class` is told apart only where endpoints name one.
    pub(super) fn predictor(&mut self, hub: &Hub) -> Result<(), Error> {
        let reports = hub.trainer.reports();
        let classed = reports.iter().any(|of| !of.class.is_empty());
        let targets = || {
            reports.iter().flat_map(|of| {
                Target::ALL.map(|target| {
                    (
                        labelled(target, &of.class, classed),
                        of.report.target(target),
                    )
                })
            })
        };
        let states = [State::Prior, State::Warming, State::Trained, State::Stale];
        let rows = targets().flat_map(|(labels, of)| {
            states.map(|state| {
                let mut labels = labels.clone();
                labels.insert(1, ("state", state.name().into()));
                (labels, f64::from(u8::from(of.state == state)))
            })
        });
        self.own_gauges(
            "predictor_state",
            "1 for the state each target's model is in",
            rows,
        )?;
        for (name, help, score) in SCORES {
            self.own_gauges(
                name,
                help,
                targets().map(|(labels, of)| (labels, score(of))),
            )?;
        }
        self.counter(
            "predictor_dropped_labels",
            "Labels dropped because the trainer was behind",
            reports.first().map_or(0, |of| of.report.dropped),
        )
    }
}

type Score = (&'static str, &'static str, fn(&TargetReport) -> f64);

const SCORES: [Score; 6] = [
    (
        "predictor_mape",
        "Mean absolute error of p50 over recent labels, percent",
        |of| of.mape.into(),
    ),
    (
        "predictor_median_ape",
        "Median absolute error of p50 over recent labels, percent",
        |of| of.median_ape.into(),
    ),
    (
        "predictor_log_bias",
        "Mean of ln(p50 / actual) over recent labels; negative is optimistic",
        |of| of.log_bias.into(),
    ),
    (
        "predictor_coverage_p90",
        "Share of recent labels at or below p90",
        |of| of.coverage_p90.into(),
    ),
    ("predictor_labels", "Labels learned from", |of| {
        of.labels as f64
    }),
    ("predictor_refits", "Refits put in force", |of| {
        of.refits as f64
    }),
];
