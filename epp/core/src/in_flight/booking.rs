//! What was known of a request when it was dispatched.

use std::sync::Arc;
use std::time::Duration;

use predictor::{Features, Prediction};

use super::milliseconds;
use crate::demand::BandCounters;
use crate::flow::{Charge, FlowAccount, LimitRule};
use crate::health::Watch;
use crate::load::Share;
use crate::slo::Slo;

/// Everything that was known when the request was dispatched.
#[derive(Debug)]
pub(crate) struct Booking {
    pub(crate) band: Arc<BandCounters>,
    pub(crate) dispatched_at: Duration,
    pub(crate) waited: Duration,
    pub(crate) prompt_tokens: u32,
    pub(crate) cached_tokens: u32,
    /// Output tokens expected, as `inflight-load-producer` estimates them.
    pub(crate) estimated_tokens: u32,
    /// Whether a stream of events was asked for.
    pub(crate) streams: bool,
    pub(crate) priority: i32,
    pub(crate) slo: Slo,
    /// Features frozen at dispatch; `None` when nothing is to be learned.
    pub(crate) features: Option<Features>,
    pub(crate) prediction: Option<Prediction>,
    /// The flow that it counts for.
    pub(crate) account: Arc<FlowAccount>,
    /// What the flow was charged for it.
    pub(crate) charge: Charge,
    /// How its endpoint's limit is learned, where it is.
    pub(crate) limit: Option<Arc<LimitRule>>,
    /// Whether the prediction is believed.
    pub(crate) trusted: bool,
    /// Passive health; `None` = nobody asks for it.
    pub(crate) watch: Option<Arc<Watch>>,
}

impl Booking {
    pub(super) fn uncached_tokens(&self) -> u64 {
        u64::from(self.prompt_tokens.saturating_sub(self.cached_tokens))
    }

    /// What the request adds to its endpoint's load. Targets are in whole milliseconds, rounded down; those that were
    /// predicted to be missed are nobody's to keep.
    pub(super) fn share(&self) -> Share {
        let tpot_target_ms = self.slo.tpot_ms.map(|target| target as u64);
        let kept_tpot_ms = tpot_target_ms.filter(|_| {
            let tpot_ms = self.prediction.map(|prediction| prediction.tpot.p50);
            let met = |tpot_ms| {
                self.slo
                    .tpot_ms
                    .is_some_and(|target| f64::from(tpot_ms) <= target)
            };
            tpot_ms.is_some_and(met)
        });
        Share {
            uncached_tokens: self.uncached_tokens(),
            estimated_tokens: u64::from(self.estimated_tokens),
            tpot_target_ms,
            kept_tpot_ms,
            kept_first_token_ms: self.first_token_deadline_ms(),
        }
    }

    /// Latest instant of the first token, milliseconds on the picker's clock, if its target is expected to be met.
    fn first_token_deadline_ms(&self) -> Option<u64> {
        let left_ms = self.slo.ttft_ms? - milliseconds(self.waited);
        let predicted_ms = f64::from(self.prediction?.ttft.p50);
        (predicted_ms <= left_ms).then(|| (milliseconds(self.dispatched_at) + left_ms) as u64)
    }

    /// How many times the predicted p99 `span` is, if the prediction is believed.
    pub(super) fn times_p99(&self, span: Duration) -> Option<f64> {
        let prediction = self.prediction.filter(|_| self.trusted)?;
        Some(milliseconds(span) / f64::from(prediction.ttft.p99).max(1.0))
    }
}
