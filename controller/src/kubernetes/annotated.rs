//! Models asked for by annotations on HorizontalPodAutoscalers and on what they scale.
//!
//! Every annotated scale target is one variant; those of the same namespace and model are variants of that one model.
//! An HPA's annotations go before those of its target; service levels that neither gives are taken from the
//! InferencePool's annotations, and at last from the defaults below.

use std::collections::BTreeMap;
use std::sync::Arc;

use controller_core::model::{ModelKey, ModelPolicy, SloClass, VariantPolicy};
use controller_core::policy::SloTargets;
use crds::annotations::{ModelAnnotations, Read};
use crds::model_scaler::Startup;

use super::conflicts::by_target;
use super::hpas::Hpa;
use super::models::{Finding, ModelSpec, Source, Topic, VariantSpec, mode_name};
use super::pools::Pool;
use super::scalers::{core_role, mode, share, startup};
use super::workloads::Workload;
use crate::published::{Mode, ObjectRef};

/// Service level of an annotated model where no annotation says: 90 % of the requests see their first token within 2 s,
/// and 90 % of them at most 100 ms per output token.
pub const DEFAULT_SLO: SloTargets = SloTargets {
    percentile: 0.9,
    ttft_ms: 2000.0,
    tpot_ms: 100.0,
};
/// Fewest replicas where neither an HPA nor an annotation says.
pub const DEFAULT_MIN: u32 = 1;
/// Most replicas where neither an HPA nor an annotation says.
pub const DEFAULT_MAX: u32 = 10;
/// Name of the one service level of an annotated model.
pub const CLASS: &str = "default";

/// The last good facts of every annotated object: a value that has become wrong leaves what it was in force.
#[derive(Clone, Debug, Default)]
pub struct LastGood {
    facts: BTreeMap<Source, ModelAnnotations>,
    seen: BTreeMap<Source, ModelAnnotations>,
}

impl LastGood {
    /// The facts in force of one object, and a finding for each of its annotations that is wrong.
    fn facts(
        &mut self,
        source: &Source,
        read: &Read,
        findings: &mut Vec<Finding>,
    ) -> ModelAnnotations {
        let object = Source {
            generation: None,
            ..source.clone()
        };
        let nothing = ModelAnnotations::default();
        let last = self.facts.get(&object).unwrap_or(&nothing);
        let facts = read.clone().keeping(last);
        findings.extend(read.problems.iter().map(|problem| {
            let message =
                format!("{problem}; the last good value stays in force, else the default");
            Finding::new(Topic::Spec, "WrongAnnotation", source, message)
        }));
        self.seen.insert(object, facts.clone());
        facts
    }

    /// Forgets the objects that were not asked for since the last call.
    fn turn(&mut self) {
        self.facts = std::mem::take(&mut self.seen);
    }
}

/// One scale target that annotations ask to be sized.
#[derive(Clone, Debug)]
struct Asked {
    source: Source,
    target: ObjectRef,
    facts: ModelAnnotations,
}

/// A pool with its facts.
#[derive(Clone, Debug)]
pub(super) struct KnownPool {
    namespace: Box<str>,
    name: Box<str>,
    facts: ModelAnnotations,
}

/// The facts in force of every pool.
pub(super) fn pools(
    pools: &[Arc<Pool>],
    last: &mut LastGood,
    findings: &mut Vec<Finding>,
) -> Vec<KnownPool> {
    let known = |pool: &Arc<Pool>| KnownPool {
        namespace: pool.source.namespace.clone(),
        name: pool.source.name.clone(),
        facts: pool.asked.as_ref().map_or_else(Default::default, |read| {
            last.facts(&pool.source, read, findings)
        }),
    };
    pools.iter().map(known).collect()
}

