//! Signals from the endpoint picker's own records: the one place that knows their types.

use std::sync::Arc;
use std::time::Duration;

use epp_core::demand::{BandTotals, DemandLedger, MixSample};
use epp_core::outcome::Outcome;
use epp_core::pool::Pool;
use epp_core::{DemandTotals, QueueDepth};
use predictor::LatencyModel;

use crate::mix::{Mix, Sample};
use crate::shares::MIX_SAMPLES;
use crate::signals::{Backlog, Replicas, Signals, Totals, Volume};

impl Signals {
    /// What the request path shows at `now`: its ledger, its queue, the pool it picks from and the model it predicts
    /// with. A replica's KV cache is the smallest that an endpoint told of.
    pub fn observe(
        now: Duration,
        ledger: &DemandLedger,
        queued: &QueueDepth,
        pool: &Pool,
        replicas: Replicas,
        model: Arc<LatencyModel>,
    ) -> Self {
        let kv_tokens = pool
            .endpoints
            .iter()
            .filter_map(|endpoint| endpoint.scraped()?.kv_tokens())
            .min();
        Self {
            now,
            demand: Totals::from(&ledger.totals()),
            mix: Mix::recent(&ledger.mix()),
            queued: Backlog::from(queued),
            in_flight: pool
                .endpoints
                .iter()
                .map(|endpoint| u64::from(endpoint.load.snapshot().in_flight))
                .sum(),
            replicas,
            kv_tokens: kv_tokens.map(|tokens| tokens as f64),
            model,
        }
    }
}

impl Mix {
    /// The mix of the newest of `samples` (oldest first).
    fn recent(samples: &[MixSample]) -> Self {
        Self::from_samples(samples.iter().rev().take(MIX_SAMPLES).map(|sample| Sample {
            input: sample.input_tokens as f32,
            cached: sample.cached_tokens as f32,
            output: Some(sample.output_tokens as f32),
        }))
    }
}

impl From<&DemandTotals> for Totals {
    fn from(ledger: &DemandTotals) -> Self {
        let ended = |outcomes: &[Outcome]| {
            outcomes
                .iter()
                .map(|outcome| ledger.outcome(*outcome).requests)
                .sum()
        };
        let sheddable = ledger
            .bands
            .iter()
            .filter(|band| may_be_shed(band))
            .map(|band| band.offered);
        Self {
            offered: Volume {
                requests: ledger.offered().requests,
                prompt_tokens: ledger.offered().prompt_tokens,
            },
            sheddable: sheddable.fold(Volume::default(), |sum, band| Volume {
                requests: sum.requests + band.requests,
                prompt_tokens: sum.prompt_tokens + band.prompt_tokens,
            }),
            served: ended(&[Outcome::Served]),
            rejected: ended(&[
                Outcome::RejectedCapacity,
                Outcome::RejectedNoEndpoints,
                Outcome::RejectedOther,
                Outcome::EvictedOther,
            ]),
            expired: ended(&[Outcome::EvictedTtl, Outcome::EvictedNoEndpoints]),
            shed: ended(&[Outcome::RejectedSlo]),
            cancelled: ended(&[Outcome::ClientGone, Outcome::EvictedContextCancelled]),
            failed: ended(&[Outcome::Failed, Outcome::UpstreamCut, Outcome::Evicted]),
        }
    }
}

fn may_be_shed(band: &BandTotals) -> bool {
    band.sheddable || band.priority < 0
}

impl From<&QueueDepth> for Backlog {
    fn from(depth: &QueueDepth) -> Self {
        let total = depth.total();
        Self {
            requests: total.requests,
            sheddable: total.sheddable,
            prompt_tokens: total.prompt_tokens,
        }
    }
}

#[cfg(test)]
mod tests {
    use epp_core::BandDepth;

    use super::*;

    fn count(requests: u64) -> epp_core::demand::Totals {
        epp_core::demand::Totals {
            requests,
            prompt_tokens: 10 * requests,
            ..Default::default()
        }
    }

    fn band(priority: i32, sheddable: bool, each: u64) -> BandTotals {
        BandTotals {
            priority,
            sheddable,
            offered: count(100),
            outcomes: Outcome::ALL.map(|_| count(each)).to_vec(),
            slo_offered: 0,
            slo_met: 0,
            expected_misses: 0,
        }
    }

    #[test]
    fn every_outcome_lands_in_exactly_one_count() {
        let ledger = DemandTotals {
            bands: vec![band(1, false, 1), band(0, true, 2), band(-1, true, 3)],
        };
        let totals = Totals::from(&ledger);
        let parts = [
            totals.served,
            totals.rejected,
            totals.expired,
            totals.shed,
            totals.cancelled,
            totals.failed,
        ];
        assert_eq!(parts.iter().sum::<u64>(), ledger.ended().requests);
        assert_eq!(
            (totals.offered.requests, totals.offered.prompt_tokens),
            (300, 3000)
        );
        assert_eq!(
            (totals.sheddable.requests, totals.sheddable.prompt_tokens),
            (200, 2000)
        );
    }

    #[test]
    fn queue_depths_are_summed() {
        let band = BandDepth {
            priority: 0,
            requests: 3,
            sheddable: 1,
            prompt_tokens: 30,
            bytes: 99,
        };
        let depth = QueueDepth {
            bands: vec![
                band,
                BandDepth {
                    priority: -1,
                    sheddable: 3,
                    ..band
                },
            ],
        };
        assert_eq!(
            Backlog::from(&depth),
            Backlog {
                requests: 6,
                sheddable: 4,
                prompt_tokens: 60
            }
        );
    }
}
