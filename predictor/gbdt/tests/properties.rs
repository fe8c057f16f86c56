//! What every forest promises, on generated data.

#![allow(clippy::unwrap_used)]

use gbdt::{Dataset, Forest, LEVELS, Monotone, Params};
use proptest::prelude::*;

/// A reproducible uniform sequence in 0..1.
struct Uniform(u64);

impl Uniform {
    fn next(&mut self) -> f32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1_u64 << 24) as f32
    }
}

const DIRECTIONS: [Monotone; 3] = [Monotone::Increasing, Monotone::Decreasing, Monotone::Free];

#[derive(Default)]
struct Rows {
    features: Vec<f32>,
    targets: Vec<f32>,
    weights: Vec<f32>,
}

impl Rows {
    fn push(&mut self, features: [f32; 3], target: f32, weight: f32) {
        self.features.extend(features);
        self.targets.push(target);
        self.weights.push(weight);
    }

    fn dataset(&self) -> Dataset<'_> {
        Dataset {
            features: 3,
            rows: &self.features,
            targets: &self.targets,
            weights: &self.weights,
        }
    }

    fn fit(&self, params: &Params) -> Forest {
        Forest::fit(params, &DIRECTIONS, &self.dataset()).unwrap()
    }
}

/// A target that partly goes against the declared directions, with noise and missing values.
fn rows(count: usize, seed: u64, missing: f32) -> Rows {
    let mut uniform = Uniform(seed);
    let mut rows = Rows::default();
    for _ in 0..count {
        let x: [f32; 3] = std::array::from_fn(|_| uniform.next());
        let wave = (x[0] * 9.0).sin() + (x[1] * 7.0).cos() - x[1] + x[0];
        let noise = (uniform.next() - 0.3) * (0.2 + x[2]);
        let weight = 0.1 + uniform.next();
        let shown = x.map(|value| {
            if uniform.next() < missing {
                f32::NAN
            } else {
                value
            }
        });
        rows.push(shown, wave + x[2] * x[0] + noise, weight);
    }
    rows
}

