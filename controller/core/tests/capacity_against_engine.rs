//! Capacity as the learned model tells it, against what the simulated engine then does at that rate.

#![expect(clippy::unwrap_used, reason = "a test: what is missing should end it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use controller_core::capacity::{Binding, Capacity, Terms, capacity};
use controller_core::mix::{Mix, Sample};
use controller_core::{Behavior, SloTargets};
use predictor::{Features, LatencyModel, Learner, LearnerConfig, Observation, Prediction, Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use simulator_core::workload::{WorkloadSpec, generate};
use simulator_core::{Engine, Event, EventKind, Prefix, Profile, Submission};

const SLO: SloTargets = SloTargets {
    percentile: 0.9,
    ttft_ms: 2000.0,
    tpot_ms: 1_000.0,
};
/// Prompts and answers of the conversation workload divided by this.
const SCALE: u32 = 8;
/// Rates that the model learns from: none beyond what the engine carries for long.
const LESSONS: [f64; 10] = [4.2, 7.0, 9.8, 5.6, 11.2, 8.4, 12.6, 7.0, 11.2, 9.8];
const LESSON: f64 = 30.0;

/// One request on the engine.
struct Live {
    at: f64,
    features: Features,
    predicted: Prediction,
    emitted: u32,
    first: f64,
}

/// An engine under Poisson arrivals, watched as the endpoint picker watches its endpoints.
struct Bench<'a> {
    engine: Engine,
    rng: StdRng,
    lengths: &'a [(u32, u32)],
    live: BTreeMap<u64, Live>,
    learner: Option<&'a mut Learner>,
    model: LatencyModel,
    refreshed: f64,
    /// (arrival in seconds, TTFT in milliseconds)
    answers: Vec<(f64, f64)>,
}

impl<'a> Bench<'a> {
    fn new(lengths: &'a [(u32, u32)], seed: u64, learner: Option<&'a mut Learner>) -> Self {
        Self {
            engine: Engine::new(Profile::builtin("llama-3.1-8b-rtxpro6000").unwrap(), seed),
            rng: StdRng::seed_from_u64(seed),
            lengths,
            live: BTreeMap::new(),
            learner,
            model: LatencyModel::prior(),
            refreshed: 0.0,
            answers: Vec::new(),
        }
    }

    /// `rates` in requests/s, each for `span` seconds; returns when all is answered.
    fn run(mut self, rates: &[f64], span: f64) -> Vec<(f64, f64)> {
        let (mut arrival, mut sent, mut events) = (0.0, 0, Vec::new());
        loop {
            let step = self
                .engine
                .next_event()
                .map_or(f64::INFINITY, |at| at.as_secs_f64());
            let rate = rates.get((arrival / span) as usize);
            let now = if rate.is_some() {
                step.min(arrival)
            } else {
                step
            };
            if now.is_infinite() {
                return self.answers;
            }
            self.learn(now);
            if let Some(rate) = rate.filter(|_| arrival <= step) {
                self.submit(now, sent);
                sent += 1;
                arrival += -(1.0 - self.rng.random::<f64>()).ln() / rate;
            }
            events.clear();
            self.engine
                .advance(Duration::from_secs_f64(now), &mut events);
            events.iter().for_each(|event| self.see(event));
        }
    }

    fn learn(&mut self, now: f64) {
        let at = Duration::from_secs_f64(now);
        if let Some(learner) = self
            .learner
            .as_mut()
            .filter(|_| now >= self.refreshed + 1.0)
        {
            self.refreshed = now;
            if learner.due(at) {
                let candidate = learner.fit(at);
                learner.install(candidate, at);
            }
            self.model = learner.model(at);
        }
    }

    fn submit(&mut self, now: f64, id: u64) {
        let (input, output) = self.lengths[id as usize % self.lengths.len()];
        let mut features = Features::idle(input as f32);
        for other in self.live.values() {
            let prompt = other.features.input_tokens;
            if other.emitted == 0 {
                features.waiting += 1.0;
                features.waiting_tokens += prompt;
            } else {
                features.running += 1.0;
                features.resident_tokens += prompt + other.emitted as f32;
            }
        }
        if let Some(learner) = &mut self.learner {
            learner.note_dispatch(Duration::from_secs_f64(now));
        }
        let predicted = self.model.predict_one(&features);
        self.live.insert(
            id,
            Live {
                at: now,
                features,
                predicted,
                emitted: 0,
                first: 0.0,
            },
        );
        let prefix = Prefix {
            ids: Arc::from([]),
            tokens_per_id: 0,
        };
        let submission = Submission {
            id,
            prompt_tokens: input,
            prefix,
            output_tokens: output,
        };
        self.engine
            .submit(Duration::from_secs_f64(now), submission)
            .unwrap();
    }

