//! HorizontalPodAutoscalers as the controller keeps them: what they scale, within which limits, and how they read our
//! metrics.

use std::collections::BTreeMap;

use controller_core::hpa::Tolerance;
use crds::annotations::{Read, read};
use k8s_openapi::api::autoscaling::v2::{
    CrossVersionObjectReference, HPAScalingRules, HorizontalPodAutoscaler,
    HorizontalPodAutoscalerBehavior, MetricSpec, MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::labels::Selector;
use super::models::Source;
use crate::published::ObjectRef;
use crate::published::series::{Metric, Spelling};

/// The kind, and the version that is read.
pub const KIND: &str = "HorizontalPodAutoscaler";
/// Group and version that is read.
pub const API_VERSION: &str = "autoscaling/v2";

/// What is kept of an HPA.
#[derive(Clone, Debug, PartialEq)]
pub struct Hpa {
    /// The HPA itself.
    pub source: Source,
    /// What its annotations say of a model; `None` = nothing.
    pub asked: Option<Box<Read>>,
    /// What it scales.
    pub target: ObjectRef,
    /// Fewest replicas.
    pub min: u32,
    /// Most replicas.
    pub max: u32,
    /// Differences that it ignores.
    pub tolerance: Tolerance,
    /// Those of its metrics that are ours.
    pub reads: Vec<Reading>,
    /// Made by KEDA for a ScaledObject of this name.
    pub scaled_object: Option<Box<str>>,
    /// It says that it leaves its target alone, because somebody else has set that to zero.
    pub paused: bool,
}

/// How an HPA reads one of our metrics.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// Which.
    pub metric: Metric,
    /// By which of its names.
    pub spelling: Spelling,
    /// Through which API.
    pub from: From,
    /// The labels that its series must have, in text form; `None` = no selector.
    pub selector: Option<String>,
    /// What the value is compared with.
    pub target: Target,
}

/// The API that a metric is read through.
#[derive(Clone, Debug, PartialEq)]
pub enum From {
    /// external.metrics.k8s.io, in the HPA's namespace.
    External,
    /// custom.metrics.k8s.io, of one object.
    Object(ObjectRef),
    /// custom.metrics.k8s.io, of each pod of the target. Our metrics are not told by pod.
    Pods,
}

/// What an HPA compares a value with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The value itself: the count becomes ⌈value / target × ready pods⌉.
    Value(f64),
    /// The value over the replicas: the count becomes ⌈value / target⌉.
    AverageValue(f64),
    /// Something else, which says nothing for these metrics.
    Other,
}

impl Hpa {
    /// Keeps of an HPA what matters here.
    pub fn trim(hpa: HorizontalPodAutoscaler) -> Option<Self> {
        let conditions = hpa.status.and_then(|status| status.conditions);
        let paused = conditions.unwrap_or_default().iter().any(|condition| {
            condition.type_ == "ScalingActive"
                && condition.status == "False"
                && condition.reason.as_deref() == Some("ScalingDisabled")
        });
        let spec = hpa.spec.unwrap_or_default();
        let annotations = hpa.metadata.annotations.clone().unwrap_or_default();
        let scaled_object = hpa.metadata.labels.as_ref().and_then(|labels| {
            let name = labels.get(names::label::SCALED_OBJECT)?;
            Some(name.as_str().into())
        });
        Some(Self {
            source: source(API_VERSION, KIND, hpa.metadata)?,
            asked: asked(&annotations),
            target: object(spec.scale_target_ref),
            min: count(spec.min_replicas.unwrap_or(1)),
            max: count(spec.max_replicas),
            tolerance: tolerance(spec.behavior.as_ref()),
            reads: spec
                .metrics
                .unwrap_or_default()
                .into_iter()
                .filter_map(reading)
                .collect(),
            scaled_object,
            paused,
        })
    }

    /// The reading that makes the HPA follow the counts that are decided, if it has one.
    pub fn follows(&self) -> Option<&Reading> {
        let counts = |reading: &&Reading| {
            matches!(
                reading.metric,
                Metric::DesiredReplicas | Metric::DesiredRatio
            )
        };
        self.reads.iter().find(counts)
    }
}

