//! Objectives and rewrites as they are kept, and what they mean for the request path.

use super::problem::{About, Problem, WRONG_VALUE};
use crate::api::rewrite::{Rewrites, Targets};
use crds::inference_model_rewrite::{InferenceModelRewriteSpec, RewriteRule};
use crds::inference_objective::{InferenceObjectiveSpec, PoolRef};
use crds::{InferenceModelRewrite, InferenceObjective};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kubernetes::watch::{ObjectKey, Objects};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What is kept of an InferenceObjective.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ObjectiveObject {
    pub(super) uid: String,
    pub(super) generation: Option<i64>,
    pub(super) resource_version: Option<String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) spec: InferenceObjectiveSpec,
    pub(super) conditions: Vec<Condition>,
}

impl From<InferenceObjective> for ObjectiveObject {
    fn from(object: InferenceObjective) -> Self {
        let mut annotations = object.metadata.annotations.unwrap_or_default();
        annotations.retain(|name, _| name.starts_with(names::kubernetes::GROUP));
        Self {
            uid: object.metadata.uid.unwrap_or_default(),
            generation: object.metadata.generation,
            resource_version: object.metadata.resource_version,
            annotations,
            spec: object.spec,
            conditions: object.status.unwrap_or_default().conditions,
        }
    }
}

impl From<crds::inference_objective::legacy::InferenceObjective> for ObjectiveObject {
    fn from(old: crds::inference_objective::legacy::InferenceObjective) -> Self {
        InferenceObjective::from(old).into()
    }
}

/// What is kept of an InferenceModelRewrite.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct RewriteObject {
    pub(super) uid: String,
    /// When it was made, unix milliseconds; unknown = never, so that it comes last.
    pub(super) created_ms: i64,
    pub(super) spec: InferenceModelRewriteSpec,
}

impl From<InferenceModelRewrite> for RewriteObject {
    fn from(object: InferenceModelRewrite) -> Self {
        let created = object.metadata.creation_timestamp;
        Self {
            uid: object.metadata.uid.unwrap_or_default(),
            created_ms: created.map_or(i64::MAX, |time| time.0.as_millisecond()),
            spec: object.spec,
        }
    }
}

impl From<crds::inference_model_rewrite::legacy::InferenceModelRewrite> for RewriteObject {
    fn from(old: crds::inference_model_rewrite::legacy::InferenceModelRewrite) -> Self {
        InferenceModelRewrite::from(old).into()
    }
}

/// Whether `reference` names the pool `name` of API group `group`.
pub(super) fn refers_to(reference: &PoolRef, group: &str, name: &str) -> bool {
    reference.name == name && reference.kind == super::POOL_KIND && reference.group == group
}

/// The rules of all `objects`: exact matches before rules without one, then the oldest object, then its first rule.
pub(super) fn rewrites<'a>(
    objects: impl Iterator<Item = (&'a ObjectKey, &'a RewriteObject)>,
    api_version: &str,
    problems: &mut Vec<Problem>,
) -> Rewrites {
    let mut objects: Vec<_> = objects.collect();
    objects.sort_by_key(|(key, object)| (object.created_ms, *key));
    let mut rewrites = Rewrites::default();
    for (key, object) in objects {
        for (index, rule) in object.spec.rules.iter().enumerate() {
            if let Err(wrong) = add(&mut rewrites, rule, &key.name) {
                let about = About::new(api_version, "InferenceModelRewrite", key, &object.uid);
                let message = format!("spec.rules[{index}].{wrong}");
                problems.push(Problem::new(about, WRONG_VALUE, message));
            }
        }
    }
    rewrites
}

