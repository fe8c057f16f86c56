use std::time::Duration;

use controller_core::Binding;
use controller_core::decision::{Basis, Need};
use controller_core::demand::Rates;
use controller_core::model::{
    ClassDecision, Evidence, ModelKey, ModelPolicy, Role, Startup, VariantPolicy,
};
use controller_core::signals::{Backlog, Replicas};
use proptest::prelude::*;

use super::*;
use crate::kubernetes::models::{Source, Topic};
use crate::published::Mode;

pub(crate) fn variant(name: &str, previous: u32, replicas: u32) -> VariantDecision {
    VariantDecision {
        name: name.into(),
        role: Role::Both,
        replicas,
        previous,
        lower: replicas,
        upper: replicas,
        supply: Replicas {
            ready: previous,
            ..Replicas::default()
        },
        basis: Basis::Slo,
        capacities: Vec::new(),
        requests_per_second: Some(4.704),
        headroom: None,
        startup: Duration::from_secs(60),
        reasons: vec![Reason::Forecast(Need {
            rate: 21.4,
            horizon: Duration::from_secs(6),
            needed: 4.6,
            per_replica: 4.7,
            binding: Binding::Ttft,
            percentile: 0.9,
        })],
        guarded: None,
    }
}

pub(crate) fn decision(variants: Vec<VariantDecision>) -> ModelDecision {
    let demand = controller_core::demand::Demand {
        offered: Rates {
            requests: 21.44,
            cached_tokens: 1_000.0,
            uncached_tokens: 234.0,
            output_tokens: 5_555.0,
        },
        ..controller_core::demand::Demand::default()
    };
    ModelDecision {
        at: Duration::from_secs(9),
        model: ModelKey::default(),
        classes: vec![ClassDecision {
            name: "chat".into(),
            demand: Some(demand),
            forecast: None,
            queued: Backlog::default(),
        }],
        variants,
        reasons: Vec::new(),
        headroom: Some(-2.345),
        pressure: Some(1.07),
        offered_tokens_per_second: None,
        queue_seconds: None,
        in_flight: 12,
        silent: Vec::new(),
        evidence: Evidence::Fresh,
    }
}

pub(crate) fn report(variants: Vec<VariantDecision>) -> Report {
    let key = ModelKey {
        namespace: "chat".into(),
        model: "llama".into(),
    };
    let source = Source {
        api_version: "headroom.dev/v1alpha1".into(),
        kind: "ModelScaler".into(),
        namespace: "chat".into(),
        name: "llama".into(),
        uid: "ms".into(),
        generation: Some(2),
    };
    let policy = |one: &VariantDecision| VariantPolicy {
        cost_per_hour: 4.0,
        ..VariantPolicy::new(&one.name, 1, 8, Startup::Fixed(Duration::from_secs(60)))
    };
    let place = |one: &VariantDecision| VariantSpec {
        name: one.name.clone(),
        target: ObjectRef::new("apps/v1", "Deployment", &one.name),
        scaler: Some(ObjectRef::new(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "h",
        )),
        hpa: None,
        contested: false,
        source: source.clone(),
    };
    let view = |one: &VariantDecision| VariantView {
        asked: Some(one.previous),
        replicas: one.supply,
        ..VariantView::default()
    };
    let policies = variants.iter().map(policy).collect();
    let spec = ModelSpec {
        policy: ModelPolicy::new(key.clone(), Vec::new(), policies),
        key,
        pool: Some("pool".into()),
        mode: Mode::Publish,
        variants: variants.iter().map(place).collect(),
        source,
        findings: Vec::new(),
    };
    Report {
        spec: Arc::new(spec),
        views: variants.iter().map(view).collect(),
        decision: Some(Arc::new(decision(variants))),
        snapshots: Vec::new(),
        pickers: 2,
        notes: vec!["demand as the endpoint pickers report it".into()],
        findings: Vec::new(),
    }
}

