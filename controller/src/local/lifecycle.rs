//! Which replicas there are and what becomes of them: a state machine without processes.
//!
//! ```text
//!            start            /health               scale down            idle or limit        exit
//! (nothing) ───────▶ Starting ───────▶ Ready (listed) ───────▶ Draining ───────────────▶ Stopping ──▶ (nothing)
//!                      ▲  │ exit         │ exit        ◀───────
//!                      │  ▼              ▼           scale up again
//!                     Backoff ◀──────────┘
//! ```

use std::time::Duration;

use controller_core::signals::Replicas;

use super::ServerOptions;

/// A replica that served for this long has its crashes forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_secs(60);
/// Waits before restarts: the first, doubling up to the last.
const FIRST_BACKOFF: Duration = Duration::from_millis(500);
const LONGEST_BACKOFF: Duration = Duration::from_secs(30);
/// An unlisted replica is left alone for at least this long: whoever read the old list may still send to it.
const UNLISTING: Duration = Duration::from_millis(500);

/// Where a replica is in its life, and since when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Starting { since: Duration },
    Ready { since: Duration },
    Draining { since: Duration },
    Stopping { since: Duration },
    Backoff { until: Duration },
}

/// One replica.
#[derive(Clone, Debug)]
pub(super) struct Replica {
    pub(super) id: u64,
    pub(super) port: u16,
    pub(super) phase: Phase,
    crashes: u32,
}

/// What is seen of a replica's process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// The process runs.
    pub(super) running: bool,
    /// It has answered its health check.
    pub(super) healthy: bool,
    /// Requests on it.
    pub(super) in_flight: u64,
}

/// What is to be done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Start the replica `id` on `port`.
    Start { id: u64, port: u16 },
    /// Ask the process to end.
    Terminate { id: u64 },
    /// End it.
    Kill { id: u64 },
    /// It ended by itself, for the reason of its log.
    Crashed { id: u64, restart_in: Duration },
    /// Ports have run out.
    NoPort,
}

/// All replicas.
#[derive(Debug, Default)]
pub(super) struct Lifecycle {
    replicas: Vec<Replica>,
    next_id: u64,
}

impl Lifecycle {
    /// In order of their start.
    pub(super) fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// Counts by what they can do.
    pub(super) fn count(&self) -> Replicas {
        let mut count = Replicas::default();
        for replica in &self.replicas {
            match replica.phase {
                Phase::Starting { .. } | Phase::Backoff { .. } => count.starting += 1,
                Phase::Ready { .. } => count.ready += 1,
                Phase::Draining { .. } | Phase::Stopping { .. } => count.draining += 1,
            }
        }
        count
    }

    /// Brings every replica up to date with `facts` and the number up or down to `wanted`.
    pub(super) fn step(
        &mut self,
        now: Duration,
        wanted: u32,
        options: &ServerOptions,
        facts: impl Fn(u64) -> Facts,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let facts: Vec<Facts> = self
            .replicas
            .iter()
            .map(|replica| facts(replica.id))
            .collect();
        let mut gone = Vec::new();
        for (index, facts) in facts.into_iter().enumerate() {
            gone.extend(self.advance(index, now, facts, options, &mut actions));
        }
        self.replicas.retain(|replica| !gone.contains(&replica.id));
        self.resize(now, wanted, options, &mut actions);
        actions
    }

    /// Brings one replica up to date; its id if it is gone.
    fn advance(
        &mut self,
        index: usize,
        now: Duration,
        facts: Facts,
        options: &ServerOptions,
        actions: &mut Vec<Action>,
    ) -> Option<u64> {
        let other_port = self.free_port(options);
        let replica = self.replicas.get_mut(index)?;
        let id = replica.id;
        match replica.phase {
            Phase::Starting { .. } | Phase::Ready { .. } if !facts.running => {
                let restart_in = FIRST_BACKOFF
                    .saturating_mul(1 << replica.crashes.min(10))
                    .min(LONGEST_BACKOFF);
                replica.crashes += 1;
                // One that never served may have found its port taken by a stranger.
                if matches!(replica.phase, Phase::Starting { .. }) {
                    replica.port = other_port.unwrap_or(replica.port);
                }
                replica.phase = Phase::Backoff {
                    until: now + restart_in,
                };
                actions.push(Action::Crashed { id, restart_in });
            }
            Phase::Starting { .. } if facts.healthy => replica.phase = Phase::Ready { since: now },
            Phase::Starting { since } if now > since + options.start_limit => {
                actions.push(Action::Kill { id })
            }
            Phase::Ready { since } if now > since + FORGIVEN_AFTER => replica.crashes = 0,
            Phase::Draining { .. } | Phase::Stopping { .. } if !facts.running => return Some(id),
            Phase::Draining { since } => {
                let idle = facts.in_flight == 0 && now >= since + UNLISTING;
                if idle || now >= since + options.drain_limit {
                    replica.phase = Phase::Stopping { since: now };
                    actions.push(Action::Terminate { id });
                }
            }
            Phase::Stopping { since } if now >= since + options.stop_limit => {
                actions.push(Action::Kill { id })
            }
            Phase::Backoff { until } if now >= until => {
                replica.phase = Phase::Starting { since: now };
                actions.push(Action::Start {
                    id,
                    port: replica.port,
                });
            }
            Phase::Starting { .. }
            | Phase::Ready { .. }
            | Phase::Stopping { .. }
            | Phase::Backoff { .. } => {}
        }
        None
    }

    fn resize(
        &mut self,
        now: Duration,
        wanted: u32,
        options: &ServerOptions,
        actions: &mut Vec<Action>,
    ) {
        while self.count().supply() < wanted {
            // A draining replica is warm and at hand: it is listed again before a new one is started.
            let draining = self
                .replicas
                .iter_mut()
                .rev()
                .find(|replica| matches!(replica.phase, Phase::Draining { .. }));
            if let Some(replica) = draining {
                replica.phase = Phase::Ready { since: now };
                continue;
            }
            let Some(port) = self.free_port(options) else {
                actions.push(Action::NoPort);
                return;
            };
            let id = self.next_id;
            self.next_id += 1;
            self.replicas.push(Replica {
                id,
                port,
                phase: Phase::Starting { since: now },
                crashes: 0,
            });
            actions.push(Action::Start { id, port });
        }
        while self.count().supply() > wanted {
            // What serves least goes first; among equals the newest.
            let rank = |phase| match phase {
                Phase::Backoff { .. } => 3,
                Phase::Starting { .. } => 2,
                Phase::Ready { .. } => 1,
                Phase::Draining { .. } | Phase::Stopping { .. } => 0,
            };
            let Some(index) = (0..self.replicas.len())
                .max_by_key(|&index| (rank(self.replicas[index].phase), index))
            else {
                return;
            };
            let replica = &mut self.replicas[index];
            match replica.phase {
                Phase::Backoff { .. } => {
                    self.replicas.remove(index);
                }
                Phase::Starting { .. } => {
                    replica.phase = Phase::Stopping { since: now };
                    actions.push(Action::Terminate { id: replica.id });
                }
                _ => replica.phase = Phase::Draining { since: now },
            }
        }
    }

    fn free_port(&self, options: &ServerOptions) -> Option<u16> {
        options
            .ports
            .clone()
            .find(|port| self.replicas.iter().all(|replica| replica.port != *port))
    }
}

#[cfg(test)]
mod tests;
