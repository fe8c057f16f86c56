use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kubernetes::mock;
use serde_json::{Value, json};

use super::*;
use crate::kubernetes::models::Topic;
use crate::kubernetes::status::report::tests::{report, variant};

const SECOND: Duration = Duration::from_secs(1);

fn writer() -> (Writer, mock::Server) {
    let (client, server) = mock::server();
    let writer = Writer {
        client,
        clock: Clock::start(),
        known: Store::fixed([]),
        limiter: Limiter::new(EVERY),
        details: Limiter::new(EVERY_DETAIL),
        written: BTreeMap::new(),
    };
    (writer, server)
}

fn wanted(desired: u32, capacity: f64) -> BTreeMap<ObjectKey, ModelScalerStatus> {
    let status = ModelScalerStatus {
        desired: Some(desired),
        capacity: Some(capacity),
        ..ModelScalerStatus::default()
    };
    BTreeMap::from([(ObjectKey::new("chat", "llama"), status)])
}

#[tokio::test]
async fn a_change_waits_ten_seconds_and_a_mere_rate_thirty() {
    let (mut writer, _server) = writer();
    let mut written = |at: u32, desired, capacity| {
        let due = writer.due(at * SECOND, &wanted(desired, capacity));
        let wrote = !due.is_empty();
        writer.written.extend(due);
        wrote
    };
    assert!(written(1, 2, 5.0));
    assert!(!written(2, 2, 5.0), "nothing changed");
    assert!(!written(9, 3, 5.0) && written(11, 3, 5.0));
    assert!(!written(22, 3, 6.0) && written(41, 3, 6.0));
    assert!(!written(45, 4, 6.0) && written(51, 4, 6.0));
}

#[tokio::test]
async fn wordings_and_ages_are_no_change_and_a_turned_condition_is() {
    let condition = |status: &str, message: &str| Condition {
        type_: "Ready".into(),
        status: status.into(),
        reason: "R".into(),
        message: message.into(),
        last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
            jiff::Timestamp::UNIX_EPOCH,
        ),
        observed_generation: None,
    };
    let with = |status: &str, message: &str| ModelScalerStatus {
        conditions: vec![condition(status, message)],
        ..ModelScalerStatus::default()
    };
    assert_eq!(outline(&with("True", "a")), outline(&with("True", "b")));
    assert_ne!(outline(&with("True", "a")), outline(&with("False", "a")));
}

#[tokio::test]
async fn a_status_is_applied_on_its_subresource() {
    let (client, mut server) = mock::server();
    let (clock, shutdown, tasks) = (Clock::start(), Shutdown::new(), Tasks::new());
    let recorder = Recorder::start(
        client.clone(),
        "headroom-controller",
        "test",
        clock,
        shutdown.clone(),
        &tasks,
    );
    let mut reporter = Reporter::start(
        client,
        recorder,
        Store::fixed([]),
        clock,
        shutdown.clone(),
        &tasks,
    );
    let report = report(vec![variant("h100", 2, 3)]);
    reporter.report(SECOND, 1_000, &Snapshot::default(), &[report]);
    let (mut status, mut event) = (Value::Null, Value::Null);
    while status.is_null() || event.is_null() {
        let mut exchange = server.next().await.unwrap();
        let body = exchange.body().await;
        if exchange.target()
            == "PATCH /apis/headroom.dev/v1alpha1/namespaces/chat/modelscalers/llama/status"
        {
            assert!(
                exchange.query().contains("fieldManager=headroom"),
                "{}",
                exchange.query()
            );
            assert!(
                exchange.query().contains("force=true"),
                "{}",
                exchange.query()
            );
            status = body.clone();
            let object = json!({"apiVersion": "headroom.dev/v1alpha1", "kind": "ModelScaler", "metadata": {"name": "llama"},
                "spec": {"model": "llama", "sloClasses": [], "variants": []}});
            exchange.reply(&object).await;
        } else {
            event = body.clone();
            exchange.reply(&body).await;
        }
    }
    assert_eq!(status["status"]["variants"][0]["desired"], 3);
    assert_eq!(event["reason"], "Advised");
    assert!(
        event["note"]
            .as_str()
            .unwrap()
            .starts_with("h100 2 → 3: forecast"),
        "{event}"
    );
    shutdown.stop();
    tasks.join().await;
}

#[test]
fn only_fresh_changes_are_told_and_direct_mode_says_that_it_scaled() {
    let mut changed = report(vec![variant("h100", 2, 3), variant("l40s", 1, 1)]);
    let told = |report: &Report| -> Vec<String> {
        let told = decided(report).into_iter();
        told.map(|(_, remark)| remark.reason).collect()
    };
    assert_eq!(told(&changed), ["Advised"]);
    Arc::make_mut(&mut changed.spec).mode = Mode::Direct;
    assert_eq!(told(&changed), ["Scaled"]);
    let mut stale = changed.decision.as_deref().unwrap().clone();
    stale.evidence = controller_core::model::Evidence::Stale {
        reason: "old".into(),
    };
    changed.decision = Some(Arc::new(stale));
    assert_eq!(told(&changed), [""; 0]);
}

#[tokio::test]
async fn a_model_scaler_that_no_model_came_of_says_why() {
    let (client, _server) = mock::server();
    let (clock, shutdown, tasks) = (Clock::start(), Shutdown::new(), Tasks::new());
    let recorder = Recorder::start(client.clone(), "c", "i", clock, shutdown.clone(), &tasks);
    let reporter = Reporter::start(client, recorder, Store::fixed([]), clock, shutdown, &tasks);
    let about = Source {
        kind: scalers::KIND.into(),
        namespace: "chat".into(),
        name: "llama".into(),
        generation: Some(4),
        ..Source::default()
    };
    let snapshot = Snapshot {
        findings: vec![Finding::new(
            Topic::Spec,
            "InvalidSpec",
            &about,
            "margin: `5`",
        )],
        ..Snapshot::default()
    };
    let refused = reporter.refused(&snapshot, 1_000);
    let (key, status) = &refused[0];
    assert_eq!((&*key.name, status.observed_generation), ("llama", Some(4)));
    let ready = status
        .conditions
        .iter()
        .find(|one| one.type_ == "Ready")
        .unwrap();
    assert_eq!(
        (ready.status.as_str(), ready.reason.as_str()),
        ("False", "InvalidSpec")
    );
    assert_eq!(ready.message, "margin: `5`");
}
