//! How alike a replay and the recording are.

use super::recording::{Recorded, Recording};
use super::replay::{Replay, Replayed};
use serde::Serialize;

/// Differences between a replay and the recorded run, in percent. Requests: the second half by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Score {
    /// Mean TPOT of requests with at least 2 output tokens; signed.
    pub tpot_mean: f64,
    /// 90th percentile of the same; signed.
    pub tpot_p90: f64,
    /// Mean time from first scheduling to first token; signed.
    pub scheduled_ttft_mean: f64,
    /// Median of the same; signed.
    pub scheduled_ttft_p50: f64,
    /// First arrival to last token of the whole run; signed.
    pub makespan: f64,
    /// 90th percentile of the absolute error of the instant of the first token, of the recorded makespan.
    pub first_token_instant_p90: f64,
    /// Mean absolute error of the number of running requests over the whole run, of its recorded maximum; absent
    /// without a series.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub running: Option<f64>,
    /// The same of the number of waiting requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f64>,
}

/// One figure of a [`Score`] against the most it may be for the engine to count as valid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bar {
    /// Name of the figure: its field in [`Score`].
    pub name: &'static str,
    /// The figure, percent.
    pub value: f64,
    /// Largest absolute value that passes, percent.
    pub limit: f64,
}

impl Bar {
    /// Whether the figure is within the limit; a figure that is not a number is not.
    pub fn passes(&self) -> bool {
        self.value.abs() <= self.limit
    }
}

impl Score {
    /// Scores the second half of the requests, and the whole run's series and makespan.
    pub fn of(recording: &Recording, replay: &Replay) -> Self {
        let half = recording.requests.len() / 2;
        let real = &recording.requests[half..];
        let played = &replay.requests[half..];
        let tpot = Pair::of(real, played, tpot);
        let ttft = Pair::of(real, played, |_, times| {
            Some(times.first_token - times.scheduled)
        });
        let span = makespan(recording.requests.iter().map(|request| &request.times));
        let errors = real
            .iter()
            .zip(played)
            .map(|(real, played)| (played.first_token - real.times.first_token).abs());
        Self {
            tpot_mean: tpot.difference(mean),
            tpot_p90: tpot.difference(|values| percentile(values, 0.9)),
            scheduled_ttft_mean: ttft.difference(mean),
            scheduled_ttft_p50: ttft.difference(|values| percentile(values, 0.5)),
            makespan: percent(makespan(replay.requests.iter()), span),
            first_token_instant_p90: 100.0 * percentile(&sorted(errors.collect()), 0.9) / span,
            running: series_error(
                recording.series.iter().map(|s| s.running),
                replay.series.iter().map(|s| s.0),
            ),
            waiting: series_error(
                recording.series.iter().map(|s| s.waiting),
                replay.series.iter().map(|s| s.1),
            ),
        }
    }

    /// Every figure against its limit.
    pub fn bars(&self) -> Vec<Bar> {
        let figures = [
            ("tpot_mean", Some(self.tpot_mean), 5.0),
            ("tpot_p90", Some(self.tpot_p90), 7.0),
            ("scheduled_ttft_mean", Some(self.scheduled_ttft_mean), 25.0),
            ("scheduled_ttft_p50", Some(self.scheduled_ttft_p50), 25.0),
            ("makespan", Some(self.makespan), 5.0),
            (
                "first_token_instant_p90",
                Some(self.first_token_instant_p90),
                3.0,
            ),
            ("running", self.running, 10.0),
            ("waiting", self.waiting, 10.0),
        ];
        figures
            .iter()
            .filter_map(|&(name, value, limit)| {
                Some(Bar {
                    name,
                    value: value?,
                    limit,
                })
            })
            .collect()
    }

    /// Whether every figure is within its limit.
    pub fn passes(&self) -> bool {
        self.bars().iter().all(Bar::passes)
    }
}

/// A quantity of each request, recorded and replayed, both sorted.
struct Pair {
    real: Vec<f64>,
    played: Vec<f64>,
}

impl Pair {
    fn of(
        real: &[Recorded],
        played: &[Replayed],
        quantity: impl Fn(&Recorded, &Replayed) -> Option<f64>,
    ) -> Self {
        let recorded = real
            .iter()
            .filter_map(|request| quantity(request, &request.times));
        let replayed = real
            .iter()
            .zip(played)
            .filter_map(|(request, times)| quantity(request, times));
        Self {
            real: sorted(recorded.collect()),
            played: sorted(replayed.collect()),
        }
    }

    fn difference(&self, statistic: impl Fn(&[f64]) -> f64) -> f64 {
        percent(statistic(&self.played), statistic(&self.real))
    }
}

/// Seconds per output token after the first; nothing for a single token.
pub(super) fn tpot(request: &Recorded, times: &Replayed) -> Option<f64> {
    let gaps = request
        .output_tokens
        .checked_sub(1)
        .filter(|&gaps| gaps > 0)?;
    Some((times.last_token - times.first_token) / f64::from(gaps))
}

/// The last token's instant; arrivals start at 0.
fn makespan<'a>(requests: impl Iterator<Item = &'a Replayed>) -> f64 {
    requests.map(|times| times.last_token).fold(0.0, f64::max)
}

fn series_error(
    real: impl Iterator<Item = f64> + Clone,
    played: impl Iterator<Item = u32>,
) -> Option<f64> {
    let highest = real.clone().fold(0.0, f64::max);
    let errors: Vec<f64> = real
        .zip(played)
        .map(|(real, played)| (real - f64::from(played)).abs())
        .collect();
    (!errors.is_empty()).then(|| 100.0 * mean(&errors) / highest)
}

fn percent(played: f64, real: f64) -> f64 {
    100.0 * (played / real - 1.0)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn sorted(mut values: Vec<f64>) -> Vec<f64> {
    values.sort_by(f64::total_cmp);
    values
}

/// Percentile of sorted values, linear between the two nearest ranks; not a number if there are none.
fn percentile(sorted: &[f64], share: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return f64::NAN;
    };
    let rank = share * last as f64;
    let below = rank as usize;
    let above = (below + 1).min(last);
    sorted[below] + (sorted[above] - sorted[below]) * (rank - below as f64)
}
