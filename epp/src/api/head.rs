//! Hot path: what the picker takes from a request's and a response's headers.

use super::error::{RequestError, shortened};
use bytes::Bytes;
use epp_core::Slo;
use names::{Name, header};
use std::time::Duration;

/// One header as it came: names in any case, values of any bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name.
    pub name: Bytes,
    /// Value.
    pub value: Bytes,
}

impl Header {
    /// A header from static text.
    pub fn new(name: &str, value: &str) -> Self {
        Self {
            name: Bytes::copy_from_slice(name.as_bytes()),
            value: Bytes::copy_from_slice(value.as_bytes()),
        }
    }
}

/// Most bytes of a name that a client gives: of models and flows. Names are kept beyond their requests, in records and
/// accounts.
pub const LONGEST_NAME: usize = 256;

/// Path assumed when no header carries one.
const DEFAULT_PATH: &str = "/v1/completions";

/// Where a path may stand, most trusted first.
const PATH_HEADERS: [&str; 3] = [":path", "x-original-path", "x-forwarded-path"];

/// What a request's headers say, still unchecked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHead {
    /// From the most trusted header that carries one.
    path: Ranked,
    ttft: Ranked,
    tpot: Ranked,
    objective: Ranked,
    fairness: Ranked,
    rewrite: Ranked,
    ttl: Option<Bytes>,
    /// `x-request-id`.
    pub request_id: Option<Bytes>,
    /// `content-length`, where it is a number.
    pub content_length: Option<usize>,
    /// Whether the client accepts encoded answers.
    pub accepts_encoding: bool,
    /// `grpc-encoding`: how the messages of a gRPC request are compressed.
    pub grpc_encoding: Option<Bytes>,
    /// Whether the client accepts encoded gRPC messages.
    pub accepts_grpc_encoding: bool,
    /// Routing headers the client sent, as far as they are not set anew.
    pub smuggled: Vec<&'static str>,
}

/// A value and the rank of the name it came under; a lower rank wins, whatever the order of arrival.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranked(Option<(usize, Bytes)>);

impl Ranked {
    fn offer(&mut self, rank: usize, value: &Bytes) {
        if self.0.as_ref().is_none_or(|(known, _)| rank < *known) {
            self.0 = Some((rank, value.clone()));
        }
    }

    fn text(&self) -> Option<&str> {
        self.0
            .as_ref()
            .and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

impl RequestHead {
    /// Goes over the headers once.
    pub fn read(headers: &[Header]) -> Self {
        let mut head = Self::default();
        for Header { name, value } in headers {
            match name.first() {
                Some(b'x' | b'X' | b':') => head.take_own(name, value),
                Some(b'c' | b'C') if name.eq_ignore_ascii_case(b"content-length") => {
                    head.content_length = std::str::from_utf8(value)
                        .ok()
                        .and_then(|text| text.parse().ok());
                }
                Some(b'a' | b'A') if name.eq_ignore_ascii_case(b"accept-encoding") => {
                    head.accepts_encoding = true
                }
                Some(b'g' | b'G') if name.eq_ignore_ascii_case(b"grpc-encoding") => {
                    head.grpc_encoding = Some(value.clone());
                }
                Some(b'g' | b'G') if name.eq_ignore_ascii_case(b"grpc-accept-encoding") => {
                    head.accepts_grpc_encoding = true;
                }
                _ => {}
            }
        }
        head
    }

    fn take_own(&mut self, name: &[u8], value: &Bytes) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let rank = |known: Name| known.all().position(is);
        if let Some(rank) = PATH_HEADERS.into_iter().position(is) {
            self.path.offer(rank, value);
        } else if is(header::REQUEST_ID) {
            self.request_id = Some(value.clone());
        } else if let Some(rank) = rank(header::SLO_TTFT_MS) {
            self.ttft.offer(rank, value);
        } else if let Some(rank) = rank(header::SLO_TPOT_MS) {
            self.tpot.offer(rank, value);
        } else if let Some(rank) = rank(header::OBJECTIVE) {
            self.objective.offer(rank, value);
        } else if let Some(rank) = rank(header::FAIRNESS_ID) {
            self.fairness.offer(rank, value);
        } else if let Some(rank) = rank(header::MODEL_REWRITE) {
            self.rewrite.offer(rank, value);
        } else if is(header::TTL.canonical) {
            self.ttl = Some(value.clone());
        } else if let Some(routing) = header::ROUTING.iter().find(|routing| is(routing)) {
            // The destination is overwritten by the pick itself.
            if *routing != header::DESTINATION && !self.smuggled.contains(routing) {
                self.smuggled.push(routing);
            }
        }
    }

    /// The path with its query string.
    pub fn path(&self) -> &str {
        self.path.text().unwrap_or(DEFAULT_PATH)
    }

    /// Name of the objective that gives the priority.
    pub fn objective(&self) -> Option<&str> {
        self.objective.text()
    }

    /// The tenant's id.
    pub fn fairness_id(&self) -> Option<&str> {
        self.fairness.text().filter(|id| !id.is_empty())
    }

    /// The model to send on instead of the body's.
    ///
    /// # Errors
    /// [`RequestError::Header`] when it is longer than [`LONGEST_NAME`].
    pub fn rewrite(&self) -> Result<Option<&str>, RequestError> {
        let model = self.rewrite.text().filter(|model| !model.is_empty());
        match &self.rewrite.0 {
            Some((rank, value)) if value.len() > LONGEST_NAME => Err(RequestError::Header {
                name: header::MODEL_REWRITE.all().nth(*rank).unwrap_or_default(),
                value: shortened(value),
                expected: "give a model's name of at most 256 bytes",
            }),
            _ => Ok(model),
        }
    }

    /// The client's latency targets; an empty one and 0 are none.
    ///
    /// # Errors
    /// [`RequestError::Header`] when one is no number of milliseconds.
    pub fn slo(&self) -> Result<Slo, RequestError> {
        Ok(Slo {
            ttft_ms: target(&self.ttft, header::SLO_TTFT_MS)?,
            tpot_ms: target(&self.tpot, header::SLO_TPOT_MS)?,
        })
    }

    /// The client's bound on its time in the queue; an empty one and 0 are none.
    ///
    /// # Errors
    /// [`RequestError::Header`] when it is no duration.
    pub fn ttl(&self) -> Result<Option<Duration>, RequestError> {
        let Some(value) = self.ttl.as_ref().filter(|ttl| !ttl.trim_ascii().is_empty()) else {
            return Ok(None);
        };
        let duration = std::str::from_utf8(value).ok().and_then(duration);
        let bound = duration.ok_or_else(|| RequestError::Header {
            name: header::TTL.canonical,
            value: shortened(value),
            expected: "give a duration such as 500ms, 5s or 1m30s",
        })?;
        Ok(Some(bound).filter(|bound| !bound.is_zero()))
    }
}

fn target(value: &Ranked, name: Name) -> Result<Option<f64>, RequestError> {
    let Some((rank, value)) = &value.0 else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value).map(str::trim);
    if text.is_ok_and(|text| text.is_empty() || text.parse() == Ok(0.0)) {
        return Ok(None);
    }
    let parsed = text.ok().and_then(Slo::parse_ms);
    parsed.map(Some).ok_or_else(|| RequestError::Header {
        name: name.all().nth(*rank).unwrap_or(name.canonical),
        value: shortened(value),
        expected: "give a number of milliseconds above zero",
    })
}

