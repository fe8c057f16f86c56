use super::*;
use crate::published::{
    Answer, Mode, ObjectRef, Published, PublishedModel, PublishedVariant, Role, label_value,
};
use futures::StreamExt;
use runtime::serve::{ServeOptions, http};
use runtime::{Clock, Tasks};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::Code;
use tonic::client::Grpc as Client;
use tonic::transport::Channel;

fn model(namespace: &str, name: &str, variants: &[(&str, u32)]) -> PublishedModel {
    PublishedModel {
        namespace: namespace.into(),
        model: name.into(),
        slug: label_value(name),
        pool: None,
        source: Some(ObjectRef::new(
            "headroom.dev/v1alpha1",
            "ModelScaler",
            format!("{namespace}-scaler"),
        )),
        mode: Mode::Publish,
        decided_at_ms: 0,
        state: Answer::Fresh,
        slo_pressure: None,
        offered_tokens_per_second: Some(1500.0),
        queue_seconds: None,
        variants: variants
            .iter()
            .map(|(name, desired)| PublishedVariant {
                name: (*name).into(),
                role: Role::Both,
                accelerator: String::new(),
                target: ObjectRef::new("apps/v1", "Deployment", *name),
                scaler: None,
                desired: *desired,
                current: 2,
                ready: Some(2),
                capacity: None,
                lower: None,
                upper: None,
            })
            .collect(),
    }
}

fn published(desired: u32) -> Published {
    Published {
        at_ms: 0,
        sequence: 0,
        models: vec![
            model("team-a", "org/llama", &[("h100", desired), ("l4", 0)]),
            model("team-b", "org/llama", &[("h100", 9)]),
        ],
    }
}

fn object(namespace: &str, metadata: &[(&str, &str)]) -> ScaledObjectRef {
    ScaledObjectRef {
        name: "scaled".into(),
        namespace: namespace.into(),
        scaler_metadata: metadata
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
    }
}

fn scaler() -> ExternalScaler {
    ExternalScaler::new(Board::new(Clock::start()), Shutdown::new())
}

fn value(scaler: &ExternalScaler, object: ScaledObjectRef) -> Result<f64, Status> {
    let request = GetMetricsRequest {
        scaled_object_ref: Some(object),
        metric_name: "any".into(),
    };
    let answer = scaler.metrics(request)?;
    assert_eq!(answer.metric_values.len(), 1);
    assert_eq!(answer.metric_values[0].metric_name, "any");
    Ok(answer.metric_values[0].metric_value_float)
}

#[test]
fn a_trigger_names_its_variant_in_several_ways() {
    let scaler = scaler();
    scaler.board.publish(published(3));
    for (namespace, metadata, expected) in [
        ("team-a", vec![("variant", "h100")], 3.0),
        (
            "team-a",
            vec![("model", "org/llama"), ("variant", "l4")],
            0.0,
        ),
        (
            "team-a",
            vec![("model", "org-llama"), ("variant", "h100")],
            3.0,
        ),
        ("team-b", vec![("scalerAddress", "headroom:9090")], 9.0),
        ("other", vec![("namespace", "team-b")], 9.0),
        ("team-b", vec![("modelScaler", "team-b-scaler")], 9.0),
        (
            "team-a",
            vec![("variant", "h100"), ("metric", "llm_desired_ratio")],
            1.5,
        ),
        (
            "team-b",
            vec![
                ("metric", "llm_offered_tokens_per_second"),
                ("target", "500"),
            ],
            1500.0,
        ),
        ("team-b", vec![("metric", "wva_desired_replicas")], 9.0),
    ] {
        assert_eq!(
            value(&scaler, object(namespace, &metadata)).unwrap(),
            expected,
            "{metadata:?}"
        );
    }
}

