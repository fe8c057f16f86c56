use kube::core::Status;
use serde_json::json;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn scale(replicas: u32, selector: &str) -> Scale {
    serde_json::from_value(json!({
        "metadata": {"name": "llama", "namespace": "chat"},
        "spec": {"replicas": replicas},
        "status": {"replicas": 1, "selector": selector},
    }))
    .unwrap()
}

fn refusal(code: u16) -> kube::Error {
    let status = Status {
        code,
        message: "no".into(),
        ..Status::default()
    };
    kube::Error::Api(Box::new(status))
}

#[test]
fn a_scale_tells_count_and_pods() {
    let state = merged(ScaleState::default(), Ok(scale(3, "app=llm,role=decode")));
    assert_eq!((state.replicas, &state.trouble), (Some(3), &None));
    assert_eq!(
        state.selector,
        Selector::parse("app=llm,role=decode").unwrap()
    );
}

#[test]
fn what_was_known_outlives_a_failure_and_not_the_object() {
    let known = merged(ScaleState::default(), Ok(scale(3, "app=llm")));
    let failed = merged(known.clone(), Err(refusal(500)));
    assert_eq!(
        (failed.replicas, &failed.selector),
        (Some(3), &known.selector)
    );
    assert!(matches!(failed.trouble, Some(TargetTrouble::Unreadable(_))));
    let gone = merged(known, Err(refusal(404)));
    assert_eq!(
        (gone.replicas, gone.trouble),
        (None, Some(TargetTrouble::NotFound))
    );
}

#[test]
fn a_scale_without_a_selector_has_no_pods() {
    let state = merged(ScaleState::default(), Ok(scale(3, "")));
    assert_eq!(state.trouble, Some(TargetTrouble::NoSelector));
    assert!(state.selector.is_empty());
    let before = merged(ScaleState::default(), Ok(scale(3, "app=llm")));
    let wrong = merged(before.clone(), Ok(scale(4, "app of llm")));
    assert_eq!((wrong.replicas, wrong.selector), (Some(4), before.selector));
}

#[test]
fn a_scale_is_read_again_when_its_time_or_its_reason_has_come() {
    let known = |trouble: Option<TargetTrouble>| Known {
        state: ScaleState {
            trouble,
            ..ScaleState::default()
        },
        at: 100 * SECOND,
        hint: Some("app=llm".into()),
    };
    let hint: Option<Box<str>> = Some("app=llm".into());
    let fine = known(None);
    let due = |at: u32, known: &Known, counted| is_due(at * SECOND, Some(known), &hint, counted);
    assert!(is_due(Duration::ZERO, None, &hint, true));
    assert!(!due(101, &fine, true) && due(400, &fine, true));
    assert!(!due(104, &fine, false) && due(105, &fine, false));
    let failed = known(Some(TargetTrouble::NoSelector));
    assert!(!due(104, &failed, true) && due(105, &failed, true));
    let renamed: Option<Box<str>> = Some("app=other".into());
    assert!(is_due(101 * SECOND, Some(&fine), &renamed, true));
}
