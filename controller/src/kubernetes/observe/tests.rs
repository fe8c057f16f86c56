use controller_core::model::{ModelKey, ModelPolicy};
use serde_json::json;

use super::*;
use crate::kubernetes::labels::Selector;
use crate::kubernetes::models::Source;
use crate::kubernetes::pods::Pod;
use crate::published::{Mode, ObjectRef};

const SECOND: Duration = Duration::from_secs(1);

fn model() -> Arc<ModelSpec> {
    let key = ModelKey {
        namespace: "chat".into(),
        model: "llama".into(),
    };
    let target = ObjectRef::new("apps/v1", "Deployment", "llama");
    Arc::new(ModelSpec {
        policy: ModelPolicy::new(key.clone(), Vec::new(), Vec::new()),
        key,
        pool: None,
        mode: Mode::Advise,
        variants: vec![VariantSpec {
            name: "llama".into(),
            target,
            scaler: None,
            hpa: None,
            contested: false,
            source: Source::default(),
        }],
        source: Source::default(),
        findings: Vec::new(),
    })
}

fn state(replicas: u32) -> ScaleState {
    ScaleState {
        replicas: Some(replicas),
        selector: Selector::parse("app=llm").unwrap(),
        ..ScaleState::default()
    }
}

fn pod(name: &str, ready: bool, reason: Option<&str>) -> Arc<Pod> {
    let ready = json!({"type": "Ready", "status": if ready { "True" } else { "False" }, "lastTransitionTime": "2026-03-01T10:00:45Z"});
    let scheduled = json!({"type": "PodScheduled", "status": if reason.is_some() { "False" } else { "True" }, "reason": reason, "message": "0/2 nodes are available"});
    let full = serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "chat", "labels": {"app": "llm"}, "creationTimestamp": "2026-03-01T10:00:00Z"},
        "status": {"phase": "Running", "conditions": [ready, scheduled]},
    }));
    Arc::new(Pod::trim(full.unwrap()).unwrap())
}

fn look(observer: &mut Observer, at: u64, state: &ScaleState, pods: &[Arc<Pod>]) -> VariantView {
    let index = PodIndex::new(pods.iter().cloned());
    let scales = |_: &TargetKey| state.clone();
    let mut views = observer.look(
        u32::try_from(at).unwrap() * SECOND,
        &[model()],
        &scales,
        &index,
    );
    views.remove(0).remove(0)
}

#[test]
fn replicas_without_a_pod_are_on_their_way_and_pending_after_a_while() {
    let mut observer = Observer::default();
    let pods = [pod("a", true, None)];
    let view = look(&mut observer, 0, &state(3), &pods);
    let Replicas {
        ready,
        starting,
        pending,
        ..
    } = view.replicas;
    assert_eq!((ready, starting, pending), (1, 2, 0));
    assert_eq!(view.became_ready, [45 * SECOND]);
    assert_eq!(view.findings, []);
    let view = look(&mut observer, 29, &state(3), &pods);
    assert_eq!((view.replicas.starting, view.replicas.pending), (2, 0));
    assert_eq!(view.became_ready, [Duration::ZERO; 0]);
    let view = look(&mut observer, 30, &state(3), &pods);
    assert_eq!((view.replicas.starting, view.replicas.pending), (0, 2));
    assert_eq!(view.findings[0].reason, "PodsMissing");
    // Once they were all there, the time begins anew.
    look(&mut observer, 31, &state(1), &pods);
    let view = look(&mut observer, 32, &state(3), &pods);
    assert_eq!((view.replicas.starting, view.replicas.pending), (2, 0));
}

#[test]
fn a_quota_that_refuses_pods_makes_them_pending_at_once_and_says_so() {
    let refused = ScaleState {
        refused: Some("exceeded quota: gpus".into()),
        ..state(3)
    };
    let view = look(
        &mut Observer::default(),
        0,
        &refused,
        &[pod("a", true, None)],
    );
    assert_eq!((view.replicas.pending, view.refused), (2, true));
    assert_eq!(
        view.findings[0].message,
        "2 replicas of Deployment llama are refused: exceeded quota: gpus"
    );
}

#[test]
fn unschedulable_pods_are_pending_with_the_schedulers_words() {
    let pods = [pod("a", true, None), pod("b", false, Some("Unschedulable"))];
    let view = look(&mut Observer::default(), 0, &state(2), &pods);
    assert_eq!((view.replicas.ready, view.replicas.pending), (1, 1));
    let finding = &view.findings[0];
    assert_eq!(
        (finding.topic, finding.reason),
        (Topic::Capacity, "PodsPending")
    );
    assert_eq!(
        finding.message,
        "1 replica of Deployment llama cannot be scheduled: 0/2 nodes are available"
    );
}

#[test]
fn an_unknown_target_has_no_count_and_says_why() {
    for (trouble, reason) in [
        (TargetTrouble::NoKind, "TargetKindUnknown"),
        (TargetTrouble::NotFound, "TargetNotFound"),
        (TargetTrouble::NotScalable, "TargetNotScalable"),
        (TargetTrouble::NoSelector, "TargetWithoutSelector"),
        (TargetTrouble::Unreadable("403".into()), "TargetUnreadable"),
    ] {
        let unknown = ScaleState {
            trouble: Some(trouble),
            ..ScaleState::default()
        };
        let view = look(
            &mut Observer::default(),
            0,
            &unknown,
            &[pod("a", true, None)],
        );
        assert_eq!((view.asked, view.replicas), (None, Replicas::default()));
        assert_eq!(view.findings[0].reason, reason);
    }
}
