//! From objects to what the picker works with: a pure function of what is known now and what was good before.

use super::pods::{self, ServingPod};
use super::policy::{self, ObjectiveObject, RewriteObject};
use super::pool::{Members, PoolObject};
use super::problem::{About, Problem, UNREADABLE, WRONG_ANNOTATION};
use crate::api::rewrite::Rewrites;
use crds::ModelAnnotations;
use crds::annotations;
use epp_core::{EndpointSpec, Objective, Objectives, Slo};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kubernetes::conditions::{self, Status};
use kubernetes::watch::{ObjectKey, Objects};
use std::collections::BTreeMap;

/// The condition that is set on objectives.
pub(super) const ACCEPTED: &str = "Accepted";

/// The pool that is picked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolName<'a> {
    pub(super) group: &'a str,
    pub(super) api_version: &'a str,
    pub(super) namespace: &'a str,
    pub(super) name: &'a str,
}

/// Objects of one kind, and under which API they were found.
#[derive(Debug)]
pub(super) struct Kind<'a, T> {
    pub(super) api_version: &'a str,
    pub(super) objects: &'a Objects<T>,
    /// Those that cannot be read, with the reason.
    pub(super) broken: &'a BTreeMap<ObjectKey, String>,
}

/// Everything known now.
#[derive(Debug)]
pub(super) struct Known<'a> {
    /// `None` = pods are selected by a flag, and nothing but pods is read.
    pub(super) pool: Option<(PoolName<'a>, &'a PoolObject)>,
    pub(super) ports: &'a [u16],
    pub(super) pods: &'a Objects<ServingPod>,
    pub(super) objectives: Option<Kind<'a, ObjectiveObject>>,
    pub(super) rewrites: Option<Kind<'a, RewriteObject>>,
}

/// The last good values of what is now, so that a wrong one need not take effect.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory {
    pool: ModelAnnotations,
    objectives: BTreeMap<ObjectKey, ModelAnnotations>,
}

/// What the picker works with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Discovered {
    pub(super) endpoints: Vec<EndpointSpec>,
    pub(super) objectives: Objectives,
    pub(super) default_slo: Slo,
    pub(super) rewrites: Rewrites,
    /// Sorted, each once.
    pub(super) problems: Vec<Problem>,
    /// What is to be said of each objective of this pool.
    pub(super) verdicts: Vec<Verdict>,
}

/// What is to be said of one objective.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Verdict {
    pub(super) api_version: String,
    pub(super) key: ObjectKey,
    pub(super) generation: Option<i64>,
    pub(super) resource_version: Option<String>,
    /// The conditions that it carries now.
    conditions: Vec<Condition>,
    accepted: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    /// The conditions that it should carry; `None` = it does.
    pub(super) fn due(&self, now_ms: u64) -> Option<Vec<Condition>> {
        let mut conditions = self.conditions.clone();
        let status = Status::from(self.accepted);
        let (reason, message) = (self.reason, self.message.as_str());
        conditions::set(
            &mut conditions,
            ACCEPTED,
            status,
            reason,
            message,
            self.generation,
            now_ms,
        )
        .then_some(conditions)
    }
}

/// What `known` means. `memory` gives the last good values, and takes those of now.
pub(super) fn discover(known: Known<'_>, memory: &mut Memory) -> Discovered {
    let mut problems = Vec::new();
    let mut discovered = Discovered {
        endpoints: pods::endpoints(known.pods, known.ports, &mut problems),
        ..Discovered::default()
    };
    if let Some((name, pool)) = known.pool {
        let key = ObjectKey::new(name.namespace, name.name);
        let about = || About::new(name.api_version, super::POOL_KIND, &key, &pool.uid);
        memory.pool = facts(&pool.annotations, &memory.pool, about, &mut problems);
        discovered.default_slo = slo(&memory.pool);
        if let Some(kind) = &known.objectives {
            objectives(name, kind, memory, &mut discovered, &mut problems);
        }
        if let Some(kind) = &known.rewrites {
            let ours = policy::concerning(
                kind.objects,
                |object: &RewriteObject| &object.spec.pool_ref,
                name.group,
                name.name,
            );
            let ours = ours.map(|(key, object)| (key, &**object));
            discovered.rewrites = policy::rewrites(ours, kind.api_version, &mut problems);
            unreadable(kind, "InferenceModelRewrite", &mut problems);
        }
    }
    problems.sort();
    problems.dedup();
    discovered.problems = problems;
    discovered
}

