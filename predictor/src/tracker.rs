//! Quantile offsets that follow the labels one by one.
//!
//! Between refits, and where the forest's own quantiles are off, each quantile of ln(actual /
//! prediction) is followed by the pinball sub-gradient: up by `step · level` after a label above it,
//! down by `step · (1 - level)` after one below (Gibbs and Candès 2021; Angelopoulos et al. 2023, on
//! the score itself).
//!
//! The median follows the error against the model in force, which is news whenever the label left:
//! measured against the prediction at dispatch, it would be corrected once for every label under
//! way, and swing. The upper quantiles follow whether the prediction *given* was exceeded, because
//! that sum is what coverage is: each miss is owed and paid back, whatever the delay, across refits.
//!
//! One offset holds for all requests, and a bounded correction for each regime; a regime is a level
//! of the analytic base, between which corrections are interpolated. The base is monotone in the
//! load and a correction falls by less than the base rises, so corrected predictions keep the order
//! of uncorrected ones.

use gbdt::LEVELS;
use serde::{Deserialize, Serialize};

use crate::Quantiles;
use crate::snapshot::Flaw;

/// Regimes, from 1 ms up.
pub(crate) const REGIMES: usize = 18;
/// Distance between regimes in ln ms; the last is at e^11.9 ms, some two minutes.
const SPACING: f32 = 0.7;
/// Largest correction of one regime; half the spacing keeps every slope above -1.
const MOST: f32 = SPACING / 2.0;
/// Largest offset common to all regimes: a factor of about 20.
const MOST_COMMON: f32 = 3.0;
/// Labels beyond a quantile that its calibration is drawn back with.
const DRAWN: f32 = 5.0;
/// The median's share of the step, common and per regime: it has half the labels on either side,
/// the upper quantiles only one in ten or a hundred.
const MEDIAN_SHARE: f32 = 0.25;
/// The upper quantiles' share of the step per regime; common, it is whole.
const REGIME_SHARE: f32 = 0.5;
/// What is left of the median's offsets after a refit, which has learnt from the same labels.
const KEPT: f32 = 0.5;

pub(crate) type Offsets = [f32; LEVELS.len()];

/// The offsets as of one instant.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Tracker {
    /// What the refit's held-out rows ask for.
    calibrated: Offsets,
    /// What the labels since ask for, in all regimes.
    common: Offsets,
    /// And in each.
    regimes: [Offsets; REGIMES],
}

impl Tracker {
    /// Offsets of a model without quantiles of its own, before anything is known: wide.
    pub(crate) const PRIOR: Self = Self::of([0.0, 0.7, 1.4]);

    /// Offsets of a model that brings its own quantiles.
    pub(crate) const NONE: Self = Self::of([0.0; LEVELS.len()]);

    const fn of(calibrated: Offsets) -> Self {
        Self {
            calibrated,
            common: [0.0; LEVELS.len()],
            regimes: [[0.0; LEVELS.len()]; REGIMES],
        }
    }

    /// What a tracker from outside has that no labels leave, if anything.
    pub(crate) fn flaw(&self) -> Option<Flaw> {
        let within = |field, most: f32, offsets: &[f32], right| {
            let odd = offsets
                .iter()
                .find(|offset| !(-most..=most).contains(*offset))?;
            Some(Flaw::new(field, f64::from(*odd), right))
        };
        // A calibration is an error in log latency; latencies span fewer orders of magnitude than floats do.
        within(
            "calibrated offset",
            200.0,
            &self.calibrated,
            "at most 200 either way",
        )
        .or_else(|| {
            within(
                "common offset",
                MOST_COMMON,
                &self.common,
                "at most 3 either way",
            )
        })
        .or_else(|| {
            let regimes = self.regimes.as_flattened();
            within("regime's offset", MOST, regimes, "at most 0.35 either way")
        })
    }

    /// The offset of each quantile where the base predicts `ln_base` (ln ms).
    pub(crate) fn offsets(&self, ln_base: f32) -> Offsets {
        let (low, share) = regime(ln_base);
        std::array::from_fn(|level| {
            let (a, b) = (self.regimes[low][level], self.regimes[low + 1][level]);
            self.calibrated[level] + self.common[level] + a + (b - a) * share
        })
    }

    /// Moves the offsets after a label: `error` is ln(actual / raw median) of the model in force at
    /// base `ln_base`, `predicted` what was given at dispatch.
    pub(crate) fn follow(
        &mut self,
        ln_base: f32,
        error: f32,
        predicted: &Quantiles,
        actual_ms: f32,
        step: f32,
    ) {
        let above = [
            error > self.offsets(ln_base)[0],
            actual_ms > predicted.p90,
            actual_ms > predicted.p99,
        ];
        let (low, share) = regime(ln_base);
        for (output, &level) in LEVELS.iter().enumerate() {
            let moved = step * if above[output] { level } else { level - 1.0 };
            let (common_share, regime_share) = if output == 0 {
                (MEDIAN_SHARE, MEDIAN_SHARE)
            } else {
                (1.0, REGIME_SHARE)
            };
            let common = &mut self.common[output];
            *common = (*common + moved * common_share).clamp(-MOST_COMMON, MOST_COMMON);
            for (at, part) in [(low, 1.0 - share), (low + 1, share)] {
                let regime = &mut self.regimes[at][output];
                *regime = (*regime + moved * regime_share * part).clamp(-MOST, MOST);
            }
        }
    }