fn small() -> Params {
    Params {
        trees: 30,
        min_leaf_weight: 3.0,
        ..Params::default()
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn monotone_where_declared_and_ordered_everywhere(
        seed in any::<u64>(),
        count in 5_usize..600,
        missing in prop_oneof![Just(0.0_f32), Just(0.2)],
        probes in prop::collection::vec((prop::array::uniform3(-0.2_f32..1.2), 0.0_f32..1.0), 200),
    ) {
        let forest = rows(count, seed, missing).fit(&small());
        for (mut row, rise) in probes {
            let before = forest.predict_one(&row);
            prop_assert!(before[0] <= before[1] && before[1] <= before[2], "{before:?}");
            row[0] += rise;
            let raised = forest.predict_one(&row);
            row[1] -= rise;
            let lowered = forest.predict_one(&row);
            for level in 0..LEVELS.len() {
                prop_assert!(raised[level] >= before[level]);
                prop_assert!(lowered[level] >= raised[level]);
            }
            // A missing value elsewhere changes neither promise.
            row[2] = f32::NAN;
            let unknown = forest.predict_one(&row);
            row[0] += rise;
            let raised = forest.predict_one(&row);
            prop_assert!((0..LEVELS.len()).all(|level| raised[level] >= unknown[level]));
        }
    }

    #[test]
    fn many_rows_get_what_each_gets_alone(seed in any::<u64>(), count in 1_usize..120) {
        let forest = rows(200, seed, 0.1).fit(&small());
        let probes = rows(count, seed ^ 1, 0.1).features;
        let mut out = vec![[0.0; 3]; count];
        forest.predict(&probes, &mut out);
        for (row, predicted) in probes.chunks_exact(3).zip(&out) {
            prop_assert_eq!(forest.predict_one(row), *predicted);
        }
    }
}

#[test]
fn the_constraints_bind_on_this_data() {
    // Without them the property above would fail, so it does test something.
    let free = [Monotone::Free; 3];
    let forest = Forest::fit(&small(), &free, &rows(600, 5, 0.0).dataset()).unwrap();
    let at = |x: f32| forest.predict_one(&[x, 0.5, 0.5])[0];
    assert!((0..20).any(|step| at(step as f32 / 20.0) > at((step + 1) as f32 / 20.0)));
}

#[test]
fn the_same_rows_give_the_same_bytes() {
    let params = Params {
        subsample: 0.7,
        ..small()
    };
    let data = rows(500, 3, 0.1);
    let bytes = |forest: &Forest| serde_json::to_vec(forest).unwrap();
    let first = data.fit(&params);
    assert_eq!(bytes(&first), bytes(&data.fit(&params)));
    let reseeded = data.fit(&Params { seed: 9, ..params });
    assert_ne!(bytes(&first), bytes(&reseeded));
    let read: Forest = serde_json::from_slice(&bytes(&first)).unwrap();
    assert_eq!(read, first);
}

#[test]
fn learns_the_quantiles_of_noise_whose_width_varies() {
    let mut uniform = Uniform(11);
    let draw = |uniform: &mut Uniform| {
        let x: [f32; 3] = std::array::from_fn(|_| uniform.next());
        (x, x[0] * 2.0 - x[1] + uniform.next() * (0.1 + x[2]))
    };
    let mut data = Rows::default();
    for _ in 0..6_000 {
        let (x, target) = draw(&mut uniform);
        data.push(x, target, 1.0);
    }
    let forest = data.fit(&Params::default());
    let (mut below, mut errors) = ([0.0; 3], 0.0);
    for _ in 0..4_000 {
        let (x, target) = draw(&mut uniform);
        let predicted = forest.predict_one(&x);
        for (below, predicted) in below.iter_mut().zip(predicted) {
            *below += f32::from(u8::from(target <= predicted)) / 4_000.0;
        }
        let median = x[0] * 2.0 - x[1] + 0.5 * (0.1 + x[2]);
        errors += (predicted[0] - median).abs() / 4_000.0;
    }
    // The median of the unconditional target is off by 0.6 on average.
    assert!(errors < 0.06, "{errors}");
    assert!((below[0] - 0.5).abs() < 0.03, "{below:?}");
    assert!((below[1] - 0.9).abs() < 0.03, "{below:?}");
    assert!(below[2] > 0.965, "{below:?}");
}

#[test]
fn missing_values_go_where_they_explain_most() {
    let mut data = Rows::default();
    for at in 0..600 {
        let x = at as f32 / 600.0;
        if at % 3 == 0 {
            // Missing behaves like the largest values, only more so.
            data.push([f32::NAN, 0.5, 0.5], 5.0, 1.0);
        } else {
            data.push([x, 0.5, 0.5], x, 1.0);
        }
    }
    let forest = data.fit(&small());
    let missing = forest.predict_one(&[f32::NAN, 0.5, 0.5])[0];
    let known = forest.predict_one(&[0.9, 0.5, 0.5])[0];
    assert!((missing - 5.0).abs() < 0.5, "{missing}");
    assert!((known - 0.9).abs() < 0.3, "{known}");
}

#[test]
fn weight_decides_between_contradicting_rows() {
    let median = |zero: f32, one: f32| {
        let mut data = Rows::default();
        for at in 0..400 {
            let (target, weight) = if at % 2 == 0 { (0.0, zero) } else { (1.0, one) };
            data.push([0.5, 0.5, (at / 2) as f32], target, weight);
        }
        data.fit(&small()).predict_one(&[0.5, 0.5, 100.0])[0]
    };
    assert!(median(9.0, 1.0) < 0.1);
    assert!(median(1.0, 9.0) > 0.9);
}

#[test]
fn input_that_cannot_be_learnt_from_is_named() {
    let data = rows(10, 1, 0.0);
    let text = |params: &Params, monotone: &[Monotone], data: Dataset<'_>| {
        Forest::fit(params, monotone, &data)
            .unwrap_err()
            .to_string()
    };
    let wrong = Params {
        bins: 500,
        ..Params::default()
    };
    assert_eq!(
        text(&wrong, &DIRECTIONS, data.dataset()),
        "bins is 500, it must be between 2 and 254"
    );
    assert_eq!(
        text(&small(), &DIRECTIONS[..2], data.dataset()),
        "monotone has 2 entries, it must have one for each of the 3 features"
    );
    let mut targets = data.targets.clone();
    targets[4] = f32::NAN;
    let broken = Dataset {
        targets: &targets,
        ..data.dataset()
    };
    assert!(text(&small(), &DIRECTIONS, broken).starts_with("target of row 4 is NaN"));
    let short = Dataset {
        targets: &targets[..3],
        ..data.dataset()
    };
    assert!(text(&small(), &DIRECTIONS, short).contains("do not fit together"));
}
