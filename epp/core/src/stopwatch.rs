//! How long the steps of a pick took, for requests of which somebody wants to know.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// Tells the time to the core, which has no clock of its own.
#[derive(Clone)]
pub struct Stopwatch(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Stopwatch {
    /// `now` is asked twice for each step of a sampled pick, and never for others.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }
}

impl fmt::Debug for Stopwatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stopwatch")
    }
}

/// What a step of a pick does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Asking the latency models about all candidates.
    Predict,
    /// A filter.
    Filter,
    /// A scorer.
    Score,
    /// The picker.
    Pick,
}

impl Work {
    /// llm-d's name of the extension point.
    pub fn extension_point(self) -> &'static str {
        match self {
            Self::Predict => "DataProducer",
            Self::Filter => "Filter",
            Self::Score => "Scorer",
            Self::Pick => "Picker",
        }
    }
}

/// One step of a pick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lap {
    /// What it was.
    pub work: Work,
    /// Name of the plugin.
    pub plugin: Arc<str>,
    /// When it began, on the stopwatch's clock.
    pub began: Duration,
    /// When it ended.
    pub ended: Duration,
}

/// The steps of one pick; while it does not run, it reads no clock and keeps nothing.
#[derive(Debug, Default)]
pub(crate) struct Laps {
    watch: Option<Stopwatch>,
    running: bool,
    laps: Vec<Lap>,
}

impl Laps {
    /// Lends a stopwatch.
    pub(crate) fn lend(&mut self, watch: Stopwatch) {
        self.watch = Some(watch);
    }

    /// Begins anew; runs if `wanted`, and if there is a stopwatch.
    pub(crate) fn begin(&mut self, wanted: bool) {
        self.running = wanted && self.watch.is_some();
        self.laps.clear();
    }

    /// When a step begins; `None` while it does not run.
    pub(crate) fn start(&self) -> Option<Duration> {
        let watch = self.watch.as_ref().filter(|_| self.running)?;
        Some(watch.0())
    }

    /// The step that began at `began` is done.
    pub(crate) fn lap(&mut self, work: Work, plugin: &Arc<str>, began: Option<Duration>) {
        if let (Some(began), Some(ended)) = (began, self.start()) {
            self.laps.push(Lap {
                work,
                plugin: Arc::clone(plugin),
                began,
                ended,
            });
        }
    }

    /// The steps so far.
    pub(crate) fn take(&mut self) -> Vec<Lap> {
        std::mem::take(&mut self.laps)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU64, Ordering};

    #[test]
    fn only_what_is_wanted_is_timed() {
        let asked = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&asked);
        let mut laps = Laps::default();
        let plugin: Arc<str> = "queue-scorer".into();
        laps.begin(true);
        assert_eq!(laps.start(), None, "without a stopwatch there is no time");
        laps.lend(Stopwatch::new(move || {
            Duration::from_secs(counted.fetch_add(1, Ordering::Relaxed))
        }));
        laps.begin(false);
        let began = laps.start();
        laps.lap(Work::Score, &plugin, began);
        assert_eq!(asked.load(Ordering::Relaxed), 0);
        laps.begin(true);
        let began = laps.start();
        laps.lap(Work::Score, &plugin, began);
        let lap = Lap {
            work: Work::Score,
            plugin,
            began: Duration::ZERO,
            ended: Duration::from_secs(1),
        };
        assert_eq!(laps.take(), [lap]);
    }
}