fn objectives(
    pool: PoolName<'_>,
    kind: &Kind<'_, ObjectiveObject>,
    memory: &mut Memory,
    discovered: &mut Discovered,
    problems: &mut Vec<Problem>,
) {
    let before = std::mem::take(&mut memory.objectives);
    let nothing = ModelAnnotations::default();
    let ours = policy::concerning(
        kind.objects,
        |object: &ObjectiveObject| &object.spec.pool_ref,
        pool.group,
        pool.name,
    );
    for (key, object) in ours {
        let about = || About::new(kind.api_version, "InferenceObjective", key, &object.uid);
        let first = problems.len();
        let last = before.get(key).unwrap_or(&nothing);
        let facts = facts(&object.annotations, last, about, problems);
        let priority = object.spec.priority.unwrap_or(0);
        let objective = Objective {
            priority,
            shed: false,
            slo: slo(&facts),
        };
        discovered
            .objectives
            .insert(key.name.to_string(), objective);
        let wrong: Vec<_> = problems
            .iter()
            .skip(first)
            .map(|problem| problem.message.as_str())
            .collect();
        let (accepted, reason, message) = if wrong.is_empty() {
            (
                true,
                ACCEPTED,
                format!(
                    "requests of pool {} that name it have priority {priority}",
                    pool.name
                ),
            )
        } else {
            (
                false,
                WRONG_ANNOTATION,
                format!("{}; the last good value stays in force", wrong.join("; ")),
            )
        };
        discovered.verdicts.push(Verdict {
            api_version: kind.api_version.to_owned(),
            key: key.clone(),
            generation: object.generation,
            resource_version: object.resource_version.clone(),
            conditions: object.conditions.clone(),
            accepted,
            reason,
            message,
        });
        memory.objectives.insert(key.clone(), facts);
    }
    unreadable(kind, "InferenceObjective", problems);
}

/// What annotations say, with the last good value of each that is wrong.
fn facts(
    annotations: &BTreeMap<String, String>,
    last: &ModelAnnotations,
    about: impl Fn() -> About,
    problems: &mut Vec<Problem>,
) -> ModelAnnotations {
    let read = annotations::read(annotations);
    let told = read.problems.iter();
    problems
        .extend(told.map(|problem| Problem::new(about(), WRONG_ANNOTATION, problem.to_string())));
    read.keeping(last)
}

fn slo(facts: &ModelAnnotations) -> Slo {
    Slo {
        ttft_ms: facts.slo_ttft_ms,
        tpot_ms: facts.slo_tpot_ms,
    }
}

fn unreadable<T>(kind: &Kind<'_, T>, name: &'static str, problems: &mut Vec<Problem>) {
    for (key, reason) in kind.broken {
        let about = About::new(kind.api_version, name, key, "");
        let message =
            format!("it cannot be read ({reason}); what was last read of it stays in force");
        problems.push(Problem::new(about, UNREADABLE, message));
    }
}

/// The members in force: what the pool says, or what it last said that could be used.
pub(super) fn members(
    name: PoolName<'_>,
    pool: Option<&PoolObject>,
    last: Option<&Members>,
    problems: &mut Vec<Problem>,
) -> Option<Members> {
    let key = ObjectKey::new(name.namespace, name.name);
    let about = |uid: &str| About::new(name.api_version, super::POOL_KIND, &key, uid);
    match pool {
        None => {
            let (reason, message) = match last {
                Some(_) => (
                    super::problem::POOL_GONE,
                    "the pool is gone; its last endpoints stay until it is back or this picker ends",
                ),
                None => (
                    super::problem::POOL_MISSING,
                    "the pool does not exist: this picker is not ready until it does; see that --pool-name and --pool-namespace name an InferencePool",
                ),
            };
            problems.push(Problem::new(about(""), reason, message));
            last.cloned()
        }
        Some(pool) => match &pool.members {
            Ok(members) => Some(members.clone()),
            Err(wrong) => {
                let kept = if last.is_some() {
                    "; the last good spec stays in force"
                } else {
                    ""
                };
                let message = format!("{wrong}{kept}");
                problems.push(Problem::new(
                    about(&pool.uid),
                    super::problem::WRONG_VALUE,
                    message,
                ));
                last.cloned()
            }
        },
    }
}
