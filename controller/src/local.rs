//! The local actuator: as many model servers as wanted, as child processes of this one.
//!
//! A server is listed once its health check answers, and unlisted before it is asked to end; one that crashes is
//! unlisted at once and restarted after a growing pause. All of them end with the actuator.

mod child;
mod lifecycle;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use controller_core::signals::Replicas;
use runtime::{Clock, Shutdown, Tasks};
use thiserror::Error;
use tokio::sync::{Notify, watch};

use crate::publication::{Listed, Publication, PublishError};
use child::Server;
use lifecycle::{Action, Facts, Lifecycle, Phase};

/// Between two looks at limits and drains; ends and health are noticed when they happen.
const PERIOD: Duration = Duration::from_millis(100);

/// How a server is started, and how patient to be with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Program and arguments; `{port}`, `{address}` and `{name}` are filled in.
    pub command: Vec<String>,
    /// Address the servers listen on.
    pub address: IpAddr,
    /// Ports for them; their number bounds the number of servers, draining ones included.
    pub ports: RangeInclusive<u16>,
    /// Path that answers 2xx once the server serves.
    pub health_path: String,
    /// A server that is not healthy after this is killed and restarted.
    pub start_limit: Duration,
    /// An unlisted server is ended after this even if requests are left on it.
    pub drain_limit: Duration,
    /// A server that was asked to end is killed after this.
    pub stop_limit: Duration,
    /// Directory for the servers' output, `NAME.log` each. Without it, standard output is dropped and standard error
    /// is this process's.
    pub logs: Option<PathBuf>,
}

impl ServerOptions {
    /// Options with the usual patience: 5 minutes to start, 60 s to drain, 5 s to stop.
    pub fn new(command: Vec<String>, ports: RangeInclusive<u16>) -> Self {
        Self {
            command,
            address: IpAddr::from([127, 0, 0, 1]),
            ports,
            health_path: "/health".into(),
            start_limit: Duration::from_secs(300),
            drain_limit: Duration::from_secs(60),
            stop_limit: Duration::from_secs(5),
            logs: None,
        }
    }
}

/// Requests that are on the server at an address.
pub type InFlight = Box<dyn Fn(SocketAddr) -> u64 + Send + Sync>;

/// Why the actuator did not start.
#[derive(Debug, Error)]
pub enum ActuatorError {
    /// No program to start.
    #[error(
        "server.command is empty: it must name the program that serves a model, such as [headroom, simulate, server, --port, \"{{port}}\"]"
    )]
    NoCommand,
    /// The command does not say where to listen.
    #[error("server.command has no {{port}}: every server must listen on a port of its own")]
    NoPort,
    /// The list of servers cannot be kept.
    #[error(transparent)]
    Publish(#[from] PublishError),
}

/// A handle on the running actuator; clones are handles on the same one.
#[derive(Clone, Debug)]
pub struct LocalActuator {
    wanted: Arc<watch::Sender<u32>>,
    view: watch::Receiver<View>,
}

/// What the actuator has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Counts by state.
    pub replicas: Replicas,
    /// Those that serve, in order of their start.
    pub listed: Vec<Listed>,
}

impl LocalActuator {
    /// Starts the actuator as one of `tasks`, with `initial` servers wanted and none listed yet. It ends every server
    /// when `shutdown` is stopped, and then itself.
    ///
    /// # Errors
    /// [`ActuatorError`] when the command cannot work or the first list cannot be written.
    pub fn spawn(
        options: ServerOptions,
        initial: u32,
        publication: Publication,
        in_flight: InFlight,
        clock: Clock,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> Result<Self, ActuatorError> {
        if options.command.is_empty() {
            return Err(ActuatorError::NoCommand);
        }
        if !options.command.iter().any(|word| word.contains("{port}")) {
            return Err(ActuatorError::NoPort);
        }
        publication.write(&[])?;
        let (wanted, wanted_seen) = watch::channel(initial);
        let (view, view_seen) = watch::channel(View::default());
        let actuator = Actuator {
            options,
            publication,
            in_flight,
            lifecycle: Lifecycle::default(),
            servers: BTreeMap::new(),
            changed: Arc::default(),
            view,
            published: true,
            tasks: tasks.clone(),
        };
        tasks.spawn(actuator.run(clock, wanted_seen, shutdown));
        Ok(Self {
            wanted: Arc::new(wanted),
            view: view_seen,
        })
    }

    /// Wants `replicas` servers from now on.
    pub fn scale(&self, replicas: u32) {
        self.wanted
            .send_if_modified(|wanted| std::mem::replace(wanted, replicas) != replicas);
    }

    /// What there is now.
    pub fn view(&self) -> View {
        self.view.borrow().clone()
    }

    /// Resolves when what there is satisfies `enough`; `false` when the actuator ended before.
    pub async fn until(&self, enough: impl FnMut(&View) -> bool) -> bool {
        self.view.clone().wait_for(enough).await.is_ok()
    }
}

/// The task behind the handle.
struct Actuator {
    options: ServerOptions,
    publication: Publication,
    in_flight: InFlight,
    lifecycle: Lifecycle,
    servers: BTreeMap<u64, Server>,
    changed: Arc<Notify>,
    view: watch::Sender<View>,
    /// Whether the documents say what the view says.
    published: bool,
    tasks: Tasks,
}

impl Actuator {
    async fn run(mut self, clock: Clock, mut wanted: watch::Receiver<u32>, shutdown: Shutdown) {
        let mut ticks = tokio::time::interval(PERIOD);
        let mut handles = true;
        while !shutdown.is_stopped() {
            self.step(clock.now(), *wanted.borrow_and_update());
            tokio::select! {
                () = shutdown.stopped() => {}
                () = self.changed.notified() => {}
                _ = ticks.tick() => {}
                // Without a handle the last wish holds.
                changed = wanted.changed(), if handles => handles = changed.is_ok(),
            }
        }
        self.end(clock).await;
    }

