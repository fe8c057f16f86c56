//! The real-time shell: a learner on its own thread with its own CPU budget.
//!
//! Labels go in through a bounded channel and models come out through a pointer swap, so neither a
//! refit nor a full channel ever holds up a request.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::{LatencyModel, Learner, LearnerConfig, Observation, Report};

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
    Label(Box<Observation>),
    /// Wakes the thread so that it sees `stopped`.
    Wake,
}

/// What both sides touch, none of it under a lock.
#[derive(Debug)]
struct Shared {
    model: ArcSwap<LatencyModel>,
    report: ArcSwap<Report>,
    /// Labels that found the channel full.
    dropped: AtomicU64,
    /// Newest dispatch not yet noted by the learner: nanoseconds + 1, 0 = none.
    dispatched: AtomicU64,
    stopped: AtomicBool,
}

impl Trainer {
    /// Starts the thread. `cpu_share` is the share of one core (0 to 1) that refits may take on
    /// average; `clock` gives the time since the epoch that observations use.
    pub fn spawn(config: LearnerConfig, cpu_share: f32, clock: Clock) -> Self {
        let learner = Learner::new(config);
        let now = clock();
        let shared = Arc::new(Shared {
            model: ArcSwap::from_pointee(learner.model(now)),
            report: ArcSwap::from_pointee(learner.report(now)),
            dropped: AtomicU64::new(0),
            dispatched: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
        });
        let (sender, receiver) = sync_channel(CHANNEL);
        let mut worker = Worker {
            learner,
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
                tracing::error!(%error, "no training thread: predictions stay at the prior");
            })
            .ok();
        Self {
            shared,
            sender,
            thread: Mutex::new(thread),
        }
    }

    /// Hands over one label; never blocks. When the channel is full the label is dropped and counted
    /// in [`Report::dropped`].
    pub fn observe(&self, observation: Observation) {
        let message = Message::Label(Box::new(observation));
        if self.sender.try_send(message).is_err() {
            self.shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Notes that a request was dispatched; never blocks.
    pub fn note_dispatch(&self, now: Duration) {
        let stamp = now.as_nanos() as u64 + 1;
        self.shared.dispatched.fetch_max(stamp, Ordering::Relaxed);
    }

    /// The newest model.
    pub fn model(&self) -> Arc<LatencyModel> {
        self.shared.model.load_full()
    }

    /// The newest report.
    pub fn report(&self) -> Arc<Report> {
        self.shared.report.load_full()
    }

    /// Stops the thread and waits for it, for a refit under way at most; the last model stays
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

/// The thread's side.
struct Worker {
    learner: Learner,
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
            let stamp = self.shared.dispatched.swap(0, Ordering::Relaxed);
            if let Some(nanoseconds) = stamp.checked_sub(1) {
                self.learner
                    .note_dispatch(Duration::from_nanos(nanoseconds));
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
                self.learn_one(message);
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
            self.learn_one(message);
        }
    }

    fn learn_one(&mut self, message: Message) {
        if let Message::Label(observation) = message {
            self.learner.observe(*observation);
        }
    }

    /// Refits if it is due and within the budget: a refit that took t is followed by a pause in
    /// which t is the thread's share.
    fn refit(&mut self) {
        let began = (self.clock)();
        if began < self.next_refit || !self.learner.due(began) {
            return;
        }
        let candidate = self.learner.fit(began);
        let ended = (self.clock)();
        let installed = self.learner.install(candidate, ended);
        let spent = ended.saturating_sub(began);
        self.next_refit = began + spent.div_f32(self.cpu_share);
        tracing::debug!(?spent, installed, "refit");
    }

    fn publish(&mut self) {
        let now = (self.clock)();
        self.shared.model.store(Arc::new(self.learner.model(now)));
        if now >= self.next_report {
            self.next_report = now + REPORT_INTERVAL;
            let mut report = self.learner.report(now);
            report.dropped = self.shared.dropped.load(Ordering::Relaxed);
            self.shared.report.store(Arc::new(report));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Features, State, Target};

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
        let config = LearnerConfig::default();
        let trainer = Trainer::spawn(config, 1.0, Box::new(|| Duration::from_secs(1)));
        assert_eq!(trainer.model().state(Target::Ttft), State::Prior);
        for number in 0..300 {
            trainer.note_dispatch(Duration::from_millis(number));
            trainer.observe(label(number));
        }
        trainer.shutdown();
        assert_eq!(trainer.report().ttft.labels, 300);
        assert_eq!(trainer.report().dropped, 0);
        let predicted = trainer.model().predict_one(&Features::idle(200.0)).ttft.p50;
        assert!((45.0..55.0).contains(&predicted), "{predicted}");
    }

    #[test]
    fn labels_that_nobody_takes_are_dropped_and_counted() {
        let trainer = Trainer::spawn(
            LearnerConfig::default(),
            0.5,
            Box::new(|| Duration::from_secs(1)),
        );
        trainer.shutdown();
        trainer.observe(label(1));
        assert_eq!(trainer.shared.dropped.load(Ordering::Relaxed), 1);
        trainer.shutdown();
    }
}