/// What annotations say; `None` when nothing of them is meant for us.
pub(super) fn asked(annotations: &BTreeMap<String, String>) -> Option<Box<Read>> {
    let read = read(annotations);
    (read != Read::default()).then(|| Box::new(read))
}

/// The object that `metadata` describes; `None` when it has no name.
pub(super) fn source(api_version: &str, kind: &str, metadata: ObjectMeta) -> Option<Source> {
    Some(Source {
        api_version: api_version.into(),
        kind: kind.into(),
        namespace: metadata.namespace.unwrap_or_default().into(),
        name: metadata.name?.into(),
        uid: metadata.uid.unwrap_or_default().into(),
        generation: metadata.generation,
    })
}

/// Kubernetes' counts are signed; none is below zero.
pub(super) fn count(count: i32) -> u32 {
    u32::try_from(count).unwrap_or(0)
}

fn object(reference: CrossVersionObjectReference) -> ObjectRef {
    let version = reference.api_version.unwrap_or_else(|| "v1".into());
    ObjectRef::new(version, reference.kind, reference.name)
}

fn tolerance(behavior: Option<&HorizontalPodAutoscalerBehavior>) -> Tolerance {
    let of = |rules: Option<&HPAScalingRules>, default: f64| {
        rules
            .and_then(|rules| number(rules.tolerance.as_ref()?))
            .unwrap_or(default)
    };
    Tolerance {
        up: of(
            behavior.and_then(|both| both.scale_up.as_ref()),
            Tolerance::DEFAULT.up,
        ),
        down: of(
            behavior.and_then(|both| both.scale_down.as_ref()),
            Tolerance::DEFAULT.down,
        ),
    }
}

fn reading(spec: MetricSpec) -> Option<Reading> {
    let (metric, from, target) = match (spec.external, spec.object, spec.pods) {
        (Some(external), _, _) => (external.metric, From::External, external.target),
        (_, Some(of), _) => (
            of.metric,
            From::Object(object(of.described_object)),
            of.target,
        ),
        (_, _, Some(pods)) => (pods.metric, From::Pods, pods.target),
        _ => return None,
    };
    let (known, spelling) = Metric::called(&metric.name)?;
    Some(Reading {
        metric: known,
        spelling,
        from,
        selector: metric.selector.as_ref().map(text),
        target: compared(&target),
    })
}

fn compared(target: &MetricTarget) -> Target {
    let of = |quantity: &Option<Quantity>| quantity.as_ref().and_then(number);
    match target.type_.as_str() {
        "Value" => of(&target.value).map_or(Target::Other, Target::Value),
        "AverageValue" => of(&target.average_value).map_or(Target::Other, Target::AverageValue),
        _ => Target::Other,
    }
}

/// A selector in its text form, as an HPA sends it.
fn text(selector: &LabelSelector) -> String {
    let equal = selector.match_labels.iter().flatten();
    let mut parts: Vec<String> = equal.map(|(key, value)| format!("{key}={value}")).collect();
    for expression in selector.match_expressions.iter().flatten() {
        let (key, values) = (&expression.key, expression.values.iter().flatten());
        let values: Vec<&str> = values.map(String::as_str).collect();
        parts.push(match expression.operator.as_str() {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.clone(),
            "DoesNotExist" => format!("!{key}"),
            other => format!("{key} {other}"),
        });
    }
    parts.join(",")
}

impl Reading {
    /// The selector to match series with; `None` when there is none, or it cannot be read.
    pub fn parsed(&self) -> Option<Selector> {
        let selector = Selector::parse(self.selector.as_deref()?).ok()?;
        (!selector.is_empty()).then_some(selector)
    }
}