/// The pool that sees a model's demand: the one told, else the one that names the model, else the only one of the
/// namespace.
pub(super) fn pool_of<'a>(
    pools: &'a [KnownPool],
    key: &ModelKey,
    told: Option<&str>,
) -> (Option<String>, Option<&'a KnownPool>) {
    let mut here = pools
        .iter()
        .filter(|pool| *pool.namespace == *key.namespace);
    if let Some(told) = told {
        return (Some(told.to_owned()), here.find(|pool| *pool.name == *told));
    }
    let mut naming = here
        .clone()
        .filter(|pool| pool.facts.model.as_ref() == Some(&key.model));
    let found = naming.next().or_else(|| {
        let only = here.next()?;
        (here.next().is_none() && only.facts.model.is_none()).then_some(only)
    });
    (found.map(|pool| pool.name.to_string()), found)
}

/// The InferencePools of a namespace that has some, if none of them is called `name`.
pub(super) fn others<'a>(
    pools: &'a [KnownPool],
    namespace: &str,
    name: &str,
) -> Option<Vec<&'a str>> {
    let here = pools.iter().filter(|pool| *pool.namespace == *namespace);
    let names: Vec<&str> = here.map(|pool| &*pool.name).collect();
    (!names.is_empty() && !names.contains(&name)).then_some(names)
}

/// The models that annotations ask for, not yet validated, by key. What belongs to no model goes to `findings`.
pub(super) fn models(
    hpas: &[Arc<Hpa>],
    workloads: &[Arc<Workload>],
    pools: &[KnownPool],
    last: &mut LastGood,
    findings: &mut Vec<Finding>,
) -> Vec<ModelSpec> {
    let mut wrong = Vec::new();
    let mut models: BTreeMap<ModelKey, Vec<Asked>> = BTreeMap::new();
    for asked in targets(hpas, workloads, last, &mut wrong) {
        let Some(model) = asked.facts.model.clone() else {
            findings.push(nameless(&asked.source));
            continue;
        };
        let namespace = asked.source.namespace.to_string();
        models
            .entry(ModelKey { namespace, model })
            .or_default()
            .push(asked);
    }
    last.turn();
    let mut specs: Vec<ModelSpec> = models
        .into_iter()
        .map(|(key, asked)| spec(key, &asked, pools))
        .collect();
    for finding in wrong {
        let concerned = |spec: &&mut ModelSpec| {
            let namespace = *finding.about.namespace == *spec.key.namespace;
            let target = |variant: &VariantSpec| {
                *variant.target.name == *finding.about.name
                    && *variant.target.kind == *finding.about.kind
            };
            let asks = |variant: &VariantSpec| variant.source.same(&finding.about);
            namespace
                && spec
                    .variants
                    .iter()
                    .any(|variant| asks(variant) || target(variant))
        };
        match specs.iter_mut().find(concerned) {
            Some(spec) => spec.findings.push(finding),
            None => findings.push(finding),
        }
    }
    specs
}

fn nameless(source: &Source) -> Finding {
    let name = names::annotation::MODEL.canonical;
    let message = format!(
        "{source} has annotations for a model but none that names it: set {name} to the model's name as clients send it"
    );
    Finding::new(Topic::Spec, "ModelNotNamed", source, message)
}

/// Every annotated scale target, HPA's annotations before its target's. Limits that neither gives are the HPA's own.
fn targets(
    hpas: &[Arc<Hpa>],
    workloads: &[Arc<Workload>],
    last: &mut LastGood,
    findings: &mut Vec<Finding>,
) -> Vec<Asked> {
    let mut asked: BTreeMap<TargetKey, Asked> = BTreeMap::new();
    for hpa in hpas {
        let Some(read) = &hpa.asked else { continue };
        let facts = last.facts(&hpa.source, read, findings);
        let key = TargetKey::new(&hpa.source.namespace, &hpa.target);
        // Of two HPAs on one target the first speaks; that there are two is a finding of its own.
        asked.entry(key).or_insert_with(|| Asked {
            source: hpa.source.clone(),
            target: hpa.target.clone(),
            facts,
        });
    }
    for workload in workloads {
        let Some(read) = &workload.asked else {
            continue;
        };
        let facts = last.facts(&workload.source, read, findings);
        let target = workload.source.object();
        let key = TargetKey::new(&workload.source.namespace, &target);
        match asked.get_mut(&key) {
            Some(held) => held.facts = joined(std::mem::take(&mut held.facts), &facts),
            None => {
                let source = workload.source.clone();
                asked.insert(
                    key,
                    Asked {
                        source,
                        target,
                        facts,
                    },
                );
            }
        }
    }
    let scaled = by_target(hpas);
    for (key, held) in &mut asked {
        let hpa = scaled.get(key).and_then(|hpas| hpas.first());
        // One that contradicts itself is told of elsewhere.
        let Some(hpa) = hpa.filter(|hpa| hpa.min <= hpa.max) else {
            continue;
        };
        let facts = &mut held.facts;
        facts.min_replicas.get_or_insert(hpa.min);
        facts.max_replicas.get_or_insert(hpa.max);
    }
    asked.into_values().collect()
}

