//! `topology-affinity-filter`: endpoints near a peer, if there are any.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::config::{Config, TopologyAffinityFilter, TopologyLevel};
use crate::pool::Pool;
use crate::schedule::topology::Places;
use crate::schedule::{Ask, Candidate, Filter, Stage, prefer};

/// Keeps the endpoints that share at least the level asked for with the peer; all when there is no peer.
#[derive(Debug)]
pub(super) struct TopologyFilter {
    least: TopologyLevel,
    places: Places,
}

impl TopologyFilter {
    pub(super) fn new(parameters: &TopologyAffinityFilter, config: &Config) -> Self {
        Self {
            least: parameters.min_affinity,
            places: Places::new(&config.topology, parameters.peer_header.as_deref()),
        }
    }
}

impl Filter for TopologyFilter {
    fn stage(&self) -> Stage {
        Stage::Preference
    }

    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.places.pool_changed(pool);
    }

    fn retain(
        &mut self,
        _: Duration,
        ask: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        let Some(peer) = self.places.peer(ask) else {
            return;
        };
        prefer(candidates, |candidate| {
            self.places
                .shared(candidate.slot, peer)
                .is_some_and(|level| level <= self.least)
        });
    }
}