    fn step(&mut self, now: Duration, wanted: u32) {
        let addresses: BTreeMap<u64, SocketAddr> = self
            .lifecycle
            .replicas()
            .iter()
            .map(|replica| (replica.id, self.address(replica.port)))
            .collect();
        let (servers, in_flight) = (&self.servers, &self.in_flight);
        let facts = |id: u64| Facts {
            running: servers.get(&id).is_some_and(Server::running),
            healthy: servers.get(&id).is_some_and(Server::healthy),
            in_flight: addresses.get(&id).map_or(0, |address| in_flight(*address)),
        };
        let actions = self.lifecycle.step(now, wanted, &self.options, facts);
        // The list first: a server that is to end must not be found any more.
        self.publish();
        for action in actions {
            self.act(action);
        }
        let known: Vec<u64> = self
            .lifecycle
            .replicas()
            .iter()
            .map(|replica| replica.id)
            .collect();
        self.servers.retain(|id, _| known.contains(id));
    }

    fn act(&mut self, action: Action) {
        match action {
            Action::Start { id, port } => {
                let (address, changed) = (self.address(port), Arc::clone(&self.changed));
                let server = Server::start(&self.options, &name(id), address, changed, &self.tasks);
                self.servers.insert(id, server);
            }
            Action::Terminate { id } => self
                .servers
                .get(&id)
                .into_iter()
                .for_each(Server::terminate),
            Action::Kill { id } => self.servers.get(&id).into_iter().for_each(Server::kill),
            Action::Crashed { id, restart_in } => {
                tracing::warn!(
                    replica = name(id),
                    ?restart_in,
                    "server ended by itself; it is restarted"
                );
            }
            Action::NoPort => {
                tracing::warn!(ports = ?self.options.ports, "every port is taken by a server; no more can be started");
            }
        }
    }

    /// Updates the view and, where the list changed or was not written last time, the documents.
    fn publish(&mut self) {
        let ready = self
            .lifecycle
            .replicas()
            .iter()
            .filter(|replica| matches!(replica.phase, Phase::Ready { .. }));
        let listed: Vec<Listed> = ready
            .map(|replica| Listed {
                name: name(replica.id),
                address: self.address(replica.port),
            })
            .collect();
        if listed != self.view.borrow().listed || !self.published {
            let written = self.publication.write(&listed);
            if let Err(error) = &written {
                let cause = std::error::Error::source(error).map(ToString::to_string);
                tracing::error!(%error, cause, "the list of servers is out of date; it is written again");
            }
            self.published = written.is_ok();
        }
        let view = View {
            replicas: self.lifecycle.count(),
            listed,
        };
        self.view.send_if_modified(|seen| {
            let changes = *seen != view;
            *seen = view;
            changes
        });
    }

    /// Ends every server: politely, then not.
    async fn end(&mut self, clock: Clock) {
        if let Err(error) = self.publication.write(&[]) {
            tracing::error!(%error, "servers that end are still listed");
        }
        self.servers.values().for_each(Server::terminate);
        let patience =
            tokio::time::sleep_until(clock.instant(clock.now() + self.options.stop_limit));
        tokio::pin!(patience);
        while self.servers.values().any(Server::running) {
            tokio::select! {
                () = self.changed.notified() => {}
                () = &mut patience => break,
            }
        }
        // Their watchers kill what is left; they are tasks too and are waited for.
        self.servers.clear();
        self.view.send_replace(View::default());
    }

    fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.options.address, port)
    }
}

fn name(id: u64) -> String {
    format!("replica-{id}")
}

#[cfg(test)]
mod tests;
