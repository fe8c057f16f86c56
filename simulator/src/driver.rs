//! The one task that owns the engine and runs it on the real clock.
//!
//! Requests come in as [`Command`]s; what they get back is a [`Progress`] they can watch: a count of tokens, since the
//! text follows from the request. So a slow client costs nothing but its own lateness, and tokens that came due
//! together are one wake-up and one write.

use crate::error::ApiError;
use crate::metrics::{Counts, Metrics, Timeline};
use crate::sampling::Finish;
use runtime::Clock;
use simulator_core::{Engine, Event, EventKind, Prefix, Submission, SubmitError};
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};

/// Commands taken from the channel at a time; more wait for the next round.
const COMMANDS_PER_ROUND: usize = 64;

/// How far a request is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Prompt tokens that the prefix cache held when the request was first admitted.
    pub(crate) cached_tokens: u32,
    /// Tokens emitted.
    pub(crate) emitted: u32,
    /// Whether the last token is among them.
    pub(crate) finished: bool,
}

/// A request for the engine.
pub(crate) struct Job {
    pub(crate) prompt_tokens: u32,
    pub(crate) prefix: Prefix,
    /// Tokens the answer will have, and why it will end there.
    pub(crate) output_tokens: u32,
    pub(crate) finish: Finish,
    /// Most tokens the client wanted, for the metrics.
    pub(crate) max_tokens: u32,
    /// Whether the client wants to hear of every token, or only of the end.
    pub(crate) stream: bool,
}

/// What the driver is asked to do.
enum Command {
    Submit(Job, oneshot::Sender<Result<Ticket, ApiError>>),
    Abort(u64),
    Expose(oneshot::Sender<String>),
}

/// A running request. Dropped before the end, it aborts the request.
pub(crate) struct Ticket {
    id: u64,
    progress: watch::Receiver<Progress>,
    commands: mpsc::UnboundedSender<Command>,
}

impl Ticket {
    /// Waits for news and returns how far the request is; `None` when the server stopped before the end.
    pub(crate) async fn news(&mut self) -> Option<Progress> {
        self.progress.changed().await.ok()?;
        Some(*self.progress.borrow_and_update())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.progress.borrow().finished {
            // A driver that is gone has no request to abort.
            let _ = self.commands.send(Command::Abort(self.id));
        }
    }
}

/// Talks to the driver. The channel needs no bound of its own: each open connection has at most one request in it.
#[derive(Clone)]
pub(crate) struct Handle {
    commands: mpsc::UnboundedSender<Command>,
}

impl Handle {
    /// Puts a request into the engine's queue.
    pub(crate) async fn submit(&self, job: Job) -> Result<Ticket, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Submit(job, reply), answer).await?
    }

    /// The metrics page.
    pub(crate) async fn exposition(&self) -> Result<String, ApiError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Command::Expose(reply), answer).await
    }

    async fn ask<T>(&self, command: Command, answer: oneshot::Receiver<T>) -> Result<T, ApiError> {
        let stopping = || ApiError::unavailable("The server is stopping: ask another.");
        self.commands.send(command).map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())
    }
}

/// What the driver knows of a request in the engine.
struct Active {
    finish: Finish,
    stream: bool,
    counts: Counts,
    timeline: Timeline,
    progress: watch::Sender<Progress>,
}

/// The engine, its requests and its clock.
pub(crate) struct Driver {
    engine: Engine,
    metrics: Metrics,
    clock: Clock,
    max_waiting: u32,
    active: HashMap<u64, Active>,
    next_id: u64,
    events: Vec<Event>,
    /// For the tickets; weak, so that the driver ends with its last user.
    commands: mpsc::WeakUnboundedSender<Command>,
}

impl Driver {
    /// A driver, to be [run](Self::run) with the receiver, and the handle to talk to it.
    pub(crate) fn new(
        engine: Engine,
        metrics: Metrics,
        clock: Clock,
        max_waiting: u32,
    ) -> (Self, Handle, Inbox) {
        let (commands, inbox) = mpsc::unbounded_channel();
        let driver = Self {
            engine,
            metrics,
            clock,
            max_waiting,
            active: HashMap::new(),
            next_id: 0,
            events: Vec::new(),
            commands: commands.downgrade(),
        };
        (driver, Handle { commands }, Inbox(inbox))
    }

