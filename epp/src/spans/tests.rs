//! Spans as a collector gets them, from a tracer to a gRPC server in this process.

use super::*;
use epp_core::Work;
use runtime::Shutdown;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::{Grpc, NamedService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;
use wire::{ExportRequest, ExportResponse};

/// A message with the headers that came with it.
type Received = (Vec<(String, String)>, ExportRequest);

#[derive(Clone)]
struct Collector(mpsc::UnboundedSender<Received>);

impl NamedService for Collector {
    const NAME: &'static str = "opentelemetry.proto.collector.trace.v1.TraceService";
}

impl UnaryService<ExportRequest> for Collector {
    type Response = ExportResponse;
    type Future = Ready<Result<Response<ExportResponse>, Status>>;

    fn call(&mut self, request: Request<ExportRequest>) -> Self::Future {
        let headers = request.metadata().as_ref().iter();
        let headers = headers
            .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        let headers = headers.collect();
        let sent = self.0.send((headers, request.into_inner()));
        ready(
            sent.map(|()| Response::new(ExportResponse {}))
                .map_err(|_| Status::internal("over")),
        )
    }
}

impl<B> tonic::codegen::Service<http::Request<B>> for Collector
where
    B: tonic::codegen::Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        assert_eq!(request.uri().path(), wire::EXPORT);
        let collector = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default());
            Ok(grpc.unary(collector, request).await)
        })
    }
}

/// A collector's address, and what it gets.
async fn collector() -> (String, mpsc::UnboundedReceiver<Received>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, received) = mpsc::unbounded_channel();
    let server = tonic::transport::Server::builder().add_service(Collector(sender));
    tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
    (endpoint, received)
}

fn options(endpoint: &str, ratio: f64) -> SpanOptions {
    SpanOptions {
        exporter: Exporter::Otlp {
            endpoint: endpoint.to_owned(),
            headers: vec![("Api-Key".into(), "k".into())],
            timeout: Duration::from_secs(10),
            ca: None,
        },
        sampler: Sampler {
            parent_based: true,
            ratio,
        },
        resource: vec![("service.name".into(), "picker".into())],
        most_queued: 100,
        most_at_once: 1,
        delay: Duration::from_secs(60),
    }
}

const PARENT: &[u8] = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn lap(work: Work, plugin: &str, began: u64) -> Lap {
    Lap {
        work,
        plugin: plugin.into(),
        began: Duration::from_micros(began),
        ended: Duration::from_micros(began + 10),
    }
}

#[tokio::test]
async fn a_request_is_told_with_its_steps() {
    let (endpoint, mut received) = collector().await;
    let options = SpanOptions {
        most_at_once: 8,
        ..options(&endpoint, 0.0)
    };
    let (clock, shutdown) = (Clock::start(), Shutdown::new());
    let (tracer, spans) = Tracer::new(&options, clock);
    let sending = tokio::spawn(run(options, spans, clock, shutdown.clone()).unwrap());
    let mut trace = tracer.begin(Some(PARENT)).unwrap();
    let taken_along = Parent::parse(trace.traceparent().as_bytes()).unwrap();
    let (arrived, decided, ended) = (1_000, 2_000, 9_000);
    let at = Duration::from_micros;
    let laps = [
        lap(Work::Filter, "cap", 1_100),
        lap(Work::Predict, "predicted-latency-producer", 1_200),
        lap(Work::Score, "mine", 1_300),
        lap(Work::Score, "prefix-cache-scorer", 1_400),
        lap(Work::Pick, "max-score-picker", 1_500),
    ];
    let kind = |name: &str| if name == "mine" { "queue-scorer" } else { name }.to_owned();
    let outcome = vec![("headroom.outcome", Value::Text("Dispatched".into()))];
    trace.decision(at(arrived), at(decided), &laps, kind, outcome);
    trace.request(
        at(arrived),
        at(ended),
        vec![("gen_ai.request.model", Value::Text("m".into()))],
        false,
    );
    tracer.take(trace);

    let (headers, message) = received.recv().await.unwrap();
    assert!(
        headers.contains(&("api-key".into(), "k".into())),
        "{headers:?}"
    );
    let [of] = &message.resource_spans[..] else {
        panic!("one resource")
    };
    assert_eq!(
        of.resource.as_ref().unwrap().attributes[0].key,
        "service.name"
    );
    let spans = &of.scope_spans[0].spans;
    let named = |name: &str| spans.iter().find(|span| span.name == name).unwrap();
    let request = named("gateway.request");
    assert_eq!(
        request.trace_id,
        0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes()
    );
    assert_eq!(
        request.parent_span_id,
        0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()
    );
    assert_eq!(request.kind, wire::SERVER);
    assert_eq!(
        request.end_time_unix_nano - request.start_time_unix_nano,
        8_000_000
    );
    assert_eq!(request.attributes[0].key, "gen_ai.request.model");
    assert_eq!(
        taken_along.span.to_be_bytes(),
        &request.span_id[..],
        "the server hangs below it"
    );
    let children = [
        ("gateway.request", "gateway.request_orchestration"),
        ("gateway.request_orchestration", "run_scheduler_profile"),
        ("run_scheduler_profile", "filter_endpoints"),
        ("run_scheduler_profile", "llm_d.epp.scoring"),
        ("run_scheduler_profile", "pick_endpoints"),
        ("llm_d.epp.scoring", "llm_d.epp.scorer.queue-scorer"),
        ("llm_d.epp.scoring", "llm_d.epp.scorer.prefix-cache-scorer"),
    ];
    for (parent, child) in children {
        assert_eq!(
            named(child).parent_span_id,
            named(parent).span_id,
            "{child}"
        );
        assert_eq!(named(child).trace_id, request.trace_id);
    }
    assert_eq!(spans.len(), children.len() + 1);
    shutdown.stop();
    sending.await.unwrap();
}

