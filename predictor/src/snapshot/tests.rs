//! What gets past the checksum: bytes whose frame is right and whose content is not.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::frame::Frame;
use super::*;
use crate::{
    ClassReport, Features, LatencyModel, LearnerConfig, Learners, Models, Observation, Target,
};

/// Writes and reads bodies of any kind, under the magic of a model set.
const ANY: Frame = Frame {
    magic: b"HDRMMODL",
    most: 1 << 20,
};

fn learners() -> Learners {
    let config = LearnerConfig {
        forest: gbdt::Params {
            trees: 2,
            max_depth: 2,
            min_leaf_weight: 1.0,
            ..gbdt::Params::default()
        },
        ..LearnerConfig::default()
    };
    let mut learners = Learners::new(config);
    for number in 0..120_u64 {
        for target in Target::ALL {
            let input_tokens = (number * 37 % 400) as f32;
            learners.observe(
                "",
                Observation {
                    target,
                    features: Features::idle(input_tokens),
                    actual_ms: 10.0 + input_tokens * input_tokens,
                    at: Duration::from_millis(number),
                    predicted: None,
                },
            );
        }
    }
    let now = Duration::from_secs(10);
    while let Some(due) = learners.due(now) {
        learners.refit(due, || now);
    }
    learners
}

fn set() -> ModelSet {
    let (learners, now) = (learners(), Duration::from_secs(10));
    ModelSet::of(&learners.models(now), &learners.reports(now, 0), 0)
}

/// The body of a snapshot, without its frame.
fn body(bytes: &[u8]) -> Vec<u8> {
    bytes[54..].to_vec()
}

/// `body` in a frame whose checksum is right.
fn framed(magic: &'static [u8; 8], body: &[u8]) -> Vec<u8> {
    /// Bytes that are written as they are.
    struct Plain<'a>(&'a [u8]);
    impl serde::Serialize for Plain<'_> {
        fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeTuple as _;
            let mut tuple = to.serialize_tuple(self.0.len())?;
            for byte in self.0 {
                tuple.serialize_element(byte)?;
            }
            tuple.end()
        }
    }
    let frame = Frame {
        magic,
        most: 1 << 26,
    };
    frame.write(&Plain(body)).unwrap()
}

#[test]
fn the_helper_frames_as_the_writer_does() {
    let bytes = encode(&set()).unwrap();
    assert_eq!(framed(b"HDRMMODL", &body(&bytes)), bytes);
}

#[test]
fn numbers_that_no_learner_writes_are_named() {
    let wrong = |change: fn(&mut ClassModel)| {
        let mut set = set();
        change(&mut set.classes[0]);
        decode(&encode(&set).unwrap()).unwrap_err().to_string()
    };
    let long = wrong(|class| class.class = Arc::from("x".repeat(64)));
    assert!(long.contains("at most 63 bytes"), "{long}");
    let fresh = wrong(|class| class.fresh_labels[1] = f64::NAN);
    assert!(fresh.contains("fresh labels is NaN"), "{fresh}");
    let mut twice = set();
    twice.classes.push(twice.classes[0].clone());
    let twice = decode(&encode(&twice).unwrap()).unwrap_err().to_string();
    assert!(twice.contains("there twice"), "{twice}");
    let crowd = ModelSet {
        classes: (0..9)
            .map(|at| ClassModel {
                class: Arc::from(at.to_string()),
                ..set().classes[0].clone()
            })
            .collect(),
    };
    let crowd = decode(&encode(&crowd).unwrap()).unwrap_err().to_string();
    assert!(crowd.contains("9 classes"), "{crowd}");
}

#[test]
fn targets_in_the_wrong_place_are_refused() {
    let set = set();
    let [ttft, tpot] = set.classes[0].model.targets().clone();
    let swapped = ModelSet {
        classes: vec![ClassModel {
            model: LatencyModel::new([tpot, ttft], 1),
            ..set.classes[0].clone()
        }],
    };
    let error = decode(&encode(&swapped).unwrap()).unwrap_err().to_string();
    assert!(error.contains("place of the base"), "{error}");
}

#[test]
fn a_body_that_goes_on_after_its_end_is_refused() {
    let bytes = ANY.write(&(Vec::<u8>::new(), 7_u8)).unwrap();
    let error = decode(&bytes).unwrap_err().to_string();
    assert!(error.contains("1 bytes are left over"), "{error}");
}

#[test]
fn a_set_too_large_for_any_reader_is_not_written() {
    let small = Frame {
        magic: b"HDRMMODL",
        most: 10,
    };
    let error = small.write(&[0_u8; 11]).unwrap_err();
    assert_eq!(
        error,
        SnapshotError::TooLarge {
            bytes: 11,
            most: 10
        }
    );
}

/// Predicts with everything that was read; reaching the end is the point.
fn use_all(models: &Models) {
    for (_, model) in models.iter() {
        for tokens in [0.0, 200.0, 1e9, f32::INFINITY, f32::NAN] {
            let row = Features {
                running: tokens,
                waiting_tokens: tokens,
                ..Features::idle(tokens)
            };
            let _ = model.predict_one(&row);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_body_with_changed_bytes_is_refused_or_harmless(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        head in prop::bool::ANY,
    ) {
        let change = |mut body: Vec<u8>| {
            // Half of the changes hit the counts at the beginning.
            let length = if head { body.len().min(700) } else { body.len() };
            for (at, byte) in &changes {
                let at = at.index(length);
                body[at] = *byte;
            }
            body
        };
        let learners = learners();
        let now = Duration::from_secs(10);
        let reports: Vec<ClassReport> = learners.reports(now, 0);
        let model = encode(&ModelSet::of(&learners.models(now), &reports, 0)).unwrap();
        if let Ok(set) = decode(&framed(b"HDRMMODL", &change(body(&model)))) {
            for class in set.classes {
                use_all(&Models::one(class.model));
            }
        }
        let saved = learners.save(now, 0).unwrap();
        let changed = framed(b"HDRMLRNR", &change(body(&saved)));
        if let Ok(mut learners) = Learners::restore(LearnerConfig::default(), &changed, now, u64::MAX) {
            use_all(&learners.models(now));
            learners.observe("", Observation {
                target: Target::Ttft,
                features: Features::idle(10.0),
                actual_ms: 5.0,
                at: now,
                predicted: None,
            });
            while let Some(due) = learners.due(now) {
                learners.refit(due, || now);
            }
            use_all(&learners.models(now));
            prop_assert!(learners.save(now, 0).is_ok());
        }
    }

    #[test]
    fn random_bodies_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let _ = decode(&framed(b"HDRMMODL", &bytes));
        let _ = Learners::restore(LearnerConfig::default(), &framed(b"HDRMLRNR", &bytes), Duration::ZERO, 0);
    }
}
