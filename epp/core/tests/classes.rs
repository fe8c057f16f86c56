//! Latency classes: each endpoint is judged by the model of what it runs on.

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::{Config, Director, EndpointSpec, Pool};
use predictor::{Features, LearnerConfig, Learners, Models, Observation, Target};
use support::{dispatched, request, warm, with_slo};

/// Labels of two classes, of which `slow` takes ten times as long.
fn models() -> Models {
    let mut learners = Learners::new(LearnerConfig::default());
    let mut now = Duration::ZERO;
    for row in 0..600_u32 {
        now += Duration::from_millis(20);
        let features = Features {
            running: (row % 7) as f32,
            waiting: (row % 5) as f32,
            waiting_tokens: (row % 5) as f32 * 200.0,
            resident_tokens: (row % 7) as f32 * 500.0,
            ..Features::idle(20.0 + (row * 7 % 97) as f32 * 10.0)
        };
        for (class, slowness) in [("fast", 1.0), ("slow", 10.0)] {
            let ttft = 20.0 + 0.1 * (features.input_tokens + features.waiting_tokens);
            for (target, ms) in [
                (Target::Ttft, ttft),
                (Target::Tpot, 20.0 + features.running),
            ] {
                let predicted = learners
                    .models(now)
                    .of(class)
                    .predict_target(&features, target);
                learners.observe(
                    class,
                    Observation {
                        target,
                        features,
                        actual_ms: ms * slowness,
                        at: now,
                        predicted: Some(predicted),
                    },
                );
            }
        }
        while let Some(due) = learners.due(now) {
            learners.refit(due, || now);
        }
    }
    learners.models(now)
}

/// One endpoint per class, by any of the labels that name one.
fn pool(classes: &[(&str, &str)]) -> Arc<Pool> {
    let spec = |(number, (label, class)): (usize, &(&str, &str))| EndpointSpec {
        name: format!("e{number}"),
        address: format!("10.0.0.{}:8000", number + 1),
        labels: [((*label).to_owned(), (*class).to_owned())].into(),
    };
    let specs = classes.iter().enumerate().map(spec).collect();
    let pool = Arc::new(Pool::default().updated(specs));
    warm(&pool);
    pool
}

fn director(models: Models, pool: Arc<Pool>) -> Director {
    let mut director = Director::new(Config::headroom_default(), 1);
    director.set_models(Arc::new(models));
    director.set_pool(Duration::from_secs(20), pool);
    director
}

/// Predicted median TTFT by endpoint, for one request.
fn medians(director: &mut Director) -> Vec<(String, Option<f32>)> {
    director.submit(Duration::from_secs(20), request(0));
    let explanation = dispatched(director).decision.explain();
    let mut medians: Vec<_> = explanation
        .candidates
        .iter()
        .map(|one| (one.endpoint.to_string(), one.ttft_p50_ms))
        .collect();
    medians.sort_by(|a, b| a.0.cmp(&b.0));
    medians
}

const LABEL: &str = "headroom.dev/accelerator";

#[test]
fn each_candidate_is_predicted_with_its_own_class() {
    let pool = pool(&[
        (LABEL, "fast"),
        (LABEL, "slow"),
        ("llm-d.ai/accelerator", "fast"),
        ("inference.optimization/acceleratorName", "slow"),
    ]);
    let mut director = director(models(), pool);
    let medians = medians(&mut director);
    let ms = |at: usize| medians[at].1.unwrap();
    assert!((8.0..12.0).contains(&(ms(1) / ms(0))), "{medians:?}");
    assert_eq!((ms(0), ms(1)), (ms(2), ms(3)));
}

#[test]
fn requests_go_where_the_class_is_predicted_to_be_faster() {
    let pool = pool(&[(LABEL, "slow"), (LABEL, "fast")]);
    let mut director = director(models(), pool);
    for _ in 0..5 {
        director.submit(Duration::from_secs(20), with_slo(0, 100.0));
        let dispatch = dispatched(&mut director);
        assert_eq!(&*dispatch.endpoint.class, "fast");
        assert!(dispatch.decision.trusted && !dispatch.decision.expected_miss);
    }
}

#[test]
fn a_class_that_nobody_has_learned_is_not_trusted_to_refuse() {
    // The slow class alone cannot do it, and says so; next to an unknown one the request is let through.
    for (second, refused) in [("slow", true), ("new", false)] {
        let pool = pool(&[(LABEL, "slow"), (LABEL, second)]);
        let mut director = director(models(), pool);
        director.submit(Duration::from_secs(20), with_slo(-1, 30.0));
        if refused {
            support::refused(&mut director);
        } else {
            assert!(!dispatched(&mut director).decision.expected_miss);
        }
    }
}

#[test]
fn a_class_that_comes_later_is_found_when_its_model_does() {
    let mut director = director(
        Models::one(predictor::LatencyModel::prior()),
        pool(&[(LABEL, "slow")]),
    );
    let prior = medians(&mut director)[0].1.unwrap();
    director.set_models(Arc::new(models()));
    let learned = medians(&mut director)[0].1.unwrap();
    assert!(learned > 5.0 * prior, "{prior} {learned}");
}