    fn see(&mut self, event: &Event) {
        let at = event.at.as_secs_f64();
        let Some(request) = self.live.get_mut(&event.id) else {
            return;
        };
        match event.kind {
            EventKind::FirstToken => {
                (request.emitted, request.first) = (1, at);
                let ttft = (at - request.at) * 1000.0;
                self.answers.push((request.at, ttft));
                let (features, predicted) = (request.features, request.predicted.ttft);
                self.teach(Target::Ttft, features, ttft, event.at, predicted);
            }
            EventKind::Token => request.emitted += 1,
            EventKind::Finished { .. } => {
                let Some(request) = self.live.remove(&event.id) else {
                    return;
                };
                if request.emitted > 3 {
                    let tpot = (at - request.first) * 1000.0 / f64::from(request.emitted - 1);
                    self.teach(
                        Target::Tpot,
                        request.features,
                        tpot,
                        event.at,
                        request.predicted.tpot,
                    );
                }
            }
            EventKind::Scheduled { .. } | EventKind::Preempted => {}
        }
    }

    fn teach(
        &mut self,
        target: Target,
        features: Features,
        ms: f64,
        at: Duration,
        predicted: predictor::Quantiles,
    ) {
        if let Some(learner) = &mut self.learner {
            learner.observe(Observation {
                target,
                features,
                actual_ms: ms as f32,
                at,
                predicted: Some(predicted),
            });
        }
    }
}

fn lengths() -> Vec<(u32, u32)> {
    let trace = generate(&WorkloadSpec::mooncake_conversation(), 1);
    trace
        .requests
        .iter()
        .take(4000)
        .map(|request| {
            (
                (request.input_tokens / SCALE).max(1),
                (request.output_tokens / SCALE).max(1),
            )
        })
        .collect()
}

fn learned(lengths: &[(u32, u32)]) -> Capacity {
    let mut learner = Learner::new(LearnerConfig::default());
    Bench::new(lengths, 1, Some(&mut learner)).run(&LESSONS, LESSON);
    let model = learner.model(Duration::from_secs_f64(LESSON * LESSONS.len() as f64));
    let sample = |&(input, output): &(u32, u32)| Sample {
        input: input as f32,
        cached: 0.0,
        output: Some(output as f32),
    };
    let mut terms = Terms::new(SLO, &Behavior::default());
    terms.margin = 0.0;
    capacity(
        &model,
        &Mix::from_samples(lengths.iter().map(sample)),
        &terms,
        None,
    )
    .unwrap()
}

/// TTFT at the SLO's percentile when the engine is offered `rate`, after a minute of warm-up.
fn measured(lengths: &[(u32, u32)], rate: f64) -> f64 {
    let answers = Bench::new(lengths, 7, None).run(&[rate], 300.0);
    let mut ttft: Vec<f64> = answers
        .iter()
        .filter(|(at, _)| *at >= 60.0)
        .map(|(_, ttft)| *ttft)
        .collect();
    ttft.sort_by(f64::total_cmp);
    ttft[(ttft.len() as f64 * f64::from(SLO.percentile)) as usize]
}

#[test]
fn the_engine_meets_the_slo_just_below_the_capacity_and_misses_it_just_above() {
    let lengths = lengths();
    let found = learned(&lengths);
    let rate = found.requests_per_second;
    assert_eq!(
        (found.binding, found.infeasible),
        (Binding::Ttft, false),
        "{found:?}"
    );
    let (below, above) = (
        measured(&lengths, rate * 0.85),
        measured(&lengths, rate * 1.15),
    );
    assert!(below <= SLO.ttft_ms, "p90 {below} ms at 0.85 of {found:?}");
    assert!(above > SLO.ttft_ms, "p90 {above} ms at 1.15 of {found:?}");
}
