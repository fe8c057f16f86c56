//! What one tick of a model looks at.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::latency::Latency;
use crate::shares::MergedDemand;
use crate::signals::Replicas;

/// Everything one tick of a [`ModelController`](super::ModelController) reads.
#[derive(Clone, Debug)]
pub struct ModelSignals {
    /// Time since an epoch of the caller's choice; never goes back. Where decisions are to survive a restart of the
    /// process it must be an epoch that survives it too, such as Unix time (see [`SavedState`](super::SavedState)).
    pub now: Duration,
    /// What all endpoint pickers have counted.
    pub demand: MergedDemand,
    /// One entry per variant, in the policy's order; further ones are ignored, missing ones taken as default.
    pub variants: Vec<VariantSignals>,
}

/// One variant as it is now.
#[derive(Clone, Default)]
pub struct VariantSignals {
    /// Its replicas by state.
    pub replicas: Replicas,
    /// Replicas that should exist cannot, because a quota refuses them: no patience is due to those pending.
    pub quota_refused: bool,
    /// KV cache of one replica in tokens; `None` when no replica has told.
    pub kv_tokens: Option<f64>,
    /// The learned latency model of its kind of replica; `None`: none is known.
    pub model: Option<Arc<dyn Latency>>,
    /// From creation to ready, of each replica that became ready since the last tick.
    pub became_ready: Vec<Duration>,
}

impl fmt::Debug for VariantSignals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VariantSignals")
            .field("replicas", &self.replicas)
            .field("quota_refused", &self.quota_refused)
            .field("kv_tokens", &self.kv_tokens)
            .field("model", &self.model.as_ref().map(|model| model.version()))
            .field("became_ready", &self.became_ready)
            .finish()
    }
}
