//! Sends spans on: to a collector by gRPC, or into the log.

use super::options::{Exporter, SpanOptions};
use super::{Spans, wire};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use runtime::tls::{ClientFiles, ClientTls, TlsError, Trusted};
use runtime::{Clock, Shutdown};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tonic::client::Grpc;
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

/// Failures in a row between two complaints.
const COMPLAIN_EVERY: u32 = 100;

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The address is none.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT={endpoint} is no address of a collector: {problem}")]
    Address {
        /// The address.
        endpoint: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A header cannot be sent.
    #[error(
        "OTEL_EXPORTER_OTLP_HEADERS: the header {0:?} cannot be sent; names are lower case, values plain text"
    )]
    Header(String),
    /// Its certificate cannot be verified.
    #[error("OTEL_EXPORTER_OTLP_CERTIFICATE: {0}")]
    Tls(#[from] TlsError),
}

/// Where spans are sent.
#[derive(Debug)]
enum Target {
    Collector {
        channel: Channel,
        headers: Vec<(AsciiMetadataKey, AsciiMetadataValue)>,
    },
    Log,
}

/// Sends on what comes from `spans`, until `shutdown` is stopped; what has come by then is still sent.
///
/// # Errors
/// [`CollectorError`] at once. A collector that is away later is only complained about.
pub(crate) fn run(
    options: SpanOptions,
    spans: Spans,
    clock: Clock,
    shutdown: Shutdown,
) -> Result<impl Future<Output = ()> + Send + use<>, CollectorError> {
    let target = Target::of(&options.exporter, clock)?;
    Ok(send_all(options, target, spans, shutdown))
}

async fn send_all(options: SpanOptions, target: Target, mut spans: Spans, shutdown: Shutdown) {
    let mut failures: u32 = 0;
    let mut batch: Vec<wire::Span> = Vec::new();
    loop {
        if batch.is_empty() {
            let first = tokio::select! {
                first = spans.next() => first,
                () = shutdown.stopped() => spans.at_hand(),
            };
            let Some(first) = first else {
                return;
            };
            batch = first;
        }
        let full = async {
            while batch.len() < options.most_at_once {
                match spans.next().await {
                    Some(more) => batch.extend(more),
                    None => return,
                }
            }
        };
        tokio::select! {
            () = full => {}
            () = tokio::time::sleep(options.delay) => {}
            () = shutdown.stopped() => {}
        }
        // What is left of a process that ends.
        while shutdown.is_stopped() && batch.len() < options.most_at_once {
            let Some(more) = spans.at_hand() else { break };
            batch.extend(more);
        }
        let rest = batch.split_off(batch.len().min(options.most_at_once.max(1)));
        match target
            .send(&options, std::mem::replace(&mut batch, rest))
            .await
        {
            Ok(()) => failures = 0,
            Err(status) => {
                if failures.is_multiple_of(COMPLAIN_EVERY) {
                    tracing::warn!(%status, "spans cannot be sent to the collector; they are dropped");
                }
                failures = failures.saturating_add(1);
            }
        }
    }
}

impl Target {
    fn of(exporter: &Exporter, clock: Clock) -> Result<Self, CollectorError> {
        let Exporter::Otlp {
            endpoint,
            headers,
            timeout,
            ca,
        } = exporter
        else {
            return Ok(Self::Log);
        };
        let pair = |(name, value): &(String, String)| {
            let wrong = || CollectorError::Header(name.clone());
            let name: AsciiMetadataKey = name.to_ascii_lowercase().parse().map_err(|_| wrong())?;
            Ok((name, value.parse().map_err(|_| wrong())?))
        };
        Ok(Self::Collector {
            channel: channel(endpoint, *timeout, ca.as_deref(), clock)?,
            headers: headers
                .iter()
                .map(pair)
                .collect::<Result<_, CollectorError>>()?,
        })
    }

    async fn send(&self, options: &SpanOptions, spans: Vec<wire::Span>) -> Result<(), Status> {
        let Self::Collector { channel, headers } = self else {
            for span in spans {
                let took = span
                    .end_time_unix_nano
                    .saturating_sub(span.start_time_unix_nano);
                tracing::info!(target: "span", name = %span.name, took_us = took / 1000, trace = %hex(&span.trace_id), span = %hex(&span.span_id), parent = %hex(&span.parent_span_id));
            }
            return Ok(());
        };
        let mut message = Request::new(message(options, spans));
        for (name, value) in headers {
            message.metadata_mut().insert(name.clone(), value.clone());
        }
        let mut client = Grpc::new(channel.clone());
        let unready = |error: tonic::transport::Error| Status::unavailable(error.to_string());
        client.ready().await.map_err(unready)?;
        let codec: ProstCodec<wire::ExportRequest, wire::ExportResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static(wire::EXPORT);
        client.unary(message, path, codec).await.map(|_| ())
    }
}

fn message(options: &SpanOptions, spans: Vec<wire::Span>) -> wire::ExportRequest {
    let attribute = |(key, value): &(String, String)| wire::KeyValue {
        key: key.clone(),
        value: Some(wire::AnyValue {
            value: Some(wire::Value::Text(value.clone())),
        }),
    };
    wire::ExportRequest {
        resource_spans: vec![wire::ResourceSpans {
            resource: Some(wire::Resource {
                attributes: options.resource.iter().map(attribute).collect(),
            }),
            scope_spans: vec![wire::ScopeSpans {
                scope: Some(wire::Scope {
                    name: "headroom".to_owned(),
                    version: env!("CARGO_PKG_VERSION").to_owned(),
                }),
                spans,
            }],
        }],
    }
}

/// A connection to the collector that is opened when it is first used, and again when it broke.
fn channel(
    address: &str,
    timeout: Duration,
    ca: Option<&str>,
    clock: Clock,
) -> Result<Channel, CollectorError> {
    let wrong = |problem: String| CollectorError::Address {
        endpoint: address.to_owned(),
        problem,
    };
    let uri: Uri = address
        .parse()
        .map_err(|error: http::uri::InvalidUri| wrong(error.to_string()))?;
    let host = uri
        .host()
        .ok_or_else(|| wrong("it names no host".to_owned()))?;
    let (host, secure) = (host.to_owned(), uri.scheme_str() == Some("https"));
    let port = uri.port_u16().unwrap_or(4317);
    let endpoint = Endpoint::from(uri)
        .timeout(timeout)
        .connect_timeout(timeout);
    if !secure {
        return Ok(endpoint.connect_lazy());
    }
    let files = ClientFiles {
        trusted: ca.map_or(Trusted::System, |path| Trusted::File(path.into())),
        identity: None,
    };
    let tls = Arc::new(ClientTls::new(files, &["h2"], clock)?);
    let connect = tower::service_fn(move |_: Uri| {
        let (tls, host) = (Arc::clone(&tls), host.clone());
        async move {
            let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
            tls.connect(&host, stream).await.map(TokioIo::new)
        }
    });
    Ok(endpoint.connect_with_connector_lazy(connect))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
