//! Models and learners as bytes: what comes back is what went in, and nothing else gets through.
#![expect(clippy::unwrap_used, reason = "in a test, to unwrap is to assert")]

use std::sync::LazyLock;
use std::time::Duration;

use predictor::snapshot::{ModelSet, SnapshotError, decode, encode};
use predictor::{
    Features, LatencyModel, LearnerConfig, Learners, Observation, Prediction, State, Target,
};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

/// Wall time at which the files below are written, unix ms.
const WRITTEN: u64 = 1_700_000_000_000;

fn request(random: &mut StdRng) -> Features {
    let running = random.random_range(0..40_u32) as f32;
    let waiting = random.random_range(0..6_u32) as f32;
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

fn label(random: &mut StdRng, target: Target, slowness: f32, at: Duration) -> Observation {
    let features = request(random);
    let ahead = features.uncached_tokens() + features.waiting_tokens;
    let expected = match target {
        Target::Ttft => 15.0 + 0.06 * ahead * (1.0 + 0.02 * features.running),
        Target::Tpot => 12.0 + 0.2 * features.running + 1e-4 * features.resident_tokens,
    };
    Observation {
        target,
        features,
        actual_ms: slowness * expected * random.random_range(0.85..1.15_f32),
        at,
        predicted: None,
    }
}

/// Two classes taught for `labels` labels of each target, 20 a second, on a clock that begins at `from`.
fn teach(learners: &mut Learners, random: &mut StdRng, from: Duration, labels: u32) -> Duration {
    let mut now = from;
    for _ in 0..labels {
        now += Duration::from_millis(50);
        for (class, slowness) in [("", 1.0), ("L4", 3.0)] {
            learners.note_dispatch(class, now);
            for target in Target::ALL {
                let label = label(random, target, slowness, now);
                let predicted = learners
                    .models(now)
                    .of(class)
                    .predict_target(&label.features, target);
                learners.observe(
                    class,
                    Observation {
                        predicted: Some(predicted),
                        ..label
                    },
                );
            }
        }
        while let Some(due) = learners.due(now) {
            learners.refit(due, || now);
        }
    }
    now
}

fn taught(labels: u32) -> (Learners, Duration) {
    let mut learners = Learners::new(LearnerConfig::default());
    let now = teach(
        &mut learners,
        &mut StdRng::seed_from_u64(3),
        Duration::ZERO,
        labels,
    );
    (learners, now)
}

/// One trained set, encoded, and the bytes of its learners.
static TRAINED: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let (learners, now) = taught(400);
    let set = ModelSet::of(&learners.models(now), &learners.reports(now, 0), WRITTEN);
    (encode(&set).unwrap(), learners.save(now, WRITTEN).unwrap())
});

fn bits(of: Prediction) -> [u32; 6] {
    [
        of.ttft.p50,
        of.ttft.p90,
        of.ttft.p99,
        of.tpot.p50,
        of.tpot.p90,
        of.tpot.p99,
    ]
    .map(f32::to_bits)
}

fn assert_same(one: &LatencyModel, other: &LatencyModel) {
    let mut random = StdRng::seed_from_u64(9);
    for _ in 0..500 {
        let row = request(&mut random);
        assert_eq!(
            bits(one.predict_one(&row)),
            bits(other.predict_one(&row)),
            "{row:?}"
        );
    }
    for target in Target::ALL {
        assert_eq!(one.state(target), other.state(target));
    }
    assert_eq!(one.version(), other.version());
}

