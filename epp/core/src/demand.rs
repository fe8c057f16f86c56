//! True demand: everything that arrived, whatever became of it, in requests and tokens, by band.

use std::collections::VecDeque;
use std::sync::atomic::{
    AtomicU64,
    Ordering::{Acquire, Relaxed, Release},
};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::{Accounts, FlowAccount, FlowTotals, OTHER_FLOW};
use crate::outcome::Outcome;
use crate::slo::Slo;

/// Bands counted apart; requests of further priorities join the last one.
const MAX_BANDS: usize = 128;
/// Served requests kept as the sample of the mix.
const MIX_SAMPLES: usize = 4096;

/// Cumulative counts since start. Cloning shares them, so that a reader needs no access to the director.
#[derive(Clone, Debug, Default)]
pub struct DemandLedger {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bands: RwLock<Vec<Arc<BandCounters>>>,
    flows: RwLock<Accounts>,
    mix: Mutex<Recent>,
    /// Streams that have given their load back, and other times that room came about.
    freed: AtomicU64,
}

/// The newest samples, and how many there were in all.
#[derive(Debug, Default)]
struct Recent {
    samples: VecDeque<MixSample>,
    ever: u64,
}

/// Requests and their tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Requests.
    pub requests: u64,
    /// Prompt tokens: the server's count where it told one, else the estimate.
    pub prompt_tokens: u64,
    /// Of those, from the prefix cache (told or expected); 0 for requests that were not dispatched.
    pub cached_tokens: u64,
    /// Output tokens the server told of.
    pub output_tokens: u64,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.requests += other.requests;
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.output_tokens += other.output_tokens;
    }
}

/// One band of [`DemandTotals`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BandTotals {
    /// Priority.
    pub priority: i32,
    /// Whether these requests may be refused for their SLO.
    pub sheddable: bool,
    /// Everything that arrived (prompt tokens as estimated; output unknown, so 0).
    pub offered: Totals,
    /// What ended, by outcome; index = `Outcome as usize`. In JSON by the outcome's name, without those that are 0.
    #[serde(with = "by_name")]
    pub outcomes: Vec<Totals>,
    /// Offered requests with an SLO.
    pub slo_offered: u64,
    /// Requests with an SLO that were served within it.
    pub slo_met: u64,
    /// Requests dispatched although no endpoint was predicted to meet their SLO.
    pub expected_misses: u64,
}

impl BandTotals {
    /// What ended with `outcome`.
    pub fn outcome(&self, outcome: Outcome) -> Totals {
        self.outcomes
            .get(outcome as usize)
            .copied()
            .unwrap_or_default()
    }

    /// What ended, in any way.
    pub fn ended(&self) -> Totals {
        sum(self.outcomes.iter().copied())
    }
}

/// The whole ledger at one instant, bands in descending priority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DemandTotals {
    /// One entry per (priority, sheddable).
    pub bands: Vec<BandTotals>,
}

impl DemandTotals {
    /// Everything that arrived, over all bands.
    pub fn offered(&self) -> Totals {
        sum(self.bands.iter().map(|band| band.offered))
    }

    /// Everything that ended with `outcome`, over all bands.
    pub fn outcome(&self, outcome: Outcome) -> Totals {
        sum(self.bands.iter().map(|band| band.outcome(outcome)))
    }

    /// Everything that ended, over all bands and outcomes. `offered - ended` is queued or in flight.
    pub fn ended(&self) -> Totals {
        sum(self.bands.iter().map(BandTotals::ended))
    }
}

fn sum(all: impl Iterator<Item = Totals>) -> Totals {
    all.fold(Totals::default(), |mut total, one| {
        total += one;
        total
    })
}

/// Totals by outcome as a map, so that another release may know other outcomes.
pub(crate) mod by_name {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::Totals;
    use crate::outcome::Outcome;

