//! Quantile offsets that follow the labels one by one.
//!
//! Between refits, and where the forest's own quantiles are off, each quantile of ln(actual /
//! prediction) is followed by the pinball sub-gradient: up by `step · level` after a label above it,
//! down by `step · (1 - level)` after one below (Gibbs and Candès 2021, and Angelopoulos et al. 2023,
//! on the score itself). One offset holds for all requests, and a bounded correction for each regime;
//! a regime is a level of the analytic base, between which corrections are interpolated. The base is
//! monotone in the load and a correction falls by less than the base rises, so corrected predictions
//! keep the order of uncorrected ones.

use gbdt::LEVELS;

/// Regimes, from 1 ms up.
const REGIMES: usize = 18;
/// Distance between regimes in ln ms.
const SPACING: f32 = 0.7;
/// Largest correction of one regime; half the spacing keeps every slope above -1.
const MOST: f32 = SPACING / 2.0;
/// Labels beyond a quantile that its calibration is drawn back with.
const DRAWN: f32 = 5.0;

type Offsets = [f32; LEVELS.len()];

/// The offsets as of one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Tracker {
    common: Offsets,
    regimes: [Offsets; REGIMES],
}

impl Tracker {
    /// Spread of the labels around the prior: nothing is known, so it is wide.
    pub(crate) const PRIOR: Self = Self {
        common: [0.0, 0.7, 1.4],
        regimes: [[0.0; LEVELS.len()]; REGIMES],
    };

    /// Offsets of a model that brings its own quantiles.
    pub(crate) const NONE: Self = Self {
        common: [0.0; LEVELS.len()],
        regimes: [[0.0; LEVELS.len()]; REGIMES],
    };

    pub(crate) fn mix(&self, old: &Self, k50: f32, k90: f32) -> Self { let mut out=*self; for o in 0..3 { let k=if o==0 {k50} else {k90}; out.common[o]=self.common[o]*(1.0-k)+old.common[o]*k; for r in 0..REGIMES { out.regimes[r][o]=old.regimes[r][o]*k; } } out }
    /// The common offsets that cover the given labels (base in ln ms, errors against each raw
    /// quantile) as often as they should, drawn towards `self` the more, the fewer labels lie
    /// beyond the quantile.
    pub(crate) fn calibrated(&self, errors: &[(f32, Offsets)]) -> Self {
        let mut out = Self { regimes: [[0.0; LEVELS.len()]; REGIMES], ..*self };
        let count = errors.len() as f32;
        for (output, &level) in LEVELS.iter().enumerate() {
            let mut column: Vec<f32> = errors.iter().map(|(_, errors)| errors[output]).collect();
            let at = (count * level) as usize;
            if column.is_empty() {
                continue;
            }
            let at = at.min(column.len() - 1);
            let quantile = *column.select_nth_unstable_by(at, f32::total_cmp).1;
            let pseudo = DRAWN / (1.0 - level);
            let quantile = if knob("SPREAD",0.0)>0.5 && output>0 {quantile-out.common[0]} else {quantile};
            out.common[output] = (quantile * count + self.common[output] * pseudo) / (count + pseudo);
        }
        out
    }

    /// The offset of each quantile where the base predicts `ln_base` (ln ms).
    pub(crate) fn offsets(&self, ln_base: f32) -> Offsets {
        let (low, share) = regime(ln_base);
        let mut o: Offsets = std::array::from_fn(|level| {
            let (a, b) = (self.regimes[low][level], self.regimes[low + 1][level]);
            self.common[level] + a + (b - a) * share
        });
        if knob("SPREAD",0.0)>0.5 { o[1]+=o[0]; o[2]+=o[0]; }
        o
    }

    /// Moves the offsets after a label whose ln(actual / prediction) against each raw quantile was
    /// `errors`.
    pub(crate) fn follow(&mut self, ln_base: f32, errors: Offsets, step: f32, actual: f32, predicted: [f32;3]) {
        let offsets = self.offsets(ln_base);
        let (low, share) = regime(ln_base);
        for (output, &level) in LEVELS.iter().enumerate() {
            let above = if knob(if output==0 {"P50"} else {"P90"},0.0)>0.5 { actual > predicted[output] } else {errors[output] > offsets[output]};
            let c = if output==0 {knob("C50",1.0)} else {knob("C90",1.0)};
            let r = if output==0 {knob("R50",1.0)} else {knob("R90",1.0)};
            let moved = step * if above { level } else { level - 1.0 };
            self.common[output] += moved*c;
            let moved=moved*r;
            for (at, part) in [(low, 1.0 - share), (low + 1, share)] {
                let regime = &mut self.regimes[at][output];
                *regime = (*regime + moved * part).clamp(-MOST, MOST);
            }
        }
    }
}

/// The regime below `ln_base` and the share of the way to the next.
fn regime(ln_base: f32) -> (usize, f32) {
    let at = (ln_base / SPACING).clamp(0.0, (REGIMES - 1) as f32 - 1e-3);
    (at as usize, at.fract())
}

pub(crate) fn knob(name: &str, default: f32) -> f32 { std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(default) }