/// A duration as Go writes it: numbers with the units `h`, `m`, `s`, `ms`, `us` or `ns`.
pub fn duration(text: &str) -> Option<Duration> {
    const UNITS: [(&str, f64); 6] = [
        ("ms", 1e-3),
        ("us", 1e-6),
        ("ns", 1e-9),
        ("h", 3600.0),
        ("m", 60.0),
        ("s", 1.0),
    ];
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        let (unit, seconds) = UNITS
            .into_iter()
            .find(|(unit, _)| rest[digits..].starts_with(unit))?;
        // A number beyond what a duration holds means "as long as it takes".
        let part = Duration::try_from_secs_f64(value * seconds).unwrap_or(Duration::MAX);
        total = total.saturating_add(part);
        rest = &rest[digits + unit.len()..];
    }
    (!text.trim().is_empty()).then_some(total)
}

/// What a response's headers say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ResponseHead {
    /// HTTP status; 0 when it is missing.
    pub status: u16,
    /// The body is a stream of server-sent events.
    pub event_stream: bool,
    /// The body is compressed, so that nothing can be read in it.
    pub encoded: bool,
    /// Messages of a gRPC answer may be compressed with gzip.
    pub grpc_gzip: bool,
    /// How a gRPC call ended that has no body.
    pub grpc_status: Option<u32>,
}

impl ResponseHead {
    /// Goes over the headers once.
    pub fn read(headers: &[Header]) -> Self {
        let mut head = Self::default();
        for Header { name, value } in headers {
            if name.eq_ignore_ascii_case(b":status") {
                head.status = std::str::from_utf8(value)
                    .ok()
                    .and_then(|text| text.parse().ok())
                    .unwrap_or(0);
            } else if name.eq_ignore_ascii_case(b"content-type") {
                head.event_stream =
                    memchr::memmem::find(&value.to_ascii_lowercase(), b"text/event-stream")
                        .is_some();
            } else if name.eq_ignore_ascii_case(b"content-encoding") {
                head.encoded = !value.eq_ignore_ascii_case(b"identity");
            } else if name.eq_ignore_ascii_case(b"grpc-encoding") {
                head.grpc_gzip = value.eq_ignore_ascii_case(b"gzip");
            }
        }
        head.grpc_status = grpc_status(headers);
        head
    }
}

/// `grpc-status` of trailers, or of an answer that consists of nothing else.
pub fn grpc_status(headers: &[Header]) -> Option<u32> {
    number(headers, "grpc-status")
}