#[test]
fn a_model_set_predicts_the_same_after_its_way_through_bytes() {
    let (learners, now) = taught(400);
    let set = ModelSet::of(&learners.models(now), &learners.reports(now, 0), WRITTEN);
    let bytes = encode(&set).unwrap();
    assert_eq!(
        bytes,
        encode(&set).unwrap(),
        "the same bytes from the same models"
    );
    let read = decode(&bytes).unwrap();
    assert_eq!(read.classes.len(), 2);
    for (one, other) in set.classes.iter().zip(&read.classes) {
        assert_eq!((&one.class, one.labels), (&other.class, other.labels));
        assert_eq!(
            (one.fitted_at_ms, one.fresh_labels),
            (other.fitted_at_ms, other.fresh_labels)
        );
        assert_eq!(one.checksum(), other.checksum());
        assert_same(&one.model, &other.model);
        assert!(one.model.trusted());
        assert!(
            other.model.memory() <= 200 << 10,
            "{}",
            other.model.memory()
        );
    }
    assert_ne!(read.classes[0].checksum(), read.classes[1].checksum());
    let age = WRITTEN - read.classes[0].fitted_at_ms;
    assert!(age < 20_000, "{age} ms before the last label");
}

#[test]
fn a_restored_learner_is_what_it_was_and_goes_on_as_if_nothing_had_been() {
    let (mut first, now) = taught(400);
    let bytes = first.save(now, WRITTEN).unwrap();
    assert_eq!(bytes, first.save(now, WRITTEN).unwrap());
    // Another clock: that of a process that began a moment ago.
    let began = Duration::from_millis(70);
    let mut second = Learners::restore(LearnerConfig::default(), &bytes, began, WRITTEN).unwrap();
    assert_eq!(
        second.save(began, WRITTEN).unwrap(),
        bytes,
        "saved again, the same"
    );
    let reports = |learners: &Learners, now| learners.reports(now, 0);
    for (one, other) in reports(&first, now).iter().zip(reports(&second, began)) {
        let (one, other) = (&one.report.ttft, &other.report.ttft);
        assert_eq!(one.state, State::Trained);
        assert_eq!(
            (one.labels, one.rows, one.refits),
            (other.labels, other.rows, other.refits)
        );
        assert_eq!(
            (one.mape, one.coverage_p90),
            (other.mape, other.coverage_p90)
        );
        assert!((one.fresh_labels - other.fresh_labels).abs() < 1e-6);
    }
    let compare = |first: &Learners, now, second: &Learners, began| {
        for class in ["", "L4"] {
            assert_same(first.models(now).of(class), second.models(began).of(class));
        }
    };
    compare(&first, now, &second, began);
    // The same labels make the same model of both, refits included.
    let refits = first.reports(now, 0)[0].report.ttft.refits;
    let then = teach(&mut first, &mut StdRng::seed_from_u64(8), now, 150);
    let also = teach(&mut second, &mut StdRng::seed_from_u64(8), began, 150);
    assert!(first.reports(then, 0)[0].report.ttft.refits > refits);
    compare(&first, then, &second, also);
}

#[test]
fn what_was_learned_ages_while_nobody_runs() {
    let (first, now) = taught(400);
    let bytes = first.save(now, WRITTEN).unwrap();
    let after = |elapsed: Duration| {
        let unix_ms = WRITTEN + elapsed.as_millis() as u64;
        Learners::restore(LearnerConfig::default(), &bytes, Duration::ZERO, unix_ms).unwrap()
    };
    let fresh = |learners: &Learners| {
        learners.reports(Duration::ZERO, 0)[0]
            .report
            .ttft
            .fresh_labels
    };
    let half = fresh(&after(Duration::from_secs(600))) / fresh(&after(Duration::ZERO));
    assert!((half - 0.5).abs() < 1e-6, "{half}");
    // Rows past their age are gone at the next refit; the model stands until there is a better one.
    let mut late = after(Duration::from_secs(86_400));
    assert!(late.models(Duration::ZERO).of("").trusted());
    let end = teach(&mut late, &mut StdRng::seed_from_u64(8), Duration::ZERO, 60);
    let rows = late.reports(end, 0)[0].report.ttft.rows;
    assert!(rows <= 60, "{rows}");
    // A wall clock that was set back makes nothing younger, nor fails.
    let earlier = Learners::restore(LearnerConfig::default(), &bytes, Duration::ZERO, 0).unwrap();
    assert_eq!(fresh(&earlier), fresh(&after(Duration::ZERO)));
}

