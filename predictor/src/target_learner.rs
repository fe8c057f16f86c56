//! The learner of one target.

use std::sync::Arc;
use std::time::Duration;

use crate::base::Base;
use crate::candidate::Challenger;
use crate::drift::Drift;
use crate::model::{Fitted, TargetModel};
use crate::recency::Recency;
use crate::scores::Scores;
use crate::snapshot::{Counts, Flaw, Moment, Saved, TargetBody};
use crate::store::{Row, Store};
use crate::support::Support;
use crate::tracker::Tracker;
use crate::{LearnerConfig, Observation, Quantiles, State, Target, TargetReport};

/// A forest whose error on the newest rows is up to this much above the base's still counts as no
/// worse: where the base is exact there is nothing left to beat, and the sample is small.
const TIE_SHARE: f32 = 1.05;
/// Likewise, in log latency: half a percent.
const TIE_ERROR: f32 = 0.005;

/// All that changes for one target.
#[derive(Debug)]
pub(crate) struct TargetLearner {
    target: Target,
    store: Store,
    fitted: Arc<Fitted>,
    tracker: Tracker,
    scores: Scores,
    drift: Drift,
    recency: Recency,
    labels: u64,
    rejected: u64,
    refits: u64,
    refused: u64,
    alarms: u64,
    /// Whether the forest in force was no worse than its base on the newest fifth.
    beats_base: bool,
    /// Since the drift alarm, until a refit on enough newer rows is in force.
    alarmed: bool,
    /// Labels when the base was last fitted by itself.
    base_labels: u64,
    /// Label count and time of the last refit.
    last_fit: Option<(u64, Duration)>,
    /// When the model in force was installed.
    in_force_since: Option<Duration>,
    last_label: Option<Duration>,
    /// First dispatch since the last label.
    unanswered_since: Option<Duration>,
}

impl TargetLearner {
    pub(crate) fn new(target: Target, config: &LearnerConfig) -> Self {
        Self {
            target,
            store: Store::new(config.store_capacity, config.half_life, config.max_age),
            fitted: Arc::new(Fitted::prior(target)),
            tracker: Tracker::PRIOR,
            scores: Scores::new(config.score_window),
            drift: Drift::new(config.drift.clone()),
            recency: Recency::new(config.half_life),
            labels: 0,
            rejected: 0,
            refits: 0,
            refused: 0,
            alarms: 0,
            beats_base: false,
            alarmed: false,
            base_labels: 0,
            last_fit: None,
            in_force_since: None,
            last_label: None,
            unanswered_since: None,
        }
    }

    pub(crate) fn note_dispatch(&mut self, now: Duration) {
        // A dispatch that is noted late must not open a wait that its label has already ended.
        if self.last_label.is_none_or(|at| now > at) {
            self.unanswered_since.get_or_insert(now);
        }
    }

    pub(crate) fn observe(&mut self, observation: &Observation, config: &LearnerConfig) {
        let Observation {
            features,
            actual_ms,
            at,
            predicted,
            ..
        } = *observation;
        if !(actual_ms.is_finite() && actual_ms > 0.0) {
            self.rejected += 1;
            return;
        }
        self.unanswered_since = None;
        self.last_label = Some(at);
        let predicted =
            predicted.unwrap_or_else(|| self.model_at(at, config).predict_one(&features));
        self.scores.add(&predicted, actual_ms);
        if self.labels >= config.prior_labels {
            self.follow(observation, &predicted, config);
        }
        self.store.push(Row {
            features,
            actual_ms,
            at,
            number: self.labels,
        });
        self.labels += 1;
        self.recency.add(at);
        self.refit_base(at, config);
    }

    /// Trackers and drift alarm.
    fn follow(&mut self, observation: &Observation, predicted: &Quantiles, config: &LearnerConfig) {
        let raw = self.fitted.raw_one(&observation.features);
        let error = observation.actual_ms.ln() - raw.levels[0];
        let known = !self.fitted.support.is_left_by(&observation.features);
        self.tracker.follow(
            raw.base,
            error,
            predicted,
            observation.actual_ms,
            config.tracker_step,
        );
        if known && let Some(since) = self.drift.add(error, observation.at) {
            self.alarms += 1;
            self.alarmed = true;
            self.beats_base = false;
            self.store.forget_before(since);
            self.last_fit = None;
        }
    }

