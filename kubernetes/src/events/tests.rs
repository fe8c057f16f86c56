use super::*;
use crate::mock::{self, Server};
use serde_json::json;

fn pool() -> ObjectReference {
    ObjectReference {
        api_version: Some("inference.networking.k8s.io/v1".into()),
        kind: Some("InferencePool".into()),
        name: Some("pool".into()),
        namespace: Some("ns".into()),
        uid: Some("u".into()),
        ..ObjectReference::default()
    }
}

fn recorder() -> (Recorder, Server, Shutdown) {
    let (client, server) = mock::server();
    let shutdown = Shutdown::new();
    let recorder = Recorder::start(
        client,
        "headroom-epp",
        "epp-0",
        Clock::start(),
        shutdown.clone(),
        &Tasks::new(),
    );
    (recorder, server, shutdown)
}

fn wrong(message: &str) -> Remark {
    Remark::warning("WrongValue", "ReadAnnotations", message)
}

#[tokio::test(start_paused = true)]
async fn a_remark_becomes_one_event_whose_repetitions_are_counted() {
    let (recorder, mut server, _shutdown) = recorder();
    recorder.remark(pool(), wrong("slo-ttft-ms: `x` is not a number"));
    let mut create = server.next().await.unwrap();
    assert_eq!(
        create.target(),
        "POST /apis/events.k8s.io/v1/namespaces/ns/events"
    );
    let event = create.body().await;
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["regarding"]["uid"], "u");
    assert_eq!(event["reportingController"], "headroom-epp");
    assert_eq!(event["note"], "slo-ttft-ms: `x` is not a number");
    let name = event["metadata"]["name"].as_str().unwrap().to_owned();
    create.reply(&event).await;
    for _ in 0..10 {
        recorder.remark(pool(), wrong("slo-ttft-ms: `x` is not a number"));
    }
    tokio::time::sleep(Duration::from_secs(400)).await;
    recorder.remark(pool(), wrong("slo-ttft-ms: `x` is not a number"));
    let mut recount = server.next().await.unwrap();
    assert_eq!(
        recount.target(),
        format!("PATCH /apis/events.k8s.io/v1/namespaces/ns/events/{name}")
    );
    assert_eq!(recount.body().await["series"]["count"], 12);
    recount.reply(&event).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_that_refuses_is_asked_again_later_and_nobody_waits() {
    let (recorder, mut server, shutdown) = recorder();
    recorder.remark(pool(), wrong("one"));
    server.next().await.unwrap().fail(403, "Forbidden").await;
    for _ in 0..10 * MAX_WAITING {
        recorder.remark(pool(), wrong("one"));
    }
    tokio::time::sleep(Duration::from_secs(11)).await;
    recorder.remark(pool(), wrong("one"));
    let mut again = server.next().await.unwrap();
    assert_eq!(again.body().await["note"], "one");
    again.reply(&json!({"metadata": {"name": "e"}})).await;
    shutdown.stop();
    assert!(server.next().await.is_none());
}
