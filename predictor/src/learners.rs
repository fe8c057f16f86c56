//! The learners of all classes: one per class that shows up, up to [`MOST_CLASSES`].

use std::sync::Arc;
use std::time::Duration;

use crate::snapshot::{self, SnapshotError};
use crate::{Learner, LearnerConfig, MOST_CLASSES, Models, Observation, Report};

/// Learns each class by itself; pure, deterministic, bounded.
#[derive(Debug)]
pub struct Learners {
    config: LearnerConfig,
    names: Arc<[Arc<str>]>,
    learners: Vec<Learner>,
    /// The class that was refitted last: the others come first next time.
    refitted: usize,
}

/// What an explanation or a metric says of one class.
#[derive(Clone, Debug, PartialEq)]
pub struct ClassReport {
    /// The class; empty = endpoints whose labels name none.
    pub class: Arc<str>,
    /// How its models do.
    pub report: Arc<Report>,
}

impl Default for ClassReport {
    /// Nothing is known, of endpoints whose labels name no class.
    fn default() -> Self {
        let report = Learner::new(LearnerConfig::default()).report(Duration::ZERO);
        Self {
            class: Arc::from(""),
            report: Arc::new(report),
        }
    }
}

impl Learners {
    /// No class yet; `config` holds for each that comes.
    pub fn new(config: LearnerConfig) -> Self {
        Self {
            config,
            names: Arc::from([]),
            learners: Vec::new(),
            refitted: 0,
        }
    }

    /// The classes that have shown up, in the order in which they did.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// Notes that a request was dispatched to an endpoint of `class`.
    pub fn note_dispatch(&mut self, class: &str, now: Duration) {
        self.learner(class).note_dispatch(now);
    }

    /// Learns one label of an endpoint of `class`.
    pub fn observe(&mut self, class: &str, observation: Observation) {
        self.learner(class).observe(observation);
    }

    /// The next class that is due for a refit, in turn.
    pub fn due(&self, now: Duration) -> Option<usize> {
        let count = self.learners.len();
        (1..=count)
            .map(|step| (self.refitted + step) % count)
            .find(|&at| self.learners[at].due(now))
    }

    /// Refits the class at `due` (of [`Learners::due`]) and, once that is done, lets the refit come into force where
    /// it is not worse; `clock` is read before and after. Heavy. Whether anything came into force.
    pub fn refit(&mut self, due: usize, clock: impl Fn() -> Duration) -> bool {
        self.refitted = due;
        self.learners.get_mut(due).is_some_and(|learner| {
            let candidate = learner.fit(clock());
            learner.install(candidate, clock())
        })
    }

    /// The models in force at `now`; before any class showed up, that of nobody.
    pub fn models(&self, now: Duration) -> Models {
        if self.learners.is_empty() {
            return Models::one(crate::LatencyModel::prior());
        }
        let models = self.learners.iter().map(|learner| learner.model(now));
        Models::new(Arc::clone(&self.names), models.collect())
    }

    /// How each class does at `now`; before any showed up, [`ClassReport::default`]. `dropped` is
    /// the count of labels that were lost before they came here.
    pub fn reports(&self, now: Duration, dropped: u64) -> Vec<ClassReport> {
        let of = |class: &Arc<str>, learner: &Learner| ClassReport {
            class: Arc::clone(class),
            report: Arc::new(Report {
                dropped,
                ..learner.report(now)
            }),
        };
        if self.learners.is_empty() {
            return vec![ClassReport::default()];
        }
        let each = self.names.iter().zip(&self.learners);
        each.map(|(class, learner)| of(class, learner)).collect()
    }

    /// Everything that was learned, as bytes for [`Learners::restore`]. `unix_ms` is the wall time of `now`.
    ///
    /// # Errors
    /// [`SnapshotError::TooLarge`] with limits so wide that no reader would take the bytes.
    pub fn save(&self, now: Duration, unix_ms: u64) -> Result<Vec<u8>, SnapshotError> {
        let each = self.names.iter().zip(&self.learners);
        let classes = each.map(|(class, learner)| learner.saved(Arc::clone(class), now));
        snapshot::write(unix_ms, classes.collect())
    }

    /// The learners that `bytes` hold, as they were when saved, only older by the time since. `unix_ms` is the wall
    /// time of `now`, which may be on another clock than the one they were saved by.
    ///
    /// # Errors
    /// [`SnapshotError`]: the bytes are cut, changed, of another format or schema, or hold what no learner writes.
    pub fn restore(
        config: LearnerConfig,
        bytes: &[u8],
        now: Duration,
        unix_ms: u64,
    ) -> Result<Self, SnapshotError> {
        let (at_ms, classes) = snapshot::read(bytes)?;
        // A wall clock that was set back makes nothing younger.
        let elapsed = Duration::from_millis(unix_ms.saturating_sub(at_ms));
        let mut restored = Self::new(config);
        let names: Vec<Arc<str>> = classes
            .iter()
            .map(|saved| Arc::clone(&saved.class))
            .collect();
        for saved in classes {
            let class = saved.class.to_string();
            let learner = Learner::resumed(restored.config.clone(), saved, now, elapsed)
                .map_err(|flaw| SnapshotError::Flawed { class, flaw })?;
            restored.learners.push(learner);
        }
        restored.names = names.into();
        Ok(restored)
    }

    /// The learner of `class`, or of the class without a name once there are too many.
    fn learner(&mut self, class: &str) -> &mut Learner {
        let at = self.place(class);
        &mut self.learners[at]
    }

    fn place(&mut self, class: &str) -> usize {
        let find = |names: &[Arc<str>], class: &str| names.iter().position(|name| **name == *class);
        if let Some(at) = find(&self.names, class) {
            return at;
        }
        // One place is kept for the class without a name.
        let nameless = find(&self.names, "");
        let kept = usize::from(nameless.is_none() && !class.is_empty());
        if self.learners.len() + kept >= MOST_CLASSES && !class.is_empty() {
            return match nameless {
                Some(at) => at,
                None => self.add(""),
            };
        }
        self.add(class)
    }

    fn add(&mut self, class: &str) -> usize {
        let added = std::iter::once(Arc::from(class));
        self.names = self.names.iter().cloned().chain(added).collect();
        self.learners.push(Learner::new(self.config.clone()));
        self.learners.len() - 1
    }
}
