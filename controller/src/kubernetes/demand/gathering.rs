//! Everything that has been heard of demand, from all sources, until it is asked for.
//!
//! Pure: told what was heard and when, it says what is known. One lock around it is held for as long as a report takes
//! to be counted. Our pickers are kept by pool, since a pool may serve several models; the other sources by model.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use controller_core::model::ModelKey;
use controller_core::shares::{MergedDemand, Silent};
use epp_core::report::DemandReport;
use predictor::snapshot::ClassModel;
use serde::{Deserialize, Serialize};

use super::Source;
use super::ledger::{Ledger, SavedLedger};
use super::pool::Pool;
use crate::kubernetes::engines::{Page, Tally};
use crate::kubernetes::models_from_pickers::InUse;
use crate::kubernetes::pickers::{MAX_PICKERS, PickerPod};
use crate::kubernetes::prometheus::Integral;
use crate::kubernetes::prometheus::query::{Answers, Subject, picture};

/// An engine unheard for longer than this has nothing to say.
const ENGINE_SILENT: Duration = Duration::from_secs(15);

/// A pool by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolKey {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// A model whose demand is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The model.
    pub key: ModelKey,
    /// The pool that serves it, where it is named. Where not, the only pool that pickers of the namespace pick for.
    pub pool: Option<String>,
}

/// What is known of one model's demand now.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// Who says so.
    pub source: Source,
    /// The pool found.
    pub pool: Option<String>,
    /// The demand.
    pub demand: MergedDemand,
    /// KV cache of one replica in tokens, by class of endpoints: the smallest that was told.
    pub kv_tokens: BTreeMap<String, f64>,
    /// Latency models in use, by class.
    pub models: BTreeMap<String, InUse>,
    /// Pickers that answer nonsense or not at all, by name, with the reason.
    pub troubles: BTreeMap<String, String>,
    /// Other models on the same pool: their demand cannot be told apart.
    pub shared_with: Vec<ModelKey>,
}

/// Counts of one model's demand, on their way to the next process.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Handover {
    /// Whose counts they are.
    pub source: Source,
    /// The counts.
    pub ledger: SavedLedger,
}

/// Demand from the sources that are not our pickers.
#[derive(Debug)]
struct Elsewhere {
    pool: Option<String>,
    prometheus: Integral,
    prometheus_ledger: Ledger,
    engines: BTreeMap<String, Engine>,
    engine_ledger: Ledger,
}

#[derive(Debug, Default)]
struct Engine {
    tally: Tally,
    heard: Duration,
    kv_tokens: Option<f64>,
}

impl Elsewhere {
    fn new(now: Duration) -> Self {
        Self {
            pool: None,
            prometheus: Integral::default(),
            prometheus_ledger: Ledger::new(now),
            engines: BTreeMap::new(),
            engine_ledger: Ledger::new(now),
        }
    }
}

/// Everything heard.
#[derive(Debug)]
pub struct Gathering {
    pools: BTreeMap<PoolKey, Pool>,
    models: BTreeMap<ModelKey, Elsewhere>,
    /// The pool of each picker that is polled.
    pickers: BTreeMap<String, PoolKey>,
    /// Pickers of each pool that are too many to be polled.
    crowded: BTreeMap<PoolKey, u64>,
    ready: bool,
}

impl Default for Gathering {
    fn default() -> Self {
        Self::new()
    }
}

impl Gathering {
    /// Nothing heard yet.
    pub fn new() -> Self {
        Self {
            pools: BTreeMap::new(),
            models: BTreeMap::new(),
            pickers: BTreeMap::new(),
            crowded: BTreeMap::new(),
            ready: false,
        }
    }

