//! One cycle: what was gathered and what the cluster shows become decisions on every model.
//!
//! Synchronous and without a clock of its own. It is run every second on a thread that may compute; what it returns is
//! published, told, measured and kept by [`leader`](super::leader).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use controller_core::model::{ModelDecision, ModelKey, ModelPolicy, ModelSignals};
use controller_core::roster::Roster;
use crds::model_scaler::ModelSnapshot;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use parking_lot::Mutex;
use predictor::State;

use super::metrics::Shown;
use super::publish::{carried, publish};
use super::signals::{classes, signals, unread};
use crate::kubernetes::annotated::TargetKey;
use crate::kubernetes::demand::{Gathering, Known, Source};
use crate::kubernetes::models::{ModelSpec, Snapshot};
use crate::kubernetes::models_from_pickers::InUse;
use crate::kubernetes::objects::Followed;
use crate::kubernetes::observe::{Observer, VariantView};
use crate::kubernetes::state::{Kept, States};
use crate::kubernetes::status::Report;
use crate::published::{Board, Published, PublishedModel};

/// Capacities computed in one cycle: what is beyond waits for the next, its age told.
const COMPUTATIONS: usize = 56;

/// Everything that lives from one cycle to the next.
pub struct Cycle {
    followed: Vec<Followed>,
    gathering: Arc<Mutex<Gathering>>,
    board: Board,
    roster: Roster,
    observers: Vec<Observer>,
    policies: BTreeMap<ModelKey, ModelPolicy>,
    sequence: u64,
    /// States of the leader before, for models that have not been seen yet.
    inherited: States,
}

/// What one cycle made.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What is published.
    pub published: Published,
    /// What is told of each model, by the followed it is of.
    pub reports: Vec<(Arc<Snapshot>, Vec<Report>)>,
    /// What metrics show of each model that was decided on.
    pub shown: Vec<Shown>,
    /// Capacities computed.
    pub computed: usize,
    /// Whether any count changes.
    pub changes: bool,
    /// What was known of demand, for [`Cycle::save`].
    pub known: BTreeMap<ModelKey, Known>,
}

/// One model on its way through a cycle.
struct Passing {
    spec: Arc<ModelSpec>,
    known: Known,
    views: Vec<VariantView>,
    unread: Option<String>,
}

impl Cycle {
    /// A controller that has decided nothing yet.
    pub fn new(followed: Vec<Followed>, gathering: Arc<Mutex<Gathering>>, board: Board) -> Self {
        Self {
            observers: vec![Observer::default(); followed.len()],
            followed,
            gathering,
            board,
            roster: Roster::new(COMPUTATIONS),
            policies: BTreeMap::new(),
            sequence: 0,
            inherited: States::new(),
        }
    }

    /// Whether everything that could ask for a model has been seen: before, nothing is decided.
    pub fn is_synced(&self) -> bool {
        let mut models = self.followed.iter().map(|one| one.models.snapshot());
        models.all(|snapshot| snapshot.synced)
    }

    /// Begins to lead, with what the leader before remembered.
    pub fn take_over(&mut self, states: States) {
        self.roster = Roster::new(COMPUTATIONS);
        self.policies.clear();
        self.inherited = states;
    }

    /// Looks without deciding, so that this replica knows what is new when it has to lead.
    pub fn watch(&mut self, now: Duration) {
        for (followed, observer) in self.followed.iter().zip(&mut self.observers) {
            let snapshot = followed.models.snapshot();
            let scales = |key: &TargetKey| followed.targets.state(key);
            let _ = observer.look(now, &snapshot.models, &scales, &followed.pods.index());
        }
    }

