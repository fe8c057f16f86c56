//! Everything that is asked for, of every object that asks: pure, made anew whenever one of them changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use controller_core::hpa::Tolerance;
use controller_core::model::{ModelKey, VariantPolicy};

use super::annotated::{self, KnownPool, LastGood, TargetKey};
use super::conflicts;
use super::hpas::Hpa;
use super::models::{Finding, ModelSpec, Snapshot, Topic, VariantSpec};
use super::pools::Pool;
use super::scalers::{self, Scaler};
use super::workloads::Workload;
use crate::published::{Mode, ObjectRef};

/// Group and version of KEDA's objects.
const KEDA: &str = "keda.sh/v1alpha1";

/// The objects that may ask for something, or stand in its way.
#[derive(Clone, Debug, Default)]
pub struct Inputs {
    /// ModelScalers.
    pub scalers: Vec<Arc<Scaler>>,
    /// HorizontalPodAutoscalers, annotated or not.
    pub hpas: Vec<Arc<Hpa>>,
    /// Objects that can be scaled, annotated or not.
    pub workloads: Vec<Arc<Workload>>,
    /// InferencePools.
    pub pools: Vec<Arc<Pool>>,
}

/// Makes snapshots of inputs; remembers what was last good.
#[derive(Clone, Debug, Default)]
pub struct Assembler {
    facts: LastGood,
    specs: BTreeMap<ModelKey, ModelSpec>,
}

impl Assembler {
    /// Everything that `inputs` ask for. A model that cannot be followed as it is asked for keeps its last good spec,
    /// and says so in its findings; one that never was good is left out.
    pub fn assemble(&mut self, inputs: &Inputs, synced: bool) -> Snapshot {
        let mut findings = Vec::new();
        let pools = annotated::pools(&inputs.pools, &mut self.facts, &mut findings);
        let annotated = annotated::models(
            &inputs.hpas,
            &inputs.workloads,
            &pools,
            &mut self.facts,
            &mut findings,
        );
        let mut models = by_scalers(&inputs.scalers, &pools, &mut findings);
        for spec in annotated {
            match models.get_mut(&spec.key) {
                Some(scaler) => ignore(spec, scaler),
                None => {
                    models.insert(spec.key.clone(), spec);
                }
            }
        }
        let scaled = conflicts::by_target(&inputs.hpas);
        for spec in models.values_mut() {
            attach(spec, &scaled);
            spec.findings.extend(no_such_pool(spec, &pools));
        }
        let mut models = self.valid(models, &mut findings);
        conflicts::judge(&mut models, &inputs.hpas, &scaled);
        Snapshot {
            synced,
            models: models.into_iter().map(Arc::new).collect(),
            findings,
        }
    }

    /// Those that can be followed, by key; in the place of others what was last good of them.
    fn valid(
        &mut self,
        models: BTreeMap<ModelKey, ModelSpec>,
        findings: &mut Vec<Finding>,
    ) -> Vec<ModelSpec> {
        let mut valid = Vec::with_capacity(models.len());
        let mut before = std::mem::take(&mut self.specs);
        for (key, spec) in models {
            let Err(error) = spec.policy.validate() else {
                self.specs.insert(key, spec.clone());
                valid.push(spec);
                continue;
            };
            let held = before
                .remove(&key)
                .filter(|held| held.source.same(&spec.source));
            let kept = if held.is_some() {
                "what was asked for before stays in force"
            } else {
                "the model is not sized"
            };
            let message = format!("{error}; {kept}");
            let finding = Finding::new(Topic::Spec, "InvalidSpec", &spec.source, message);
            match held {
                Some(good) => {
                    self.specs.insert(key, good.clone());
                    let told = spec.findings.into_iter().chain([finding]);
                    valid.push(ModelSpec {
                        source: spec.source,
                        findings: told.collect(),
                        ..good
                    });
                }
                None => findings.extend(spec.findings.into_iter().chain([finding])),
            }
        }
        valid
    }
}

/// The models that ModelScalers ask for; of two for one model the older counts.
fn by_scalers(
    scalers: &[Arc<Scaler>],
    pools: &[KnownPool],
    findings: &mut Vec<Finding>,
) -> BTreeMap<ModelKey, ModelSpec> {
    let mut oldest: Vec<&Arc<Scaler>> = scalers.iter().collect();
    oldest.sort_by_key(|scaler| (scaler.created, &scaler.source));
    let mut models: BTreeMap<ModelKey, ModelSpec> = BTreeMap::new();
    for scaler in oldest {
        let key = scaler.key();
        match models.get_mut(&key) {
            None => {
                models.insert(key, asked_by(scaler, pools));
            }
            Some(first) => {
                let (other, model) = (&first.source.name, &key.model);
                let message = format!(
                    "model {model} is already sized by ModelScaler {other}, which is older: this one is ignored; delete one of the two"
                );
                findings.push(Finding::new(
                    Topic::Conflict,
                    "DuplicateModel",
                    &scaler.source,
                    message,
                ));
                let message = format!(
                    "ModelScaler {} asks for the same model and is ignored: delete one of the two",
                    scaler.source.name
                );
                let about = first.source.clone();
                first.findings.push(Finding::new(
                    Topic::Conflict,
                    "DuplicateModel",
                    &about,
                    message,
                ));
            }
        }
    }
    models
}

