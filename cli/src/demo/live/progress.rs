//! The live part as it happens: a line a second, and every scaling decision with its reasons.

use std::io::{IsTerminal as _, Write as _};

use controller_core::fleet::Slo;
use predictor::State;

use crate::demo::outcome::{LiveSample, Scaling};
use crate::demo::page::change;
use crate::format::{NOTHING, clock, milliseconds};

/// Where nobody watches, a line every five seconds is enough.
const UNWATCHED: u64 = 5;
/// Lines after which a person no longer sees the head.
const HEAD_EVERY: u64 = 20;

/// Writes to standard error, so that standard output holds only results.
pub(super) struct Progress {
    slo: Slo,
    watched: bool,
    samples: u64,
    lines: u64,
}

impl Progress {
    /// For a person if standard error is a terminal.
    pub(super) fn new(slo: Slo) -> Self {
        Self {
            slo,
            watched: std::io::stderr().is_terminal(),
            samples: 0,
            lines: 0,
        }
    }

    /// Something worth a line of its own.
    pub(super) fn note(&self, text: &str) {
        say(&format!("{text}\n"));
    }

    /// The state after another second.
    pub(super) fn sample(&mut self, sample: &LiveSample) {
        self.samples += 1;
        if !self.watched && !self.samples.is_multiple_of(UNWATCHED) {
            return;
        }
        if self.lines.is_multiple_of(HEAD_EVERY) {
            say(&head(self.slo));
        }
        self.lines += 1;
        say(&line(sample, self.slo));
    }

    /// A decision that changed the count.
    pub(super) fn scaling(&self, scaling: &Scaling) {
        say(&format!(
            "{:>7}  ⇒ {}\n",
            clock(scaling.at),
            change(scaling)
        ));
        for reason in &scaling.reasons {
            say(&format!("{:>7}    {reason}\n", ""));
        }
    }
}

/// Standard error may be closed; the demo goes on without it.
fn say(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}

fn head(slo: Slo) -> String {
    let (ttft, tpot) = (milliseconds(slo.ttft_ms), milliseconds(slo.tpot_ms));
    format!(
        "{:>7}  {:>8}  {:>19}  {:>17}  {:>5}  {:>6}  {:<8}  {:>6}  {:>5}  {}\n{:>7}  {:>8}  {:>19}  {:>17}  {:>5}  {:>6}\n",
        "time",
        "offered",
        "TTFT p50 / p90",
        "TPOT p50 / p90",
        "hits",
        "error",
        "model",
        "queued",
        "shed",
        "replicas",
        "",
        "/s",
        format!("SLO {ttft}"),
        format!("SLO {tpot}"),
        "",
        "TTFT"
    )
}

fn line(sample: &LiveSample, slo: Slo) -> String {
    let replicas = match (sample.starting, sample.draining) {
        (0, 0) => sample.ready.to_string(),
        (starting, 0) => format!("{} +{starting}", sample.ready),
        (0, draining) => format!("{} ({draining} draining)", sample.ready),
        (starting, draining) => format!("{} +{starting} ({draining} draining)", sample.ready),
    };
    let whole =
        |value: Option<f64>| value.map_or(NOTHING.to_owned(), |value| format!("{value:.0} %"));
    format!(
        "{:>7}  {:>8.1}  {:>19}  {:>17}  {:>5}  {:>6}  {:<8}  {:>6}  {:>5}  {replicas}\n",
        clock(sample.at),
        sample.offered,
        pair(sample.ttft_p50, sample.ttft_p90, slo.ttft_ms),
        pair(sample.tpot_p50, sample.tpot_p90, slo.tpot_ms),
        whole(sample.hit_share.map(|share| share * 100.0)),
        whole(sample.ttft_error),
        state(sample.model),
        sample.queued,
        sample.shed,
    )
}

/// Two latencies; an exclamation mark where the second is over the SLO.
fn pair(p50: Option<f64>, p90: Option<f64>, limit: f64) -> String {
    let shown = |value: Option<f64>| value.map_or(NOTHING.to_owned(), milliseconds);
    let over = if p90.is_some_and(|p90| p90 > limit) {
        "!"
    } else {
        " "
    };
    format!("{} / {}{over}", shown(p50), shown(p90))
}

/// A state of the model in one word.
fn state(state: State) -> &'static str {
    match state {
        State::Prior => "prior",
        State::Warming => "warming",
        State::Trained => "trained",
        State::Stale => "stale",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLO: Slo = Slo {
        ttft_ms: 2_000.0,
        tpot_ms: 150.0,
    };

    fn sample() -> LiveSample {
        LiveSample {
            at: 31.0,
            offered: 23.6,
            ttft_p50: Some(312.4),
            ttft_p90: Some(2_140.0),
            tpot_p50: Some(21.3),
            tpot_p90: Some(34.0),
            hit_share: Some(0.381),
            ttft_error: Some(12.2),
            tpot_error: None,
            model: State::Trained,
            queued: 4,
            shed: 3,
            dropped: 0,
            failed: 0,
            ready: 3,
            starting: 2,
            draining: 0,
        }
    }

    #[test]
    fn a_line_reads_under_its_head() {
        let head = head(SLO);
        let line = line(&sample(), SLO);
        assert_eq!(
            line,
            "   31 s      23.6     312 ms / 2.14 s!     21 ms / 34 ms    38 %    12 %  trained        4      3  3 +2\n"
        );
        let first = head.lines().next().unwrap();
        for (name, value) in [("offered", "23.6"), ("queued", "4 "), ("shed", "3  3")] {
            let end = first.find(name).unwrap() + name.len();
            assert!(
                line[..end + 1]
                    .trim_end()
                    .ends_with(value.split(' ').next().unwrap()),
                "{name}"
            );
        }
        assert!(first.chars().count() <= 110 && line.chars().count() <= 110);
    }

    #[test]
    fn nothing_to_show_is_shown_as_nothing() {
        let empty = LiveSample {
            ttft_p50: None,
            ttft_p90: None,
            hit_share: None,
            draining: 1,
            ..sample()
        };
        let line = line(&empty, SLO);
        assert!(
            line.contains("– / –") && line.contains("3 +2 (1 draining)"),
            "{line}"
        );
    }
}