/// `facts`, and what they do not say from `others`.
fn joined(facts: ModelAnnotations, others: &ModelAnnotations) -> ModelAnnotations {
    let others = others.clone();
    ModelAnnotations {
        model: facts.model.or(others.model),
        slo_ttft_ms: facts.slo_ttft_ms.or(others.slo_ttft_ms),
        slo_tpot_ms: facts.slo_tpot_ms.or(others.slo_tpot_ms),
        slo_percentile: facts.slo_percentile.or(others.slo_percentile),
        cost_per_hour: facts.cost_per_hour.or(others.cost_per_hour),
        accelerator: facts.accelerator.or(others.accelerator),
        role: facts.role.or(others.role),
        mode: facts.mode.or(others.mode),
        startup: facts.startup.or(others.startup),
        pool: facts.pool.or(others.pool),
        min_replicas: facts.min_replicas.or(others.min_replicas),
        max_replicas: facts.max_replicas.or(others.max_replicas),
    }
}

/// What tells one scale target from another, whichever version it is named by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    namespace: Box<str>,
    group: Box<str>,
    kind: Box<str>,
    name: Box<str>,
}

impl TargetKey {
    /// The target that `target` refers to from an object of `namespace`.
    pub fn new(namespace: &str, target: &ObjectRef) -> Self {
        Self {
            namespace: namespace.into(),
            group: target.group().into(),
            kind: target.kind.as_str().into(),
            name: target.name.as_str().into(),
        }
    }

    /// Namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// API group; empty for the core group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Kind.
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// Name.
    pub fn name(&self) -> &str {
        &self.name
    }
}

fn spec(key: ModelKey, asked: &[Asked], pools: &[KnownPool]) -> ModelSpec {
    let mut findings = Vec::new();
    let told = asked.iter().find_map(|one| one.facts.pool.as_deref());
    let (pool, known) = pool_of(pools, &key, told);
    let facts = |one: &Asked| match known {
        Some(pool) => joined(one.facts.clone(), &levels(&pool.facts)),
        None => one.facts.clone(),
    };
    let slo = slo(asked, &facts, &mut findings);
    let class = SloClass {
        name: CLASS.to_owned(),
        slo,
        priority: None,
        weight: 1.0,
    };
    let names = names(asked);
    let variants = asked
        .iter()
        .zip(&names)
        .map(|(one, name)| variant(name, &one.facts));
    let policy = ModelPolicy::new(key.clone(), vec![class], variants.collect());
    let variants = asked.iter().zip(names).map(|(one, name)| VariantSpec {
        name,
        target: one.target.clone(),
        scaler: None,
        hpa: None,
        contested: false,
        source: one.source.clone(),
    });
    ModelSpec {
        variants: variants.collect(),
        mode: agreed_mode(asked, &facts, &mut findings),
        source: asked
            .first()
            .map_or_else(Source::default, |one| one.source.clone()),
        key,
        policy,
        pool,
        findings,
    }
}

/// What a pool's annotations give to the models behind it.
fn levels(pool: &ModelAnnotations) -> ModelAnnotations {
    ModelAnnotations {
        slo_ttft_ms: pool.slo_ttft_ms,
        slo_tpot_ms: pool.slo_tpot_ms,
        slo_percentile: pool.slo_percentile,
        mode: pool.mode,
        ..ModelAnnotations::default()
    }
}

