//! Lives of replicas, with invented facts.

use std::collections::BTreeMap;

use super::*;

const RUNNING: Facts = Facts {
    running: true,
    healthy: false,
    in_flight: 0,
};
const HEALTHY: Facts = Facts {
    running: true,
    healthy: true,
    in_flight: 0,
};
const DEAD: Facts = Facts {
    running: false,
    healthy: false,
    in_flight: 0,
};

struct Machine {
    lifecycle: Lifecycle,
    options: ServerOptions,
    facts: BTreeMap<u64, Facts>,
}

impl Machine {
    fn new() -> Self {
        let mut options = ServerOptions::new(vec!["server".into(), "{port}".into()], 9001..=9004);
        (options.start_limit, options.drain_limit, options.stop_limit) = (
            Duration::from_secs(20),
            Duration::from_secs(30),
            Duration::from_secs(5),
        );
        Self {
            lifecycle: Lifecycle::default(),
            options,
            facts: BTreeMap::new(),
        }
    }

    /// Steps at `seconds`; every replica not in `facts` is healthy and idle.
    fn step(&mut self, seconds: f64, wanted: u32) -> Vec<Action> {
        let facts = &self.facts;
        let now = Duration::from_secs_f64(seconds);
        self.lifecycle.step(now, wanted, &self.options, |id| {
            facts.get(&id).copied().unwrap_or(HEALTHY)
        })
    }

    fn counts(&self) -> (u32, u32, u32) {
        let count = self.lifecycle.count();
        (count.ready, count.starting, count.draining)
    }
}

#[test]
fn a_replica_is_ready_once_healthy() {
    let mut machine = Machine::new();
    machine.facts.insert(0, RUNNING);
    assert_eq!(machine.step(0.0, 1), [Action::Start { id: 0, port: 9001 }]);
    assert_eq!(machine.step(1.0, 1), []);
    assert_eq!(machine.counts(), (0, 1, 0));
    machine.facts.insert(0, HEALTHY);
    machine.step(2.0, 1);
    assert_eq!(machine.counts(), (1, 0, 0));
}

#[test]
fn an_unlisted_replica_ends_when_idle_or_at_the_limit() {
    let mut machine = Machine::new();
    machine.step(0.0, 2);
    machine.step(1.0, 2);
    machine.facts.insert(
        1,
        Facts {
            in_flight: 1,
            ..HEALTHY
        },
    );
    assert_eq!(machine.step(2.0, 0), []);
    assert_eq!(machine.counts(), (0, 0, 2));
    assert_eq!(
        machine.step(2.1, 0),
        [],
        "requests may still be on their way to it"
    );
    assert_eq!(machine.step(3.0, 0), [Action::Terminate { id: 0 }]);
    assert_eq!(
        machine.step(31.9, 0),
        [Action::Kill { id: 0 }],
        "it did not end when asked to"
    );
    assert_eq!(
        machine.step(32.0, 0),
        [Action::Kill { id: 0 }, Action::Terminate { id: 1 }]
    );
    machine.facts.extend([(0, DEAD), (1, DEAD)]);
    assert_eq!(machine.step(33.0, 0), []);
    assert!(machine.lifecycle.replicas().is_empty());
}

#[test]
fn a_draining_replica_is_taken_back_before_a_new_one_is_started() {
    let mut machine = Machine::new();
    machine.step(0.0, 2);
    machine.step(1.0, 2);
    machine.facts.insert(
        1,
        Facts {
            in_flight: 1,
            ..HEALTHY
        },
    );
    machine.step(2.0, 1);
    assert_eq!(machine.counts(), (1, 0, 1));
    assert_eq!(machine.step(3.0, 3), [Action::Start { id: 2, port: 9003 }]);
    assert_eq!(machine.counts(), (2, 1, 0));
}

#[test]
fn a_crash_is_answered_with_growing_pauses_until_forgiven() {
    let mut machine = Machine::new();
    machine.step(0.0, 1);
    machine.step(1.0, 1);
    machine.facts.insert(0, DEAD);
    assert_eq!(
        machine.step(2.0, 1),
        [Action::Crashed {
            id: 0,
            restart_in: Duration::from_millis(500)
        }]
    );
    assert_eq!(
        machine.counts(),
        (0, 1, 0),
        "unlisted at once, and still supply"
    );
    assert_eq!(machine.step(2.4, 1), []);
    assert_eq!(machine.step(2.5, 1), [Action::Start { id: 0, port: 9001 }]);
    let pauses: Vec<f64> = (0..8)
        .filter_map(
            |crash| match machine.step(100.0 + 100.0 * f64::from(crash), 1)[..] {
                [Action::Crashed { restart_in, .. }] => {
                    machine.step(150.0 + 100.0 * f64::from(crash), 1);
                    Some(restart_in.as_secs_f64())
                }
                _ => None,
            },
        )
        .collect();
    assert_eq!(pauses, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]);
    machine.facts.insert(0, HEALTHY);
    machine.step(1000.0, 1);
    machine.step(1061.0, 1);
    machine.facts.insert(0, DEAD);
    assert_eq!(
        machine.step(1062.0, 1),
        [Action::Crashed {
            id: 0,
            restart_in: Duration::from_millis(500)
        }]
    );
}

#[test]
fn one_that_never_served_tries_another_port() {
    let mut machine = Machine::new();
    machine.facts.insert(0, RUNNING);
    machine.step(0.0, 1);
    machine.facts.insert(0, DEAD);
    machine.step(1.0, 1);
    assert_eq!(machine.step(2.0, 1), [Action::Start { id: 0, port: 9002 }]);
}

#[test]
fn one_that_does_not_become_healthy_is_killed() {
    let mut machine = Machine::new();
    machine.facts.insert(0, RUNNING);
    machine.step(0.0, 1);
    assert_eq!(machine.step(20.0, 1), []);
    assert_eq!(machine.step(20.1, 1), [Action::Kill { id: 0 }]);
}

#[test]
fn what_serves_least_goes_first() {
    let mut machine = Machine::new();
    machine.facts.insert(2, RUNNING);
    machine.facts.insert(1, DEAD);
    machine.step(0.0, 3);
    machine.step(1.0, 3);
    assert_eq!(machine.counts(), (1, 2, 0));
    assert_eq!(machine.step(1.1, 2), [], "the crashed one is not restarted");
    assert_eq!(
        machine.step(1.2, 1),
        [Action::Terminate { id: 2 }],
        "the starting one is ended"
    );
    assert_eq!(machine.counts(), (1, 0, 1));
    assert_eq!(machine.lifecycle.replicas()[0].id, 0);
}

#[test]
fn ports_bound_the_number_of_servers() {
    let mut machine = Machine::new();
    let actions = machine.step(0.0, 6);
    assert_eq!((actions.len(), actions[4]), (5, Action::NoPort));
    assert_eq!(machine.counts(), (0, 4, 0));
}
