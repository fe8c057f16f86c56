//! `session-affinity-scorer`: 1 for the endpoint that served the session before, 0 for the others.

use std::sync::Arc;

use crate::config::SessionAffinity;
use crate::pool::Pool;
use crate::schedule::bindings::Bindings;
use crate::schedule::{Ask, Candidate, Score};

/// Prefers the endpoint of the session.
#[derive(Debug)]
pub(super) struct SessionScorer {
    bindings: Bindings,
}

impl SessionScorer {
    pub(super) fn new(parameters: &SessionAffinity) -> Self {
        Self {
            bindings: Bindings::new(parameters),
        }
    }
}

impl Score for SessionScorer {
    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.bindings.pool_changed(pool);
    }

    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let slot = self.bindings.slot(ask);
        for (candidate, score) in candidates.iter().zip(scores) {
            *score = f32::from(u8::from(slot == Some(candidate.slot)));
        }
    }

    fn dispatched(&mut self, ask: &Ask<'_>, _: &[Candidate], chosen: &Candidate) {
        self.bindings.bind(ask, chosen.slot);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::SessionStrategy;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, labelled};
    use crate::session::token;

    fn scores(scorer: &mut SessionScorer, request: &Request, now: u64) -> Vec<f32> {
        let asked = Ask {
            now: Duration::from_secs(now),
            ..ask(request)
        };
        let mut scores = vec![9.0; 2];
        scorer.score(&asked, &[candidate(0), candidate(1)], &mut scores);
        scores
    }

    fn with_header(name: &str, value: &str) -> Request {
        Request {
            headers: vec![(name.into(), value.into())],
            ..Request::default()
        }
    }

    #[test]
    fn a_token_names_the_endpoint() {
        let mut scorer = SessionScorer::new(&SessionAffinity::default());
        scorer.pool_changed(&labelled(&[&[], &[]]));
        let told = with_header("x-session-token", &token("e1"));
        assert_eq!(scores(&mut scorer, &told, 0), [0.0, 1.0]);
        let gone = with_header("x-session-token", &token("e9"));
        assert_eq!(scores(&mut scorer, &gone, 0), [0.0, 0.0]);
        assert_eq!(scores(&mut scorer, &Request::default(), 0), [0.0, 0.0]);
    }

    #[test]
    fn an_id_is_bound_to_who_served_it_last() {
        let parameters = SessionAffinity {
            strategy: SessionStrategy::SessionId,
            ..SessionAffinity::default()
        };
        let mut scorer = SessionScorer::new(&parameters);
        let pool = labelled(&[&[], &[]]);
        scorer.pool_changed(&pool);
        let request = with_header("x-session-id", "s");
        assert_eq!(scores(&mut scorer, &request, 0), [0.0, 0.0], "unbound");
        scorer.dispatched(&ask(&request), &[], &candidate(1));
        assert_eq!(scores(&mut scorer, &request, 300), [0.0, 1.0]);
        assert_eq!(scores(&mut scorer, &request, 301), [0.0, 0.0], "forgotten");
        let moved = Pool {
            endpoints: pool.endpoints.iter().rev().cloned().collect(),
        };
        scorer.pool_changed(&Arc::new(moved));
        assert_eq!(scores(&mut scorer, &request, 300), [1.0, 0.0]);
    }
}