fn add(rewrites: &mut Rewrites, rule: &RewriteRule, object: &str) -> Result<(), String> {
    let models = rule
        .targets
        .iter()
        .map(|target| (target.model_rewrite.as_str(), target.weight));
    let models = models.filter(|(model, _)| !model.is_empty());
    let targets = Targets::new(models).ok_or(
        "targets: there is none with a modelRewrite and a weight above 0; give at least one",
    )?;
    let targets = targets.of(object);
    if rule.matches.is_empty() {
        rewrites.generic(&targets);
    }
    let mut wrong = Ok(());
    for (index, condition) in rule.matches.iter().enumerate() {
        match &condition.model {
            None => rewrites.generic(&targets),
            Some(model) if model.kind == "Exact" => rewrites.exact(&model.value, &targets),
            Some(model) => {
                wrong = Err(format!(
                    "matches[{index}].model.type: `{}` is unknown; only Exact is known",
                    model.kind
                ));
            }
        }
    }
    wrong
}

/// Those of `objects` that concern the pool.
pub(super) fn concerning<'a, T>(
    objects: &'a Objects<T>,
    reference: impl Fn(&T) -> &PoolRef,
    group: &str,
    name: &str,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<T>)> {
    objects
        .iter()
        .filter(move |(_, object)| refers_to(reference(object), group, name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn rewrite(created_ms: i64, rules: Value) -> RewriteObject {
        let spec = json!({"poolRef": {"name": "pool"}, "rules": rules});
        RewriteObject {
            uid: String::new(),
            created_ms,
            spec: serde_json::from_value(spec).unwrap(),
        }
    }

    fn to(model: &str) -> Value {
        json!([{"modelRewrite": model}])
    }

    fn exactly(model: &str) -> Value {
        json!([{"model": {"type": "Exact", "value": model}}])
    }

    #[test]
    fn exact_then_oldest_then_first() {
        let objects = [
            (
                "young",
                rewrite(
                    20,
                    json!([
                        {"matches": exactly("chat"), "targets": to("young")},
                        {"matches": exactly("other"), "targets": to("only-here")},
                    ]),
                ),
            ),
            (
                "old",
                rewrite(
                    10,
                    json!([
                        {"targets": to("any")},
                        {"matches": exactly("chat"), "targets": to("old-first")},
                        {"matches": exactly("chat"), "targets": to("old-second")},
                    ]),
                ),
            ),
        ]
        .map(|(name, object)| (ObjectKey::new("ns", name), object));
        let mut problems = Vec::new();
        let rules = rewrites(
            objects.iter().map(|(key, object)| (key, object)),
            "llm-d.ai/v1alpha2",
            &mut problems,
        );
        assert_eq!(problems, []);
        assert_eq!(rules.target("chat", 1), Some("old-first"));
        assert_eq!(rules.target("other", 1), Some("only-here"));
        assert_eq!(rules.target("unheard-of", 1), Some("any"));
    }

    #[test]
    fn a_wrong_rule_is_told_and_stops_no_other() {
        let rules = json!([
            {"matches": [{"model": {"type": "Regex", "value": ".*"}}], "targets": to("x")},
            {"matches": exactly("a"), "targets": [{"modelRewrite": "b", "weight": 0}]},
            {"matches": exactly("c"), "targets": to("d")},
        ]);
        let (key, object) = (ObjectKey::new("ns", "r"), rewrite(0, rules));
        let mut problems = Vec::new();
        let rules = rewrites(
            [(&key, &object)].into_iter(),
            "llm-d.ai/v1alpha2",
            &mut problems,
        );
        assert_eq!(
            (rules.target("c", 0), rules.target("a", 0)),
            (Some("d"), None)
        );
        assert!(
            problems[0]
                .message
                .contains("spec.rules[0].matches[0].model.type: `Regex`"),
            "{problems:?}"
        );
        assert!(
            problems[1].message.contains("spec.rules[1].targets"),
            "{problems:?}"
        );
    }

    fn to_pool() -> PoolRef {
        serde_json::from_value(json!({"name": "pool"})).unwrap()
    }

    #[test]
    fn references_name_group_kind_and_name() {
        let group = "inference.networking.k8s.io";
        assert!(refers_to(&to_pool(), group, "pool"));
        assert!(!refers_to(&to_pool(), group, "other"));
        assert!(!refers_to(
            &to_pool(),
            "inference.networking.x-k8s.io",
            "pool"
        ));
        let service = PoolRef {
            kind: "Service".into(),
            ..to_pool()
        };
        assert!(!refers_to(&service, group, "pool"));
    }
}
