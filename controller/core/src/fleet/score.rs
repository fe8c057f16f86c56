//! What a replay is judged by: attainment, latency percentiles and what became of every request.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::client::Kind;

/// The SLO requests with one are scored against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Slo {
    /// Time to first token as the user sees it, queueing included, in milliseconds.
    pub ttft_ms: f64,
    /// Time per output token after the first, in milliseconds.
    pub tpot_ms: f64,
}

/// What became of one request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fate {
    /// Answered to the last token.
    Served {
        /// From arrival to the first token.
        ttft: Duration,
        /// From the first to the last token.
        decode: Duration,
        /// Prompt tokens the replica found in its prefix cache.
        cached_tokens: u32,
    },
    /// Turned away before it reached a replica, for the reason given.
    Refused(&'static str),
    /// Its time to live ended in the queue.
    Expired,
}

/// Percentiles of a latency in milliseconds; infinite where that share of requests was never served.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Median.
    #[serde(serialize_with = "finite_or_null")]
    pub p50: f64,
    /// 90th percentile.
    #[serde(serialize_with = "finite_or_null")]
    pub p90: f64,
    /// 99th percentile.
    #[serde(serialize_with = "finite_or_null")]
    pub p99: f64,
}

/// JSON has no infinity: a percentile that was never reached is `null`.
fn finite_or_null<S: serde::Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    if value.is_finite() {
        serializer.serialize_some(value)
    } else {
        serializer.serialize_none()
    }
}

impl Percentiles {
    /// Nearest-rank percentiles; NaN when there is nothing to rank.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        let rank = |share: f64| {
            let index = (share * values.len() as f64).ceil() as usize;
            values
                .get(index.saturating_sub(1))
                .copied()
                .unwrap_or(f64::NAN)
        };
        Self {
            p50: rank(0.5),
            p90: rank(0.9),
            p99: rank(0.99),
        }
    }
}

/// The score of one kind of client.
#[derive(Clone, Debug, Serialize)]
pub struct KindScore {
    /// Requests that arrived.
    pub offered: u64,
    /// Answered to the end.
    pub served: u64,
    /// Turned away, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Timed out in the queue.
    pub expired: u64,
    /// Met both SLOs.
    pub met: u64,
    /// User TTFT; a refused or expired request counts as infinite.
    pub ttft_ms: Percentiles,
    /// TPOT of the served.
    pub tpot_ms: Percentiles,
}

impl KindScore {
    /// Requests that met both SLOs ÷ all offered.
    pub fn attainment(&self) -> f64 {
        if self.offered == 0 {
            f64::NAN
        } else {
            self.met as f64 / self.offered as f64
        }
    }

    /// Requests refused or expired.
    pub fn unserved(&self) -> u64 {
        self.expired + self.refused.values().sum::<u64>()
    }
}

/// Collects fates and turns them into scores.
#[derive(Default)]
pub(super) struct Tally {
    kinds: BTreeMap<Kind, KindTally>,
    pub(super) prompt_tokens: u64,
    pub(super) cached_tokens: u64,
    pub(super) output_tokens: u64,
}

#[derive(Clone, Default)]
struct KindTally {
    offered: u64,
    served: u64,
    refused: BTreeMap<&'static str, u64>,
    expired: u64,
    met: u64,
    ttft_ms: Vec<f64>,
    tpot_ms: Vec<f64>,
}

impl Tally {
    pub(super) fn record(
        &mut self,
        kind: Kind,
        input_tokens: u32,
        output_tokens: u32,
        fate: Fate,
        slo: Slo,
    ) {
        let tally = self.kinds.entry(kind).or_default();
        tally.offered += 1;
        let ttft_ms = match fate {
            Fate::Served {
                ttft,
                decode,
                cached_tokens,
            } => {
                let ttft_ms = ttft.as_secs_f64() * 1e3;
                let tpot_ms = decode.as_secs_f64() * 1e3 / f64::from(output_tokens.max(2) - 1);
                tally.served += 1;
                tally.met += u64::from(ttft_ms <= slo.ttft_ms && tpot_ms <= slo.tpot_ms);
                tally.tpot_ms.push(tpot_ms);
                self.prompt_tokens += u64::from(input_tokens);
                self.cached_tokens += u64::from(cached_tokens);
                self.output_tokens += u64::from(output_tokens);
                ttft_ms
            }
            Fate::Refused(reason) => {
                *tally.refused.entry(reason).or_default() += 1;
                f64::INFINITY
            }
            Fate::Expired => {
                tally.expired += 1;
                f64::INFINITY
            }
        };
        tally.ttft_ms.push(ttft_ms);
    }

    /// The score of all kinds together, and of each.
    pub(super) fn scores(self) -> (KindScore, BTreeMap<&'static str, KindScore>) {
        let mut all = KindTally::default();
        for tally in self.kinds.values() {
            all.add(tally);
        }
        let kinds = self.kinds.into_iter();
        let kinds = kinds.map(|(kind, tally)| (kind.name(), tally.score()));
        (all.score(), kinds.collect())
    }
}

impl KindTally {
    fn add(&mut self, other: &Self) {
        self.offered += other.offered;
        self.served += other.served;
        for (reason, times) in &other.refused {
            *self.refused.entry(reason).or_default() += times;
        }
        self.expired += other.expired;
        self.met += other.met;
        self.ttft_ms.extend(&other.ttft_ms);
        self.tpot_ms.extend(&other.tpot_ms);
    }

    fn score(self) -> KindScore {
        KindScore {
            offered: self.offered,
            served: self.served,
            refused: self.refused,
            expired: self.expired,
            met: self.met,
            ttft_ms: Percentiles::of(self.ttft_ms),
            tpot_ms: Percentiles::of(self.tpot_ms),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLO: Slo = Slo {
        ttft_ms: 1_000.0,
        tpot_ms: 100.0,
    };

    fn served(ttft_ms: u64, decode_ms: u64) -> Fate {
        Fate::Served {
            ttft: Duration::from_millis(ttft_ms),
            decode: Duration::from_millis(decode_ms),
            cached_tokens: 0,
        }
    }

    #[test]
    fn attainment_counts_refusals_and_expiries_against() {
        let mut tally = Tally::default();
        for fate in [
            served(900, 900),
            served(1_100, 900),
            served(900, 1_100),
            Fate::Expired,
            Fate::Refused("slo"),
        ] {
            tally.record(Kind::Interactive, 100, 11, fate, SLO);
        }
        tally.record(Kind::Plain, 100, 11, served(900, 900), SLO);
        let (all, kinds) = tally.scores();
        assert_eq!((all.offered, all.met, all.unserved()), (6, 2, 2));
        let score = &kinds["interactive"];
        assert_eq!(
            (score.offered, score.served, score.met, score.expired),
            (5, 3, 1, 1)
        );
        assert!((score.attainment() - 0.2).abs() < 1e-12);
        assert_eq!(score.ttft_ms.p50, 1_100.0);
        assert_eq!(score.ttft_ms.p90, f64::INFINITY);
    }

    #[test]
    fn one_token_answers_have_no_time_per_output_token_to_miss() {
        let mut tally = Tally::default();
        tally.record(Kind::Interactive, 100, 1, served(900, 0), SLO);
        assert_eq!(tally.scores().0.met, 1);
    }

    #[test]
    fn an_infinite_percentile_is_null_in_json() {
        let percentiles = Percentiles::of(vec![1.0, f64::INFINITY]);
        assert_eq!(
            serde_json::to_string(&percentiles).unwrap(),
            r#"{"p50":1.0,"p90":null,"p99":null}"#
        );
    }
}