#[test]
fn a_status_carries_the_decision_in_short_numbers() {
    let report = report(vec![variant("h100", 2, 3), variant("l40s", 1, 1)]);
    let status = status_of(&report, &ModelScalerStatus::default(), 1_800_000_000_123);
    let demand = status.demand.unwrap();
    assert_eq!(
        (demand.requests_per_second, demand.prompt_tokens_per_second),
        (21.0, 1_200.0)
    );
    assert_eq!(
        (demand.output_tokens_per_second, demand.pickers),
        (5_600.0, 2)
    );
    assert_eq!(
        (status.headroom, status.slo_pressure),
        (Some(-2.3), Some(1.1))
    );
    assert_eq!(status.capacity, Some(14.0), "three ready replicas of 4.7");
    assert_eq!(status.binding_slo.as_deref(), Some("chat ttft"));
    assert_eq!((status.ready, status.desired), (Some(3), Some(4)));
    assert_eq!(status.cost_per_hour, Some(16.0));
    assert_eq!(status.observed_generation, Some(2));
    let h100 = &status.variants[0];
    assert_eq!(
        (h100.replicas, h100.desired, h100.capacity),
        (2, 3, Some(4.7))
    );
    assert_eq!(h100.scaler.as_ref().unwrap().name, "h");
    assert!(
        h100.reasons[0].starts_with("forecast 21.4 req/s"),
        "{:?}",
        h100.reasons
    );
    let last = status.last_decision.unwrap();
    assert_eq!(last.changes, ["h100 2 -> 3"]);
    assert_eq!(last.at.unwrap().0.as_second(), 1_800_000_000);
}

#[test]
fn the_last_change_stays_while_nothing_changes() {
    let changed = status_of(
        &report(vec![variant("h100", 2, 3)]),
        &ModelScalerStatus::default(),
        1_000,
    );
    let held = status_of(&report(vec![variant("h100", 3, 3)]), &changed, 60_000);
    assert_eq!(held.last_decision, changed.last_decision);
    let again = |status: &ModelScalerStatus| {
        status_of(&report(vec![variant("h100", 3, 3)]), status, 90_000)
    };
    assert_eq!(again(&held), held, "the same cycle makes the same status");
}

#[test]
fn what_is_unknown_is_absent() {
    let mut unknown = report(vec![variant("h100", 2, 2)]);
    unknown.decision = None;
    let status = status_of(&unknown, &ModelScalerStatus::default(), 1_000);
    assert_eq!(
        (status.demand, status.desired, status.capacity),
        (None, None, None)
    );
    assert_eq!(status.ready, Some(2));
    let mut report = report(vec![variant("h100", 2, 2)]);
    let mut blind = decision(vec![VariantDecision {
        requests_per_second: None,
        ..variant("h100", 2, 2)
    }]);
    blind.classes[0].demand = None;
    report.decision = Some(Arc::new(blind));
    let status = status_of(&report, &ModelScalerStatus::default(), 1_000);
    assert_eq!((status.demand, status.capacity), (None, None));
}

#[test]
fn findings_of_spec_views_and_elsewhere_are_all_told() {
    let mut all = report(vec![variant("h100", 2, 2)]);
    let finding = |reason| Finding::new(Topic::Conflict, reason, &Source::default(), reason);
    Arc::make_mut(&mut all.spec).findings.push(finding("A"));
    all.views[0].findings.push(finding("B"));
    all.findings.push(finding("C"));
    let told: Vec<_> = all.all_findings().map(|one| one.reason).collect();
    assert_eq!(told, ["A", "B", "C"]);
}

proptest! {
    #[test]
    fn rounding_keeps_two_digits_and_is_stable(value in -1e9_f64..1e9) {
        let once = rounded(value);
        prop_assert!((once - value).abs() <= 0.05 * value.abs() + f64::EPSILON);
        prop_assert_eq!(rounded(once), once);
        let digits = format!("{once:e}");
        let mantissa = digits.split('e').next().unwrap().trim_start_matches('-');
        prop_assert!(mantissa.len() <= 3, "{}", digits);
    }
}
