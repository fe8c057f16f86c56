use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::kubernetes::assemble::tests::{correct, external, hpa};
use crate::kubernetes::status::testing::{report, variant};

/// What an HPA of these spec fields makes of 12 → `wanted`.
fn with(fields: serde_json::Value, asked: u32, wanted: u32) -> ExplainedAutoscaler {
    let mut report = report(vec![variant("h100", asked, wanted)]);
    Arc::make_mut(&mut report.spec).variants[0].hpa = Some(hpa("h", "h100", json!({}), fields));
    let explained = explain(&report, 1_000, Vec::new());
    explained.variants[0].autoscaler.clone().unwrap()
}

#[test]
fn the_oracle_says_what_an_hpa_makes_of_a_count() {
    let plain = with(correct(), 2, 3);
    assert_eq!((plain.makes, plain.limits), (Some(3), [1, 8]));
    assert_eq!(
        plain.says,
        "HorizontalPodAutoscaler h is told 3 and makes it 3, as fast as its behavior allows"
    );
    let capped = with(correct(), 2, 12);
    assert_eq!(capped.makes, Some(8));
    assert!(
        capped.says.contains("its limits are 1 to 8"),
        "{}",
        capped.says
    );
    let mut wide = correct();
    wide["maxReplicas"] = 40.into();
    let ignored = with(wide, 20, 21);
    assert_eq!(ignored.makes, Some(20));
    assert!(
        ignored.says.contains("is told 21 and keeps 20"),
        "{}",
        ignored.says
    );
}

#[test]
fn a_ratio_is_multiplied_with_the_ready_pods() {
    let labels = json!({"variant": "h100"});
    let ratio = external(
        "llm_desired_ratio",
        labels,
        json!({"type": "Value", "value": "1"}),
    );
    assert_eq!(with(ratio.clone(), 2, 4).makes, Some(4));
    assert_eq!(with(ratio, 4, 4).makes, Some(4));
}

#[test]
fn an_hpa_that_is_paused_makes_nothing_of_it() {
    let mut paused = Hpa::clone(&hpa("h", "h100", json!({}), correct()));
    paused.paused = true;
    let mut report = report(vec![variant("h100", 0, 2)]);
    Arc::make_mut(&mut report.spec).variants[0].hpa = Some(Arc::new(paused));
    let explained = explain(&report, 1_000, Vec::new());
    let autoscaler = explained.variants[0].autoscaler.clone().unwrap();
    assert_eq!(autoscaler.makes, None);
    assert!(autoscaler.says.contains("is paused"), "{}", autoscaler.says);
}

#[test]
fn an_hpa_that_reads_nothing_has_no_say() {
    let blind = with(json!({}), 2, 3);
    assert_eq!(blind.makes, None);
    assert!(blind.says.contains("no effect"), "{}", blind.says);
}

#[test]
fn an_explanation_reads_back_from_its_json() {
    let mut report = report(vec![variant("h100", 2, 3)]);
    let finding = Finding::new(
        crate::kubernetes::models::Topic::Spec,
        "WrongAnnotation",
        &report.spec.source,
        "annotation x: `y` is not z",
    );
    report.findings.push(finding);
    let explained = explain(&report, 1_000, Vec::new());
    assert_eq!(explained.findings[0].about, "ModelScaler llama");
    assert_eq!(explained.variants[0].range, Some([3, 3]));
    let json = serde_json::to_value(&explained).unwrap();
    assert_eq!(json["schema"], 1);
    assert_eq!(
        serde_json::from_value::<Explanation>(json).unwrap(),
        explained
    );
    report.decision = None;
    let before = explain(&report, 1_000, Vec::new());
    assert_eq!(before.why, ["no decision has been made yet"]);
    assert_eq!(before.variants[0].wanted, None);
}
