//! How spans are sampled and where they go, in OpenTelemetry's own environment variables.

use std::time::Duration;

/// Service that spans are of, unless told otherwise.
const SERVICE: &str = "llm-d-epp";
/// Share of the traces without a parent that are recorded, unless told otherwise.
const RATIO: f64 = 0.1;

/// What is traced, and where to.
#[derive(Clone, Debug, PartialEq)]
pub struct SpanOptions {
    /// Where spans go.
    pub exporter: Exporter,
    /// Which requests are traced.
    pub sampler: Sampler,
    /// Attributes of the resource that spans are of, `service.name` among them.
    pub resource: Vec<(String, String)>,
    /// Spans that wait to be sent; more are dropped.
    pub most_queued: usize,
    /// Spans in one message.
    pub most_at_once: usize,
    /// Time that spans wait for others to be sent with.
    pub delay: Duration,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub enum Exporter {
    /// To a collector, by gRPC.
    Otlp {
        /// `http://host:port` or `https://host:port`.
        endpoint: String,
        /// Sent along with every message.
        headers: Vec<(String, String)>,
        /// Time that a message may take.
        timeout: Duration,
        /// File of the authorities that the collector's certificate is verified with; `None` = the system's.
        ca: Option<String>,
    },
    /// Into the log.
    Console,
}

/// Which requests are traced.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// A request that is part of a trace follows it.
    pub parent_based: bool,
    /// Share of the others, 0 to 1.
    pub ratio: f64,
}

/// A variable that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}={value} cannot be used: {wanted}")]
pub struct VariableError {
    name: &'static str,
    value: String,
    wanted: &'static str,
}

