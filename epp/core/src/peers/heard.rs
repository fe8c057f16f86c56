//! What the peers said.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::{BandUse, Delta, EndpointKey, Flight, SILENCE};

/// One peer, as far as it has told.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) at: Duration,
    /// The newest of our sequences that it answered to; `None` = it does not hear us.
    pub(super) answered: Option<u64>,
    pub(super) bands: Vec<BandUse>,
    /// What its indexes mean.
    keys: Vec<EndpointKey>,
    flights: FxHashMap<EndpointKey, Flight>,
}

/// All peers that were heard within [`SILENCE`], by name.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) peers: BTreeMap<Arc<str>, Peer>,
}

impl Heard {
    /// Takes in what a peer says; false = it refers to a whole delta that was never heard, so that nothing of it can
    /// be understood.
    pub(super) fn apply(&mut self, now: Duration, own_incarnation: u64, delta: &Delta) -> bool {
        let known = self.peers.get(&delta.from);
        let follows = known.is_some_and(|peer| peer.incarnation == delta.incarnation);
        if !follows {
            if delta.whole.is_none() {
                return false;
            }
            self.peers.remove(&delta.from);
        }
        let peer = self
            .peers
            .entry(Arc::clone(&delta.from))
            .or_insert_with(|| Peer {
                incarnation: delta.incarnation,
                sequence: 0,
                at: now,
                answered: None,
                bands: Vec::new(),
                keys: Vec::new(),
                flights: FxHashMap::default(),
            });
        // The rest of a connection that another has replaced since.
        if follows && delta.sequence < peer.sequence {
            return true;
        }
        peer.sequence = delta.sequence;
        peer.at = now;
        if let Some(keys) = &delta.whole {
            peer.keys.clone_from(keys);
            peer.flights.clear();
        }
        for (at, flight) in &delta.loads {
            let Some(key) = peer.keys.get(*at as usize) else {
                continue;
            };
            if *flight == Flight::default() {
                peer.flights.remove(key);
            } else {
                peer.flights.insert(key.clone(), flight.believable());
            }
        }
        peer.bands.clone_from(&delta.bands);
        let answer = delta.heard.iter();
        let mut answer = answer.filter(|(incarnation, _)| *incarnation == own_incarnation);
        // Every delta says whom its sender hears: one that does not name us has stopped to.
        peer.answered = answer.next().map(|&(_, sequence)| sequence);
        true
    }

    /// Which endpoint an index of `from` means.
    pub(super) fn key(&self, from: &str, at: u32) -> Option<&EndpointKey> {
        self.peers.get(from)?.keys.get(at as usize)
    }

    /// Forgets who was silent for too long; whether there was anybody.
    pub(super) fn age(&mut self, now: Duration) -> bool {
        let before = self.peers.len();
        self.peers
            .retain(|_, peer| now.saturating_sub(peer.at) <= SILENCE);
        self.peers.len() < before
    }

    /// What all peers have in flight at an endpoint.
    pub(super) fn flight(&self, key: &EndpointKey) -> Flight {
        let mut sum = Flight::default();
        for flight in self.peers.values().filter_map(|peer| peer.flights.get(key)) {
            sum.in_flight = sum.in_flight.saturating_add(flight.in_flight);
            sum.waiting = sum.waiting.saturating_add(flight.waiting);
            sum.waiting_tokens = sum.waiting_tokens.saturating_add(flight.waiting_tokens);
            sum.resident_tokens = sum.resident_tokens.saturating_add(flight.resident_tokens);
            sum.estimated_tokens = sum.estimated_tokens.saturating_add(flight.estimated_tokens);
        }
        sum
    }

    /// The newest of our sequences that all have answered to who heard us at all.
    pub(super) fn answered(&self) -> Option<u64> {
        self.peers.values().filter_map(|peer| peer.answered).min()
    }

    /// Those who heard us: they share room with us.
    pub(super) fn sharing(&self) -> impl Iterator<Item = &Arc<str>> {
        let peers = self.peers.iter();
        peers
            .filter(|(_, peer)| peer.answered.is_some())
            .map(|(name, _)| name)
    }

    /// What all peers have queued, by band.
    pub(super) fn bands(&self) -> BTreeMap<i32, BandUse> {
        let mut bands: BTreeMap<i32, BandUse> = BTreeMap::new();
        for band in self.peers.values().flat_map(|peer| &peer.bands) {
            let sum = bands.entry(band.priority).or_insert(BandUse {
                priority: band.priority,
                ..BandUse::default()
            });
            sum.requests = sum.requests.saturating_add(band.requests);
            sum.bytes = sum.bytes.saturating_add(band.bytes);
        }
        bands
    }
}
