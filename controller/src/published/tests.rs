use super::*;
use proptest::prelude::*;

fn model(namespace: &str, name: &str) -> PublishedModel {
    PublishedModel {
        namespace: namespace.into(),
        model: name.into(),
        slug: label_value(name),
        pool: None,
        source: None,
        mode: Mode::Publish,
        decided_at_ms: 1_000_000,
        state: Answer::Fresh,
        slo_pressure: None,
        offered_tokens_per_second: None,
        queue_seconds: None,
        variants: Vec::new(),
    }
}

fn published(models: Vec<PublishedModel>) -> Published {
    Published {
        at_ms: 1_002_000,
        sequence: 1,
        models,
    }
}

#[tokio::test(start_paused = true)]
async fn a_decision_is_served_up_to_the_bound_and_not_past_it() {
    let clock = Clock::start();
    let board = Board::new(clock);
    board.publish(published(vec![model("ns", "m")]));
    let posted = board.latest();
    let model = &posted.published().models[0];
    // It was two seconds old when it was posted.
    tokio::time::advance(Duration::from_secs(8)).await;
    assert_eq!(posted.answer(model, clock.now()), Ok(()));
    tokio::time::advance(Duration::from_millis(1)).await;
    let refusal = posted.answer(model, clock.now()).unwrap_err();
    assert!(matches!(refusal, Unavailable::Old { .. }), "{refusal}");
    assert!(refusal.to_string().contains("10 s"), "{refusal}");
    board.publish(published(vec![model.clone()]));
    let again = board.latest();
    assert_eq!(
        again.answer(&again.published().models[0], clock.now()),
        Ok(())
    );
}

#[tokio::test]
async fn a_wrong_clock_on_the_other_machine_does_not_matter() {
    let board = Board::new(Clock::start());
    let mut far = published(vec![model("ns", "m")]);
    // A leader whose clock is years behind or ahead: only the difference of its own two readings counts.
    far.at_ms = 2_000;
    far.models[0].decided_at_ms = 1_000;
    board.publish(far);
    let posted = board.latest();
    let age = posted
        .age(&posted.published().models[0], board.clock().now())
        .unwrap();
    assert!(age < Duration::from_secs(5), "{age:?}");
}

#[tokio::test]
async fn what_may_not_be_acted_on_is_refused_with_its_reason() {
    let board = Board::new(Clock::start());
    let nothing = board.latest();
    assert!(!nothing.any());
    assert_eq!(
        nothing.answer(&model("ns", "m"), Duration::ZERO),
        Err(Unavailable::Nothing)
    );
    let mut models = vec![model("ns", "a"), model("ns", "b"), model("ns", "c")];
    models[0].mode = Mode::Advise;
    models[1].state = Answer::Cold {
        reason: "no request has been answered".into(),
    };
    models[2].state = Answer::Stale {
        reason: "no endpoint picker answers".into(),
    };
    board.publish(published(models));
    let posted = board.latest();
    let messages: Vec<String> = posted
        .published()
        .models
        .iter()
        .map(|model| {
            posted
                .answer(model, board.clock().now())
                .unwrap_err()
                .to_string()
        })
        .collect();
    assert!(messages[0].contains("mode advise"), "{messages:?}");
    assert!(
        messages[1].ends_with("no request has been answered"),
        "{messages:?}"
    );
    assert!(
        messages[2].ends_with("no endpoint picker answers"),
        "{messages:?}"
    );
}

#[tokio::test]
async fn a_publication_wakes_those_who_wait() {
    let board = Board::new(Clock::start());
    let mut changes = board.changes();
    board.publish(published(Vec::new()));
    changes.changed().await.unwrap();
    assert_eq!(*changes.borrow_and_update(), 1);
    assert!(!changes.has_changed().unwrap());
}

#[test]
fn a_publication_survives_its_way_to_a_follower() {
    let mut one = model("ns", "meta-llama/Llama-3.1-8B-Instruct");
    one.state = Answer::Cold {
        reason: "why".into(),
    };
    one.variants.push(PublishedVariant {
        name: "h100".into(),
        role: Role::Decode,
        accelerator: "H100".into(),
        target: ObjectRef::new("apps/v1", "Deployment", "llama"),
        scaler: Some(ObjectRef::new(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            "llama",
        )),
        desired: 3,
        current: 2,
        ready: Some(2),
        capacity: Some(1.5),
        lower: None,
        upper: Some(4),
    });
    let sent = published(vec![one]);
    let text = serde_json::to_string(&sent).unwrap();
    assert_eq!(serde_json::from_str::<Published>(&text).unwrap(), sent);
}

#[test]
fn model_names_become_label_values() {
    assert_eq!(
        label_value("meta-llama/Llama-3.1-8B"),
        "meta-llama-Llama-3.1-8B"
    );
    assert_eq!(label_value("/örtchen/"), "rtchen");
    let long = format!("{}-one", "x".repeat(80));
    assert_ne!(label_value(&long), label_value(&long.replace("one", "two")));
}

proptest! {
    #[test]
    fn a_label_value_is_always_one_that_kubernetes_takes(text in ".{0,120}") {
        let value = label_value(&text);
        prop_assert!(value.len() <= LONGEST_LABEL);
        prop_assert!(value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)));
        let ends = [value.bytes().next(), value.bytes().next_back()];
        prop_assert!(ends.into_iter().flatten().all(|b| b.is_ascii_alphanumeric()), "{value:?}");
        prop_assert_eq!(label_value(&value), value.clone());
    }
}
