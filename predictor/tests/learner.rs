//! The learner from the first label to drift, on a generated replica.

use std::time::Duration;

use predictor::{Features, LatencyModel, Learner, LearnerConfig, Observation, State, Target};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// A replica whose latencies are known up to noise.
struct Replica {
    random: StdRng,
    /// Multiplies every latency; a change is an engine that was replaced.
    slowness: f32,
    most_running: u32,
}

impl Replica {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            slowness: 1.0,
            most_running: 32,
        }
    }

    fn request(&mut self) -> Features {
        let random = &mut self.random;
        let waiting = random.random_range(0..6_u32) as f32;
        let running = random.random_range(0..=self.most_running) as f32;
        let input_tokens = random.random_range(20..3_000_u32) as f32;
        Features {
            input_tokens,
            cached_tokens: (input_tokens * random.random::<f32>() * 0.5).floor(),
            waiting,
            waiting_tokens: waiting * random.random_range(50..1_500_u32) as f32,
            running,
            resident_tokens: running * random.random_range(100..2_000_u32) as f32,
            kv_utilization: if random.random::<f32>() < 0.3 {
                f32::NAN
            } else {
                running / 64.0
            },
        }
    }

    /// Without noise, ms.
    fn expected(&self, target: Target, features: &Features) -> f32 {
        let prefill = features.uncached_tokens() + features.waiting_tokens;
        self.slowness
            * match target {
                Target::Ttft => 15.0 + 0.06 * prefill * (1.0 + 0.02 * features.running),
                Target::Tpot => 12.0 + 0.2 * features.running + 1e-4 * features.resident_tokens,
            }
    }

    fn observation(&mut self, target: Target, at: Duration) -> Observation {
        let features = self.request();
        let noise = 0.85 + 0.3 * self.random.random::<f32>();
        Observation {
            target,
            features,
            actual_ms: self.expected(target, &features) * noise,
            at,
            predicted: None,
        }
    }
}

/// Teaches `labels` labels of both targets, 20 per second, refitting whenever it is due.
fn teach(learner: &mut Learner, replica: &mut Replica, from: Duration, labels: u32) -> Duration {
    let mut now = from;
    for _ in 0..labels {
        now += Duration::from_millis(50);
        learner.note_dispatch(now);
        for target in Target::ALL {
            let mut observation = replica.observation(target, now);
            let model = learner.model(now);
            observation.predicted = Some(model.predict_target(&observation.features, target));
            learner.observe(observation);
        }
        if learner.due(now) {
            let candidate = learner.fit(now);
            learner.install(candidate, now);
        }
    }
    now
}

fn taught(labels: u32) -> (Learner, Replica, Duration) {
    let mut learner = Learner::new(LearnerConfig::default());
    let mut replica = Replica::new(3);
    let now = teach(&mut learner, &mut replica, Duration::ZERO, labels);
    (learner, replica, now)
}

/// Mean absolute log error of p50 against the noiseless latency.
fn error(model: &LatencyModel, target: Target, replica: &mut Replica) -> f32 {
    let requests: Vec<Features> = (0..500).map(|_| replica.request()).collect();
    let sum: f32 = requests
        .iter()
        .map(|row| (model.predict_target(row, target).p50 / replica.expected(target, row)).ln())
        .map(f32::abs)
        .sum();
    sum / requests.len() as f32
}

#[test]
fn the_prior_depends_on_the_request_and_its_endpoint() {
    let model = LatencyModel::prior();
    assert_eq!(model.state(Target::Ttft), State::Prior);
    assert!(!model.trusted());
    let idle = Features::idle(100.0);
    let long = Features::idle(10_000.0);
    let busy = Features {
        running: 50.0,
        resident_tokens: 100_000.0,
        ..idle
    };
    let at = |row: &Features| model.predict_one(row);
    assert!(at(&long).ttft.p50 > 10.0 * at(&idle).ttft.p50);
    assert!(at(&busy).ttft.p50 > at(&idle).ttft.p50);
    assert!(at(&busy).tpot.p50 > 1.5 * at(&idle).tpot.p50);
    assert!(model.extrapolates(&idle, Target::Ttft));
}

#[test]
fn ten_labels_replace_the_prior_and_fifty_come_close() {
    let (learner, mut replica, now) = taught(9);
    assert_eq!(learner.model(now).state(Target::Ttft), State::Prior);
    let (learner, _, now) = taught(10);
    assert_eq!(learner.model(now).state(Target::Ttft), State::Warming);
    let (learner, _, now) = taught(50);
    let young = learner.model(now);
    let (learner, _, now) = taught(3_000);
    let old = learner.model(now);
    for target in Target::ALL {
        let (young, old) = (
            error(&young, target, &mut replica),
            error(&old, target, &mut replica),
        );
        assert!(young < 0.2 && old < 0.06, "{target}: {young} {old}");
    }
}

