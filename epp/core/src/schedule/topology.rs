//! Where endpoints are, by label, worked out once per pool.

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::config::{TopologyExtractor, TopologyLevel};
use crate::pool::Pool;
use crate::schedule::Ask;

const LEVELS: [TopologyLevel; 4] = [
    TopologyLevel::Host,
    TopologyLevel::Rack,
    TopologyLevel::Zone,
    TopologyLevel::Region,
];

/// The places of a pool's endpoints.
#[derive(Debug)]
pub(crate) struct Places {
    labels: [String; 4],
    peer_header: Option<String>,
    /// Per endpoint, in pool order, a number for its host, rack, zone and region; equal numbers are equal places.
    of_slot: Vec<[Option<u32>; 4]>,
    by_address: FxHashMap<Arc<str>, u32>,
}

impl Places {
    pub(crate) fn new(labels: &TopologyExtractor, peer_header: Option<&str>) -> Self {
        Self {
            labels: [
                labels.hostname.clone(),
                labels.rack.clone(),
                labels.zone.clone(),
                labels.region.clone(),
            ],
            peer_header: peer_header.map(str::to_ascii_lowercase),
            of_slot: Vec::new(),
            by_address: FxHashMap::default(),
        }
    }

    pub(crate) fn pool_changed(&mut self, pool: &Pool) {
        let mut numbers: [FxHashMap<&str, u32>; 4] = Default::default();
        self.of_slot.clear();
        self.by_address.clear();
        for (slot, endpoint) in pool.endpoints.iter().enumerate() {
            let mut place = [None; 4];
            for ((label, known), at) in self.labels.iter().zip(&mut numbers).zip(&mut place) {
                let named = endpoint.labels.get(label).filter(|text| !text.is_empty());
                *at = named.map(|text| {
                    let next = known.len() as u32;
                    *known.entry(text.as_str()).or_insert(next)
                });
            }
            self.of_slot.push(place);
            self.by_address
                .insert(Arc::clone(&endpoint.address), slot as u32);
        }
    }

    /// The slot of the peer that the request names, if it is in the pool and has a place.
    pub(crate) fn peer(&self, ask: &Ask<'_>) -> Option<u32> {
        let named = ask.request.header(self.peer_header.as_deref()?)?;
        let address = named.split(',').next()?.trim();
        let slot = *self.by_address.get(address)?;
        let place = self.of_slot.get(slot as usize)?;
        place.iter().any(Option::is_some).then_some(slot)
    }

    /// The nearest level that two endpoints share.
    pub(crate) fn shared(&self, slot: u32, peer: u32) -> Option<TopologyLevel> {
        let (one, other) = (
            self.of_slot.get(slot as usize)?,
            self.of_slot.get(peer as usize)?,
        );
        let levels = LEVELS.into_iter().zip(one.iter().zip(other));
        let mut shared = levels.filter(|(_, (one, other))| one.is_some() && one == other);
        shared.next().map(|(level, _)| level)
    }
}
