//! `utilization-filter`: endpoints over any of its caps are dropped.

use std::time::Duration;

use rand::rngs::StdRng;

use crate::config::{UtilizationCap, UtilizationFilter, UtilizationMetric};
use crate::schedule::{Ask, Candidate, Filter, Stage};

/// Keeps the endpoints within every cap; a number that is unknown is within it.
#[derive(Debug)]
pub(super) struct UtilizationCaps {
    pub(super) parameters: UtilizationFilter,
}

impl Filter for UtilizationCaps {
    fn stage(&self) -> Stage {
        Stage::Room
    }

    fn retain(
        &mut self,
        _: Duration,
        _: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        let within = |candidate: &Candidate| {
            let mut caps = self.parameters.conditions.iter();
            caps.all(|cap| value(cap, candidate).is_nan() || value(cap, candidate) <= cap.max_value)
        };
        if self.parameters.fallback_on_empty {
            super::super::prefer(candidates, within);
        } else {
            candidates.retain(within);
        }
    }
}

/// The number that a cap is on; NaN = unknown.
fn value(cap: &UtilizationCap, candidate: &Candidate) -> f64 {
    let scraped = |read: fn(&crate::Scraped) -> f32| {
        candidate
            .scraped
            .as_ref()
            .map_or(f64::NAN, |scraped| f64::from(read(scraped)))
    };
    match cap.metric {
        UtilizationMetric::ActiveRequests => f64::from(candidate.load.in_flight),
        UtilizationMetric::RunningRequests => scraped(|scraped| scraped.running),
        UtilizationMetric::WaitingQueue => scraped(|scraped| scraped.waiting),
        UtilizationMetric::KvCacheUtilization => scraped(|scraped| scraped.kv_utilization),
    }
}