impl SpanOptions {
    /// What the environment says; `None` = it names no exporter, or `none`. A collector's address alone is a word too.
    ///
    /// # Errors
    /// [`VariableError`].
    pub fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, VariableError> {
        let get = |name: &str| get(name).filter(|value| !value.trim().is_empty());
        let endpoint = get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
            .or_else(|| get("OTEL_EXPORTER_OTLP_ENDPOINT"));
        let named = get("OTEL_TRACES_EXPORTER");
        let disabled =
            get("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let exporter = match named.as_deref().map(str::trim) {
            _ if disabled => return Ok(None),
            Some("none") => return Ok(None),
            None if endpoint.is_none() => return Ok(None),
            Some("console") => Exporter::Console,
            Some("otlp") | None => otlp(&get, endpoint)?,
            Some(other) => {
                return Err(VariableError {
                    name: "OTEL_TRACES_EXPORTER",
                    value: other.to_owned(),
                    wanted: "give otlp, console or none",
                });
            }
        };
        let count = |name, usual| number(&get, name, usual);
        Ok(Some(Self {
            exporter,
            sampler: sampler(&get)?,
            resource: resource(&get),
            most_queued: count("OTEL_BSP_MAX_QUEUE_SIZE", 2048)?.max(1) as usize,
            most_at_once: count("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512)?.max(1) as usize,
            delay: Duration::from_millis(count("OTEL_BSP_SCHEDULE_DELAY", 5000)?),
        }))
    }
}

fn otlp(
    get: &impl Fn(&str) -> Option<String>,
    endpoint: Option<String>,
) -> Result<Exporter, VariableError> {
    let protocol =
        get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|| get("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(value) = protocol.filter(|protocol| protocol != "grpc") {
        return Err(VariableError {
            name: "OTEL_EXPORTER_OTLP_PROTOCOL",
            value,
            wanted: "only grpc is spoken; collectors listen for it on port 4317",
        });
    }
    let endpoint = endpoint.unwrap_or_else(|| "http://localhost:4317".to_owned());
    if !(endpoint.starts_with("http://") || endpoint.starts_with("https://")) {
        return Err(VariableError {
            name: "OTEL_EXPORTER_OTLP_ENDPOINT",
            value: endpoint,
            wanted: "give http://host:port or https://host:port",
        });
    }
    let headers =
        get("OTEL_EXPORTER_OTLP_TRACES_HEADERS").or_else(|| get("OTEL_EXPORTER_OTLP_HEADERS"));
    Ok(Exporter::Otlp {
        endpoint,
        headers: pairs(&headers.unwrap_or_default()),
        timeout: Duration::from_millis(number(get, "OTEL_EXPORTER_OTLP_TIMEOUT", 10_000)?),
        ca: get("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE")
            .or_else(|| get("OTEL_EXPORTER_OTLP_CERTIFICATE")),
    })
}

fn sampler(get: &impl Fn(&str) -> Option<String>) -> Result<Sampler, VariableError> {
    let name = get("OTEL_TRACES_SAMPLER").unwrap_or_else(|| "parentbased_traceidratio".to_owned());
    let (parent_based, kind) = match name.strip_prefix("parentbased_") {
        Some(kind) => (true, kind),
        None => (false, name.as_str()),
    };
    let ratio = match kind {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => {
            let text = get("OTEL_TRACES_SAMPLER_ARG");
            let ratio = text.as_deref().map_or(Ok(RATIO), str::parse).ok();
            let ratio = ratio.filter(|ratio: &f64| (0.0..=1.0).contains(ratio));
            ratio.ok_or_else(|| VariableError {
                name: "OTEL_TRACES_SAMPLER_ARG",
                value: text.unwrap_or_default(),
                wanted: "give a share from 0 to 1",
            })?
        }
        _ => {
            return Err(VariableError {
                name: "OTEL_TRACES_SAMPLER",
                value: name,
                wanted: "give always_on, always_off or traceidratio, with or without parentbased_ before it",
            });
        }
    };
    Ok(Sampler {
        parent_based,
        ratio,
    })
}

fn resource(get: &impl Fn(&str) -> Option<String>) -> Vec<(String, String)> {
    let mut resource = pairs(&get("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default());
    let named = resource.iter().position(|(key, _)| key == "service.name");
    let service = get("OTEL_SERVICE_NAME");
    match (named, service) {
        (Some(at), Some(service)) => resource[at].1 = service,
        (Some(_), None) => {}
        (None, service) => {
            let service = service.unwrap_or_else(|| SERVICE.to_owned());
            resource.insert(0, ("service.name".to_owned(), service));
        }
    }
    resource
}

fn number(
    get: &impl Fn(&str) -> Option<String>,
    name: &'static str,
    usual: u64,
) -> Result<u64, VariableError> {
    let Some(value) = get(name) else {
        return Ok(usual);
    };
    value.trim().parse().map_err(|_| VariableError {
        name,
        value,
        wanted: "give a whole number",
    })
}

/// `key=value` pairs with commas between them, percent-encoded.
fn pairs(text: &str) -> Vec<(String, String)> {
    let decoded = |text: &str| {
        let mut bytes = Vec::with_capacity(text.len());
        let mut rest = text.trim().as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
            let byte = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
            match byte.filter(|_| first == b'%') {
                Some(byte) => {
                    bytes.push(byte);
                    rest = &after[2..];
                }
                None => {
                    bytes.push(first);
                    rest = after;
                }
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    let pairs = pairs.map(|(key, value)| (decoded(key), decoded(value)));
    pairs.filter(|(key, _)| !key.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn of(variables: &[(&str, &str)]) -> Result<Option<SpanOptions>, VariableError> {
        let known: BTreeMap<_, _> = variables.iter().copied().collect();
        SpanOptions::from_env(|name| known.get(name).map(|&value| value.to_owned()))
    }

    #[test]
    fn nothing_is_traced_unless_somebody_says_where_to() {
        assert_eq!(of(&[]), Ok(None));
        let addressed = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317");
        assert_eq!(of(&[addressed, ("OTEL_TRACES_EXPORTER", "none")]), Ok(None));
        assert_eq!(of(&[addressed, ("OTEL_SDK_DISABLED", "true")]), Ok(None));
        let options = of(&[addressed]).unwrap().unwrap();
        let Exporter::Otlp {
            endpoint, timeout, ..
        } = &options.exporter
        else {
            panic!("{options:?}")
        };
        assert_eq!(
            (endpoint.as_str(), timeout.as_secs()),
            ("http://otel:4317", 10)
        );
        assert_eq!(
            options.resource,
            [("service.name".to_owned(), "llm-d-epp".to_owned())]
        );
        let usual = Sampler {
            parent_based: true,
            ratio: 0.1,
        };
        assert_eq!(options.sampler, usual);
    }

    #[test]
    fn every_variable_is_heard() {
        let options = of(&[
            ("OTEL_TRACES_EXPORTER", "otlp"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=a%3Db, tenant = x"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_TRACES_SAMPLER", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.5"),
            ("OTEL_RESOURCE_ATTRIBUTES", "service.name=x,zone=a"),
            ("OTEL_SERVICE_NAME", "picker"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ]);
        let options = options.unwrap().unwrap();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let Exporter::Otlp {
            endpoint,
            headers,
            ca,
            ..
        } = &options.exporter
        else {
            panic!("{options:?}")
        };
        assert_eq!(endpoint, "http://localhost:4317");
        assert_eq!(*headers, [pair("api-key", "a=b"), pair("tenant", "x")]);
        assert_eq!(ca.as_deref(), Some("/ca.pem"));
        assert_eq!(
            options.resource,
            [pair("service.name", "picker"), pair("zone", "a")]
        );
        assert_eq!(options.delay, Duration::from_millis(100));
        assert_eq!(
            (options.sampler.parent_based, options.sampler.ratio),
            (false, 0.5)
        );
        let console = of(&[("OTEL_TRACES_EXPORTER", "console")]).unwrap().unwrap();
        assert_eq!(console.exporter, Exporter::Console);
    }

    #[test]
    fn wrong_variables_are_named() {
        let wrong = [
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "otel:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_BSP_SCHEDULE_DELAY", "soon"),
        ];
        for (name, value) in wrong {
            let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://otel:4317");
            let error = of(&[base, (name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