    pub(crate) fn serialize<S: Serializer>(outcomes: &[Totals], to: S) -> Result<S::Ok, S::Error> {
        let named = Outcome::ALL.iter().zip(outcomes);
        let ended = named.filter(|(_, totals)| **totals != Totals::default());
        to.collect_map(ended.map(|(outcome, totals)| (outcome.name(), totals)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<Totals>, D::Error> {
        let named: BTreeMap<String, Totals> = BTreeMap::deserialize(from)?;
        let of = |outcome: Outcome| named.get(outcome.name()).copied().unwrap_or_default();
        Ok(Outcome::ALL.map(of).to_vec())
    }
}

/// One served request, as capacity needs to know it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MixSample {
    /// When it ended; in JSON `atMs`, whole milliseconds.
    #[serde(rename = "atMs", with = "whole_milliseconds")]
    pub at: Duration,
    /// Prompt tokens.
    pub input_tokens: u32,
    /// Of those, from the prefix cache.
    pub cached_tokens: u32,
    /// Output tokens, as the server told them.
    pub output_tokens: u32,
    /// Priority.
    pub priority: i32,
    /// Latency targets.
    #[serde(flatten)]
    pub slo: Slo,
}

mod whole_milliseconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(span.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

impl DemandLedger {
    /// The counters of one band, created when first seen.
    pub(crate) fn band(&self, priority: i32, sheddable: bool) -> Arc<BandCounters> {
        let wanted =
            |band: &&Arc<BandCounters>| band.priority == priority && band.sheddable == sheddable;
        if let Some(band) = self
            .shared
            .bands
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .find(wanted)
        {
            return Arc::clone(band);
        }
        let mut bands = self
            .shared
            .bands
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let crowded = if bands.len() < MAX_BANDS {
            None
        } else {
            bands.last()
        };
        if let Some(band) = bands.iter().find(wanted).or(crowded) {
            return Arc::clone(band);
        }
        let band = Arc::new(BandCounters {
            priority,
            sheddable,
            ..BandCounters::default()
        });
        bands.push(Arc::clone(&band));
        band
    }

    /// These flows, which the configuration names, have an account however many others there are.
    pub(crate) fn keep_flows(&self, flows: impl IntoIterator<Item = Arc<str>>) {
        let accounts = self.shared.flows.write();
        let mut accounts = accounts.unwrap_or_else(PoisonError::into_inner);
        accounts.keep(flows);
    }

    /// The account of one flow of one band, opened when first seen.
    pub(crate) fn flow(&self, priority: i32, flow: &Arc<str>, now: Duration) -> Arc<FlowAccount> {
        let flows = &self.shared.flows;
        let known = flows.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(account) = known.find(priority, flow, now) {
            return account;
        }
        drop(known);
        let mut flows = flows.write().unwrap_or_else(PoisonError::into_inner);
        flows.open(priority, flow, now)
    }

    /// Forgets flows that have nothing queued or in flight and were not seen for five minutes.
    pub(crate) fn forget_idle_flows(&self, now: Duration) {
        let flows = self.shared.flows.write();
        flows
            .unwrap_or_else(PoisonError::into_inner)
            .forget_idle(now);
    }

    /// Every flow that is remembered, by descending priority and by name; their number is bounded.
    pub fn flows(&self) -> Vec<FlowTotals> {
        let flows = self.shared.flows.read();
        flows.unwrap_or_else(PoisonError::into_inner).totals()
    }

    /// The `most` flows that offered most; what is left is summed up by band under [`OTHER_FLOW`].
    pub fn top_flows(&self, most: usize) -> Vec<FlowTotals> {
        let mut flows = self.flows();
        flows.sort_by_key(|flow| std::cmp::Reverse(flow.offered.requests));
        let rest = flows.split_off(most.min(flows.len()));
        for mut flow in rest {
            let other = |kept: &&mut FlowTotals| {
                kept.priority == flow.priority && &*kept.flow == OTHER_FLOW
            };
            match flows.iter_mut().find(other) {
                Some(other) => other.absorb(&flow),
                None => {
                    flow.flow = OTHER_FLOW.into();
                    flows.push(flow);
                }
            }
        }
        flows.sort_by(|a, b| (b.priority, &a.flow).cmp(&(a.priority, &b.flow)));
        flows
    }

    /// How often room came about: while it stays, a pool that was full is as full as before.
    pub(crate) fn freed(&self) -> u64 {
        self.shared.freed.load(Acquire)
    }

    /// A stream has given its load back, or an endpoint is thought to take more.
    pub(crate) fn note_freed(&self) {
        self.shared.freed.fetch_add(1, Release);
    }

    /// Adds one served request to the mix; left out rather than waited for while a reader copies the mix.
    pub(crate) fn sample(&self, sample: MixSample) {
        if let Ok(mut mix) = self.shared.mix.try_lock() {
            if mix.samples.len() == MIX_SAMPLES {
                mix.samples.pop_front();
            }
            mix.samples.push_back(sample);
            mix.ever += 1;
        }
    }

    /// All counts now.
    pub fn totals(&self) -> DemandTotals {
        let bands = self
            .shared
            .bands
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let mut bands: Vec<BandTotals> = bands.iter().map(|band| band.totals()).collect();
        bands.sort_by_key(|band| (std::cmp::Reverse(band.priority), band.sheddable));
        DemandTotals { bands }
    }

    /// The most recently served requests, oldest first, at most 4,096.
    pub fn mix(&self) -> Vec<MixSample> {
        self.shared
            .mix
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .samples
            .iter()
            .copied()
            .collect()
    }

    /// The samples taken after the first `after`, oldest first, and how many were taken before them. Only the
    /// newest `most` of those that are still kept are given.
    pub fn mix_after(&self, after: u64, most: usize) -> (u64, Vec<MixSample>) {
        let mix = self
            .shared
            .mix
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let wanted = mix.ever.saturating_sub(after).min(most as u64) as usize;
        let skipped = mix.samples.len().saturating_sub(wanted);
        let given: Vec<_> = mix.samples.iter().skip(skipped).copied().collect();
        (mix.ever - given.len() as u64, given)
    }
}

/// Live counters of one band. Held by every request of the band until its one outcome is recorded.
#[derive(Debug, Default)]
pub(crate) struct BandCounters {
    priority: i32,
    sheddable: bool,
    offered: Counters,
    outcomes: [Counters; Outcome::ALL.len()],
    slo_offered: AtomicU64,
    slo_met: AtomicU64,
    expected_misses: AtomicU64,
}

/// Live [`Totals`].
#[derive(Debug, Default)]
pub(crate) struct Counters {
    requests: AtomicU64,
    prompt_tokens: AtomicU64,
    cached_tokens: AtomicU64,
    output_tokens: AtomicU64,
}

impl Counters {
    pub(crate) fn add(&self, totals: Totals) {
        self.requests.fetch_add(totals.requests, Relaxed);
        self.prompt_tokens.fetch_add(totals.prompt_tokens, Relaxed);
        self.cached_tokens.fetch_add(totals.cached_tokens, Relaxed);
        self.output_tokens.fetch_add(totals.output_tokens, Relaxed);
    }

    pub(crate) fn read(&self) -> Totals {
        Totals {
            requests: self.requests.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            cached_tokens: self.cached_tokens.load(Relaxed),
            output_tokens: self.output_tokens.load(Relaxed),
        }
    }
}

impl BandCounters {
    pub(crate) fn offered(&self, prompt_tokens: u32, has_slo: bool) {
        self.offered.add(Totals {
            requests: 1,
            prompt_tokens: u64::from(prompt_tokens),
            ..Totals::default()
        });
        self.slo_offered.fetch_add(u64::from(has_slo), Relaxed);
    }

    /// Records the one end of a request.
    pub(crate) fn ended(&self, outcome: Outcome, tokens: Totals) {
        if let Some(counters) = self.outcomes.get(outcome as usize) {
            counters.add(Totals {
                requests: 1,
                ..tokens
            });
        }
    }

    pub(crate) fn expected_miss(&self) {
        self.expected_misses.fetch_add(1, Relaxed);
    }

    pub(crate) fn slo_met(&self) {
        self.slo_met.fetch_add(1, Relaxed);
    }

    fn totals(&self) -> BandTotals {
        BandTotals {
            priority: self.priority,
            sheddable: self.sheddable,
            offered: self.offered.read(),
            outcomes: self.outcomes.iter().map(Counters::read).collect(),
            slo_offered: self.slo_offered.load(Relaxed),
            slo_met: self.slo_met.load(Relaxed),
            expected_misses: self.expected_misses.load(Relaxed),
        }
    }
}

#[cfg(test)]
#[path = "demand_tests.rs"]
mod tests;
