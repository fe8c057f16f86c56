//! How many replicas a fleet has, and what happens when that changes.

use std::sync::Arc;
use std::time::Duration;

use predictor::LatencyModel;

use super::client::mix64;
use super::event::Event;
use super::launch::{Phase, Replica};
use super::replay::Run;
use crate::{Policy, Replicas, Signals};

/// How many replicas a fleet has.
#[derive(Clone, Debug)]
pub enum Sizing {
    /// Always this many, ready from the start.
    Fixed(u32),
    /// As the controller decides.
    Autoscaled(Box<Autoscaling>),
}

/// A fleet the controller sizes.
#[derive(Clone, Debug)]
pub struct Autoscaling {
    /// The controller's file.
    pub policy: Policy,
    /// Replicas ready when the replay starts.
    pub initial: u32,
}

/// Between two decisions of the controller.
pub(super) const TICK: Duration = Duration::from_secs(1);

impl Run<'_> {
    /// Launches a replica now; returns its index.
    pub(super) fn launch(&mut self) -> usize {
        let index = self.replicas.len();
        let seed = mix64(self.spec.seed ^ index as u64);
        self.replicas.push(Replica::launch(
            index,
            &self.spec.profile,
            self.pickers.len(),
            seed,
            self.now,
        ));
        index
    }

    /// The replica answers its health check.
    pub(super) fn ready(&mut self, index: usize) {
        if self.replicas[index].phase == Phase::Starting {
            self.replicas[index].phase = Phase::Ready;
            self.relist();
            self.settle();
        }
    }

    /// Ends the replicas that have finished what they had.
    pub(super) fn end_drains(&mut self) {
        for replica in &mut self.replicas {
            if replica.phase == Phase::Draining && replica.idle() {
                replica.end(self.now);
            }
        }
    }

    /// Lets the controller decide, and does it.
    pub(super) fn tick(&mut self) {
        self.agenda.at(self.now + TICK, Event::Tick);
        let signals = self.signals();
        let (Some(controller), Some(signals)) = (&mut self.controller, signals) else {
            return;
        };
        let decision = controller.tick(signals);
        let current = self.count(Phase::Ready) + self.count(Phase::Starting);
        self.resize(current, decision.replicas);
        if decision.replicas != decision.previous {
            self.decisions.push(decision);
        }
    }

    fn signals(&self) -> Option<Signals> {
        let picker = self.pickers.first()?;
        let model = picker
            .learner
            .as_ref()
            .map_or_else(LatencyModel::prior, |learner| learner.model(self.now));
        let replicas = Replicas {
            ready: self.count(Phase::Ready),
            starting: self.count(Phase::Starting),
            draining: self.count(Phase::Draining),
            pending: 0,
        };
        let director = &picker.director;
        Some(Signals::observe(
            self.now,
            director.demand(),
            &director.queued(),
            director.pool(),
            replicas,
            Arc::new(model),
        ))
    }

    /// Replicas in a phase.
    pub(super) fn count(&self, phase: Phase) -> u32 {
        self.replicas
            .iter()
            .filter(|replica| replica.phase == phase)
            .count() as u32
    }

    fn resize(&mut self, current: u32, wanted: u32) {
        for _ in current..wanted {
            let replica = self.launch();
            self.agenda
                .at(self.now + self.spec.startup, Event::Ready { replica });
        }
        for _ in wanted..current {
            self.retire();
        }
        if wanted < current {
            self.relist();
            self.end_drains();
            self.settle();
        }
    }

    /// Gives up the replica that costs least to lose: the newest still starting, else the ready one with least to finish.
    fn retire(&mut self) {
        if let Some(starting) = self
            .replicas
            .iter_mut()
            .rfind(|replica| replica.phase == Phase::Starting)
        {
            starting.end(self.now);
            return;
        }
        let load = |replica: &Replica| {
            let loads = replica.endpoints.iter().map(|it| it.load.snapshot());
            loads.fold((0, 0), |(in_flight, tokens), load| {
                (in_flight + load.in_flight, tokens + load.resident_tokens)
            })
        };
        let ready = self
            .replicas
            .iter_mut()
            .filter(|replica| replica.phase == Phase::Ready);
        if let Some(replica) = ready.min_by_key(|replica| load(replica)) {
            replica.phase = Phase::Draining;
        }
    }
}