    /// While no forest is in force, the base follows the labels by itself: at the first ten, then
    /// whenever they have grown by the refit share, which is constant time per label on average.
    fn refit_base(&mut self, now: Duration, config: &LearnerConfig) {
        let grown = self.base_labels as f64 * (1.0 + f64::from(config.min_new_rows));
        if self.fitted.forest.is_some()
            || self.labels < config.prior_labels
            || (self.labels as f64) < grown
        {
            return;
        }
        self.base_labels = self.labels;
        let rows = self.store.weighted(now);
        let mut support = Support::default();
        for (row, _) in &rows {
            support.include(&row.features);
        }
        self.fitted = Arc::new(Fitted {
            target: self.target,
            base: Base::fit(self.target, &rows),
            forest: None,
            support,
        });
        let rows: Vec<Row> = rows.into_iter().map(|(row, _)| row).collect();
        self.tracker = calibrated(&self.fitted, &rows);
    }

    pub(crate) fn due(&self, now: Duration, config: &LearnerConfig) -> bool {
        if self.labels < config.prior_labels || (self.store.len() as u64) < config.prior_labels {
            return false;
        }
        self.last_fit.is_none_or(|(labels, at)| {
            let new = (self.labels - labels) as f32;
            new >= config.min_new_rows * (self.store.len() as f32 - new).max(1.0)
                && now.saturating_sub(at) >= config.min_refit_interval
        })
    }

    pub(crate) fn fit(&mut self, now: Duration, config: &LearnerConfig) -> Challenger {
        self.last_fit = Some((self.labels, now));
        let params = gbdt::Params {
            seed: config.seed,
            ..config.forest.clone()
        };
        Challenger::fit(self.target, self.store.weighted(now), &params)
    }

    /// Champion against challenger on the rows that the challenger has not seen.
    pub(crate) fn install(
        &mut self,
        challenger: Challenger,
        now: Duration,
        config: &LearnerConfig,
    ) -> bool {
        let Challenger {
            mut fitted,
            held_out,
            rows,
        } = challenger;
        let error =
            |model: &Fitted| mean_error(&held_out, |row| model.raw_one(&row.features).levels[0]);
        let base_error = mean_error(&held_out, |row| fitted.base.ln_ms(&row.features));
        let mut challenger_error = error(&fitted);
        let beats_base =
            fitted.forest.is_some() && challenger_error <= base_error * TIE_SHARE + TIE_ERROR;
        if !beats_base {
            fitted.forest = None;
            challenger_error = base_error;
        }
        let champion_error = error(&self.fitted);
        if !self.alarmed && challenger_error > champion_error * (1.0 + config.challenger_tolerance)
        {
            self.refused += 1;
            return false;
        }
        let calibrated = calibrated(&fitted, &held_out);
        self.tracker = if self.fitted.forest.is_some() {
            calibrated.after(&self.tracker)
        } else {
            calibrated
        };
        self.beats_base = beats_base;
        self.fitted = Arc::new(fitted);
        self.base_labels = self.labels;
        // Rows from before an alarm are gone; few rows since are no model to trust.
        self.alarmed &= (rows as u64) < config.trained_labels;
        self.in_force_since = Some(now);
        self.refits += 1;
        true
    }

    /// Since when requests have had no answer, if that is too long.
    fn silent_since(&self, now: Duration, config: &LearnerConfig) -> Option<Duration> {
        self.unanswered_since
            .filter(|since| now.saturating_sub(*since) >= config.stale_after)
    }

    fn state(&self, now: Duration, config: &LearnerConfig) -> State {
        let silent = self.silent_since(now, config).is_some();
        if self.labels < config.prior_labels {
            State::Prior
        } else if self.alarmed || silent {
            State::Stale
        } else if self.labels >= config.trained_labels && self.beats_base {
            State::Trained
        } else {
            State::Warming
        }
    }

    pub(crate) fn model_at(&self, now: Duration, config: &LearnerConfig) -> TargetModel {
        TargetModel {
            fitted: Arc::clone(&self.fitted),
            tracker: self.tracker,
            state: self.state(now, config),
        }
    }