#[test]
fn requests_under_way_at_the_end_do_not_make_a_restart_stale_but_silence_does() {
    let (mut learners, now) = taught(400);
    let restored = |learners: &Learners, now| {
        let bytes = learners.save(now, WRITTEN).unwrap();
        Learners::restore(
            LearnerConfig::default(),
            &bytes,
            Duration::ZERO,
            WRITTEN + 120_000,
        )
        .unwrap()
    };
    let state = |learners: &Learners, now| learners.models(now).of("").state(Target::Ttft);
    let second = Duration::from_secs(1);
    learners.note_dispatch("", now + second);
    let restart = restored(&learners, now + 2 * second);
    assert_eq!(state(&restart, Duration::ZERO), State::Trained);
    assert_eq!(
        state(&restart, 600 * second),
        State::Trained,
        "nobody asks it anything"
    );
    let silent = now + 90 * second;
    assert_eq!(state(&learners, silent), State::Stale);
    assert_eq!(
        state(&restored(&learners, silent), Duration::ZERO),
        State::Stale
    );
}

#[test]
fn a_full_store_stays_within_the_bounds() {
    let mut learners = Learners::new(LearnerConfig::default());
    let mut random = StdRng::seed_from_u64(4);
    let mut now = Duration::ZERO;
    for _ in 0..25_000 {
        now += Duration::from_millis(20);
        for target in Target::ALL {
            learners.observe("H100", label(&mut random, target, 1.0, now));
        }
    }
    let due = learners.due(now).unwrap();
    assert!(learners.refit(due, || now));
    let rows = learners.reports(now, 0)[0].report.ttft.rows;
    let learner = learners.save(now, WRITTEN).unwrap().len();
    let model = learners.models(now);
    let set = ModelSet::of(&model, &learners.reports(now, 0), WRITTEN);
    let (served, memory) = (encode(&set).unwrap().len(), model.of("H100").memory());
    eprintln!(
        "{rows} rows a target: learner {learner} B, served model {served} B, in memory {memory} B"
    );
    assert_eq!(rows, 20_000);
    assert!(learner <= 4 << 20, "{learner}");
    assert!(served <= 300_000 && memory <= 300_000, "{served} {memory}");
}

#[test]
fn another_format_schema_kind_or_length_is_named() {
    let (model, learner) = &*TRAINED;
    let newer = |bytes: &[u8]| {
        let mut bytes = bytes.to_vec();
        bytes[8] += 1;
        bytes
    };
    let format = decode(&newer(model)).unwrap_err();
    assert_eq!(format, SnapshotError::Format { found: 2, known: 1 });
    assert!(
        format.to_string().contains("release that wrote it"),
        "{format}"
    );
    assert_eq!(decode(learner).unwrap_err(), SnapshotError::NotASnapshot);
    assert_eq!(
        decode(b"").unwrap_err(),
        SnapshotError::Truncated {
            bytes: 0,
            whole: 54
        }
    );
    let mut longer = model.clone();
    longer.push(0);
    assert!(matches!(
        decode(&longer),
        Err(SnapshotError::Truncated { .. })
    ));
    let mut huge = model.clone();
    huge[18..22].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(decode(&huge), Err(SnapshotError::TooLarge { .. })));
}

fn restore(bytes: &[u8]) -> Result<Learners, SnapshotError> {
    Learners::restore(LearnerConfig::default(), bytes, Duration::ZERO, WRITTEN)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_single_bit_that_flips_is_noticed(at in any::<prop::sample::Index>(), bit in 0..8) {
        let (model, learner) = &*TRAINED;
        let flipped = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1_u8 << bit;
            bytes
        };
        prop_assert!(decode(&flipped(model)).is_err());
        prop_assert!(restore(&flipped(learner)).is_err());
    }

    #[test]
    fn any_cut_is_noticed(at in any::<prop::sample::Index>()) {
        let (model, learner) = &*TRAINED;
        prop_assert!(decode(&model[..at.index(model.len())]).is_err());
        prop_assert!(restore(&learner[..at.index(learner.len())]).is_err());
    }

    #[test]
    fn random_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..2_000)) {
        prop_assert!(decode(&bytes).is_err());
        prop_assert!(restore(&bytes).is_err());
    }
}
