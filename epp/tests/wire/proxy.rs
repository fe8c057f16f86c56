//! A picker in this process, and the proxy's side of its streams in Envoy's own generated bindings.

use envoy_types::pb::envoy::config::core::v3::{HeaderMap, HeaderValue};
use envoy_types::pb::envoy::service::ext_proc::v3::body_mutation::Mutation;
use envoy_types::pb::envoy::service::ext_proc::v3::external_processor_client::ExternalProcessorClient;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_request::Request as Incoming;
use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Outgoing;
use envoy_types::pb::envoy::service::ext_proc::v3::{
    CommonResponse, HttpBody, HttpHeaders, ProcessingRequest, ProcessingResponse,
};
use epp::{Handle, Options};
use epp_core::{Config, EndpointSpec, Objectives};
use runtime::{Clock, Shutdown};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

pub(crate) const BODY: &[u8] = br#"{"model":"m","prompt":"hello"}"#;
pub(crate) const STREAMED: &[u8] = br#"{"model":"m","prompt":"hello","stream":true}"#;
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) async fn picker(config: Config) -> Handle {
    epp::start(config, Options::local(), Clock::start(), Shutdown::new())
        .await
        .unwrap()
}

pub(crate) fn endpoint(index: u8) -> EndpointSpec {
    EndpointSpec {
        name: format!("e{index}"),
        address: format!("127.0.0.{index}:8000"),
        labels: Default::default(),
    }
}

pub(crate) async fn picker_with_one_endpoint() -> Handle {
    let picker = picker(Config {
        metrics: None,
        ..Config::llmd_default().with_max_concurrency(1)
    })
    .await;
    picker.set_endpoints(vec![endpoint(1)], Objectives::default());
    picker
}

/// Waits until `met`, which something in the picker brings about.
pub(crate) async fn until(what: &str, met: impl AsyncFn() -> bool) {
    let wait = async {
        while !met().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, wait)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"));
}

pub(crate) async fn idle(picker: &Handle) {
    until("all load to be given back", async || {
        picker
            .pool()
            .endpoints
            .iter()
            .all(|endpoint| endpoint.load.snapshot().in_flight == 0)
            && picker.queued().total().requests == 0
    })
    .await;
}

/// One stream, from the proxy's side.
pub(crate) struct Stream {
    pub(crate) send: Option<mpsc::Sender<ProcessingRequest>>,
    pub(crate) replies: Streaming<ProcessingResponse>,
}

impl Stream {
    pub(crate) async fn open(picker: &Handle) -> Self {
        let channel = Channel::from_shared(format!("http://{}", picker.grpc))
            .unwrap()
            .connect()
            .await
            .unwrap();
        let (send, requests) = mpsc::channel(16);
        let replies = ExternalProcessorClient::new(channel)
            .process(ReceiverStream::new(requests))
            .await
            .unwrap();
        Self {
            send: Some(send),
            replies: replies.into_inner(),
        }
    }

    pub(crate) async fn say(&self, request: Incoming) {
        let message = ProcessingRequest {
            request: Some(request),
            ..Default::default()
        };
        // The picker may have ended the stream already: what matters is what it answered.
        let _ = self
            .send
            .as_ref()
            .expect("the stream is open")
            .send(message)
            .await;
    }

    pub(crate) async fn reply(&mut self) -> Result<Option<Outgoing>, Status> {
        let reply = tokio::time::timeout(PATIENCE, self.replies.message())
            .await
            .expect("an answer in time")?;
        Ok(reply.and_then(|reply| reply.response))
    }

    pub(crate) async fn next(&mut self) -> Outgoing {
        self.reply().await.expect("no error").expect("a reply")
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(&mut self) -> Result<Vec<Outgoing>, Status> {
        let mut replies = Vec::new();
        while let Some(reply) = self.reply().await? {
            replies.push(reply);
        }
        Ok(replies)
    }

    pub(crate) fn half_close(&mut self) {
        self.send = None;
    }
}

pub(crate) fn headers(pairs: &[(&str, &str)], end_of_stream: bool) -> HttpHeaders {
    let header = |(name, value): &(&str, &str)| HeaderValue {
        key: (*name).to_owned(),
        raw_value: value.as_bytes().to_vec(),
        ..Default::default()
    };
    let headers = Some(HeaderMap {
        headers: pairs.iter().map(header).collect(),
    });
    HttpHeaders {
        headers,
        end_of_stream,
        ..Default::default()
    }
}

pub(crate) fn request_headers(extra: &[(&str, &str)]) -> Incoming {
    let mut pairs = vec![
        (":method", "POST"),
        (":path", "/v1/completions"),
        ("content-type", "application/json"),
    ];
    pairs.extend(extra);
    Incoming::RequestHeaders(headers(&pairs, false))
}

pub(crate) fn request_body(body: &[u8], end_of_stream: bool) -> Incoming {
    Incoming::RequestBody(HttpBody {
        body: body.to_vec(),
        end_of_stream,
        ..Default::default()
    })
}

pub(crate) fn response_headers(content_type: &str) -> Incoming {
    Incoming::ResponseHeaders(headers(
        &[(":status", "200"), ("content-type", content_type)],
        false,
    ))
}

pub(crate) fn response_body(body: &str, end_of_stream: bool) -> Incoming {
    Incoming::ResponseBody(HttpBody {
        body: body.as_bytes().to_vec(),
        end_of_stream,
        ..Default::default()
    })
}

pub(crate) fn streamed(response: Option<CommonResponse>) -> (Vec<u8>, bool) {
    match response
        .and_then(|response| response.body_mutation)
        .and_then(|body| body.mutation)
    {
        Some(Mutation::StreamedResponse(piece)) => (piece.body, piece.end_of_stream),
        other => panic!("only streamed bodies are allowed in full duplex: {other:?}"),
    }
}

pub(crate) fn kind(reply: Outgoing) -> &'static str {
    match reply {
        Outgoing::RequestHeaders(_) => "request headers",
        Outgoing::RequestBody(_) => "request body",
        Outgoing::RequestTrailers(_) => "request trailers",
        Outgoing::ResponseHeaders(_) => "response headers",
        Outgoing::ResponseBody(_) => "response body",
        Outgoing::ResponseTrailers(_) => "response trailers",
        Outgoing::ImmediateResponse(_) => "immediate",
        Outgoing::StreamedImmediateResponse(_) => "streamed immediate",
    }
}

pub(crate) async fn serving(picker: &Handle, service: &str) -> Option<ServingStatus> {
    let channel = Channel::from_shared(format!("http://{}", picker.grpc_health))
        .unwrap()
        .connect()
        .await
        .ok()?;
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    let answer = HealthClient::new(channel)
        .check(request)
        .await
        .ok()?
        .into_inner();
    ServingStatus::try_from(answer.status).ok()
}