    /// The tracker for a model whose raw quantiles left these errors on labels that it had not seen:
    /// offsets that cover them as often as they should, drawn towards `self` the more, the fewer
    /// labels lie beyond the quantile.
    pub(crate) fn calibrated(&self, errors: &[Offsets]) -> Self {
        let mut out = Self::of(self.calibrated);
        let count = errors.len() as f32;
        for (output, &level) in LEVELS.iter().enumerate() {
            let mut column: Vec<f32> = errors.iter().map(|errors| errors[output]).collect();
            let at = ((count * level) as usize).min(column.len().saturating_sub(1));
            if column.is_empty() {
                continue;
            }
            let quantile = *column.select_nth_unstable_by(at, f32::total_cmp).1;
            let pseudo = DRAWN / (1.0 - level);
            let offset = &mut out.calibrated[output];
            *offset = (quantile * count + *offset * pseudo) / (count + pseudo);
        }
        out
    }

    /// This calibration with what the labels before it taught: half of the median's offsets, since
    /// the refit has learnt from the same labels, and all that is owed on the upper quantiles.
    pub(crate) fn after(&self, old: &Self) -> Self {
        let mut out = *old;
        out.calibrated = self.calibrated;
        out.calibrated[0] = (self.calibrated[0] * (1.0 - KEPT)) + old.calibrated[0] * KEPT;
        out.common[0] *= KEPT;
        for regime in &mut out.regimes {
            regime[0] *= KEPT;
        }
        out
    }
}

/// The regime below `ln_base` and the share of the way to the next.
fn regime(ln_base: f32) -> (usize, f32) {
    let at = (ln_base / SPACING).clamp(0.0, (REGIMES - 1) as f32 - 1e-3);
    (at as usize, at.fract())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A reproducible uniform sequence in 0..1.
    fn uniform(seed: &mut u64) -> f32 {
        *seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (*seed >> 40) as f32 / (1_u64 << 24) as f32
    }

    fn given(tracker: &Tracker, ln_base: f32) -> Quantiles {
        let [p50, p90, p99] = tracker
            .offsets(ln_base)
            .map(|offset| (ln_base + offset).exp());
        Quantiles { p50, p90, p99 }
    }

    /// Share of labels at or below p90, by halves of the run, with labels `delay` requests late and
    /// a load (base and spread) that goes on rising.
    fn coverage(delay: usize) -> [f32; 2] {
        let mut tracker = Tracker::PRIOR;
        let (mut seed, mut under_way) = (7, std::collections::VecDeque::new());
        let mut covered = [0.0_f32; 2];
        const LABELS: usize = 4_000;
        for label in 0..LABELS {
            let load = label as f32 / LABELS as f32;
            let ln_base = 3.0 + 3.0 * load;
            let spread = 0.3 + 0.5 * load;
            let actual = (ln_base + spread * (uniform(&mut seed) * 2.0 - 0.7)).exp();
            let predicted = given(&tracker, ln_base);
            covered[label * 2 / LABELS] += f32::from(u8::from(actual <= predicted.p90));
            under_way.push_back((ln_base, actual, predicted));
            if under_way.len() > delay
                && let Some((ln_base, actual, predicted)) = under_way.pop_front()
            {
                tracker.follow(
                    ln_base,
                    (actual / ln_base.exp()).ln(),
                    &predicted,
                    actual,
                    0.04,
                );
            }
        }
        covered.map(|covered| covered / (LABELS / 2) as f32)
    }

    #[test]
    fn covers_nine_in_ten_while_load_and_spread_rise_and_labels_lag() {
        for delay in [0, 30] {
            for half in coverage(delay) {
                assert!((0.87..=0.93).contains(&half), "delay {delay}: {half}");
            }
        }
    }

    #[test]
    fn offsets_keep_the_order_of_the_base() {
        let mut tracker = Tracker::PRIOR;
        // Pull neighbouring regimes apart as far as they go.
        for label in 0..5_000 {
            let (ln_base, error) = if label % 2 == 0 {
                (3.5, 2.0)
            } else {
                (4.2, -2.0)
            };
            let predicted = given(&tracker, ln_base);
            tracker.follow(ln_base, error, &predicted, (ln_base + error).exp(), 0.04);
        }
        let values: Vec<[f32; 3]> = (0..1_500)
            .map(|at| at as f32 * 0.01 - 1.0)
            .map(|ln_base| tracker.offsets(ln_base).map(|offset| ln_base + offset))
            .collect();
        for level in 0..3 {
            assert!(
                values
                    .windows(2)
                    .all(|pair| pair[1][level] >= pair[0][level] - 1e-4)
            );
        }
        let spread = tracker.offsets(3.5)[0] - tracker.offsets(4.2)[0];
        assert!(spread > 0.3, "the regimes were not pulled apart: {spread}");
    }

    #[test]
    fn calibration_finds_the_quantiles_and_distrusts_few_labels() {
        let errors: Vec<Offsets> = (0..20_000).map(|at| [at as f32 / 20_000.0; 3]).collect();
        let offsets = Tracker::NONE.calibrated(&errors).offsets(4.0);
        for (offset, level) in offsets.iter().zip(LEVELS) {
            assert!((offset - level).abs() < 0.04, "{offset} {level}");
        }
        let few = Tracker::NONE.calibrated(&errors[19_995..]).offsets(4.0);
        assert!(few[2] < 0.05, "{few:?}");
        assert_eq!(Tracker::PRIOR.calibrated(&[]), Tracker::PRIOR);
    }

    #[test]
    fn a_refit_keeps_what_is_owed_on_the_upper_quantiles() {
        let mut old = Tracker::NONE;
        for _ in 0..20 {
            let predicted = given(&old, 4.0);
            old.follow(4.0, 3.0, &predicted, f32::MAX, 0.04);
        }
        let new = Tracker::NONE.after(&old);
        assert_eq!(new.offsets(4.0)[1], old.offsets(4.0)[1]);
        assert_eq!(new.offsets(4.0)[0], old.offsets(4.0)[0] / 2.0);
    }
}