/// How many servers the proxy tried before one answered, where it says so.
pub fn attempts(headers: &[Header]) -> Option<u32> {
    number(headers, header::ATTEMPT_COUNT)
}

fn number(headers: &[Header], name: &str) -> Option<u32> {
    let mut named = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name.as_bytes()));
    std::str::from_utf8(&named.next()?.value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> RequestHead {
        RequestHead::read(
            &headers
                .iter()
                .map(|(name, value)| Header::new(name, value))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_canonical_name_wins_over_its_alias_in_any_order() {
        for order in [[0, 1], [1, 0]] {
            let both = [("x-llm-d-slo-ttft-ms", "200"), ("x-slo-ttft-ms", "900")];
            let head = read(&order.map(|index| both[index]));
            assert_eq!(
                head.slo().unwrap(),
                Slo {
                    ttft_ms: Some(200.0),
                    tpot_ms: None
                }
            );
        }
        assert_eq!(
            read(&[("X-SLO-TPOT-MS", "12.5")]).slo().unwrap().tpot_ms,
            Some(12.5)
        );
    }

    #[test]
    fn a_bad_target_names_the_header_the_client_used() {
        let error = read(&[("x-slo-ttft-ms", "soon")]).slo().unwrap_err();
        assert_eq!(
            error.to_string(),
            "header `x-slo-ttft-ms` is \"soon\": give a number of milliseconds above zero"
        );
        assert_eq!(error.status(), 400);
    }

    #[test]
    fn zero_and_nothing_are_as_good_as_no_header() {
        for nothing in ["", " ", "0", "0.0"] {
            let head = read(&[("x-slo-ttft-ms", nothing), ("x-llm-d-slo-tpot-ms", nothing)]);
            assert_eq!(head.slo(), Ok(Slo::default()), "{nothing:?}");
        }
        for nothing in ["", " ", "0", "0s"] {
            let head = read(&[("x-llm-d-inference-ttl", nothing)]);
            assert_eq!(head.ttl(), Ok(None), "{nothing:?}");
        }
        for bad in ["-1", "none", "0x1"] {
            assert!(read(&[("x-slo-ttft-ms", bad)]).slo().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_name_beyond_any_measure_is_refused_with_the_limit() {
        let (long, longest) = ("n".repeat(LONGEST_NAME + 1), "n".repeat(LONGEST_NAME));
        let error = read(&[("x-gateway-model-name-rewrite", &long)])
            .rewrite()
            .unwrap_err();
        assert!(
            error.to_string().contains("`x-gateway-model-name-rewrite`"),
            "{error}"
        );
        assert!(error.to_string().contains("256 bytes"), "{error}");
        let head = read(&[("x-gateway-model-name-rewrite", &longest)]);
        assert_eq!(head.rewrite(), Ok(Some(&*longest)));
    }

    #[test]
    fn the_path_comes_from_the_most_trusted_header() {
        assert_eq!(
            read(&[("x-forwarded-path", "/b"), (":path", "/a?x=1")]).path(),
            "/a?x=1"
        );
        assert_eq!(read(&[("x-original-path", "/c")]).path(), "/c");
        assert_eq!(read(&[]).path(), DEFAULT_PATH);
    }

    #[test]
    fn a_clients_routing_headers_are_listed_for_removal() {
        let head = read(&[
            ("x-data-parallel-rank", "3"),
            ("x-gateway-destination-endpoint", "1.2.3.4:5"),
        ]);
        assert_eq!(head.smuggled, ["x-data-parallel-rank"]);
    }

    #[test]
    fn durations_are_gos_and_saturate() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(duration("9e99s"), None);
        assert_eq!(
            duration(&format!("{}h", "9".repeat(40))),
            Some(Duration::MAX)
        );
        for bad in ["", "5", "s", "5 s", "-1s", "1x"] {
            assert_eq!(duration(bad), None, "{bad}");
        }
    }

    #[test]
    fn response_heads_tell_streams_from_documents() {
        let head = |headers: &[(&str, &str)]| {
            ResponseHead::read(
                &headers
                    .iter()
                    .map(|(name, value)| Header::new(name, value))
                    .collect::<Vec<_>>(),
            )
        };
        let stream = head(&[
            (":status", "200"),
            ("Content-Type", "Text/Event-Stream; charset=utf-8"),
        ]);
        assert_eq!(
            stream,
            ResponseHead {
                status: 200,
                event_stream: true,
                ..ResponseHead::default()
            }
        );
        assert!(head(&[(":status", "200"), ("content-encoding", "gzip")]).encoded);
        assert_eq!(head(&[]).status, 0);
        let grpc = head(&[
            (":status", "200"),
            ("grpc-status", "8"),
            ("grpc-encoding", "gzip"),
        ]);
        assert_eq!((grpc.grpc_status, grpc.grpc_gzip), (Some(8), true));
    }
}