    /// When the newest refit came into force.
    pub(crate) fn in_force_since(&self) -> Option<Duration> {
        self.in_force_since
    }

    /// All of it at `moment`, for [`TargetLearner::resumed`].
    pub(crate) fn saved(&self, moment: Moment, config: &LearnerConfig) -> Saved {
        let age = |at: Option<Duration>| at.map(|at| moment.age(at));
        Saved {
            model: TargetBody::of(&self.model_at(moment.now, config)),
            rows: self
                .store
                .rows()
                .iter()
                .map(|row| moment.saved_row(row))
                .collect(),
            scores: self.scores.window().collect(),
            drift: self.drift.sides.map(|side| moment.saved_side(&side)),
            counts: Counts {
                labels: self.labels,
                rejected: self.rejected,
                refits: self.refits,
                refused: self.refused,
                alarms: self.alarms,
                base_labels: self.base_labels,
            },
            beats_base: self.beats_base,
            alarmed: self.alarmed,
            last_fit: self.last_fit.map(|(labels, at)| (labels, moment.age(at))),
            in_force: age(self.in_force_since),
            last_label: age(self.last_label),
            silent: age(self.silent_since(moment.now, config)),
            fresh_labels: self.recency.weighted(moment.now),
        }
    }

    /// The learner that was saved, its times on the clock of `moment`. Checked: [`Saved::flaw`].
    pub(crate) fn resumed(
        target: Target,
        saved: Saved,
        moment: Moment,
        config: &LearnerConfig,
    ) -> Result<Self, Flaw> {
        let mut learner = Self::new(target, config);
        for row in &saved.rows {
            learner.store.push(moment.row(row));
        }
        for score in saved.scores {
            learner.scores.push(score);
        }
        learner.drift.sides = saved.drift.map(|side| moment.side(side));
        let written = moment.now.saturating_sub(moment.elapsed);
        learner.recency.resume(saved.fresh_labels, written);
        let model = saved.model.into_model(target)?;
        let counts = saved.counts;
        let time = |age| moment.time(age);
        Ok(Self {
            fitted: model.fitted,
            tracker: model.tracker,
            labels: counts.labels,
            rejected: counts.rejected,
            refits: counts.refits,
            refused: counts.refused,
            alarms: counts.alarms,
            base_labels: counts.base_labels,
            beats_base: saved.beats_base,
            alarmed: saved.alarmed,
            last_fit: saved.last_fit.map(|(labels, at)| (labels, time(at))),
            in_force_since: saved.in_force.map(time),
            last_label: saved.last_label.map(time),
            unanswered_since: saved.silent.map(time),
            ..learner
        })
    }

    pub(crate) fn report(&self, now: Duration, config: &LearnerConfig) -> TargetReport {
        let summary = self.scores.summary();
        TargetReport {
            state: self.state(now, config),
            labels: self.labels,
            labels_last_minute: self.recency.last_minute(now),
            fresh_labels: self.recency.weighted(now),
            rejected: self.rejected,
            rows: self.store.len(),
            refits: self.refits,
            refused: self.refused,
            alarms: self.alarms,
            in_force_since: self.in_force_since,
            scored: summary.scored,
            mape: summary.mape,
            median_ape: summary.median_ape,
            log_bias: summary.log_bias,
            coverage_p90: summary.coverage_p90,
        }
    }
}

/// Mean absolute log error over rows; 0 without rows, so that nobody loses by them.
fn mean_error(rows: &[Row], predict: impl Fn(&Row) -> f32) -> f32 {
    let sum: f64 = rows
        .iter()
        .map(|row| f64::from((row.actual_ms.ln() - predict(row)).abs()))
        .sum();
    (sum / rows.len().max(1) as f64) as f32
}

/// A tracker that starts where the labels of `rows` say.
fn calibrated(fitted: &Fitted, rows: &[Row]) -> Tracker {
    let errors = rows.iter().map(|row| {
        let raw = fitted.raw_one(&row.features);
        raw.levels.map(|level| row.actual_ms.ln() - level)
    });
    let spread = if fitted.forest.is_some() {
        Tracker::NONE
    } else {
        Tracker::PRIOR
    };
    spread.calibrated(&errors.collect::<Vec<_>>())
}