#[test]
fn a_trigger_that_names_nothing_or_too_much_is_told_what_is_there() {
    let scaler = scaler();
    scaler.board.publish(published(3));
    for (namespace, metadata, code, message) in [
        ("team-a", vec![], Code::FailedPrecondition, "2 variants"),
        (
            "team-a",
            vec![("variant", "a100")],
            Code::NotFound,
            "there is h100",
        ),
        ("team-c", vec![], Code::NotFound, "nothing is scaled there"),
        (
            "team-b",
            vec![("modelScaler", "team-a-scaler")],
            Code::NotFound,
            "no variant",
        ),
        (
            "team-b",
            vec![("metric", "rps")],
            Code::InvalidArgument,
            "llm_desired_replicas",
        ),
        (
            "team-b",
            vec![("varient", "h100")],
            Code::InvalidArgument,
            "variant is meant",
        ),
        (
            "team-b",
            vec![("target", "-1")],
            Code::InvalidArgument,
            "above 0",
        ),
        (
            "team-b",
            vec![("metric", "llm_offered_tokens_per_second")],
            Code::InvalidArgument,
            "one replica",
        ),
        (
            "team-b",
            vec![("metric", "llm_slo_pressure")],
            Code::Unavailable,
            "not known yet",
        ),
    ] {
        let refused = value(&scaler, object(namespace, &metadata)).unwrap_err();
        assert_eq!(refused.code(), code, "{metadata:?}: {refused}");
        assert!(
            refused.message().contains(message),
            "{metadata:?}: {refused}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_old_or_cold_is_an_error_and_the_specification_always_there() {
    let scaler = scaler();
    let trigger = object("team-b", &[("target", "2.5")]);
    let unavailable = |scaler: &ExternalScaler| {
        let spec = ExternalScaler::metric_spec(&trigger).unwrap();
        assert_eq!(spec.metric_specs[0].target_size_float, 2.5);
        assert_eq!(
            scaler.is_active(&trigger).unwrap_err().code(),
            Code::Unavailable
        );
        value(scaler, trigger.clone()).unwrap_err()
    };
    assert_eq!(unavailable(&scaler).code(), Code::Unavailable);
    scaler.board.publish(published(1));
    assert!(scaler.is_active(&trigger).unwrap().result);
    tokio::time::advance(Duration::from_secs(11)).await;
    assert!(unavailable(&scaler).message().contains("11.0 s old"));
    let mut cold = published(1);
    cold.models[1].state = Answer::Cold {
        reason: "no label yet".into(),
    };
    scaler.board.publish(cold);
    assert!(unavailable(&scaler).message().contains("no label yet"));
}

#[tokio::test(start_paused = true)]
async fn activity_is_pushed_when_it_changes_and_kept_while_unknown() {
    let scaler = scaler();
    let trigger = object("team-a", &[("variant", "h100")]);
    let mut pushed = Box::pin(scaler.activity(&trigger).unwrap());
    let next = futures::poll!(pushed.next());
    assert!(next.is_pending());
    scaler.board.publish(published(0));
    assert!(!pushed.next().await.unwrap().unwrap().result);
    for desired in [0, 2] {
        scaler.board.publish(published(desired));
    }
    assert!(pushed.next().await.unwrap().unwrap().result);
    let mut stale = published(0);
    stale.models[0].state = Answer::Stale {
        reason: "silent".into(),
    };
    scaler.board.publish(stale);
    assert!(futures::poll!(pushed.next()).is_pending());
    scaler.board.publish(published(3));
    assert!(futures::poll!(pushed.next()).is_pending());
    scaler.board.publish(published(0));
    assert!(!pushed.next().await.unwrap().unwrap().result);
    scaler.shutdown.begin_drain();
    assert!(pushed.next().await.is_none());
}

async fn call<Q, A>(channel: &Channel, method: &str, message: Q) -> Result<A, Status>
where
    Q: prost::Message + Default + 'static,
    A: prost::Message + Default + 'static,
{
    let mut client = Client::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/{}/{method}", wire::SERVICE).parse().unwrap();
    let answer = client
        .unary(Request::new(message), path, ProstCodec::<Q, A>::default())
        .await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn it_is_served_over_the_wire() {
    let scaler = scaler();
    scaler.board.publish(published(4));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let options = ServeOptions::default();
    http(listener, scaler.router(), options, shutdown.clone(), &tasks);
    let channel = Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let trigger = object("team-a", &[("variant", "h100")]);
    let spec: GetMetricSpecResponse = call(&channel, "GetMetricSpec", trigger.clone())
        .await
        .unwrap();
    assert_eq!(
        spec.metric_specs,
        [MetricSpec {
            metric_name: "llm_desired_replicas".into(),
            target_size: 1,
            target_size_float: 1.0,
        }]
    );
    let active: IsActiveResponse = call(&channel, "IsActive", trigger.clone()).await.unwrap();
    assert!(active.result);
    let ask = GetMetricsRequest {
        scaled_object_ref: Some(trigger.clone()),
        metric_name: "s0-llm_desired_replicas".into(),
    };
    let values: GetMetricsResponse = call(&channel, "GetMetrics", ask).await.unwrap();
    assert_eq!(
        values.metric_values,
        [MetricValue {
            metric_name: "s0-llm_desired_replicas".into(),
            metric_value: 4,
            metric_value_float: 4.0,
        }]
    );
    let mut client = Client::new(channel.clone());
    client.ready().await.unwrap();
    let path = format!("/{}/StreamIsActive", wire::SERVICE)
        .parse()
        .unwrap();
    let codec = ProstCodec::<ScaledObjectRef, IsActiveResponse>::default();
    let mut stream = client
        .server_streaming(Request::new(trigger.clone()), path, codec)
        .await
        .unwrap()
        .into_inner();
    assert!(stream.message().await.unwrap().unwrap().result);
    scaler.board.publish(published(0));
    assert!(!stream.message().await.unwrap().unwrap().result);
    let refused = call::<_, IsActiveResponse>(&channel, "StreamMetricSpec", trigger).await;
    assert_eq!(refused.unwrap_err().code(), Code::Unimplemented);
    drop((stream, channel, client));
    shutdown.stop();
    tasks.join().await;
}
