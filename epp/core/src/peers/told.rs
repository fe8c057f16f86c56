//! What this picker told, and what its peers may still believe of it.

use std::collections::VecDeque;
use std::sync::Arc;

use super::{Delta, EndpointKey, Flight, HEARTBEAT_TICKS};
use crate::pool::Pool;

/// Tellings of one endpoint that are remembered until all peers have answered to them. Peers that answer to none
/// for longer are silent, and do not count.
const REMEMBERED: usize = 16;

/// What was told of every endpoint of the pool.
#[derive(Debug, Default)]
pub(super) struct Told {
    endpoints: Vec<TellingOf>,
    /// The pool changed: the next delta has to say everything.
    renamed: bool,
    /// When something was last said.
    spoken: u64,
}

#[derive(Debug)]
struct TellingOf {
    key: EndpointKey,
    last: Flight,
    /// Requests in flight as they were told, with the sequence, oldest first. The first one is what peers believe
    /// that have answered to all but the rest.
    in_flight: VecDeque<(u64, u32)>,
}

impl Told {
    /// Follows the pool; what is new in it was never told.
    pub(super) fn set_pool(&mut self, pool: &Pool) {
        let key = |endpoint: &Arc<crate::Endpoint>| EndpointKey {
            name: Arc::clone(&endpoint.name),
            address: Arc::clone(&endpoint.address),
        };
        let mut kept: std::collections::HashMap<EndpointKey, TellingOf> = self
            .endpoints
            .drain(..)
            .map(|telling| (telling.key.clone(), telling))
            .collect();
        self.endpoints = pool
            .endpoints
            .iter()
            .map(|endpoint| {
                let key = key(endpoint);
                kept.remove(&key).unwrap_or_else(|| TellingOf {
                    key,
                    last: Flight::default(),
                    in_flight: VecDeque::from([(0, 0)]),
                })
            })
            .collect();
        self.renamed = true;
    }

    /// Notes that `pool` is told as `sequence`. Returns what there is to say; `None` = nothing changed, and somebody
    /// spoke recently.
    pub(super) fn tell(&mut self, sequence: u64, pool: &Pool) -> Option<Delta> {
        let whole = std::mem::take(&mut self.renamed);
        let mut loads = Vec::new();
        for (at, (endpoint, telling)) in pool.endpoints.iter().zip(&mut self.endpoints).enumerate()
        {
            let flight = endpoint.load.own();
            if flight != telling.last || (whole && flight != Flight::default()) {
                loads.push((at as u32, flight));
            }
            if telling.last.in_flight != flight.in_flight {
                telling.in_flight.push_back((sequence, flight.in_flight));
                if telling.in_flight.len() > REMEMBERED {
                    telling.in_flight.pop_front();
                }
            }
            telling.last = flight;
        }
        if loads.is_empty() && !whole && sequence < self.spoken + HEARTBEAT_TICKS {
            return None;
        }
        self.spoken = sequence;
        Some(Delta {
            sequence,
            whole: whole.then(|| self.keys()),
            loads,
            ..Delta::default()
        })
    }

    /// Something is said at `sequence` whatever [`Told::tell`] found.
    pub(super) fn speak(&mut self, sequence: u64) {
        self.spoken = sequence;
    }

    /// What was told last, all of it.
    pub(super) fn whole(&self, sequence: u64) -> Delta {
        let said = self.endpoints.iter().enumerate();
        Delta {
            sequence,
            whole: Some(self.keys()),
            loads: said
                .filter(|(_, telling)| telling.last != Flight::default())
                .map(|(at, telling)| (at as u32, telling.last))
                .collect(),
            ..Delta::default()
        }
    }

    /// Forgets what no peer believes any more: all have answered up to `answered`.
    pub(super) fn answered(&mut self, answered: u64) {
        for telling in &mut self.endpoints {
            while telling
                .in_flight
                .get(1)
                .is_some_and(|&(sequence, _)| sequence <= answered)
            {
                telling.in_flight.pop_front();
            }
        }
    }

    /// The fewest requests in flight at the endpoint in `slot` that a peer may believe in.
    pub(super) fn base(&self, slot: usize) -> u32 {
        let believed = self.endpoints.get(slot).map(|telling| &telling.in_flight);
        let fewest = believed.and_then(|told| told.iter().map(|&(_, count)| count).min());
        fewest.unwrap_or_default()
    }

    fn keys(&self) -> Vec<EndpointKey> {
        self.endpoints
            .iter()
            .map(|telling| telling.key.clone())
            .collect()
    }
}