    /// Decides on every model at `now`, unix time that never goes back.
    pub fn decide(&mut self, now: Duration) -> Outcome {
        let (passing, mut requests) = self.look(now);
        self.keep_up(now, &passing, &mut requests);
        let cycle = self.roster.cycle(requests);
        let mut decisions: BTreeMap<ModelKey, Arc<ModelDecision>> = cycle
            .decisions
            .into_iter()
            .map(|decision| (decision.model.clone(), Arc::new(decision)))
            .collect();
        let mut outcome = Outcome {
            computed: cycle.computed,
            changes: decisions.values().any(|decision| decision.changes()),
            ..Outcome::default()
        };
        let at_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        self.sequence += 1;
        let before = self.board.latest();
        let board_now = self.board.clock().now();
        let mut models: Vec<PublishedModel> = Vec::new();
        for (snapshot, all) in passing {
            let mut reports = Vec::new();
            for Passing {
                spec,
                known,
                views,
                unread,
            } in all
            {
                let decision = decisions.remove(&spec.key);
                let decided = match (&decision, unread) {
                    (Some(decision), _) => Ok(&**decision),
                    (None, reason) => Err(reason.unwrap_or_else(|| "it is new".to_owned())),
                };
                let next = publish(at_ms, &spec, known.pool.as_deref(), &views, decided);
                let held = carried(&next, at_ms, &before, board_now);
                models.push(held.unwrap_or(next));
                if let Some(decision) = &decision {
                    let asked = views.iter().map(|view| view.asked.unwrap_or(0));
                    outcome.shown.push(Shown {
                        decision: Arc::clone(decision),
                        source: known.source,
                        models: known.models.values().cloned().collect(),
                        current: asked.collect(),
                        heard: known.demand.heard,
                    });
                }
                reports.push(Report {
                    decision,
                    views,
                    snapshots: known.models.values().map(snapshot_of).collect(),
                    pickers: u32::try_from(known.demand.heard).unwrap_or(u32::MAX),
                    findings: Vec::new(),
                    notes: notes(&known),
                    spec: Arc::clone(&spec),
                });
                outcome.known.insert(spec.key.clone(), known);
            }
            outcome.reports.push((snapshot, reports));
        }
        outcome.published = Published {
            at_ms,
            sequence: self.sequence,
            models,
        };
        outcome
    }

    /// What is asked for, what is known of it, and what can be decided.
    #[expect(clippy::type_complexity, reason = "named where it is taken apart")]
    fn look(
        &mut self,
        now: Duration,
    ) -> (
        Vec<(Arc<Snapshot>, Vec<Passing>)>,
        BTreeMap<ModelKey, ModelSignals>,
    ) {
        let mut known = self.gathering.lock().known(now);
        let mut requests = BTreeMap::new();
        let mut passing = Vec::new();
        for (followed, observer) in self.followed.iter().zip(&mut self.observers) {
            let snapshot = followed.models.snapshot();
            let scales = |key: &TargetKey| followed.targets.state(key);
            let pods = followed.pods.index();
            let views = observer.look(now, &snapshot.models, &scales, &pods);
            let mut all = Vec::new();
            for (spec, views) in snapshot.models.iter().zip(views) {
                let known = known.remove(&spec.key).unwrap_or_default();
                let unread = unread(spec, &views);
                if unread.is_none() {
                    let classes = classes(spec, &scales, &pods);
                    let signals = signals(now, spec, &known, &views, &classes);
                    requests.insert(spec.key.clone(), signals);
                }
                all.push(Passing {
                    spec: Arc::clone(spec),
                    known,
                    views,
                    unread,
                });
            }
            passing.push((snapshot, all));
        }
        (passing, requests)
    }

