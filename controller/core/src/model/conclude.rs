//! What is done of what is wanted: guards, silent pickers, zero, the autoscaler's dead band, budgets.

use std::time::Duration;

use super::VariantSignals;
use super::budget;
use super::controller::{ModelController, Seen};
use super::report::Outcome;
use super::sizing::{Sizing, Stuck, Wanted};
use crate::decision::Reason;
use crate::guard::{Bounds, Guarded};
use crate::hpa::quantise;

impl ModelController {
    /// The counts that are decided, and why they are not those wanted.
    pub(super) fn conclude(
        &mut self,
        seen: &Seen,
        previous: &[u32],
        stuck: &[Option<Stuck>],
        zero: Option<Duration>,
        sizing: Sizing,
    ) -> Outcome {
        let now = seen.now;
        let Sizing {
            mut wanted,
            mut reasons,
            ..
        } = sizing;
        let mut guarded = Vec::new();
        let mut counts = Vec::new();
        for (index, wanted) in wanted.iter_mut().enumerate() {
            if !seen.silent.is_empty() {
                // Too little is seen, and the guard shall not remember it as the need: else its time is over the moment a
                // silent picker's pod is gone.
                wanted.count = wanted.count.max(previous[index]);
            }
            let (count, by) = self.guarded(now, index, previous[index], wanted, zero);
            if let Some(stuck) = stuck[index] {
                wanted.reasons.push(Reason::Pending {
                    pods: stuck.pods,
                    quota: stuck.quota,
                    since: stuck.since,
                });
            }
            wanted.reasons.extend(by.map(Reason::Guard));
            guarded.push(by);
            counts.push(count);
        }
        if let Some(unheard) = seen.silent.iter().map(|silent| silent.unheard).max() {
            let pickers = u32::try_from(seen.silent.len()).unwrap_or(u32::MAX);
            reasons.push(Reason::Silent { pickers, unheard });
            for (count, &previous) in counts.iter_mut().zip(previous) {
                *count = previous.max(*count);
            }
        }
        reasons.extend(zero.map(|idle| Reason::Zero { idle }));
        for (index, count) in counts.iter_mut().enumerate() {
            *count = self.told(index, *count, &seen.variants[index], &mut wanted[index]);
        }
        let order: Vec<usize> = self.legs.iter().flatten().copied().collect();
        let unlimited = counts.clone();
        if let Some(budget) = budget::fit(&self.policy, &order, previous, &mut counts) {
            for ((wanted, &count), &before) in wanted.iter_mut().zip(&counts).zip(&unlimited) {
                if count < before {
                    let wanted_count = before;
                    wanted.reasons.push(Reason::Budget {
                        wanted: wanted_count,
                        budget,
                    });
                }
            }
        }
        for (state, &count) in self.variants.iter_mut().zip(&counts) {
            state.wanted = Some(count);
        }
        let startups = (0..counts.len())
            .map(|index| self.startup_of(index))
            .collect();
        Outcome {
            previous: previous.to_vec(),
            counts,
            wanted,
            guarded,
            startups,
            reasons,
        }
    }

    /// What the variant's guard lets happen now.
    fn guarded(
        &mut self,
        now: Duration,
        index: usize,
        previous: u32,
        wanted: &Wanted,
        zero: Option<Duration>,
    ) -> (u32, Option<Guarded>) {
        let variant = &self.policy.variants[index];
        let startup = self.startup_of(index);
        let bounds = Bounds::new(variant.min, variant.max, startup, &self.policy.behavior);
        let guard = &mut self.variants[index].guard;
        if zero.is_some() {
            // The idle time has been guard enough; the guard still learns what is wanted.
            guard.apply(&bounds, now, previous, 0, 0);
            return (0, None);
        }
        guard.apply(&bounds, now, previous, wanted.count, wanted.relaxed)
    }

    /// The count as the autoscaler that carries it out must be told it.
    fn told(&self, index: usize, count: u32, seen: &VariantSignals, wanted: &mut Wanted) -> u32 {
        let variant = &self.policy.variants[index];
        let Some(tolerance) = variant.quantise else {
            return count;
        };
        let told = quantise(count, seen.replicas.existing(), tolerance, variant.max);
        let told = told.clamp(variant.min, variant.max.max(variant.min));
        if told != count {
            wanted.reasons.push(Reason::DeadBand { wanted: count });
        }
        told
    }
}
