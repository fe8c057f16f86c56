//! `prefix-cache-scorer`: `w·min(1, matched tokens/scale)² + (1 − w)·matched/total blocks`.

use crate::config::PrefixCacheScorer;
use crate::schedule::{Ask, Candidate, Score};

/// Prefers endpoints that have seen more of the prompt.
#[derive(Debug)]
pub(super) struct PrefixScorer {
    pub(super) parameters: PrefixCacheScorer,
}

impl Score for PrefixScorer {
    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let by_length = self.parameters.match_length_weight as f32;
        let scale = self.parameters.match_length_scale_tokens as f32;
        for (candidate, score) in candidates.iter().zip(scores) {
            let length = (candidate.cached_tokens as f32 / scale).min(1.0);
            *score =
                by_length * length * length + (1.0 - by_length) * matched_share(ask, candidate);
        }
    }
}

/// Share of the prompt's blocks that the endpoint has seen; 0 for a prompt without any.
pub(super) fn matched_share(ask: &Ask<'_>, candidate: &Candidate) -> f32 {
    if ask.blocks() == 0 {
        0.0
    } else {
        candidate.matched_blocks as f32 / ask.blocks() as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate};

    #[test]
    fn follows_the_formula() {
        let request = Request {
            prefix: [0; 8].into(),
            prompt_tokens: 512,
            ..Request::default()
        };
        let ask = ask(&request);
        let mut half = candidate(0);
        (half.matched_blocks, half.cached_tokens) = (4, 256);
        let mut scores = [9.0; 2];
        let mut plain = PrefixScorer {
            parameters: PrefixCacheScorer::default(),
        };
        plain.score(&ask, &[half, candidate(1)], &mut scores);
        assert_eq!(scores, [0.5, 0.0]);
        let parameters = PrefixCacheScorer {
            match_length_weight: 0.5,
            match_length_scale_tokens: 512.0,
            ..PrefixCacheScorer::default()
        };
        PrefixScorer { parameters }.score(&ask, &[half, candidate(1)], &mut scores);
        assert_eq!(scores, [0.5 * 0.25 + 0.5 * 0.5, 0.0]);
    }
}
