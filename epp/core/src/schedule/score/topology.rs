//! `topology-affinity-scorer`: nearness to a peer, by what a transfer of KV cache costs: host 1, rack 0.2, zone 0.05,
//! region 0.02, else 0.

use std::sync::Arc;

use crate::config::{Config, TopologyAffinityScorer, TopologyLevel};
use crate::pool::Pool;
use crate::schedule::topology::Places;
use crate::schedule::{Ask, Candidate, Score};

/// Prefers endpoints near the peer.
#[derive(Debug)]
pub(super) struct TopologyScorer {
    places: Places,
}

impl TopologyScorer {
    pub(super) fn new(parameters: &TopologyAffinityScorer, config: &Config) -> Self {
        Self {
            places: Places::new(&config.topology, parameters.peer_header.as_deref()),
        }
    }
}

impl Score for TopologyScorer {
    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.places.pool_changed(pool);
    }

    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let peer = self.places.peer(ask);
        for (candidate, score) in candidates.iter().zip(scores) {
            let shared = peer.and_then(|peer| self.places.shared(candidate.slot, peer));
            *score = match shared {
                Some(TopologyLevel::Host) => 1.0,
                Some(TopologyLevel::Rack) => 0.2,
                Some(TopologyLevel::Zone) => 0.05,
                Some(TopologyLevel::Region) => 0.02,
                None => 0.0,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, labelled};

    #[test]
    fn the_nearest_level_shared_with_the_peer_counts() {
        use names::label::{HOST, RACK, REGION, ZONE};
        let pool = labelled(&[
            &[(HOST, "h"), (RACK, "r"), (ZONE, "z"), (REGION, "g")],
            &[(HOST, "h"), (RACK, "r"), (ZONE, "z"), (REGION, "g")],
            &[(HOST, "i"), (RACK, "r"), (ZONE, "z"), (REGION, "g")],
            &[(ZONE, "z"), (REGION, "g")],
            &[(REGION, "g")],
            &[],
        ]);
        let parameters = TopologyAffinityScorer {
            peer_header: Some("X-Peer".into()),
            ..TopologyAffinityScorer::default()
        };
        let mut scorer = TopologyScorer::new(&parameters, &Config::default());
        scorer.pool_changed(&pool);
        let candidates: Vec<_> = (0..6).map(candidate).collect();
        let mut scored = |peer: &str| {
            let request = Request {
                headers: vec![("x-peer".into(), peer.into())],
                ..Request::default()
            };
            let mut scores = [9.0; 6];
            scorer.score(&ask(&request), &candidates, &mut scores);
            scores
        };
        assert_eq!(scored("10.0.0.1:8000"), [1.0, 1.0, 0.2, 0.05, 0.02, 0.0]);
        assert_eq!(scored("10.0.0.6:8000"), [0.0; 6], "a peer without a place");
        assert_eq!(scored("10.0.0.9:8000"), [0.0; 6], "no such peer");
    }
}