    /// Follows what is asked for: new models, changed policies, models that nobody asks for any more. A new model goes
    /// on from what the leader before remembered of it, and its counts from what was counted then.
    fn keep_up(
        &mut self,
        now: Duration,
        passing: &[(Arc<Snapshot>, Vec<Passing>)],
        requests: &mut BTreeMap<ModelKey, ModelSignals>,
    ) {
        let specs = || {
            let all = passing.iter().flat_map(|(_, all)| all);
            all.map(|one| &one.spec)
        };
        let wanted: BTreeSet<&ModelKey> = specs().map(|spec| &spec.key).collect();
        let gone: Vec<ModelKey> = self
            .roster
            .keys()
            .filter(|key| !wanted.contains(key))
            .cloned()
            .collect();
        for key in gone {
            self.roster.remove(&key);
            self.policies.remove(&key);
        }
        let mut restored = Vec::new();
        for spec in specs() {
            if self.policies.get(&spec.key) == Some(&spec.policy) {
                continue;
            }
            self.roster.set(spec.policy.clone());
            let new = self
                .policies
                .insert(spec.key.clone(), spec.policy.clone())
                .is_none();
            if let (true, Some(kept)) = (new, self.inherited.remove(&spec.key)) {
                self.restore(now, &spec.key, kept);
                restored.push(spec.key.clone());
            }
        }
        if restored.is_empty() {
            return;
        }
        let known = self.gathering.lock().known(now);
        for key in restored {
            if let (Some(signals), Some(known)) = (requests.get_mut(&key), known.get(&key)) {
                signals.demand = known.demand.clone();
            }
        }
    }

    fn restore(&mut self, now: Duration, key: &ModelKey, kept: Kept) {
        match self.roster.restore(key, kept.decisions, now) {
            Ok(()) => {
                if let Some(counts) = &kept.counts {
                    self.gathering.lock().restore(now, key, counts);
                }
            }
            // Its counts alone would be on a scale that nothing was measured on.
            Err(error) => {
                tracing::warn!(model = %key, %error, "the decisions on a model begin anew");
            }
        }
    }

    /// What is remembered of every model at `now`, given what was known in the last cycle.
    pub fn save(&self, now: Duration, known: &BTreeMap<ModelKey, Known>) -> States {
        let gathering = self.gathering.lock();
        let kept = |key: &ModelKey| {
            let counts = known
                .get(key)
                .and_then(|known| gathering.save(now, key, known));
            Some(Kept {
                decisions: self.roster.save(key, now)?,
                counts,
            })
        };
        self.roster
            .keys()
            .filter_map(|key| Some((key.clone(), kept(key)?)))
            .collect()
    }
}

/// What its demand rests on, in sentences.
fn notes(known: &Known) -> Vec<String> {
    let mut notes = vec![known.source.to_string()];
    if !known.shared_with.is_empty() {
        let others: Vec<String> = known.shared_with.iter().map(ToString::to_string).collect();
        notes.push(format!(
            "the pool also serves {}: its demand is counted for each",
            others.join(", ")
        ));
    }
    if let Some(pool) = known
        .pool
        .as_ref()
        .filter(|_| known.source != Source::Pickers)
    {
        notes.push(format!(
            "no endpoint picker of Headroom's picks for pool {pool}"
        ));
    }
    let troubles = known.troubles.iter();
    notes.extend(troubles.map(|(picker, why)| format!("endpoint picker {picker}: {why}")));
    notes
}

/// A latency model as the status shows it: the less trusted of its two targets counts.
fn snapshot_of(used: &InUse) -> ModelSnapshot {
    let rank = |state: &State| match state {
        State::Prior => 0,
        State::Stale => 1,
        State::Warming => 2,
        State::Trained => 3,
    };
    let state = used.states.iter().min_by_key(|state| rank(state));
    let fitted = i64::try_from(used.fitted_at_ms / 1_000).ok();
    ModelSnapshot {
        accelerator: used.class.clone(),
        version: used.version,
        from: used.from.clone(),
        labels: used.labels[0].min(used.labels[1]),
        state: state.map_or_else(String::new, |state| state.to_string()),
        fitted_at: fitted
            .filter(|seconds| *seconds > 0)
            .and_then(|seconds| Timestamp::from_second(seconds).ok())
            .map(Time),
    }
}
