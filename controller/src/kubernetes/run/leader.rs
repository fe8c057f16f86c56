//! The loop: decides every second while this replica leads, and stands by while it does not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kubernetes::lease::Leadership;
use runtime::{Clock, Shutdown};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::cycle::{Cycle, Outcome};
use super::metrics::ControllerMetrics;
use crate::journal::ModelJournal;
use crate::kubernetes::apiservice::ApiServices;
use crate::kubernetes::demand::{Gathering, Known};
use crate::kubernetes::direct::Direct;
use crate::kubernetes::pickers::Now;
use crate::kubernetes::state::{Keeper, States};
use crate::kubernetes::status::Reporter;
use crate::published::{Board, Mode};

/// Between two cycles.
pub const PERIOD: Duration = Duration::from_secs(1);
/// What decisions remember is handed to followers at least this often; at once when a count changes.
const HANDED_OVER: Duration = Duration::from_secs(5);
/// What is kept may be newer than what was told this long ago.
const KEPT_AGE: Duration = Duration::from_secs(15);
/// Attempts to read what is kept before a new leader begins without it.
const LOADS: u32 = 3;

/// One namespace's, or the cluster's, writers.
#[derive(Debug)]
pub struct Writers {
    /// Tells.
    pub reporter: Reporter,
    /// Carries out.
    pub direct: Direct,
}

/// The loop and what it is connected to.
pub struct Leader {
    /// Decides.
    pub cycle: Cycle,
    /// What is heard of demand.
    pub gathering: Arc<parking_lot::Mutex<Gathering>>,
    /// Who leads.
    pub leadership: watch::Receiver<Leadership>,
    /// Told once this replica could lead.
    pub ready: watch::Sender<bool>,
    /// Where decisions are published.
    pub board: Board,
    /// Writers, one for each of what the cycle follows.
    pub writers: Vec<Writers>,
    /// Who owns the metrics APIs; `None` = nobody looks.
    pub services: Option<ApiServices>,
    /// Keeps decisions.
    pub journal: ModelJournal,
    /// Shows them.
    pub metrics: ControllerMetrics,
    /// What decisions remember: the last of this replica's, or the last that its leader told.
    pub states: watch::Sender<Arc<States>>,
    /// Reads what is kept.
    pub keeper: Keeper,
    /// The process's clock.
    pub clock: Clock,
    /// The epoch that demand is counted on.
    pub now: Now,
}

#[derive(Default)]
struct Standing {
    leads: bool,
    loads: u32,
    handed_over: Option<Duration>,
    known: BTreeMap<controller_core::model::ModelKey, Known>,
}

impl Leader {
    /// Runs until draining begins: a process that ends decides nothing more.
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut standing = Standing::default();
        loop {
            tokio::select! {
                () = shutdown.draining() => break,
                _ = ticks.tick() => {}
            }
            let ready = self.ready();
            if ready {
                self.ready.send_replace(true);
            }
            let leads = self.leadership.borrow().leader && ready;
            if leads && !standing.leads && !self.take_over(&mut standing).await {
                continue;
            }
            // Computing takes milliseconds to seconds: not on a thread that carries requests.
            let worked = tokio::task::spawn_blocking(move || {
                if leads {
                    self.lead(&mut standing);
                } else {
                    self.stand_by(&mut standing);
                }
                (self, standing)
            });
            match worked.await {
                Ok((this, after)) => (self, standing) = (this, after),
                Err(error) => {
                    tracing::error!(%error, "the control loop ended: this replica gives up, so that another one leads");
                    shutdown.stop();
                    return;
                }
            }
        }
        self.resign();
    }

    /// Whether it is known what is asked for and who tells of demand. Before, nothing can be decided.
    fn ready(&self) -> bool {
        self.cycle.is_synced() && self.gathering.lock().is_ready()
    }

    /// Begins to lead, where the leader before left off; `false` = not yet.
    async fn take_over(&mut self, standing: &mut Standing) -> bool {
        let mut states = States::clone(&self.states.borrow());
        // What the leader told is newer than what it kept, unless this replica was cut off from it.
        if age(&states, self.now.get()).is_none_or(|age| age > KEPT_AGE) && standing.loads < LOADS {
            standing.loads += 1;
            match self.keeper.load().await {
                Ok((kept, errors)) => {
                    for error in errors {
                        tracing::warn!(%error, "some of what was decided before is not known any more");
                    }
                    let now = self.now.get();
                    let (kept_age, told_age) = (age(&kept, now), age(&states, now));
                    if told_age.is_none() || kept_age.is_some_and(|age| Some(age) < told_age) {
                        states = kept;
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, attempt = standing.loads, "what was decided before is not read yet");
                    if standing.loads < LOADS {
                        return false;
                    }
                }
            }
        }
        if let Some(at) = newest(&states) {
            self.now.catch_up(at);
        }
        tracing::info!(
            models = states.len(),
            "this replica leads; it goes on from what was decided before"
        );
        self.cycle.take_over(states);
        *standing = Standing {
            leads: true,
            ..Standing::default()
        };
        true
    }

    fn lead(&mut self, standing: &mut Standing) {
        let (began, now) = (self.clock.now(), self.now.get());
        let outcome = self.cycle.decide(now);
        // Deciding takes time: what was decided by one who no longer leads is not published.
        if !self.leadership.borrow().leader {
            return;
        }
        let Outcome {
            published,
            mut reports,
            shown,
            computed,
            changes,
            known,
        } = outcome;
        let models = published.models.len();
        let at_ms = published.at_ms;
        self.board.publish(published);
        standing.known = known;
        let due = standing
            .handed_over
            .is_none_or(|last| now >= last + HANDED_OVER);
        if changes || due {
            standing.handed_over = Some(now);
            let states = self.cycle.save(now, &standing.known);
            self.states.send_replace(Arc::new(states));
        }
        let foreign = self.services.as_ref().map(ApiServices::findings);
        for (writers, (snapshot, reports)) in self.writers.iter_mut().zip(&mut reports) {
            for report in reports.iter_mut() {
                report.findings = writers.direct.findings(&report.spec.key);
                if report.spec.mode == Mode::Publish {
                    report
                        .findings
                        .extend(foreign.iter().flat_map(|all| all.iter().cloned()));
                }
            }
            writers.direct.carry_out(reports);
            writers
                .reporter
                .report(self.clock.now(), at_ms, snapshot, reports);
        }
        let told = reports.into_iter().flat_map(|(_, reports)| reports);
        self.journal.record(at_ms, told.collect());
        for one in shown.iter().filter(|one| one.decision.changes()) {
            tracing::info!(model = %one.decision.model, "{}", one.decision);
        }
        self.metrics.crowded(self.gathering.lock().crowded());
        let length = self.clock.now().saturating_sub(began);
        self.metrics.cycle(shown, models, length, computed);
    }

    fn stand_by(&mut self, standing: &mut Standing) {
        if std::mem::take(&mut standing.leads) {
            tracing::info!("this replica does not lead any more");
            self.resign();
        }
        *standing = Standing::default();
        self.cycle.watch(self.now.get());
        let held = self.board.latest().published().models.len();
        self.metrics.follows(held);
    }

    fn resign(&self) {
        for writers in &self.writers {
            writers.direct.carry_out(&[]);
        }
        self.journal.close();
    }
}

/// When the newest of `states` was saved; `None` = there is none.
fn newest(states: &States) -> Option<Duration> {
    states.values().map(|kept| kept.decisions.at()).max()
}

/// Age of the newest of `states`; `None` = there is none.
fn age(states: &States, now: Duration) -> Option<Duration> {
    Some(now.saturating_sub(newest(states)?))
}
