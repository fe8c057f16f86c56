use controller_core::decision::Infeasible;
use controller_core::{Binding, model::ModelKey};

use super::*;
use crate::kubernetes::models::Source;
use crate::kubernetes::status::report::tests::{decision, variant};

fn snapshot(state: &str) -> ModelSnapshot {
    ModelSnapshot {
        accelerator: "H100".into(),
        state: state.into(),
        labels: 40,
        ..ModelSnapshot::default()
    }
}

fn finding(topic: Topic, reason: &'static str) -> Finding {
    Finding::new(topic, reason, &Source::default(), format!("{reason} it is"))
}

/// Status and reason of the condition of type `kind`.
fn judged(
    kind: &str,
    mode: Mode,
    findings: &[Finding],
    decision: Option<&ModelDecision>,
) -> (String, String) {
    let findings: Vec<&Finding> = findings.iter().collect();
    let snapshots = [snapshot("trained")];
    let grounds = Grounds {
        mode,
        findings: &findings,
        decision,
        snapshots: &snapshots,
    };
    let mut held = Vec::new();
    set_all(&mut held, &grounds, Some(3), 1_000);
    let one = held.iter().find(|one| one.type_ == kind).unwrap();
    assert_eq!(one.observed_generation, Some(3));
    (one.status.clone(), one.reason.clone())
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.into(), reason.into())
}

#[test]
fn each_topic_has_its_condition() {
    let decision = decision(vec![variant("h100", 2, 3)]);
    for (topic, kind, good) in [
        (Topic::Spec, SPEC_ACCEPTED, "Accepted"),
        (Topic::Target, TARGETS_FOUND, "Found"),
        (Topic::Conflict, NO_CONFLICT, "Alone"),
        (Topic::Autoscaler, AUTOSCALER_FOLLOWS, "Follows"),
        (Topic::Capacity, CAPACITY_AVAILABLE, "Available"),
    ] {
        let judged = |findings: &[Finding]| judged(kind, Mode::Publish, findings, Some(&decision));
        assert_eq!(judged(&[]), pair("True", good));
        assert_eq!(judged(&[finding(topic, "Wrong")]), pair("False", "Wrong"));
        assert_eq!(
            judged(&[finding(topic, "Known").noted()]),
            pair("True", "Known")
        );
    }
}

#[test]
fn freshness_follows_the_evidence() {
    let judged =
        |decision: Option<&ModelDecision>| judged(METRICS_FRESH, Mode::Publish, &[], decision);
    assert_eq!(judged(None), pair("Unknown", "NoDecision"));
    let mut one = decision(vec![variant("h100", 2, 3)]);
    assert_eq!(judged(Some(&one)), pair("True", "Fresh"));
    one.evidence = Evidence::Stale {
        reason: "no picker since 12 s".into(),
    };
    assert_eq!(judged(Some(&one)), pair("False", "Stale"));
    one.evidence = Evidence::Fresh;
    one.silent = vec![controller_core::shares::Silent {
        id: "epp-0".into(),
        unheard: std::time::Duration::from_secs(7),
    }];
    assert_eq!(judged(Some(&one)), pair("False", "SilentPicker"));
}

#[test]
fn ready_asks_for_what_the_mode_needs() {
    let decision = decision(vec![variant("h100", 2, 3)]);
    let ready = |mode, topic| judged(READY, mode, &[finding(topic, "Wrong")], Some(&decision)).0;
    for mode in [Mode::Advise, Mode::Publish, Mode::Direct] {
        assert_eq!(ready(mode, Topic::Spec), "False");
        assert_eq!(ready(mode, Topic::Target), "False");
        assert_eq!(
            ready(mode, Topic::Capacity),
            "True",
            "it is told and changes nothing"
        );
        let conflict = if mode == Mode::Advise {
            "True"
        } else {
            "False"
        };
        assert_eq!(ready(mode, Topic::Conflict), conflict);
        let autoscaler = if mode == Mode::Publish {
            "False"
        } else {
            "True"
        };
        assert_eq!(ready(mode, Topic::Autoscaler), autoscaler);
    }
    assert_eq!(
        judged(READY, Mode::Publish, &[], None),
        pair("Unknown", "NoDecision")
    );
}

#[test]
fn training_and_feasibility_are_told_as_they_are() {
    assert_eq!(trained(&[]).status, Status::Unknown);
    assert_eq!(trained(&[snapshot("trained")]).status, Status::True);
    let young = trained(&[snapshot("trained"), snapshot("warming")]);
    assert_eq!(
        (young.status, young.reason.as_str()),
        (Status::False, "Warming")
    );
    assert_eq!(
        young.message,
        "the latency model for H100 is warming after 40 labelled requests"
    );
    assert_eq!(feasible(None).status, Status::Unknown);
    let mut one = variant("h100", 2, 2);
    assert_eq!(
        feasible(Some(&decision(vec![one.clone()]))).status,
        Status::True
    );
    let infeasible = Reason::Infeasible(Infeasible {
        target: Binding::Ttft,
        reachable: 0.6,
        percentile: 0.95,
        utilization: 0.8,
    });
    one.reasons = vec![Reason::Class {
        class: "chat".into(),
        because: Box::new(infeasible),
    }];
    let told = feasible(Some(&decision(vec![one])));
    assert_eq!(told.status, Status::False);
    assert!(told.message.contains("infeasible"), "{}", told.message);
    assert_eq!(decision(Vec::new()).model, ModelKey::default());
}

#[test]
fn a_message_names_four_findings_and_counts_the_rest() {
    let findings: Vec<Finding> = (0..6).map(|_| finding(Topic::Spec, "Wrong")).collect();
    let findings: Vec<&Finding> = findings.iter().collect();
    let told = of_topic(SPEC_ACCEPTED, Topic::Spec, "Accepted", &findings);
    assert_eq!(told.message.matches("Wrong it is").count(), 4);
    assert!(told.message.ends_with("; and 2 more"), "{}", told.message);
}
