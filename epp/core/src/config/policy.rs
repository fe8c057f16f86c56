//! How flow control chooses: between the flows of a band, within a flow, and how full each band may make the pool.

use super::plugin::{
    PriorityHoldback, ProgramAwareFairness, StaticUsageLimit, VirtualTokenCounter,
};

/// Which flow of a band is next.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Fairness {
    /// `global-strict-fairness-policy`: flows do not matter, the best head of all goes first.
    #[default]
    GlobalStrict,
    /// `round-robin-fairness-policy`: flows take turns.
    RoundRobin,
    /// `program-aware-fairness`
    ProgramAware(ProgramAwareFairness),
    /// `virtual-token-counter-fairness-policy`
    VirtualTokens(VirtualTokenCounter),
}

/// Which request of a flow is next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ordering {
    /// `fcfs-ordering-policy`: in order of arrival.
    #[default]
    Fcfs,
    /// `edf-ordering-policy`: whose time in the queue ends first.
    Edf,
    /// `slo-deadline-ordering-policy`: whose first token is due first.
    SloDeadline,
}

/// Saturation from which a band is closed.
#[derive(Clone, Debug, PartialEq)]
pub enum UsageLimit {
    /// `static-usage-limit-policy`: the same for all bands.
    Static(StaticUsageLimit),
    /// `priority-holdback-policy`: the lower the band, the earlier.
    Holdback(PriorityHoldback),
    /// `soft-reflective-ceiling-policy`: the lower the band, the more often.
    SoftReflective,
}

impl Default for UsageLimit {
    /// Closed from saturation 1.
    fn default() -> Self {
        Self::Static(StaticUsageLimit::default())
    }
}

impl UsageLimit {
    /// The saturation at which every band is closed: what holds where bands are not told apart.
    pub fn highest(&self) -> f64 {
        match self {
            Self::Static(parameters) => parameters.threshold,
            Self::Holdback(parameters) => parameters.max_ceiling,
            Self::SoftReflective => 1.0,
        }
    }
}