/// The targets' names, with the kind where two are named alike.
fn names(asked: &[Asked]) -> Vec<String> {
    let alike = |name: &str| asked.iter().filter(|one| one.target.name == name).count() > 1;
    let named = |one: &Asked| match alike(&one.target.name) {
        true => format!(
            "{}-{}",
            one.target.name,
            one.target.kind.to_ascii_lowercase()
        ),
        false => one.target.name.clone(),
    };
    asked.iter().map(named).collect()
}

fn variant(name: &str, facts: &ModelAnnotations) -> VariantPolicy {
    let min = facts.min_replicas.unwrap_or(DEFAULT_MIN);
    let max = facts.max_replicas.unwrap_or(DEFAULT_MAX.max(min));
    let start = startup(facts.startup.unwrap_or(Startup::Auto));
    let plain = VariantPolicy::new(name, min, max, start);
    VariantPolicy {
        role: core_role(facts.role.unwrap_or_default()),
        accelerator: facts.accelerator.clone().unwrap_or_default(),
        cost_per_hour: facts.cost_per_hour.unwrap_or(plain.cost_per_hour),
        ..plain
    }
}

/// One model has one service level: where its variants say different things the strictest holds.
fn slo(
    asked: &[Asked],
    facts: &impl Fn(&Asked) -> ModelAnnotations,
    findings: &mut Vec<Finding>,
) -> SloTargets {
    let mut strictest = |name: names::Name,
                         of: fn(&ModelAnnotations) -> Option<f64>,
                         least: bool| {
        let told: Vec<(f64, &Source)> = asked
            .iter()
            .filter_map(|one| Some((of(&facts(one))?, &one.source)))
            .collect();
        let better = |a: f64, b: f64| if least { a.min(b) } else { a.max(b) };
        let held = told.iter().map(|told| told.0).reduce(better)?;
        if let Some((other, source)) = told.iter().find(|told| told.0 != held) {
            let message = format!(
                "annotation {} is {other} here and {held} on another object of the same model: {held}, the stricter, is in force for all of them",
                name.canonical
            );
            findings.push(Finding::new(Topic::Conflict, "DifferentSlo", source, message).noted());
        }
        Some(held)
    };
    use names::annotation::{SLO_PERCENTILE, SLO_TPOT_MS, SLO_TTFT_MS};
    SloTargets {
        percentile: strictest(SLO_PERCENTILE, |facts| facts.slo_percentile, false)
            .map_or(DEFAULT_SLO.percentile, share),
        ttft_ms: strictest(SLO_TTFT_MS, |facts| facts.slo_ttft_ms, true)
            .unwrap_or(DEFAULT_SLO.ttft_ms),
        tpot_ms: strictest(SLO_TPOT_MS, |facts| facts.slo_tpot_ms, true)
            .unwrap_or(DEFAULT_SLO.tpot_ms),
    }
}

/// One model has one mode: where its variants say different things the least intrusive holds.
fn agreed_mode(
    asked: &[Asked],
    facts: &impl Fn(&Asked) -> ModelAnnotations,
    findings: &mut Vec<Finding>,
) -> Mode {
    let rank = |mode: Mode| match mode {
        Mode::Advise => 0,
        Mode::Publish => 1,
        Mode::Direct => 2,
    };
    let told: Vec<(Mode, &Source)> = asked
        .iter()
        .filter_map(|one| Some((mode(facts(one).mode?), &one.source)))
        .collect();
    let Some(held) = told
        .iter()
        .map(|told| told.0)
        .min_by_key(|mode| rank(*mode))
    else {
        return Mode::default();
    };
    if let Some((_, source)) = told.iter().find(|told| told.0 != held) {
        let message = format!(
            "annotation {} differs between the objects of this model: {}, the less intrusive, is in force for all of them",
            names::annotation::MODE.canonical,
            mode_name(held)
        );
        findings.push(Finding::new(Topic::Conflict, "DifferentMode", source, message).noted());
    }
    held
}
