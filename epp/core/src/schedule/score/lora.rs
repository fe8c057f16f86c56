//! `lora-affinity-scorer`: 1.0 where the adapter runs, 0.8 where one more fits, 0.6 where it waits, else 0.

use std::sync::Arc;

use crate::endpoint::Lora;
use crate::pool::Pool;
use crate::schedule::{Ask, Candidate, Score};

/// Prefers engines that have the request's adapter loaded. The adapter is the model that the request names.
#[derive(Debug, Default)]
pub(super) struct LoraAffinity {
    pool: Arc<Pool>,
}

impl Score for LoraAffinity {
    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.pool = Arc::clone(pool);
    }

    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        for (candidate, score) in candidates.iter().zip(scores) {
            let endpoint = self.pool.endpoints.get(candidate.slot as usize);
            *score = endpoint.map_or(0.0, |endpoint| {
                endpoint
                    .read_lora(|lora| lora.map_or(0.0, |lora| rate(lora, ask.request.sent_model())))
            });
        }
    }
}

fn rate(lora: &Lora, adapter: &str) -> f32 {
    let among = |names: &[Arc<str>]| names.iter().any(|name| &**name == adapter);
    if among(&lora.running) {
        1.0
    } else if lora.running.len() + lora.waiting.len() < lora.max as usize {
        0.8
    } else if among(&lora.waiting) {
        0.6
    } else {
        0.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, labelled};

    #[test]
    fn running_beats_free_beats_waiting_beats_full() {
        let pool = labelled(&[&[], &[], &[], &[], &[]]);
        let tell = |slot: usize, max, running: &[&str], waiting: &[&str]| {
            let names = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
            let (running, waiting) = (names(running), names(waiting));
            let lora = Lora {
                max,
                running,
                waiting,
            };
            pool.endpoints[slot].set_lora(Arc::new(lora));
        };
        tell(0, 1, &["sql"], &[]);
        tell(1, 3, &["a"], &["b"]);
        tell(2, 2, &["a"], &["sql"]);
        tell(3, 2, &["a", "b"], &["c"]);
        let mut scorer = LoraAffinity::default();
        scorer.pool_changed(&pool);
        let request = Request {
            model: "sql".into(),
            ..Request::default()
        };
        let candidates: Vec<_> = (0..5).map(candidate).collect();
        let mut scores = [9.0; 5];
        scorer.score(&ask(&request), &candidates, &mut scores);
        assert_eq!(scores, [1.0, 0.8, 0.6, 0.0, 0.0]);
    }
}
