//! What each variant has now: its replicas by state, why those missing are missing, which have just become ready.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use controller_core::model::ModelKey;
use controller_core::signals::Replicas;

use super::annotated::TargetKey;
use super::models::{Finding, ModelSpec, Topic, VariantSpec};
use super::pods::{Counted, PodIndex, Starts, count};
use super::targets::{ScaleState, TargetTrouble};

/// Replicas asked for that no pod was made for count as on their way for this long; then as pending.
const CREATION: Duration = Duration::from_secs(30);

/// One variant as it is now.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct VariantView {
    /// Replicas that the scale subresource asks for; `None` while it could not be read.
    pub asked: Option<u32>,
    /// Replicas by state. Those asked for without a pod count as starting, or as pending where a quota refuses them or
    /// their controller has not made them for 30 s.
    pub replicas: Replicas,
    /// Pods are refused: a quota is used up, or an admission webhook says no.
    pub refused: bool,
    /// Start-up times of the replicas that became ready since the last look.
    pub became_ready: Vec<Duration>,
    /// What is wrong with the target or its pods.
    pub findings: Vec<Finding>,
}

/// Remembers between looks what tells new from old.
#[derive(Clone, Debug, Default)]
pub struct Observer {
    variants: BTreeMap<(ModelKey, TargetKey), Memory>,
}

#[derive(Clone, Debug, Default)]
struct Memory {
    starts: Starts,
    missing_since: Option<Duration>,
}

impl Observer {
    /// Looks at every variant of `models` at `now`; one list per model, in the order of its variants.
    pub fn look(
        &mut self,
        now: Duration,
        models: &[Arc<ModelSpec>],
        scales: &impl Fn(&TargetKey) -> ScaleState,
        pods: &PodIndex,
    ) -> Vec<Vec<VariantView>> {
        let mut before = std::mem::take(&mut self.variants);
        let look = |spec: &Arc<ModelSpec>| {
            let of = |variant: &VariantSpec| {
                let target = TargetKey::new(&spec.key.namespace, &variant.target);
                let state = scales(&target);
                let key = (spec.key.clone(), target);
                let mut memory = before.remove(&key).unwrap_or_default();
                let view = memory.look(now, spec, variant, &state, pods);
                self.variants.insert(key, memory);
                view
            };
            spec.variants.iter().map(of).collect()
        };
        models.iter().map(look).collect()
    }
}

impl Memory {
    fn look(
        &mut self,
        now: Duration,
        spec: &ModelSpec,
        variant: &VariantSpec,
        state: &ScaleState,
        pods: &PodIndex,
    ) -> VariantView {
        let selected: Vec<_> = pods.select(&spec.key.namespace, &state.selector).collect();
        let Counted { replicas, waiting } = count(selected.iter().copied());
        let mut view = VariantView {
            asked: state.replicas,
            replicas,
            refused: state.refused.is_some(),
            became_ready: self.starts.became_ready(selected.iter().copied()),
            findings: trouble(variant, state).into_iter().collect(),
        };
        let pending = self.missing(now, &mut view);
        if view.replicas.pending > 0 {
            let told = match (&state.refused, waiting, pending) {
                (Some(refused), ..) => ("PodsRefused", format!("are refused: {refused}")),
                (None, Some(waiting), _) => ("PodsPending", waiting.to_string()),
                (None, None, _) => (
                    "PodsMissing",
                    format!(
                        "were not made by the controller of the target for {} s: look at the target's Events",
                        CREATION.as_secs()
                    ),
                ),
            };
            let (reason, why) = told;
            let count = view.replicas.pending;
            let of = if count == 1 { "replica" } else { "replicas" };
            let message = format!(
                "{count} {of} of {} {} {why}",
                variant.target.kind, variant.target.name
            );
            view.findings.push(Finding::new(
                Topic::Capacity,
                reason,
                &variant.source,
                message,
            ));
        }
        view
    }

    /// Adds the replicas that are asked for and have no pod; tells how many of them count as pending.
    fn missing(&mut self, now: Duration, view: &mut VariantView) -> u32 {
        let Replicas {
            ready,
            starting,
            pending,
            ..
        } = view.replicas;
        let missing = view
            .asked
            .unwrap_or(0)
            .saturating_sub(ready + starting + pending);
        if missing == 0 {
            self.missing_since = None;
            return 0;
        }
        let since = *self.missing_since.get_or_insert(now);
        if view.refused || now.saturating_sub(since) >= CREATION {
            view.replicas.pending += missing;
            missing
        } else {
            view.replicas.starting += missing;
            0
        }
    }
}

fn trouble(variant: &VariantSpec, state: &ScaleState) -> Option<Finding> {
    let target = format!("{} {}", variant.target.kind, variant.target.name);
    let (reason, message) = match state.trouble.as_ref()? {
        TargetTrouble::NoKind => (
            "TargetKindUnknown",
            format!(
                "{target}: the cluster knows no {} in {}: correct apiVersion and kind, or install the CRD",
                variant.target.kind, variant.target.api_version
            ),
        ),
        TargetTrouble::NotFound => (
            "TargetNotFound",
            format!("{target} does not exist in the namespace: create it, or correct the name"),
        ),
        TargetTrouble::NotScalable => (
            "TargetNotScalable",
            format!("{target} has no scale subresource: it cannot be sized"),
        ),
        TargetTrouble::NoSelector => (
            "TargetWithoutSelector",
            format!(
                "the scale subresource of {target} does not name its pods (status.selector is empty): its replicas cannot be counted"
            ),
        ),
        TargetTrouble::Unreadable(why) => (
            "TargetUnreadable",
            format!("the scale subresource of {target} cannot be read: {why}"),
        ),
    };
    Some(Finding::new(
        Topic::Target,
        reason,
        &variant.source,
        message,
    ))
}

#[cfg(test)]
mod tests;
