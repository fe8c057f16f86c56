//! `header-label-affinity-scorer`: 1 where the endpoint's label equals the request's header, else 0.

use std::sync::Arc;

use crate::config::HeaderLabelAffinityScorer;
use crate::pool::Pool;
use crate::schedule::{Ask, Candidate, Score};

/// Prefers endpoints of the kind that the request asks for.
#[derive(Debug)]
pub(super) struct HeaderLabel {
    header: String,
    label: String,
    /// In pool order; empty = there is no such label.
    values: Vec<Box<str>>,
}

impl HeaderLabel {
    pub(super) fn new(parameters: &HeaderLabelAffinityScorer) -> Self {
        Self {
            header: parameters.header_name.to_ascii_lowercase(),
            label: parameters.label_key.clone(),
            values: Vec::new(),
        }
    }
}

impl Score for HeaderLabel {
    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        let value = |endpoint: &Arc<crate::Endpoint>| {
            let value = endpoint.labels.get(&self.label);
            value.map_or_else(Default::default, |value| value.as_str().into())
        };
        self.values = pool.endpoints.iter().map(value).collect();
    }

    fn score(&mut self, ask: &Ask<'_>, candidates: &[Candidate], scores: &mut [f32]) {
        let wanted = ask.request.header(&self.header).unwrap_or_default().trim();
        for (candidate, score) in candidates.iter().zip(scores) {
            let value = self.values.get(candidate.slot as usize);
            let equal = !wanted.is_empty() && value.is_some_and(|value| **value == *wanted);
            *score = f32::from(u8::from(equal));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Request;
    use crate::schedule::{ask, candidate, labelled};

    #[test]
    fn equal_is_one() {
        let mut scorer = HeaderLabel::new(&HeaderLabelAffinityScorer {
            header_name: "X-Slice".into(),
            label_key: "slice".into(),
            ..HeaderLabelAffinityScorer::default()
        });
        scorer.pool_changed(&labelled(&[&[("slice", "1")], &[("slice", "0")], &[]]));
        let candidates = [candidate(0), candidate(1), candidate(2)];
        let mut scored = |value: &str| {
            let request = Request {
                headers: vec![("x-slice".into(), value.into())],
                ..Request::default()
            };
            let mut scores = [9.0; 3];
            scorer.score(&ask(&request), &candidates, &mut scores);
            scores
        };
        assert_eq!(scored("1"), [1.0, 0.0, 0.0]);
        assert_eq!(scored(""), [0.0; 3], "an absent label is not an empty one");
    }
}
