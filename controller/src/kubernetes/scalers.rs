//! ModelScalers as the controller keeps them, and the policy that one asks for.

use std::time::Duration;

use controller_core::model::{
    ModelKey, ModelPolicy, Priorities, Role as CoreRole, SloClass, Startup as CoreStartup,
    VariantPolicy,
};
use controller_core::policy::{Behavior, SloTargets};
use crds::ModelScaler;
use crds::model_scaler::{
    self, Mode as AskedMode, ModelScalerSpec, ModelScalerStatus, Role as AskedRole, Startup,
    TargetRef, Variant,
};
use kube::Resource as _;

use super::hpas::source;
use super::models::Source;
use crate::published::{Mode, ObjectRef, Role};

/// The kind.
pub const KIND: &str = "ModelScaler";

/// What is kept of a ModelScaler.
#[derive(Clone, Debug, PartialEq)]
pub struct Scaler {
    /// The ModelScaler itself.
    pub source: Source,
    /// When it was created, unix seconds: of two for one model the older counts.
    pub created: i64,
    /// What it asks for.
    pub spec: ModelScalerSpec,
    /// What was last written to its status: conditions keep the times of their transitions.
    pub status: ModelScalerStatus,
}

impl Scaler {
    /// Keeps of a ModelScaler what matters here.
    pub fn trim(scaler: ModelScaler) -> Option<Self> {
        let created = scaler.metadata.creation_timestamp.as_ref();
        Some(Self {
            created: created.map_or(0, |time| time.0.as_second()),
            source: source(&ModelScaler::api_version(&()), KIND, scaler.metadata)?,
            spec: scaler.spec,
            status: scaler.status.unwrap_or_default(),
        })
    }

    /// The model that it asks for.
    pub fn key(&self) -> ModelKey {
        ModelKey {
            namespace: self.source.namespace.to_string(),
            model: self.spec.model.clone(),
        }
    }

    /// The policy that it asks for, not yet validated.
    pub fn policy(&self) -> ModelPolicy {
        let spec = &self.spec;
        let classes = spec.slo_classes.iter().map(class).collect();
        let variants = spec.variants.iter().map(variant).collect();
        let mut policy = ModelPolicy::new(self.key(), classes, variants);
        if let Some(budgets) = spec.budgets {
            (policy.gpu_budget, policy.cost_budget) = (budgets.gpus, budgets.cost_per_hour);
        }
        if let Some(asked) = spec.behavior {
            policy.behavior = behavior(&asked);
            let idle = asked.idle_seconds.map(seconds);
            policy.idle = idle.unwrap_or(policy.idle);
        }
        policy
    }
}

fn seconds(seconds: u32) -> Duration {
    Duration::from_secs(seconds.into())
}

fn class(asked: &model_scaler::SloClass) -> SloClass {
    SloClass {
        name: asked.name.clone(),
        slo: SloTargets {
            percentile: share(asked.percentile),
            ttft_ms: asked.ttft_ms,
            tpot_ms: asked.tpot_ms,
        },
        priority: asked.priority.map(|range| Priorities {
            min: range.min,
            max: range.max,
        }),
        weight: asked.weight,
    }
}

/// A percentile in per cent as a share.
pub(super) fn share(percentile: f64) -> f32 {
    (percentile / 100.0) as f32
}

fn variant(asked: &Variant) -> VariantPolicy {
    VariantPolicy {
        role: core_role(asked.role),
        accelerator: asked.accelerator.clone().unwrap_or_default(),
        gpus_per_replica: asked.gpus_per_replica,
        cost_per_hour: asked.cost_per_hour,
        ..VariantPolicy::new(
            &asked.name,
            asked.min_replicas,
            asked.max_replicas,
            startup(asked.startup_seconds),
        )
    }
}

fn behavior(asked: &model_scaler::Behavior) -> Behavior {
    let default = Behavior::default();
    Behavior {
        scale_down_guard: asked
            .scale_down_guard_seconds
            .map_or(default.scale_down_guard, seconds),
        utilization_fallback: asked
            .utilization_fallback
            .unwrap_or(default.utilization_fallback),
        margin: asked.margin.unwrap_or(default.margin),
        band: asked.band.unwrap_or(default.band),
        hysteresis: asked.hysteresis.unwrap_or(default.hysteresis),
        sheddable_share: asked.sheddable_share.unwrap_or(default.sheddable_share),
        drain: asked.drain_seconds.map(seconds).or(default.drain),
        max_in_flight: asked.max_in_flight.or(default.max_in_flight),
        step_up: asked.step_up.unwrap_or(default.step_up),
    }
}

