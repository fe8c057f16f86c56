//! What the tests share: pools, requests, a trained model, and a director that is asked for its verdicts.
#![allow(dead_code, reason = "each test binary uses its own part")]
#![expect(clippy::panic, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use epp_core::{
    Config, Director, Dispatch, End, Endpoint, EndpointSpec, Pool, Refusal, Request, Slo, Verdict,
};
use predictor::{Features, LatencyModel, Learner, LearnerConfig, Observation, Target};

pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A pool of endpoints `e0`, `e1`, … at 10.0.0.1, 10.0.0.2, …
pub(crate) fn pool(count: usize) -> Arc<Pool> {
    updated(&Pool::default(), 0..count)
}

pub(crate) fn updated(previous: &Pool, numbers: impl Iterator<Item = usize>) -> Arc<Pool> {
    let spec = |number| EndpointSpec {
        name: format!("e{number}"),
        address: format!("10.0.{}.{}:8000", number / 250, number % 250 + 1),
        labels: Default::default(),
    };
    Arc::new(previous.updated(numbers.map(spec).collect()))
}

pub(crate) fn request(priority: i32) -> Request {
    Request {
        priority,
        prompt_tokens: 100,
        bytes: 400,
        ..Request::default()
    }
}

pub(crate) fn with_slo(priority: i32, ttft_ms: f64) -> Request {
    Request {
        slo: Slo {
            ttft_ms: Some(ttft_ms),
            tpot_ms: None,
        },
        ..request(priority)
    }
}

/// A served stream with usage.
pub(crate) fn complete(output_tokens: u32) -> End {
    End::Complete {
        status: 200,
        streaming: true,
        prompt_tokens: None,
        cached_tokens: None,
        output_tokens: Some(output_tokens),
    }
}

/// A model that has learned TTFT = 50 ms + 0.5 ms per uncached token here and ahead, TPOT = 20 ms + 0.5 ms per
/// running request, and trusts itself.
pub(crate) fn trained_model() -> Arc<LatencyModel> {
    let mut learner = Learner::new(LearnerConfig::default());
    let mut now = Duration::ZERO;
    for row in 0..1_200_u32 {
        now += Duration::from_millis(20);
        let spread = |modulus: u32, factor: f32| (row * 7 % modulus) as f32 * factor;
        let features = Features {
            input_tokens: 20.0 + spread(97, 40.0),
            cached_tokens: 0.0,
            waiting: spread(11, 1.0),
            waiting_tokens: spread(11, 1.0) * 200.0,
            running: spread(13, 1.0),
            resident_tokens: spread(13, 1.0) * 600.0,
            kv_utilization: f32::NAN,
        };
        let ttft = 50.0 + 0.5 * (features.input_tokens + features.waiting_tokens);
        let tpot = 20.0 + 0.5 * features.running;
        learner.note_dispatch(now);
        let predicted = learner.model(now).predict_one(&features);
        let labels = [
            (Target::Ttft, ttft, predicted.ttft),
            (Target::Tpot, tpot, predicted.tpot),
        ];
        for (target, actual_ms, predicted) in labels {
            learner.observe(Observation {
                target,
                features,
                actual_ms,
                at: now,
                predicted: Some(predicted),
            });
        }
        if learner.due(now) {
            let candidate = learner.fit(now);
            learner.install(candidate, now);
        }
    }
    let model = learner.model(now);
    assert!(model.trusted(), "{:?}", learner.report(now));
    Arc::new(model)
}

/// Makes every endpoint warm: ten labels each.
pub(crate) fn warm(pool: &Pool) {
    for endpoint in &pool.endpoints {
        warm_one(endpoint);
    }
}

/// Runs ten one-token streams through one endpoint.
pub(crate) fn warm_one(endpoint: &Arc<Endpoint>) {
    let mut director = Director::new(Config::round_robin(), 0);
    director.set_pool(
        Duration::ZERO,
        Arc::new(Pool {
            endpoints: vec![Arc::clone(endpoint)],
        }),
    );
    for _ in 0..10 {
        director.submit(Duration::ZERO, request(0));
        let Some((_, Verdict::Dispatched(mut dispatch))) = director.poll() else {
            panic!("not dispatched")
        };
        dispatch.in_flight.first_token(Duration::ZERO);
        dispatch.in_flight.finish(Duration::ZERO, complete(1));
    }
}

/// The next verdict, which must be a dispatch.
pub(crate) fn dispatched(director: &mut Director) -> Box<Dispatch> {
    match director.poll() {
        Some((_, Verdict::Dispatched(dispatch))) => dispatch,
        other => panic!("expected a dispatch, got {other:?}"),
    }
}

/// The next verdict, which must be a refusal.
pub(crate) fn refused(director: &mut Director) -> Refusal {
    match director.poll() {
        Some((_, Verdict::Refused(refusal))) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}