    /// Whether it was ever told what is wanted and which pickers there are. Before, no source can be chosen.
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// The models wanted and the picker pods that exist, as of `now`. What is not wanted any more is forgotten; the
    /// pickers to poll are returned.
    pub fn expect<'a>(
        &mut self,
        now: Duration,
        wanted: &[Wanted],
        pods: impl IntoIterator<Item = &'a PickerPod>,
    ) -> Vec<PickerPod> {
        let pods: Vec<&PickerPod> = pods.into_iter().collect();
        self.ready = true;
        self.models
            .retain(|key, _| wanted.iter().any(|model| model.key == *key));
        let mut needed = BTreeSet::new();
        for model in wanted {
            let pool = pool_of(model, &pods);
            needed.extend(pool.clone().map(|name| PoolKey {
                namespace: model.key.namespace.clone(),
                name,
            }));
            self.models
                .entry(model.key.clone())
                .or_insert_with(|| Elsewhere::new(now))
                .pool = pool;
        }
        self.pools.retain(|key, _| needed.contains(key));
        for key in needed {
            self.pools.entry(key).or_insert_with(|| Pool::new(now));
        }
        self.assign(now, &pods)
    }

    fn assign(&mut self, now: Duration, pods: &[&PickerPod]) -> Vec<PickerPod> {
        let mut polled = Vec::new();
        let mut present: BTreeMap<String, PoolKey> = BTreeMap::new();
        self.crowded.clear();
        for pod in pods {
            let key = PoolKey {
                namespace: pod.namespace.clone(),
                name: pod.pool.clone(),
            };
            let Some(pool) = self.pools.get_mut(&key) else {
                continue;
            };
            let room = present.len() < MAX_PICKERS;
            if !room || pool.expect(now, &pod.uid, &pod.name).is_err() {
                *self.crowded.entry(key).or_default() += 1;
                continue;
            }
            present.insert(pod.uid.clone(), key);
            polled.push((*pod).clone());
        }
        for (uid, key) in &self.pickers {
            if let (false, Some(pool)) = (present.contains_key(uid), self.pools.get_mut(key)) {
                pool.gone(uid);
            }
        }
        self.pickers = present;
        polled
    }

    /// Pickers that are one too many to be counted.
    pub fn crowded(&self) -> u64 {
        self.crowded.values().sum()
    }

    fn pool_of_picker(&mut self, uid: &str) -> Option<(&PoolKey, &mut Pool)> {
        let key = self.pickers.get(uid)?;
        self.pools.get_mut(key).map(|pool| (key, pool))
    }

    /// Which served requests picker `uid` is to tell of: those after this number.
    pub fn mix_after(&mut self, uid: &str) -> u64 {
        self.pool_of_picker(uid)
            .map_or(0, |(_, pool)| pool.mix_after(uid))
    }

    /// Picker `uid` answered with a report at `now`. Nonsense counts as silence, and is told.
    ///
    /// # Errors
    /// What is wrong with the report.
    pub fn heard(&mut self, now: Duration, uid: &str, report: &DemandReport) -> Result<(), String> {
        match self.pool_of_picker(uid) {
            Some((key, pool)) => {
                let key = key.clone();
                pool.heard(now, uid, &key, report)
            }
            None => Ok(()),
        }
    }

    /// Picker `uid` did not answer at all.
    pub fn failed(&mut self, uid: &str, reason: &str) {
        if let Some((_, pool)) = self.pool_of_picker(uid) {
            pool.failed(uid, reason);
        }
    }

    /// Whether picker `uid` is to be asked for its latency models now. Saying so counts as asking.
    pub fn asks_for_models(&mut self, now: Duration, uid: &str) -> bool {
        self.pool_of_picker(uid)
            .is_some_and(|(_, pool)| pool.snapshots.ask(now, uid))
    }

    /// The models fetched from picker `uid`.
    pub fn fetched(
        &mut self,
        now: Duration,
        uid: &str,
        models: impl IntoIterator<Item = ClassModel>,
    ) {
        if let Some((_, pool)) = self.pool_of_picker(uid) {
            pool.snapshots.fetched(now, uid, models);
        }
    }

    /// The models that no picker of ours tells of: those that the other sources are asked about.
    pub fn without_pickers(&self) -> Vec<Subject> {
        let lacking = self.models.iter().filter(|(key, model)| {
            let pool = self.pool(key, model.pool.as_deref());
            pool.is_none_or(|pool| pool.pickers() == 0)
        });
        lacking
            .map(|(key, model)| Subject {
                namespace: key.namespace.clone(),
                pool: model.pool.clone(),
                model: key.model.clone(),
            })
            .collect()
    }

    /// Prometheus answered at `now` what was asked about `subjects`.
    pub fn prometheus(&mut self, now: Duration, subjects: &[Subject], answers: &Answers) {
        for subject in subjects {
            let key = ModelKey {
                namespace: subject.namespace.clone(),
                model: subject.model.clone(),
            };
            if let (Some(model), Some(picture)) =
                (self.models.get_mut(&key), picture(answers, subject))
            {
                model.prometheus.observe(now, picture);
            }
        }
    }

    /// The engine in pod `pod` of model `key` showed `page` at `now`.
    pub fn engine(&mut self, now: Duration, key: &ModelKey, pod: &str, page: Page) {
        let Some(model) = self.models.get_mut(key) else {
            return;
        };
        let engine = model.engines.entry(pod.to_owned()).or_default();
        engine.kv_tokens = page.kv_tokens;
        if let Some(report) = engine.tally.observe(now, page) {
            engine.heard = now;
            // One too many of them is left out: its share is unknown anyway, and said to be by its absence.
            let _ = model.engine_ledger.accept(now, pod, report);
        }
    }

    /// The pods of model `key` that are engines now; what others counted stays counted.
    pub fn engines(&mut self, key: &ModelKey, pods: &BTreeSet<String>) {
        if let Some(model) = self.models.get_mut(key) {
            model.engines.retain(|pod, _| pods.contains(pod));
            // Those too that another process counted and this one has never seen.
            for id in model.engine_ledger.ids() {
                if !pods.contains(&id) {
                    model.engine_ledger.gone(&id);
                }
            }
        }
    }

    /// The counts behind `known`, as of `now`, to be handed over with what was decided on them.
    pub fn save(&self, now: Duration, key: &ModelKey, known: &Known) -> Option<Handover> {
        let model = self.models.get(key)?;
        let ledger = match known.source {
            Source::Pickers => &self.pool(key, model.pool.as_deref())?.ledger,
            Source::Prometheus => &model.prometheus_ledger,
            Source::Engines => &model.engine_ledger,
            Source::None => return None,
        };
        Some(Handover {
            source: known.source,
            ledger: ledger.save(now, &known.demand),
        })
    }

    /// Goes on from the counts that another process handed over for model `key`.
    pub fn restore(&mut self, now: Duration, key: &ModelKey, handed: &Handover) {
        let Some(model) = self.models.get_mut(key) else {
            return;
        };
        let ledger = Ledger::restored(&handed.ledger);
        match handed.source {
            Source::Pickers => {
                let pool = model.pool.clone().map(|name| PoolKey {
                    namespace: key.namespace.clone(),
                    name,
                });
                if let Some(pool) = pool.and_then(|key| self.pools.get_mut(&key)) {
                    pool.restore(now, ledger);
                }
            }
            Source::Prometheus => {
                // The integral of this process begins at zero, on top of the sum.
                let sum = SavedLedger {
                    counted: BTreeMap::new(),
                    ..handed.ledger.clone()
                };
                model.prometheus_ledger = Ledger::restored(&sum);
            }
            Source::Engines => model.engine_ledger = ledger,
            Source::None => {}
        }
    }

    fn pool(&self, key: &ModelKey, name: Option<&str>) -> Option<&Pool> {
        self.pools.get(&PoolKey {
            namespace: key.namespace.clone(),
            name: name?.to_owned(),
        })
    }

    /// What is known of every model at `now`. To be asked for once a cycle: what demand caught up with since the last
    /// time is handed over once.
    pub fn known(&mut self, now: Duration) -> BTreeMap<ModelKey, Known> {
        let merged: BTreeMap<PoolKey, MergedDemand> = self
            .pools
            .iter_mut()
            .map(|(key, pool)| {
                let mut demand = pool.ledger.demand(now);
                // Their share is as unknown as that of one that does not answer.
                demand
                    .silent
                    .extend(self.crowded.get(key).map(|count| Silent {
                        id: format!("{count} endpoint pickers more than can be asked"),
                        unheard: Duration::ZERO,
                    }));
                (key.clone(), demand)
            })
            .collect();
        let mut on_pool: BTreeMap<PoolKey, Vec<ModelKey>> = BTreeMap::new();
        let mut known = BTreeMap::new();
        for (key, model) in &mut self.models {
            let pool = model.pool.clone().map(|name| PoolKey {
                namespace: key.namespace.clone(),
                name,
            });
            let state = elsewhere(now, model);
            let mut one = match pool
                .as_ref()
                .zip(pool.as_ref().and_then(|key| merged.get(key)))
            {
                Some((pool, demand)) => {
                    on_pool.entry(pool.clone()).or_default().push(key.clone());
                    with_pickers(state, demand, self.pools.get(pool))
                }
                None => state,
            };
            one.pool.clone_from(&model.pool);
            one.demand.ledger = one.source as u8;
            known.insert(key.clone(), one);
        }
        for models in on_pool.values().filter(|models| models.len() > 1) {
            for key in models {
                if let Some(one) = known.get_mut(key) {
                    one.shared_with = models
                        .iter()
                        .filter(|other| *other != key)
                        .cloned()
                        .collect();
                }
            }
        }
        known
    }
}

