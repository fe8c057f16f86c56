//! The real-time shell: the learners of all classes on one thread with its own CPU budget.
//!
//! Labels go in through a bounded channel and models come out through a pointer swap, so neither a
//! refit nor a full channel ever holds up a request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;
use thiserror::Error;

use crate::snapshot::{ModelSet, SnapshotError};
use crate::{ClassReport, LatencyModel, Learners, MOST_CLASSES, Models, Observation, Report};

/// Labels that may wait for the thread: some seconds' worth during a refit.
const CHANNEL: usize = 16_384;
/// Labels learnt before the model is published again.
const BATCH: usize = 512;
/// Longest time between two looks at the clock; states age even without labels.
const TICK: Duration = Duration::from_millis(100);
/// Least time between two reports, whose medians cost a sort.
const REPORT_INTERVAL: Duration = Duration::from_millis(500);

type Clock = Box<dyn Fn() -> Duration + Send>;

/// Owns the training thread; dropping it stops and joins the thread.
#[derive(Debug)]
pub struct Trainer {
    shared: Arc<Shared>,
    sender: SyncSender<Message>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
enum Message {
    /// For the class in that slot.
    Label(usize, Box<Observation>),
    /// Asks for everything that was learned, at a wall time in unix milliseconds.
    Save(u64, SyncSender<Result<Vec<u8>, SnapshotError>>),
    /// Wakes the thread so that it sees `stopped`.
    Wake,
}

/// Why the learners could not be saved.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The thread has ended, or never began.
    #[error("the training thread is not running")]
    Stopped,
    /// They cannot be written.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
}

/// What both sides touch, none of it under a lock.
#[derive(Debug)]
struct Shared {
    models: ArcSwap<Models>,
    reports: ArcSwap<Vec<ClassReport>>,
    /// The one of them with the most labels.
    main: ArcSwap<ClassReport>,
    slots: Slots,
    /// Labels that found the channel full.
    dropped: AtomicU64,
    stopped: AtomicBool,
}

/// The classes that requests went to, in order of appearance; the first slot is the class without a name, which
/// takes in those that come too late for one of their own.
#[derive(Debug, Default)]
struct Slots {
    names: [OnceLock<Arc<str>>; MOST_CLASSES],
    /// Newest dispatch not yet noted by the learner: nanoseconds + 1, 0 = none.
    dispatched: [AtomicU64; MOST_CLASSES],
}

impl Slots {
    fn of(&self, class: &str) -> usize {
        if class.is_empty() {
            return 0;
        }
        let own = |name: &OnceLock<Arc<str>>| **name.get_or_init(|| Arc::from(class)) == *class;
        let named = self.names.iter().skip(1).position(own);
        named.map_or(0, |at| at + 1)
    }

    fn name(&self, slot: usize) -> &str {
        self.names
            .get(slot)
            .and_then(OnceLock::get)
            .map_or("", |name| name)
    }

    fn dispatched(&self, class: &str, now: Duration) {
        let stamp = now.as_nanos() as u64 + 1;
        self.dispatched[self.of(class)].fetch_max(stamp, Ordering::Relaxed);
    }

    /// Class and time of the dispatches since the last look.
    fn take(&self) -> impl Iterator<Item = (&str, Duration)> {
        self.dispatched
            .iter()
            .enumerate()
            .filter_map(|(slot, stamp)| {
                let nanoseconds = stamp.swap(0, Ordering::Relaxed).checked_sub(1)?;
                Some((self.name(slot), Duration::from_nanos(nanoseconds)))
            })
    }
}

