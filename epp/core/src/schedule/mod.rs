//! Hot path: from candidates to a pick: filters, weighted scores, picker.
//!
//! Filters are of three kinds. Constraints say where a request may go at all, whatever the load. Room says where
//! it may go now. Preferences narrow what is left once predictions are made, and never to nothing. No allocation
//! per endpoint, no lock, no text: the buffers live in the profile between requests, and what depends on labels
//! alone is worked out when the pool changes.

mod bindings;
mod context_length;
pub mod filter;
pub(crate) mod headroom;
pub mod pick;
mod profile;
pub mod score;
mod topology;
mod trail;

use std::sync::Arc;
use std::time::Duration;

use predictor::{Prediction, State};
use rand::rngs::StdRng;

use crate::admit::Trust;
use crate::endpoint::{LoadSnapshot, Scraped};
use crate::pool::Pool;
use crate::request::Request;
use crate::slo::Slo;

pub(crate) use profile::Profile;
pub(crate) use trail::{Removed, Trail, removals};

/// What filters and scorers are asked about: one request, at one instant.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'r> {
    /// The request.
    pub request: &'r Request,
    /// When it is asked.
    pub now: Duration,
    /// Time already spent queued, in milliseconds.
    pub waited_ms: f64,
    /// State of the candidates' latency models for TTFT, of the one that knows least; `None` = no predictions are made.
    pub ttft_state: Option<State>,
}

impl Ask<'_> {
    /// Latency targets.
    pub fn slo(&self) -> Slo {
        self.request.slo
    }

    /// Prompt length in tokens.
    pub fn prompt_tokens(&self) -> u32 {
        self.request.prompt_tokens
    }

    /// Blocks the prompt was hashed into.
    pub fn blocks(&self) -> u32 {
        self.request.prefix.len() as u32
    }
}

/// One endpoint the request may go to, read once.
#[derive(Clone, Copy, Debug)]
pub struct Candidate {
    /// Index in the pool.
    pub slot: u32,
    /// Counters.
    pub load: LoadSnapshot,
    /// Last scrape, unless it is older than the staleness threshold.
    pub scraped: Option<Scraped>,
    /// Leading blocks of the prompt the endpoint has seen.
    pub matched_blocks: u32,
    /// Prompt tokens those stand for.
    pub cached_tokens: u32,
    /// Predicted latencies there; `None` = nothing is configured to predict.
    pub prediction: Option<Prediction>,
    /// Which of them may be believed, as far as the model is concerned.
    pub trust: Trust,
    /// Whether tokens after the first come from there too; false = it only prefills.
    pub decodes: bool,
}

/// When a filter runs, and what it means that it leaves nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// First: where the request may go at all. Nobody left = no endpoint is for this request.
    Constraint,
    /// Then: where it may go now. Nobody left = there is no room.
    Room,
    /// Last, with predictions: never leaves nobody.
    Preference,
}

/// Drops candidates.
pub trait Filter: Send {
    /// When it runs.
    fn stage(&self) -> Stage;

    /// Whether, of one pool, it leaves some requests other endpoints than others; only asked of constraints.
    fn selects_by_request(&self) -> bool {
        false
    }

    /// Another pool is in force: slots mean other endpoints.
    fn pool_changed(&mut self, _pool: &Arc<Pool>) {}

    /// Removes from `candidates` what fails; the order of the rest stays.
    fn retain(
        &mut self,
        now: Duration,
        ask: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        rng: &mut StdRng,
    );

    /// The request goes to `chosen`.
    fn dispatched(&mut self, _ask: &Ask<'_>, _chosen: &Candidate) {}
}

/// Rates candidates from 0 (worst) to 1 (best).
pub trait Score: Send {
    /// Another pool is in force: slots mean other endpoints.
    fn pool_changed(&mut self, _pool: &Arc<Pool>) {}

    /// Writes one score per candidate; what is outside 0..=1 is clamped by the caller, NaN becomes 0.
    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]);

    /// The request goes to `chosen`, one of the `candidates` that were scored last.
    fn dispatched(&mut self, _ask: &Ask<'_>, _candidates: &[Candidate], _chosen: &Candidate) {}
}

/// Chooses among scored candidates.
pub trait Pick: Send {
    /// Writes up to `most` distinct indexes into `picked`, best first; at least one if there is a candidate.
    fn pick(
        &mut self,
        candidates: &[Candidate],
        totals: &[f32],
        most: usize,
        rng: &mut StdRng,
        picked: &mut Vec<usize>,
    );
}

/// Keeps the candidates for which `keep` holds, if there are any; else all.
fn prefer(candidates: &mut Vec<Candidate>, keep: impl Fn(&Candidate) -> bool) {
    if candidates.iter().any(&keep) {
        candidates.retain(keep);
    }
}

#[cfg(test)]
pub(crate) fn candidate(slot: u32) -> Candidate {
    Candidate {
        slot,
        load: LoadSnapshot::default(),
        scraped: None,
        matched_blocks: 0,
        cached_tokens: 0,
        prediction: None,
        trust: Trust::NONE,
        decodes: true,
    }
}

#[cfg(test)]
pub(crate) fn ask(request: &Request) -> Ask<'_> {
    Ask {
        request,
        now: Duration::ZERO,
        waited_ms: 0.0,
        ttft_state: None,
    }
}

/// What an engine says, at time 0.
#[cfg(test)]
pub(crate) fn scraped(waiting: f32, running: f32, kv_utilization: f32) -> Option<Scraped> {
    Some(Scraped {
        at: Duration::ZERO,
        waiting,
        running,
        kv_utilization,
        block_tokens: None,
        kv_blocks: None,
    })
}

/// A pool of endpoints `e0`, `e1`, … with the labels given.
#[cfg(test)]
pub(crate) fn labelled(labels: &[&[(&str, &str)]]) -> Arc<Pool> {
    let specs = labels.iter().enumerate().map(|(number, labels)| {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        crate::pool::EndpointSpec {
            name: format!("e{number}"),
            address: format!("10.0.0.{}:8000", number + 1),
            labels: labels.iter().map(pair).collect(),
        }
    });
    Arc::new(Pool::default().updated(specs.collect()))
}