#[test]
fn trained_needs_a_hundred_labels_and_a_forest_that_beats_the_base() {
    let (learner, _, now) = taught(99);
    assert_eq!(learner.model(now).state(Target::Ttft), State::Warming);
    let (learner, _, now) = taught(2_000);
    let model = learner.model(now);
    assert!(model.trusted(), "{:?}", learner.report(now));
    assert!(model.version() > 3);
    let report = learner.report(now).ttft;
    assert_eq!(report.labels, 2_000);
    assert!((0.86..0.94).contains(&report.coverage_p90), "{report:?}");
    assert!(
        report.mape < 12.0 && report.log_bias.abs() < 0.05,
        "{report:?}"
    );
    // A forest that only repeats the noise loses to the base.
    let mut learner = Learner::new(overfitting());
    let now = teach(&mut learner, &mut Replica::new(3), Duration::ZERO, 2_000);
    assert_eq!(learner.model(now).state(Target::Tpot), State::Warming);
}

/// Parameters that make a forest learn every label by heart.
fn overfitting() -> LearnerConfig {
    let mut config = LearnerConfig {
        challenger_tolerance: 0.0,
        ..LearnerConfig::default()
    };
    config.forest.learning_rate = 1.0;
    config.forest.l2 = 0.0;
    config.forest.min_leaf_weight = 0.0;
    config.forest.max_leaves = 128;
    config.forest.max_depth = 7;
    config
}

#[test]
fn silence_under_traffic_is_stale_and_silence_without_is_not() {
    let (mut learner, mut replica, now) = taught(2_000);
    let minute = Duration::from_secs(60);
    assert!(learner.model(now + 10 * minute).trusted());
    let later = now + 10 * minute;
    learner.note_dispatch(later);
    assert!(learner.model(later + minute / 2).trusted());
    assert_eq!(
        learner.model(later + minute).state(Target::Ttft),
        State::Stale
    );
    learner.observe(replica.observation(Target::Ttft, later + minute));
    let model = learner.model(later + minute);
    assert_eq!(model.state(Target::Ttft), State::Trained);
    assert_eq!(model.state(Target::Tpot), State::Stale);
    // A dispatch noted after the label that answered it opens no wait.
    learner.note_dispatch(later);
    assert_eq!(
        learner.model(later + 3 * minute).state(Target::Ttft),
        State::Trained
    );
}

#[test]
fn a_replaced_engine_raises_the_alarm_and_is_learnt_anew() {
    let (mut learner, mut replica, mut now) = taught(3_000);
    replica.slowness = 2.2;
    // As if the refit took its time: only labels arrive.
    for _ in 0..200 {
        now += Duration::from_millis(50);
        learner.observe(replica.observation(Target::Ttft, now));
    }
    assert_eq!(learner.model(now).state(Target::Ttft), State::Stale);
    assert_eq!(learner.report(now).ttft.alarms, 1);
    now = teach(&mut learner, &mut replica, now, 600);
    let model = learner.model(now);
    assert!(model.trusted(), "{:?}", learner.report(now));
    assert!(learner.report(now).ttft.rows < 1_000, "old rows were kept");
    assert!(error(&model, Target::Ttft, &mut replica) < 0.1);
}

#[test]
fn a_challenger_that_is_worse_is_refused() {
    let mut learner = Learner::new(overfitting());
    let now = teach(&mut learner, &mut Replica::new(3), Duration::ZERO, 2_000);
    let report = learner.report(now).ttft;
    assert!(report.refused > 0 && report.refits > 0, "{report:?}");
}

#[test]
fn labels_that_cannot_be_are_counted_and_not_learnt() {
    let (mut learner, mut replica, now) = taught(20);
    let good = replica.observation(Target::Ttft, now);
    for actual_ms in [f32::NAN, f32::INFINITY, 0.0, -3.0] {
        learner.observe(Observation {
            actual_ms,
            ..good.clone()
        });
    }
    let report = learner.report(now).ttft;
    assert_eq!((report.labels, report.rejected), (20, 4));
}

#[test]
fn the_store_is_bounded() {
    let config = LearnerConfig {
        store_capacity: 200,
        ..LearnerConfig::default()
    };
    let mut learner = Learner::new(config);
    let now = teach(&mut learner, &mut Replica::new(1), Duration::ZERO, 1_000);
    assert_eq!(learner.report(now).ttft.rows, 200);
    assert_eq!(learner.report(now).ttft.labels, 1_000);
}

#[test]
fn the_same_labels_give_the_same_model() {
    let predictions = || {
        let (learner, _, now) = taught(700);
        let mut replica = Replica::new(99);
        let rows: Vec<Features> = (0..200).map(|_| replica.request()).collect();
        let mut out = Vec::new();
        learner.model(now).predict(&rows, &mut out);
        out
    };
    assert_eq!(predictions(), predictions());
}