/// The pool named, or the only one that pickers of the namespace pick for.
fn pool_of(model: &Wanted, pods: &[&PickerPod]) -> Option<String> {
    if model.pool.is_some() {
        return model.pool.clone();
    }
    let here = pods
        .iter()
        .filter(|pod| pod.namespace == model.key.namespace);
    let pools: BTreeSet<&str> = here.map(|pod| pod.pool.as_str()).collect();
    match pools.len() {
        1 => pools.first().map(|&pool| pool.to_owned()),
        _ => None,
    }
}

/// What the sources other than our pickers say.
fn elsewhere(now: Duration, model: &mut Elsewhere) -> Known {
    if let Some(report) = model.prometheus.report(now) {
        // A single source never is one too many.
        let _ = model
            .prometheus_ledger
            .accept(now, Source::Prometheus.name(), report);
        let mut demand = model.prometheus_ledger.demand(now);
        demand.silent.extend(model.prometheus.missing(now));
        return Known {
            source: Source::Prometheus,
            demand,
            ..Known::default()
        };
    }
    let heard = model
        .engines
        .values()
        .any(|engine| now < engine.heard + ENGINE_SILENT);
    if !heard {
        return Known::default();
    }
    let kv_tokens = model
        .engines
        .values()
        .filter_map(|engine| engine.kv_tokens)
        .reduce(f64::min);
    Known {
        source: Source::Engines,
        demand: model.engine_ledger.demand(now),
        kv_tokens: kv_tokens
            .map(|tokens| (String::new(), tokens))
            .into_iter()
            .collect(),
        ..Known::default()
    }
}

/// What our pickers say, before all others; without any of them, the models that they left.
fn with_pickers(other: Known, demand: &MergedDemand, pool: Option<&Pool>) -> Known {
    let Some(pool) = pool else { return other };
    let models = pool.snapshots.in_use().clone();
    if super::choose(pool.pickers(), false, false) != Source::Pickers {
        return Known { models, ..other };
    }
    Known {
        source: Source::Pickers,
        demand: demand.clone(),
        kv_tokens: pool.kv_tokens(),
        models,
        troubles: pool.troubles(),
        ..Known::default()
    }
}

#[cfg(test)]
mod tests;
