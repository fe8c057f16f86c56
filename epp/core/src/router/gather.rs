//! Hot path: where a request may go, and what is there of its prompt.

use std::net::IpAddr;
use std::time::Duration;

use super::{Among, Router};
use crate::admit::Trust;
use crate::flow::{Reading, Waiting, has_room};
use crate::prefix::PrefixIndex;
use crate::request::Request;
use crate::schedule::{Ask, Candidate, Removed, Stage};

impl Router {
    /// Fills the candidates with the endpoints within the request's subset; false = there is none.
    pub(super) fn reach(&mut self, now: Duration, waiting: &Waiting) -> bool {
        self.candidates.clear();
        let staleness = self.config.metrics_staleness;
        let readings = self.pool.endpoints.iter().zip(&self.readings).enumerate();
        for (slot, (endpoint, reading)) in readings {
            if !within(waiting.subset.as_deref(), endpoint.ip) {
                continue;
            }
            self.candidates.push(Candidate {
                slot: slot as u32,
                load: reading.load,
                scraped: reading
                    .scraped
                    .filter(|scraped| scraped.age(now) <= staleness),
                matched_blocks: 0,
                cached_tokens: 0,
                prediction: None,
                trust: Trust::NONE,
                decodes: !self.prefills.get(slot).copied().unwrap_or_default(),
            });
        }
        !self.candidates.is_empty()
    }

    /// Runs the profile's filters of one stage over the candidates.
    pub(super) fn keep(&mut self, stage: Stage, ask: &Ask<'_>) {
        self.profile
            .filter(stage, ask.now, ask, &mut self.candidates, &mut self.rng);
    }

    /// Keeps the candidates with room for one more, if room is asked for.
    pub(super) fn keep_room(&mut self, now: Duration, among: Among, ceiling: f64) {
        if among != Among::WithRoom {
            return;
        }
        self.profile.trail.before(&self.candidates);
        let detector = &self.config.detector;
        let readings = &self.readings;
        self.candidates.retain(|candidate| {
            let reading: Option<&Reading> = readings.get(candidate.slot as usize);
            reading.is_some_and(|reading| has_room(detector, reading, ceiling, now))
        });
        let trail = &mut self.profile.trail;
        trail.after(&self.names.room, &self.candidates);
    }

    /// Looks up how much of the prompt each candidate has seen.
    pub(super) fn match_prefix(&mut self, request: &Request) {
        let Some(prefixes) = &self.prefixes else {
            return;
        };
        for candidate in &mut self.candidates {
            matched(prefixes, request, candidate);
        }
    }

    /// Those that filters took out of the candidates of the request at hand, with what they have seen of its prompt.
    pub(super) fn removed(&self, request: &Request) -> Vec<Removed> {
        let mut removed = self.profile.trail.removed().to_vec();
        if let Some(prefixes) = &self.prefixes {
            for one in &mut removed {
                matched(prefixes, request, &mut one.candidate);
            }
        }
        removed
    }
}

/// Looks up how much of the prompt a candidate has seen.
fn matched(prefixes: &PrefixIndex, request: &Request, candidate: &mut Candidate) {
    let matched = prefixes.matched(candidate.slot as usize, &request.prefix);
    let cached = u64::from(matched) * u64::from(request.prefix_block_tokens);
    candidate.matched_blocks = matched;
    candidate.cached_tokens = cached.min(u64::from(request.prompt_tokens)) as u32;
}

/// Whether an endpoint's IP is in the subset; no subset = every endpoint is.
fn within(subset: Option<&[IpAddr]>, ip: Option<IpAddr>) -> bool {
    subset.is_none_or(|subset| ip.is_some_and(|ip| subset.contains(&ip)))
}