#[test]
fn the_base_carries_predictions_beyond_what_was_seen() {
    let (learner, replica, now) = taught(2_000);
    let model = learner.model(now);
    let inside = Features {
        running: 20.0,
        resident_tokens: 20_000.0,
        kv_utilization: f32::NAN,
        ..Features::idle(1_000.0)
    };
    let beyond = Features {
        waiting: 40.0,
        waiting_tokens: 60_000.0,
        ..inside
    };
    assert!(!model.extrapolates(&inside, Target::Ttft));
    assert!(model.extrapolates(&beyond, Target::Ttft));
    let ratio = model.predict_one(&beyond).ttft.p50 / replica.expected(Target::Ttft, &beyond);
    assert!((0.7..1.4).contains(&ratio), "{ratio}");
}

#[test]
fn limits_out_of_range_are_named() {
    let config = LearnerConfig {
        tracker_step: 0.0,
        ..LearnerConfig::default()
    };
    assert_eq!(
        config.validate().unwrap_err().to_string(),
        "tracker_step is 0, it must be above 0 and at most 1"
    );
    let mut config = LearnerConfig::default();
    config.forest.trees = 0;
    let text = config.validate().unwrap_err().to_string();
    assert!(text.starts_with("forest: trees is 0"), "{text}");
    assert_eq!(LearnerConfig::default().validate(), Ok(()));
}

fn any_request() -> impl Strategy<Value = Features> {
    (
        0.0_f32..6_000.0,
        0.0_f32..1.0,
        0.0_f32..20.0,
        0.0_f32..30_000.0,
        0.0_f32..64.0,
        0.0_f32..120_000.0,
        prop_oneof![Just(f32::NAN), 0.0_f32..1.0],
    )
        .prop_map(
            |(input_tokens, hit, waiting, waiting_tokens, running, resident_tokens, kv)| Features {
                input_tokens,
                cached_tokens: input_tokens * hit,
                waiting,
                waiting_tokens,
                running,
                resident_tokens,
                kv_utilization: kv,
            },
        )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    /// More load never looks faster, quantiles never cross, and a batch is its rows.
    #[test]
    fn predictions_are_ordered(
        labels in prop_oneof![Just(0_u32), Just(12), Just(60), Just(800)],
        rows in prop::collection::vec((any_request(), 0.0_f32..2_000.0), 300),
    ) {
        let (learner, _, now) = taught(labels);
        let model = learner.model(now);
        let requests: Vec<Features> = rows.iter().map(|(row, _)| *row).collect();
        let mut out = Vec::new();
        model.predict(&requests, &mut out);
        for ((row, rise), predicted) in rows.iter().zip(&out) {
            prop_assert_eq!(model.predict_one(row), *predicted);
            for of in [predicted.ttft, predicted.tpot] {
                prop_assert!(of.p50 > 0.0 && of.p50 <= of.p90 && of.p90 <= of.p99);
            }
            let grown: [fn(&mut Features, f32); 5] = [
                |row, rise| row.input_tokens += rise,
                |row, rise| row.waiting += rise / 100.0,
                |row, rise| row.waiting_tokens += rise,
                |row, rise| row.running += rise / 100.0,
                |row, rise| row.resident_tokens += rise,
            ];
            for (field, grow) in grown.into_iter().enumerate() {
                let mut more = *row;
                grow(&mut more, *rise);
                let more = model.predict_one(&more);
                // Rounding of ln and exp may cost the last digits of a constant stretch.
                let not_below = |more: f32, less: f32| more >= less * (1.0 - 1e-5);
                prop_assert!(not_below(more.ttft.p50, predicted.ttft.p50), "ttft p50 {field}");
                prop_assert!(not_below(more.ttft.p90, predicted.ttft.p90), "ttft p90 {field}");
                if field >= 3 {
                    prop_assert!(not_below(more.tpot.p50, predicted.tpot.p50), "tpot p50 {field}");
                    prop_assert!(not_below(more.tpot.p90, predicted.tpot.p90), "tpot p90 {field}");
                }
            }
            let mut cached = *row;
            cached.cached_tokens = row.input_tokens;
            let cached = model.predict_one(&cached);
            prop_assert!(cached.ttft.p50 <= predicted.ttft.p50 * (1.0 + 1e-5));
        }
    }
}

#[test]
fn unknown_features_get_a_finite_prediction() {
    let (learner, _, now) = taught(800);
    let unknown = Features {
        input_tokens: f32::NAN,
        cached_tokens: f32::NAN,
        waiting: f32::NAN,
        waiting_tokens: f32::NAN,
        running: f32::NAN,
        resident_tokens: f32::NAN,
        kv_utilization: f32::NAN,
    };
    for model in [LatencyModel::prior(), learner.model(now)] {
        let predicted = model.predict_one(&unknown);
        for of in [predicted.ttft, predicted.tpot] {
            assert!(of.p50 > 1.0 && of.p99.is_finite(), "{of:?}");
        }
    }
}