fn asked_by(scaler: &Scaler, pools: &[KnownPool]) -> ModelSpec {
    let key = scaler.key();
    let (pool, _) = annotated::pool_of(pools, &key, scaler.spec.pool.as_deref());
    let variants = scaler.spec.variants.iter().map(|variant| VariantSpec {
        name: variant.name.clone(),
        target: scalers::object(&variant.target),
        scaler: None,
        hpa: None,
        contested: false,
        source: scaler.source.clone(),
    });
    ModelSpec {
        key,
        policy: scaler.policy(),
        pool,
        mode: scalers::mode(scaler.spec.mode),
        variants: variants.collect(),
        source: scaler.source.clone(),
        findings: Vec::new(),
    }
}

/// A pool need not be an InferencePool; where there are some, a name that none has is likely a slip.
fn no_such_pool(spec: &ModelSpec, pools: &[KnownPool]) -> Option<Finding> {
    let (name, namespace) = (spec.pool.as_deref()?, &spec.key.namespace);
    let others = annotated::others(pools, namespace, name)?.join(", ");
    let message = format!(
        "no InferencePool of namespace {namespace} is called {name}; there is {others}: name one of them, or label the pods of its endpoint picker with {}: {name}",
        names::label::POOL
    );
    let finding = Finding::new(Topic::Target, "PoolNotFound", &spec.source, message);
    Some(finding.noted())
}

/// Annotations for a model that a ModelScaler sizes.
fn ignore(annotated: ModelSpec, scaler: &mut ModelSpec) {
    let (winner, model) = (&scaler.source.name, &scaler.key.model);
    let mut told: Vec<Finding> = Vec::new();
    for variant in annotated.variants {
        let message = format!(
            "annotations of {} are ignored: model {model} is sized by ModelScaler {winner}; remove the annotation {} or delete the ModelScaler",
            variant.source,
            names::annotation::MODEL.canonical,
        );
        let (topic, reason) = (Topic::Conflict, "AnnotationsIgnored");
        told.push(Finding::new(topic, reason, &variant.source, message).noted());
    }
    scaler.findings.extend(told);
}

/// Gives every variant the HPA that scales its target: its limits hold, and counts move by steps that it does not ignore.
fn attach(spec: &mut ModelSpec, scaled: &BTreeMap<TargetKey, Vec<&Arc<Hpa>>>) {
    let (mode, namespace) = (spec.mode, spec.key.namespace.clone());
    for (place, policy) in spec.variants.iter_mut().zip(&mut spec.policy.variants) {
        let key = TargetKey::new(&namespace, &place.target);
        let Some(hpa) = scaled.get(&key).and_then(|hpas| hpas.first()) else {
            continue;
        };
        place.scaler = Some(scaler_of(hpa));
        place.hpa = Some(Arc::clone(hpa));
        spec.findings.extend(limit(policy, hpa));
        policy.quantise = quantised(mode, hpa);
    }
}

fn scaler_of(hpa: &Hpa) -> ObjectRef {
    match &hpa.scaled_object {
        Some(name) => ObjectRef::new(KEDA, "ScaledObject", &**name),
        None => hpa.source.object(),
    }
}

/// An HPA's limits narrow those asked for: a count beyond them would never come.
fn limit(policy: &mut VariantPolicy, hpa: &Hpa) -> Option<Finding> {
    let name = &hpa.source.name;
    if hpa.min > hpa.max {
        let message = format!(
            "minReplicas {} of HorizontalPodAutoscaler {name} is above its maxReplicas {}: it scales nothing; raise maxReplicas or lower minReplicas",
            hpa.min, hpa.max
        );
        return Some(Finding::new(
            Topic::Autoscaler,
            "MinAboveMax",
            &hpa.source,
            message,
        ));
    }
    if policy.min > policy.max {
        // Wrong in itself: that is for its validation to say.
        return None;
    }
    // KEDA scales from and to zero by itself: its HPA never asks for less than one.
    let keda = hpa.scaled_object.is_some() && hpa.min == 1;
    let floor = if keda { 0 } else { hpa.min };
    let (min, max) = (policy.min.max(floor), policy.max.min(hpa.max));
    if min <= max {
        (policy.min, policy.max) = (min, max);
        return None;
    }
    let message = format!(
        "variant {} may have {} to {} replicas and HorizontalPodAutoscaler {name} allows {} to {}: no count satisfies both, the HorizontalPodAutoscaler's hold; make the two agree",
        policy.name, policy.min, policy.max, hpa.min, hpa.max
    );
    (policy.min, policy.max) = (hpa.min, hpa.max);
    Some(Finding::new(
        Topic::Autoscaler,
        "LimitsDisagree",
        &hpa.source,
        message,
    ))
}

/// The tolerance that published counts must step over.
fn quantised(mode: Mode, hpa: &Hpa) -> Option<Tolerance> {
    let follows = hpa.follows().is_some() || hpa.scaled_object.is_some();
    (mode == Mode::Publish && follows).then_some(hpa.tolerance)
}

#[cfg(test)]
pub(super) mod tests;
