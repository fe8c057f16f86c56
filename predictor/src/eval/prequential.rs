//! The prequential protocol: the recording lived through on a virtual clock.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::{EvalError, Evaluation, Recorded, Recording, Scored};
use crate::{Candidate, LatencyModel, Learner, LearnerConfig, Observation, Quantiles, Target};

/// Replays `recording` for one target. Levels run in ascending order, each after the last label of
/// the one before; requests are dispatched by their start; a label arrives when the request's first
/// token (TTFT) or end (TPOT) did; refits run inline at virtual instants and are in force
/// `config.install_delay` later. Every eligible row is predicted, the prior's predictions count.
///
/// # Errors
/// When the setup has no eligible row.
pub fn prequential(
    recording: &Recording,
    target: Target,
    config: LearnerConfig,
) -> Result<Evaluation, EvalError> {
    let mut rows: Vec<(usize, Recorded)> = recording
        .requests
        .iter()
        .filter(|request| request.eligible(target))
        .copied()
        .enumerate()
        .collect();
    // The sort is stable: requests of one instant keep their order in the file.
    rows.sort_by(|(_, a), (_, b)| (a.users.cmp(&b.users)).then(a.start_ms.total_cmp(&b.start_ms)));
    let mut replay = Replay {
        target,
        learner: Learner::new(config),
        model: LatencyModel::prior(),
        labels: BinaryHeap::new(),
        refit: None,
        now: Duration::ZERO,
        scored: Vec::with_capacity(rows.len()),
    };
    for level in rows.chunk_by(|(_, a), (_, b)| a.users == b.users) {
        let start = replay.now;
        for (row, request) in level {
            replay.dispatch(start, *row, request);
        }
        replay.advance(Duration::MAX);
    }
    Evaluation::new(&recording.setup, target, "prequential", replay.scored).ok_or_else(|| {
        EvalError::Empty {
            setup: recording.setup.clone(),
            target,
            right: match target {
                Target::Ttft => "status 200 and ttft_ms above 0",
                Target::Tpot => "status 200, n_out of 4 or more and tpot_ms above 0",
            },
        }
    })
}

/// A label under way.
#[derive(Debug)]
struct Label {
    at: Duration,
    order: usize,
    request: Recorded,
    predicted: Quantiles,
}

impl PartialEq for Label {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}
impl Eq for Label {}
impl PartialOrd for Label {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Label {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

struct Replay {
    target: Target,
    learner: Learner,
    model: LatencyModel,
    labels: BinaryHeap<Reverse<Label>>,
    /// A refit and when it comes into force.
    refit: Option<(Duration, Candidate)>,
    now: Duration,
    scored: Vec<Scored>,
}

impl Replay {
    fn dispatch(&mut self, start: Duration, row: usize, request: &Recorded) {
        let at = start + milliseconds(request.start_ms);
        self.advance(at);
        self.now = self.now.max(at);
        self.learner.note_dispatch(at);
        let predicted = self.model.predict_target(&request.features, self.target);
        let actual = request.actual_ms(self.target);
        self.scored
            .push(Scored::new(row, request.users, actual, &predicted));
        self.labels.push(Reverse(Label {
            at: start + milliseconds(request.label_ms(self.target)),
            order: self.scored.len(),
            request: *request,
            predicted,
        }));
    }

    /// Lets all labels and refits up to `until` happen, in order of time.
    fn advance(&mut self, until: Duration) {
        while let Some(at) = self.labels.peek().map(|label| label.0.at)
            && at <= until
        {
            self.install_by(at);
            let Some(Reverse(label)) = self.labels.pop() else {
                break;
            };
            self.now = self.now.max(at);
            self.learner.observe(Observation {
                target: self.target,
                features: label.request.features,
                actual_ms: label.request.actual_ms(self.target) as f32,
                at,
                predicted: Some(label.predicted),
            });
            if self.refit.is_none() && self.learner.due(at) {
                let in_force = at + self.learner.config().install_delay;
                self.refit = Some((in_force, self.learner.fit(at)));
            }
            self.model = self.learner.model(at);
        }
        if until < Duration::MAX {
            self.install_by(until);
        }
    }

    fn install_by(&mut self, now: Duration) {
        if let Some((at, candidate)) = self.refit.take_if(|(at, _)| *at <= now) {
            self.learner.install(candidate, at);
            self.model = self.learner.model(at);
        }
    }
}

fn milliseconds(ms: f64) -> Duration {
    Duration::from_secs_f64(ms.max(0.0) / 1e3)
}
