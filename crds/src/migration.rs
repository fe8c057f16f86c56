//! Moving away from llm-d's retired VariantAutoscaling: to a variant of a ModelScaler, or to annotations.
//!
//! A VariantAutoscaling names no service level (its controller kept them in a ConfigMap) and no GPU count: those two
//! are for a person to add.

use std::collections::BTreeMap;

use kube::ResourceExt;
use names::{Name, annotation, label};

use crate::{
    VariantAutoscaling,
    annotations::value,
    leader_worker_set,
    model_scaler::{Role, Startup, TargetRef, Variant},
};

/// A VariantAutoscaling that says nothing we could follow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("VariantAutoscaling {name}: {field}: `{value}` is wrong, expected {expected}")]
pub struct MigrationError {
    /// Name of the object.
    pub name: String,
    /// The field as the object spells it.
    pub field: &'static str,
    /// What it held.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

/// The variant that sizes what `old` sizes: same target, cost and limits. Start-up is measured, a replica counts as one
/// GPU.
///
/// # Errors
/// The first field that cannot be followed.
pub fn variant(old: &VariantAutoscaling) -> Result<Variant, MigrationError> {
    let spec = &old.spec;
    let (min_replicas, max_replicas) = limits(old)?;
    Ok(Variant {
        name: variant_name(old)?,
        target: target(old)?,
        role: labelled(old, label::ROLE)
            .and_then(|role| value::role(role).ok())
            .unwrap_or_default(),
        accelerator: accelerator(old),
        gpus_per_replica: 1,
        cost_per_hour: value::cost(&spec.variant_cost).map_err(wrong(
            old,
            "spec.variantCost",
            &spec.variant_cost,
        ))?,
        min_replicas,
        max_replicas,
        startup_seconds: Startup::Auto,
    })
}

/// The annotations that say about the scale target what `old` says; service levels are to be added.
///
/// # Errors
/// The first field that cannot be followed.
pub fn annotations(old: &VariantAutoscaling) -> Result<BTreeMap<String, String>, MigrationError> {
    let variant = variant(old)?;
    let model =
        value::model(&old.spec.model_id).map_err(wrong(old, "spec.modelID", &old.spec.model_id))?;
    let role = (variant.role != Role::Both).then(|| variant.role.as_str().to_owned());
    let told = [
        (annotation::MODEL, Some(model)),
        (
            annotation::COST_PER_HOUR,
            Some(variant.cost_per_hour.to_string()),
        ),
        (annotation::ACCELERATOR, variant.accelerator),
        (annotation::ROLE, role),
        (
            annotation::MIN_REPLICAS,
            Some(variant.min_replicas.to_string()),
        ),
        (
            annotation::MAX_REPLICAS,
            Some(variant.max_replicas.to_string()),
        ),
    ];
    Ok(told
        .into_iter()
        .filter_map(|(name, value)| Some((name.canonical.to_owned(), value?)))
        .collect())
}

/// Object names may hold dots and 253 characters, variant names may not.
fn variant_name(old: &VariantAutoscaling) -> Result<String, MigrationError> {
    let name = old.name_any().replace('.', "-");
    value::object_name(&name).map_err(|_| {
        let expected = "the name of an object";
        wrong(old, "metadata.name", &name)(expected)
    })?;
    Ok(name[..name.len().min(63)].trim_end_matches('-').to_owned())
}

fn target(old: &VariantAutoscaling) -> Result<TargetRef, MigrationError> {
    let Some(target) = &old.spec.scale_target_ref else {
        let expected = "a reference to the Deployment or other object that is scaled";
        return Err(wrong(old, "spec.scaleTargetRef", "")(expected));
    };
    let api_version = match (&target.api_version, target.kind.as_str()) {
        (Some(version), _) => version.clone(),
        (None, "Deployment" | "StatefulSet") => "apps/v1".to_owned(),
        (None, "LeaderWorkerSet") => leader_worker_set::API_VERSION.to_owned(),
        (None, kind) => {
            let expected =
                "a kind whose apiVersion is given, or Deployment, StatefulSet or LeaderWorkerSet";
            return Err(wrong(old, "spec.scaleTargetRef.kind", kind)(expected));
        }
    };
    Ok(TargetRef {
        api_version,
        kind: target.kind.clone(),
        name: target.name.clone(),
    })
}

fn limits(old: &VariantAutoscaling) -> Result<(u32, u32), MigrationError> {
    let read = |field, replicas: i32, parse: value::Parse<u32>| {
        let text = replicas.to_string();
        parse(&text).map_err(wrong(old, field, &text))
    };
    let min = read(
        "spec.minReplicas",
        old.spec.min_replicas.unwrap_or(1),
        value::min_replicas,
    )?;
    let max = read(
        "spec.maxReplicas",
        old.spec.max_replicas.unwrap_or(2),
        value::max_replicas,
    )?;
    if min > max {
        return Err(wrong(old, "spec.maxReplicas", &max.to_string())(
            "at least spec.minReplicas",
        ));
    }
    Ok((min, max))
}

/// What the object is labelled with, else what its controller found, if it can be a label.
fn accelerator(old: &VariantAutoscaling) -> Option<String> {
    let found = old
        .status
        .as_ref()
        .and_then(|status| status.desired_optimized_alloc.as_ref())
        .map(|alloc| alloc.accelerator.as_str());
    labelled(old, label::ACCELERATOR)
        .or(found)
        .and_then(|accelerator| value::accelerator(accelerator).ok())
}

fn labelled(old: &VariantAutoscaling, name: Name) -> Option<&str> {
    name.all()
        .find_map(|spelling| old.labels().get(spelling))
        .map(String::as_str)
}

fn wrong<'a>(
    old: &'a VariantAutoscaling,
    field: &'static str,
    value: &'a str,
) -> impl FnOnce(&'static str) -> MigrationError + 'a {
    move |expected| MigrationError {
        name: old.name_any(),
        field,
        value: value.to_owned(),
        expected,
    }
}

#[cfg(test)]
mod tests {
    use super::{annotations, variant};
    use crate::{
        VariantAutoscaling,
        annotations::read,
        model_scaler::{Role, Startup, TargetRef, Variant},
    };

    fn object(spec: &str) -> VariantAutoscaling {
        serde_yaml_ng::from_str(&format!(
            "{{metadata: {{name: chat.h100, labels: {{inference.optimization/acceleratorName: H100}}}}, spec: {spec}}}"
        ))
        .unwrap()
    }

    const COMPLETE: &str = "{scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: chat-h100}, modelID: chat, variantCost: '40.5', minReplicas: 0, maxReplicas: 8}";

    #[test]
    fn a_variant_keeps_target_cost_and_limits() {
        assert_eq!(
            variant(&object(COMPLETE)).unwrap(),
            Variant {
                name: "chat-h100".to_owned(),
                target: TargetRef {
                    api_version: "apps/v1".to_owned(),
                    kind: "Deployment".to_owned(),
                    name: "chat-h100".to_owned(),
                },
                role: Role::Both,
                accelerator: Some("H100".to_owned()),
                gpus_per_replica: 1,
                cost_per_hour: 40.5,
                min_replicas: 0,
                max_replicas: 8,
                startup_seconds: Startup::Auto,
            }
        );
    }

    #[test]
    fn absent_fields_take_the_defaults_of_the_old_resource() {
        let old = object("{scaleTargetRef: {kind: LeaderWorkerSet, name: big}, modelID: chat}");
        let variant = variant(&old).unwrap();
        assert_eq!(
            (
                variant.cost_per_hour,
                variant.min_replicas,
                variant.max_replicas
            ),
            (10.0, 1, 2)
        );
        assert_eq!(variant.target.api_version, "leaderworkerset.x-k8s.io/v1");
    }

    #[test]
    fn what_its_controller_found_is_the_accelerator_where_no_label_says() {
        let mut old = object(COMPLETE);
        old.metadata.labels = None;
        assert_eq!(variant(&old).unwrap().accelerator, None);
        old.status = serde_yaml_ng::from_str(
            "{desiredOptimizedAlloc: {accelerator: A100, numReplicas: 2, lastRunTime: '2026-01-01T00:00:00Z'}}",
        )
        .unwrap();
        assert_eq!(variant(&old).unwrap().accelerator.as_deref(), Some("A100"));
    }

    #[test]
    fn annotations_say_the_same_and_read_back() {
        let mut old = object(COMPLETE);
        old.metadata
            .labels
            .get_or_insert_default()
            .insert("llm-d.ai/role".to_owned(), "prefill".to_owned());
        let variant = variant(&old).unwrap();
        let read = read(&annotations(&old).unwrap());
        assert_eq!(read.problems, []);
        let facts = read.facts;
        assert_eq!(facts.model.as_deref(), Some("chat"));
        assert_eq!(facts.cost_per_hour, Some(variant.cost_per_hour));
        assert_eq!(facts.accelerator, variant.accelerator);
        assert_eq!(facts.role, Some(Role::Prefill));
        assert_eq!(
            (facts.min_replicas, facts.max_replicas),
            (Some(variant.min_replicas), Some(variant.max_replicas))
        );
    }

    #[test]
    fn long_names_are_cut_to_a_label() {
        let mut old = object(COMPLETE);
        old.metadata.name = Some(format!("{}.{}", "a".repeat(62), "b".repeat(100)));
        assert_eq!(variant(&old).unwrap().name, "a".repeat(62));
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let target = "scaleTargetRef: {kind: Deployment, name: a}";
        for (spec, field) in [
            ("{modelID: chat}".to_owned(), "spec.scaleTargetRef"),
            (
                "{modelID: chat, scaleTargetRef: {kind: Widget, name: a}}".to_owned(),
                "spec.scaleTargetRef.kind",
            ),
            (
                format!("{{modelID: chat, {target}, variantCost: '-1'}}"),
                "spec.variantCost",
            ),
            (
                format!("{{modelID: chat, {target}, minReplicas: -1}}"),
                "spec.minReplicas",
            ),
            (
                format!("{{modelID: chat, {target}, minReplicas: 3}}"),
                "spec.maxReplicas",
            ),
            (format!("{{modelID: '', {target}}}"), "spec.modelID"),
        ] {
            let error = annotations(&object(&spec)).unwrap_err();
            assert_eq!(error.field, field, "{spec}");
            assert!(
                error
                    .to_string()
                    .starts_with(&format!("VariantAutoscaling chat.h100: {field}: `")),
                "{error}"
            );
        }
    }
}