impl Trainer {
    /// Starts the thread with what `learners` know. `cpu_share` is the share of one core (0 to 1) that refits of
    /// all classes together may take on average; `clock` gives the time since the epoch that observations use.
    pub fn spawn(learners: Learners, cpu_share: f32, clock: Clock) -> Self {
        let now = clock();
        let slots = Slots::default();
        for name in learners.names().iter() {
            slots.of(name);
        }
        let reports = learners.reports(now, 0);
        let shared = Arc::new(Shared {
            models: ArcSwap::from_pointee(learners.models(now)),
            main: ArcSwap::new(Arc::new(main(&reports).cloned().unwrap_or_default())),
            reports: ArcSwap::from_pointee(reports),
            slots,
            dropped: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let (sender, receiver) = sync_channel(CHANNEL);
        let mut worker = Worker {
            learners,
            shared: Arc::clone(&shared),
            receiver,
            clock,
            cpu_share: cpu_share.clamp(0.01, 1.0),
            next_refit: Duration::ZERO,
            next_report: Duration::ZERO,
        };
        let thread = thread::Builder::new()
            .name("predictor".to_owned())
            .spawn(move || worker.run())
            .inspect_err(|error| {
                tracing::error!(%error, "no training thread: predictions stay as they are");
            })
            .ok();
        Self {
            shared,
            sender,
            thread: Mutex::new(thread),
        }
    }

    /// Hands over one label of an endpoint of `class`; never blocks. When the channel is full the label is dropped
    /// and counted in [`Report::dropped`].
    pub fn observe(&self, class: &str, observation: Observation) {
        let message = Message::Label(self.shared.slots.of(class), Box::new(observation));
        if self.sender.try_send(message).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a request was dispatched to an endpoint of `class`; never blocks.
    pub fn note_dispatch(&self, class: &str, now: Duration) {
        self.shared.slots.dispatched(class, now);
    }

    /// The newest models of all classes.
    pub fn models(&self) -> Arc<Models> {
        self.shared.models.load_full()
    }

    /// The newest reports of all classes, at least one.
    pub fn reports(&self) -> Arc<Vec<ClassReport>> {
        self.shared.reports.load_full()
    }

    /// The newest model of the class with the most labels.
    pub fn model(&self) -> Arc<LatencyModel> {
        Arc::new(self.models().of(&self.shared.main.load().class).clone())
    }

    /// The newest report of the class with the most labels.
    pub fn report(&self) -> Arc<Report> {
        Arc::clone(&self.shared.main.load().report)
    }

    /// The models in force with what readers elsewhere want to know of them, at wall time `unix_ms`.
    pub fn model_set(&self, unix_ms: u64) -> ModelSet {
        ModelSet::of(&self.models(), &self.reports(), unix_ms)
    }

    /// Everything that was learned, for [`Learners::restore`]; waits for the thread, for a refit under way at most.
    /// `unix_ms` is the wall time.
    ///
    /// # Errors
    /// [`SaveError`]: the thread has ended, or the limits are so wide that no reader would take the bytes.
    pub fn save(&self, unix_ms: u64) -> Result<Vec<u8>, SaveError> {
        let (answer, saved) = sync_channel(1);
        let asked = self.sender.send(Message::Save(unix_ms, answer));
        asked.map_err(|_| SaveError::Stopped)?;
        Ok(saved.recv().map_err(|_| SaveError::Stopped)??)
    }

    /// Stops the thread and waits for it, for a refit under way at most; the last models stay
    /// readable.
    pub fn shutdown(&self) {
        self.shared.stopped.store(true, Ordering::Release);
        // A full channel wakes the thread as well.
        let _ = self.sender.try_send(Message::Wake);
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread
            && thread.join().is_err()
        {
            tracing::error!("the training thread panicked");
        }
    }
}

impl Drop for Trainer {
    fn drop(&mut self) {
        self.shutdown();
    }
}

/// The report of the class with the most labels; of equals the first.
fn main(reports: &[ClassReport]) -> Option<&ClassReport> {
    let labels = |of: &&ClassReport| of.report.ttft.labels + of.report.tpot.labels;
    reports.iter().rev().max_by_key(labels)
}

/// The thread's side.
struct Worker {
    learners: Learners,
    shared: Arc<Shared>,
    receiver: Receiver<Message>,
    clock: Clock,
    cpu_share: f32,
    next_refit: Duration,
    next_report: Duration,
}

impl Worker {
    fn run(&mut self) {
        while !self.shared.stopped.load(Ordering::Acquire) && self.learn() {
            for (class, at) in self.shared.slots.take() {
                self.learners.note_dispatch(class, at);
            }
            self.refit();
            self.publish();
        }
        // What was handed over before the stop still counts.
        self.learn_batch(usize::MAX);
        self.next_report = Duration::ZERO;
        self.publish();
    }

    /// Waits for labels and learns a batch; false when no more can come.
    fn learn(&mut self) -> bool {
        match self.receiver.recv_timeout(TICK) {
            Ok(message) => {
                self.take(message);
                self.learn_batch(BATCH);
                true
            }
            Err(RecvTimeoutError::Timeout) => true,
            Err(RecvTimeoutError::Disconnected) => false,
        }
    }

    /// Learns up to `most` of the labels that are already there.
    fn learn_batch(&mut self, most: usize) {
        for _ in 0..most {
            let Ok(message) = self.receiver.try_recv() else {
                break;
            };
            self.take(message);
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Label(slot, observation) => {
                let class = self.shared.slots.name(slot);
                self.learners.observe(class, *observation);
            }
            Message::Save(unix_ms, answer) => {
                // Who asked may have gone.
                let _ = answer.send(self.learners.save((self.clock)(), unix_ms));
            }
            Message::Wake => {}
        }
    }

    /// Refits the next class that is due, within the budget: a refit that took t is followed by a pause in
    /// which t is the thread's share.
    fn refit(&mut self) {
        let began = (self.clock)();
        if began < self.next_refit {
            return;
        }
        let Some(due) = self.learners.due(began) else {
            return;
        };
        let installed = self.learners.refit(due, &self.clock);
        let spent = (self.clock)().saturating_sub(began);
        self.next_refit = began + spent.div_f32(self.cpu_share);
        tracing::debug!(?spent, installed, "refit");
    }

    fn publish(&mut self) {
        let now = (self.clock)();
        self.shared
            .models
            .store(Arc::new(self.learners.models(now)));
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            let dropped = self.shared.dropped.load(Ordering::Relaxed);
            let reports = self.learners.reports(now, dropped);
            if let Some(main) = main(&reports) {
                self.shared.main.store(Arc::new(main.clone()));
            }
            self.shared.reports.store(Arc::new(reports));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Features, LearnerConfig, State, Target};

    fn trainer(learners: Learners) -> Trainer {
        Trainer::spawn(learners, 1.0, Box::new(|| Duration::from_secs(1)))
    }

    fn unlearned() -> Learners {
        Learners::new(LearnerConfig::default())
    }

    fn label(number: u64) -> Observation {
        let input_tokens = 50.0 + (number * 37 % 400) as f32;
        Observation {
            target: Target::Ttft,
            features: Features::idle(input_tokens),
            actual_ms: 10.0 + input_tokens * 0.2,
            at: Duration::from_millis(number),
            predicted: None,
        }
    }

    #[test]
    fn learns_what_it_is_given_and_stops() {
        let trainer = trainer(unlearned());
        assert_eq!(trainer.model().state(Target::Ttft), State::Prior);
        for number in 0..300 {
            trainer.note_dispatch("", Duration::from_millis(number));
            trainer.observe("", label(number));
        }
        trainer.shutdown();
        let report = trainer.report();
        assert_eq!((report.ttft.labels, report.dropped), (300, 0));
        let predicted = trainer.model().predict_one(&Features::idle(200.0)).ttft.p50;
        assert!((45.0..55.0).contains(&predicted), "{predicted}");
    }

    #[test]
    fn labels_that_nobody_takes_are_dropped_and_counted() {
        let trainer = trainer(unlearned());
        trainer.shutdown();
        trainer.observe("", label(1));
        assert_eq!(trainer.shared.dropped.load(Ordering::Relaxed), 1);
        trainer.shutdown();
    }

    /// Labels of a class whose replicas are `slowness` times as slow.
    fn teach(trainer: &Trainer, class: &str, slowness: f32) {
        for number in 0..300 {
            let label = label(number);
            let actual_ms = label.actual_ms * slowness;
            trainer.note_dispatch(class, label.at);
            trainer.observe(class, Observation { actual_ms, ..label });
        }
    }

    #[test]
    fn classes_learn_apart_and_a_file_carries_all_of_them_over() {
        let first = trainer(unlearned());
        teach(&first, "", 1.0);
        teach(&first, "L4", 3.0);
        let bytes = first.save(5_000).unwrap();
        first.shutdown();
        assert!(matches!(first.save(5_000), Err(SaveError::Stopped)));
        let now = Duration::from_secs(1);
        let learners = Learners::restore(LearnerConfig::default(), &bytes, now, 6_000).unwrap();
        let second = trainer(learners);
        let row = Features::idle(200.0);
        let median = |class| second.models().of(class).predict_one(&row).ttft.p50;
        let ratio = median("L4") / median("");
        assert!((2.5..3.5).contains(&ratio), "{ratio}");
        let set = second.model_set(6_000);
        let classes: Vec<_> = set
            .classes
            .iter()
            .map(|of| (&*of.class, of.labels))
            .collect();
        assert_eq!(classes, [("", [300, 0]), ("L4", [300, 0])]);
        assert_eq!(second.models().of("H100").state(Target::Ttft), State::Prior);
    }

    #[test]
    fn classes_past_the_limit_join_the_one_without_a_name() {
        let trainer = trainer(unlearned());
        for number in 0..20 {
            trainer.observe(&format!("c{number}"), label(number));
        }
        trainer.shutdown();
        let labels: Vec<_> = trainer
            .reports()
            .iter()
            .map(|of| (of.class.to_string(), of.report.ttft.labels))
            .collect();
        assert_eq!(labels.len(), MOST_CLASSES);
        assert_eq!(labels.last().unwrap(), &(String::new(), 13));
    }

    #[test]
    fn a_class_without_traffic_does_not_go_stale() {
        let time = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&time);
        let mut learners = unlearned();
        for number in 0..20 {
            learners.observe("busy", label(number));
            learners.observe("idle", label(number));
        }
        learners.note_dispatch("busy", Duration::from_secs(1));
        let trainer = Trainer::spawn(
            learners,
            1.0,
            Box::new(move || Duration::from_secs(clock.load(Ordering::Relaxed))),
        );
        time.store(100, Ordering::Relaxed);
        trainer.note_dispatch("busy", Duration::from_secs(100));
        trainer.shutdown();
        let state = |class| trainer.models().of(class).state(Target::Ttft);
        assert_eq!(
            (state("busy"), state("idle")),
            (State::Stale, State::Warming)
        );
    }
}