/// A start-up time as the core takes it.
pub(super) fn startup(asked: Startup) -> CoreStartup {
    match asked.fixed() {
        Some(told) => CoreStartup::Fixed(told),
        None => CoreStartup::Auto {
            fallback: Startup::UNMEASURED,
        },
    }
}

/// A mode as decisions publish it.
pub(super) fn mode(asked: AskedMode) -> Mode {
    match asked {
        AskedMode::Advise => Mode::Advise,
        AskedMode::Publish => Mode::Publish,
        AskedMode::Direct => Mode::Direct,
    }
}

/// A role as the core takes it.
pub(super) fn core_role(asked: AskedRole) -> CoreRole {
    match asked {
        AskedRole::Prefill => CoreRole::Prefill,
        AskedRole::Decode => CoreRole::Decode,
        AskedRole::Both => CoreRole::Both,
    }
}

/// A role as decisions publish it.
pub fn published_role(role: CoreRole) -> Role {
    match role {
        CoreRole::Prefill => Role::Prefill,
        CoreRole::Decode => Role::Decode,
        CoreRole::Both => Role::Both,
    }
}

/// A scale target as decisions publish it.
pub(super) fn object(target: &TargetRef) -> ObjectRef {
    ObjectRef::new(&target.api_version, &target.kind, &target.name)
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// A ModelScaler `llama` in namespace `chat` with these fields over a valid spec of one class and one variant.
    pub(crate) fn scaler(fields: Value) -> Scaler {
        let mut whole = json!({
            "apiVersion": "headroom.dev/v1alpha1", "kind": "ModelScaler",
            "metadata": {"name": "llama", "namespace": "chat", "uid": "ms", "generation": 2, "creationTimestamp": "2026-03-01T10:00:00Z"},
            "spec": {
                "model": "llama",
                "sloClasses": [{"name": "chat", "percentile": 95, "ttftMs": 500, "tpotMs": 50}],
                "variants": [{
                    "name": "h100", "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"},
                    "accelerator": "H100", "costPerHour": 4, "minReplicas": 1, "maxReplicas": 8, "startupSeconds": 60,
                }],
            },
        });
        for (key, value) in fields.as_object().unwrap() {
            whole["spec"][key] = value.clone();
        }
        Scaler::trim(serde_json::from_value(whole).unwrap()).unwrap()
    }

    #[test]
    fn every_field_reaches_the_policy() {
        let scaler = scaler(json!({
            "budgets": {"gpus": 16, "costPerHour": 40.0},
            "behavior": {"margin": 0.2, "scaleDownGuardSeconds": 90, "idleSeconds": 30, "stepUp": 2, "drainSeconds": 15},
        }));
        let policy = scaler.policy();
        assert_eq!(policy.validate(), Ok(()));
        assert_eq!(policy.key.to_string(), "chat/llama");
        let slo = policy.classes[0].slo;
        assert_eq!(
            (slo.percentile, slo.ttft_ms, slo.tpot_ms),
            (0.95, 500.0, 50.0)
        );
        let variant = &policy.variants[0];
        assert_eq!(
            (variant.min, variant.max, variant.cost_per_hour),
            (1, 8, 4.0)
        );
        assert_eq!(variant.startup, CoreStartup::Fixed(Duration::from_secs(60)));
        assert_eq!(
            (policy.gpu_budget, policy.cost_budget),
            (Some(16), Some(40.0))
        );
        let behavior = &policy.behavior;
        assert_eq!((behavior.margin, behavior.step_up), (0.2, 2));
        assert_eq!(behavior.scale_down_guard, Duration::from_secs(90));
        assert_eq!(behavior.drain, Some(Duration::from_secs(15)));
        assert_eq!(behavior.hysteresis, Behavior::default().hysteresis);
        assert_eq!(policy.idle, Duration::from_secs(30));
    }

    #[test]
    fn an_unmeasured_start_up_time_has_a_stand_in() {
        assert_eq!(
            startup(Startup::Auto),
            CoreStartup::Auto {
                fallback: Duration::from_secs(120)
            }
        );
    }
}