#[tokio::test]
async fn what_waits_when_the_process_ends_is_still_sent() {
    let (endpoint, mut received) = collector().await;
    let options = SpanOptions {
        most_at_once: 1_000,
        ..options(&endpoint, 1.0)
    };
    let (clock, shutdown) = (Clock::start(), Shutdown::new());
    let (tracer, spans) = Tracer::new(&options, clock);
    for _ in 0..3 {
        let mut trace = tracer.begin(None).unwrap();
        trace.request(Duration::ZERO, Duration::from_secs(1), vec![], true);
        tracer.take(trace);
    }
    shutdown.stop();
    run(options, spans, clock, shutdown).unwrap().await;
    let (_, message) = received.try_recv().unwrap();
    let spans = &message.resource_spans[0].scope_spans[0].spans;
    assert_eq!(spans.len(), 3);
    assert!(spans.iter().all(|span| {
        span.status
            .as_ref()
            .is_some_and(|status| status.code == wire::ERROR)
    }));
    assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
}

#[tokio::test]
async fn no_message_has_more_spans_than_it_may() {
    let (endpoint, mut received) = collector().await;
    let options = SpanOptions {
        most_at_once: 3,
        ..options(&endpoint, 1.0)
    };
    let (clock, shutdown) = (Clock::start(), Shutdown::new());
    let (tracer, spans) = Tracer::new(&options, clock);
    for _ in 0..2 {
        let mut trace = tracer.begin(None).unwrap();
        trace.decision(Duration::ZERO, Duration::ZERO, &[], str::to_owned, vec![]);
        trace.request(Duration::ZERO, Duration::ZERO, vec![], false);
        tracer.take(trace);
    }
    shutdown.stop();
    run(options, spans, clock, shutdown).unwrap().await;
    let mut told = Vec::new();
    while let Ok((_, message)) = received.try_recv() {
        told.push(message.resource_spans[0].scope_spans[0].spans.len());
    }
    assert_eq!(told, [3, 1]);
}

#[tokio::test]
async fn spans_beyond_what_may_wait_are_dropped_and_counted() {
    let options = SpanOptions {
        most_queued: 2,
        ..options("http://127.0.0.1:1", 1.0)
    };
    let (tracer, _spans) = Tracer::new(&options, Clock::start());
    for _ in 0..5 {
        let mut trace = tracer.begin(None).unwrap();
        trace.request(Duration::ZERO, Duration::ZERO, vec![], false);
        tracer.take(trace);
    }
    assert_eq!(tracer.dropped.get(), 3);
    // A trace of several spans takes the room of several.
    let options = SpanOptions {
        most_queued: 4,
        ..options
    };
    let (tracer, mut spans) = Tracer::new(&options, Clock::start());
    let take = || {
        let mut trace = tracer.begin(None).unwrap();
        trace.decision(Duration::ZERO, Duration::ZERO, &[], str::to_owned, vec![]);
        trace.request(Duration::ZERO, Duration::ZERO, vec![], false);
        tracer.take(trace);
        tracer.dropped.get()
    };
    assert_eq!([take(), take(), take()], [0, 0, 2]);
    assert_eq!(spans.at_hand().map(|spans| spans.len()), Some(2));
    assert_eq!(take(), 2, "there is room again");
}

#[tokio::test]
async fn a_trace_is_followed_and_the_others_drawn() {
    let of = |parent_based, ratio| {
        let options = SpanOptions {
            sampler: Sampler {
                parent_based,
                ratio,
            },
            ..options("http://127.0.0.1:1", ratio)
        };
        Tracer::new(&options, Clock::start()).0
    };
    let unsampled = PARENT.strip_suffix(b"01").unwrap().to_vec();
    let unsampled = [unsampled.as_slice(), b"00"].concat();
    let never = of(true, 0.0);
    assert!(
        never.begin(Some(PARENT)).is_some(),
        "its parent is recorded"
    );
    assert!(never.begin(Some(b"nonsense")).is_none() && never.begin(None).is_none());
    let always = of(true, 1.0);
    assert!(
        always.begin(Some(&unsampled)).is_none(),
        "its parent is not recorded"
    );
    assert!(of(false, 1.0).begin(Some(&unsampled)).is_some());
    let tenth = of(true, 0.1);
    let drawn = (0..10_000).filter(|_| tenth.begin(None).is_some()).count();
    assert!((850..1_150).contains(&drawn), "{drawn}");
}

#[tokio::test]
async fn a_collector_that_cannot_be_is_refused_at_once() {
    let wrong = |endpoint: &str| {
        let options = options(endpoint, 1.0);
        let (_, spans) = Tracer::new(&options, Clock::start());
        run(options, spans, Clock::start(), Shutdown::new())
            .err()
            .map(|error| error.to_string())
    };
    assert!(
        wrong("http://")
            .unwrap()
            .contains("OTEL_EXPORTER_OTLP_ENDPOINT")
    );
    let options = SpanOptions {
        exporter: Exporter::Otlp {
            endpoint: "http://127.0.0.1:1".into(),
            headers: vec![("no good".into(), "x".into())],
            timeout: Duration::from_secs(1),
            ca: None,
        },
        ..options("", 1.0)
    };
    let (_, spans) = Tracer::new(&options, Clock::start());
    let error = run(options, spans, Clock::start(), Shutdown::new())
        .err()
        .unwrap();
    assert!(error.to_string().contains("no good"));
}
