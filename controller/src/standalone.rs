//! The loop on one machine: controller, local actuator, journal and metrics joined.

use std::time::Duration;

use controller_core::signals::Replicas;
use controller_core::{Policy, Signals};
use runtime::{Clock, Metrics, Shutdown, Tasks};

use crate::control_loop::ControlLoop;
use crate::journal::Journal;
use crate::local::{ActuatorError, InFlight, LocalActuator, ServerOptions};
use crate::metrics::DecisionMetrics;
use crate::publication::Publication;

/// Makes the signals of one tick from the time and the replicas that exist, usually with
/// [`Signals::observe`] on the endpoint picker's records.
pub type Observe = Box<dyn FnMut(Duration, Replicas) -> Signals + Send>;

/// What the loop is made of.
pub struct StandaloneOptions {
    /// What to decide by.
    pub policy: Policy,
    /// How servers are started.
    pub server: ServerOptions,
    /// Servers started before the first decision; taken into the policy's bounds.
    pub initial: u32,
    /// Where servers that serve are listed.
    pub publication: Publication,
    /// Signals of the request path.
    pub observe: Observe,
    /// Requests on a server, which its drain waits for.
    pub in_flight: InFlight,
    /// Keeps the decisions; its routes belong on the admin server.
    pub journal: Journal,
}

/// The running loop.
#[derive(Clone, Debug)]
pub struct Standalone {
    /// Starts and stops servers.
    pub actuator: LocalActuator,
    /// The decisions.
    pub journal: Journal,
}

impl Standalone {
    /// Starts the loop as `tasks`. Draining ends the decisions, stopping ends the servers.
    ///
    /// # Errors
    /// [`ActuatorError`] when the servers' command cannot work or their list cannot be written.
    pub fn start(
        options: StandaloneOptions,
        clock: Clock,
        metrics: &Metrics,
        shutdown: &Shutdown,
        tasks: &Tasks,
    ) -> Result<Self, ActuatorError> {
        let StandaloneOptions {
            policy,
            server,
            initial,
            publication,
            mut observe,
            in_flight,
            journal,
        } = options;
        let initial = initial.clamp(policy.min, policy.max.max(policy.min));
        let actuator = LocalActuator::spawn(
            server,
            initial,
            publication,
            in_flight,
            clock,
            shutdown.clone(),
            tasks,
        )?;
        let (seen, scaled) = (actuator.clone(), actuator.clone());
        let control = ControlLoop {
            policy,
            // The actuator has begun to start the first servers by the time of the first tick, or will: what is
            // wanted exists for the controller, else it would want them again.
            source: Box::new(move |now| observe(now, at_least(seen.view().replicas, initial))),
            act: Box::new(move |decision| scaled.scale(decision.replicas)),
            journal: journal.clone(),
            metrics: metrics.register(DecisionMetrics::register),
        };
        control.spawn(clock, shutdown.clone(), tasks);
        Ok(Self { actuator, journal })
    }
}

/// The first look may come before the actuator's first step.
fn at_least(replicas: Replicas, initial: u32) -> Replicas {
    if replicas == Replicas::default() {
        Replicas {
            starting: initial,
            ..replicas
        }
    } else {
        replicas
    }
}

#[cfg(test)]
mod tests;