    /// Runs until nobody is left to talk to it.
    pub(crate) async fn run(mut self, Inbox(mut inbox): Inbox) {
        let mut round = Vec::with_capacity(COMMANDS_PER_ROUND);
        loop {
            let due = self.engine.next_event().map(|at| self.clock.instant(at));
            tokio::select! {
                biased;
                taken = inbox.recv_many(&mut round, COMMANDS_PER_ROUND) => if taken == 0 { return },
                () = wait_until(due) => {}
            }
            let now = self.clock.now();
            // First what came due before the commands: an abort would lose it.
            self.advance(now);
            for command in round.drain(..) {
                self.obey(now, command);
            }
            self.advance(now);
        }
    }

    fn obey(&mut self, now: Duration, command: Command) {
        match command {
            Command::Submit(job, reply) => {
                // A client that left meanwhile gets its ticket dropped, which aborts the request.
                let _ = reply.send(self.submit(now, job));
            }
            Command::Abort(id) => {
                if self.active.remove(&id).is_some() {
                    self.engine.abort(now, id);
                    self.metrics.aborted();
                }
            }
            Command::Expose(reply) => {
                let _ = reply.send(self.metrics.exposition(&self.engine.load()));
            }
        }
    }

    fn submit(&mut self, now: Duration, job: Job) -> Result<Ticket, ApiError> {
        let stopping = || ApiError::unavailable("The server is stopping: ask another.");
        let commands = self.commands.upgrade().ok_or_else(stopping)?;
        if self.engine.load().waiting >= self.max_waiting {
            return Err(ApiError::queue_full(self.max_waiting));
        }
        let id = self.next_id;
        self.next_id += 1;
        let counts = Counts {
            prompt: job.prompt_tokens,
            output: job.output_tokens,
            max: job.max_tokens,
        };
        let submission = Submission {
            id,
            prompt_tokens: job.prompt_tokens,
            prefix: job.prefix,
            output_tokens: job.output_tokens,
        };
        self.engine
            .submit(now, submission)
            .map_err(|error| refused(&error))?;
        let (progress, watcher) = watch::channel(Progress::default());
        let active = Active {
            finish: job.finish,
            stream: job.stream,
            counts,
            timeline: Timeline {
                arrived: now,
                scheduled: None,
                first_token: None,
                last_token: now,
            },
            progress,
        };
        self.active.insert(id, active);
        Ok(Ticket {
            id,
            progress: watcher,
            commands,
        })
    }

    /// Plays the engine up to `now` and tells the requests.
    fn advance(&mut self, now: Duration) {
        let mut events = std::mem::take(&mut self.events);
        self.engine.advance(now, &mut events);
        for event in events.drain(..) {
            self.tell(event);
        }
        self.events = events;
    }

    fn tell(&mut self, Event { at, id, kind }: Event) {
        let Some(request) = self.active.get_mut(&id) else {
            return;
        };
        match kind {
            EventKind::Scheduled { cached_tokens } => {
                // Again after a preemption; the wait in the queue ended the first time.
                if request.timeline.scheduled.is_none() {
                    request.timeline.scheduled = Some(at);
                    request.update(false, |progress| progress.cached_tokens = cached_tokens);
                }
            }
            EventKind::FirstToken => {
                self.metrics
                    .first_token(at, request.timeline.arrived, request.counts.prompt);
                request.timeline.first_token = Some(at);
                request.emitted(at);
            }
            EventKind::Token => {
                self.metrics
                    .next_token(at.saturating_sub(request.timeline.last_token));
                request.emitted(at);
            }
            EventKind::Preempted => {}
            EventKind::Finished { .. } => {
                self.metrics
                    .finished(request.finish, request.counts, request.timeline);
                request.update(true, |progress| progress.finished = true);
                self.active.remove(&id);
            }
        }
    }
}

impl Active {
    fn emitted(&mut self, at: Duration) {
        self.timeline.last_token = at;
        self.update(self.stream, |progress| progress.emitted += 1);
    }

    /// Changes the progress; `wake`s whoever watches it.
    fn update(&self, wake: bool, change: impl FnOnce(&mut Progress)) {
        self.progress.send_if_modified(|progress| {
            change(progress);
            wake
        });
    }
}

/// The receiving end of the driver's channel.
pub(crate) struct Inbox(mpsc::UnboundedReceiver<Command>);

/// Sleeps until `due`; forever when nothing is.
async fn wait_until(due: Option<tokio::time::Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// A request the engine can never run, as the client sees it.
fn refused(error: &SubmitError) -> ApiError {
    let param = match error {
        SubmitError::TooLong { .. } | SubmitError::KvTooSmall { .. } => Some("max_tokens"),
        _ => None,
    };
    ApiError::bad_request(
        param,
        format!("The engine cannot run this request: {error}."),
    )
}