/// A quantity as a number; `None` when it is not one.
pub fn number(quantity: &Quantity) -> Option<f64> {
    let text = quantity.0.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    // `1e3` ends in a digit and is read whole.
    let scale = match &text[digits.len()..] {
        "" => 1.0,
        "n" => 1e-9,
        "u" => 1e-6,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "P" => 1e15,
        "E" => 1e18,
        "Ki" => 1024.0,
        "Mi" => 1024.0_f64.powi(2),
        "Gi" => 1024.0_f64.powi(3),
        "Ti" => 1024.0_f64.powi(4),
        "Pi" => 1024.0_f64.powi(5),
        "Ei" => 1024.0_f64.powi(6),
        _ => return None,
    };
    let value: f64 = digits.parse().ok()?;
    (value * scale).is_finite().then_some(value * scale)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn hpa(spec: Value) -> Hpa {
        let mut whole = json!({
            "metadata": {"name": "llama", "namespace": "chat", "uid": "u1"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}, "maxReplicas": 8},
        });
        for (key, value) in spec.as_object().unwrap() {
            whole["spec"][key] = value.clone();
        }
        Hpa::trim(serde_json::from_value(whole).unwrap()).unwrap()
    }

    #[test]
    fn limits_and_tolerance_have_kubernetes_defaults() {
        let plain = hpa(json!({}));
        assert_eq!((plain.min, plain.max), (1, 8));
        assert_eq!(plain.tolerance, Tolerance::DEFAULT);
        assert_eq!(plain.asked, None);
        let told = hpa(
            json!({"minReplicas": 0, "behavior": {"scaleUp": {"tolerance": "0"}, "scaleDown": {"tolerance": "50m"}}}),
        );
        assert_eq!(told.min, 0);
        assert_eq!(
            told.tolerance,
            Tolerance {
                up: 0.0,
                down: 0.05
            }
        );
    }

    #[test]
    fn one_that_leaves_its_target_alone_is_paused() {
        let says = |reason: &str| {
            let hpa = json!({
                "metadata": {"name": "llama", "namespace": "chat", "uid": "u1"},
                "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}, "maxReplicas": 8},
                "status": {"desiredReplicas": 0, "conditions": [
                    {"type": "ScalingActive", "status": "False", "reason": reason},
                ]},
            });
            Hpa::trim(serde_json::from_value(hpa).unwrap())
                .unwrap()
                .paused
        };
        assert!(says("ScalingDisabled"));
        assert!(!says("FailedGetExternalMetric"), "it would act if it could");
    }

    #[test]
    fn our_metrics_are_picked_out_of_its_list() {
        let hpa = hpa(json!({"metrics": [
            {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}},
            {"type": "External", "external": {
                "metric": {"name": "llm_desired_replicas", "selector": {
                    "matchLabels": {"variant": "llama"},
                    "matchExpressions": [{"key": "role", "operator": "In", "values": ["both", "decode"]}],
                }},
                "target": {"type": "AverageValue", "averageValue": "1"},
            }},
            {"type": "Object", "object": {
                "metric": {"name": "wva_desired_ratio"},
                "describedObject": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"},
                "target": {"type": "Value", "value": "1500m"},
            }},
            {"type": "External", "external": {"metric": {"name": "queue_depth"}, "target": {"type": "Value", "value": "1"}}},
        ]}));
        assert_eq!(hpa.reads.len(), 2);
        let (external, object) = (&hpa.reads[0], &hpa.reads[1]);
        assert_eq!(external.from, From::External);
        assert_eq!(external.target, Target::AverageValue(1.0));
        assert_eq!(
            external.selector.as_deref(),
            Some("variant=llama,role in (both,decode)")
        );
        assert_eq!(
            (object.metric, object.spelling),
            (Metric::DesiredRatio, Spelling::Alias)
        );
        assert_eq!(object.target, Target::Value(1.5));
        assert_eq!(object.selector, None);
        assert!(matches!(&object.from, From::Object(of) if of.name == "llama"));
    }

    #[test]
    fn quantities_are_numbers() {
        for (text, value) in [
            ("1", Some(1.0)),
            ("500m", Some(0.5)),
            ("2k", Some(2e3)),
            ("1Ki", Some(1024.0)),
            ("1e3", Some(1e3)),
            ("-1.5", Some(-1.5)),
            ("", None),
            ("1x", None),
            ("m", None),
        ] {
            assert_eq!(number(&Quantity(text.into())), value, "{text}");
        }
    }
}
