//! What the proxy is told, and how it is put on the wire.

use super::wire;
use crate::api::wanted::Attribute;
use bytes::Bytes;
use names::{header, metadata};
use std::collections::HashMap;
use std::sync::Arc;

/// Most bytes of a body in one message.
pub const BODY_LIMIT: usize = 62_000;

/// One message to the proxy. Within a direction they come in the order headers, body, trailers.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// Send the request on; the first message of a request that is routed.
    RequestHeaders(HeaderChange),
    /// A piece of the request's body.
    RequestBody(Piece),
    /// The request's trailers, unchanged.
    RequestTrailers,
    /// Send the response's headers on.
    ResponseHeaders(HeaderChange),
    /// A piece of the response's body.
    ResponseBody(Piece),
    /// The response's trailers, unchanged.
    ResponseTrailers,
    /// Answer the client at once, instead of sending the request on.
    Immediate(Immediate),
    /// One of the above, and numbers for the proxy's metadata.
    Telling(Box<Reply>, Vec<Attribute>),
}

/// A piece of a body, at most [`BODY_LIMIT`] bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The bytes.
    pub body: Bytes,
    /// Nothing follows.
    pub end_of_stream: bool,
}

/// What becomes of headers.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HeaderChange {
    /// Set, replacing what is there.
    pub set: Vec<(&'static str, Bytes)>,
    /// Set likewise, under names of the configuration.
    pub named: Vec<(Arc<str>, String)>,
    /// Removed.
    pub remove: Vec<&'static str>,
    /// Where the request goes; also makes the proxy choose its route anew.
    pub destination: Option<Destination>,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Destination {
    /// `ip:port[,ip:port…]`.
    pub endpoints: Arc<str>,
    /// Weighted score of every candidate, for the proxy's logs; empty unless asked for.
    pub scores: Vec<(Arc<str>, f32)>,
}

/// An answer that does not come from a model server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Immediate {
    /// HTTP status.
    pub status: u16,
    /// Headers.
    pub headers: Vec<(&'static str, String)>,
    /// In the shape of the request's API.
    pub body: Bytes,
    /// The gRPC status, where the request is a gRPC call.
    pub grpc_status: Option<u32>,
    /// Why, for the proxy's access log.
    pub details: &'static str,
}

/// Cuts `bytes` into pieces; `end` marks the last of them, and makes an empty one where there is none.
pub fn pieces(bytes: Bytes, end: bool, mut each: impl FnMut(Piece)) {
    let mut rest = bytes;
    while rest.len() > BODY_LIMIT {
        each(Piece {
            body: rest.split_to(BODY_LIMIT),
            end_of_stream: false,
        });
    }
    if end || !rest.is_empty() {
        each(Piece {
            body: rest,
            end_of_stream: end,
        });
    }
}

impl From<Reply> for wire::ProcessingResponse {
    fn from(reply: Reply) -> Self {
        use wire::Outgoing as Out;
        let mut dynamic_metadata = None;
        let mut headers = |change: HeaderChange| {
            dynamic_metadata = change.destination.as_ref().map(routing_metadata);
            wire::PhaseResponse {
                response: Some(change.into()),
            }
        };
        let response = match reply {
            Reply::Telling(reply, attributes) => {
                return Self {
                    dynamic_metadata: Some(attribute_metadata(attributes)),
                    ..Self::from(*reply)
                };
            }
            Reply::RequestHeaders(change) => Out::RequestHeaders(headers(change)),
            Reply::ResponseHeaders(change) => Out::ResponseHeaders(headers(change)),
            Reply::RequestBody(piece) => Out::RequestBody(piece.into()),
            Reply::ResponseBody(piece) => Out::ResponseBody(piece.into()),
            Reply::RequestTrailers => Out::RequestTrailers(wire::TrailersResponse {}),
            Reply::ResponseTrailers => Out::ResponseTrailers(wire::TrailersResponse {}),
            Reply::Immediate(immediate) => Out::Immediate(immediate.into()),
        };
        Self {
            dynamic_metadata,
            response: Some(response),
        }
    }
}

impl From<HeaderChange> for wire::CommonResponse {
    fn from(change: HeaderChange) -> Self {
        let mut set = Vec::with_capacity(change.set.len() + 1);
        let clear_route_cache = change.destination.is_some();
        if let Some(destination) = change.destination {
            set.push(set_header(
                header::DESTINATION,
                Bytes::copy_from_slice(destination.endpoints.as_bytes()),
            ));
        }
        set.extend(
            change
                .set
                .into_iter()
                .map(|(name, value)| set_header(name, value)),
        );
        set.extend(change.named.into_iter().map(|(name, value)| {
            let key = Bytes::copy_from_slice(name.as_bytes());
            set_header_named(key, value.into())
        }));
        let remove_headers = change.remove.into_iter().map(str::to_owned).collect();
        let header_mutation = Some(wire::HeaderMutation {
            set_headers: set,
            remove_headers,
        });
        Self {
            header_mutation,
            body_mutation: None,
            clear_route_cache,
        }
    }
}

fn set_header(name: &'static str, value: Bytes) -> wire::HeaderValueOption {
    set_header_named(Bytes::from_static(name.as_bytes()), value)
}

fn set_header_named(key: Bytes, value: Bytes) -> wire::HeaderValueOption {
    let header = wire::HeaderValue {
        key,
        value: Bytes::new(),
        raw_value: value,
    };
    wire::HeaderValueOption {
        header: Some(header),
        append_action: wire::OVERWRITE,
    }
}

impl From<Piece> for wire::PhaseResponse {
    fn from(piece: Piece) -> Self {
        let streamed = wire::HttpBody {
            body: piece.body,
            end_of_stream: piece.end_of_stream,
        };
        let body_mutation = Some(wire::BodyMutation {
            streamed_response: Some(streamed),
        });
        Self {
            response: Some(wire::CommonResponse {
                header_mutation: None,
                body_mutation,
                clear_route_cache: false,
            }),
        }
    }
}

impl From<Immediate> for wire::ImmediateResponse {
    fn from(immediate: Immediate) -> Self {
        let set_headers = immediate
            .headers
            .into_iter()
            .map(|(name, value)| set_header(name, Bytes::from(value)));
        Self {
            status: Some(wire::HttpStatus {
                code: i32::from(immediate.status),
            }),
            headers: Some(wire::HeaderMutation {
                set_headers: set_headers.collect(),
                remove_headers: Vec::new(),
            }),
            body: immediate.body,
            grpc_status: immediate
                .grpc_status
                .map(|status| wire::GrpcStatus { status }),
            details: immediate.details.to_owned(),
        }
    }
}

/// `envoy.lb` with the same endpoints as the header, and the scores where they are wanted.
fn routing_metadata(destination: &Destination) -> wire::Struct {
    let text = wire::Value {
        kind: Some(wire::Kind::Text(destination.endpoints.as_ref().to_owned())),
    };
    let mut fields = HashMap::from([(header::DESTINATION.to_owned(), text)]);
    if !destination.scores.is_empty() {
        let scores = destination.scores.iter().map(|(address, score)| {
            (
                address.as_ref().to_owned(),
                wire::Value {
                    kind: Some(wire::Kind::Number(f64::from(*score))),
                },
            )
        });
        let scores = wire::Kind::Struct(wire::Struct {
            fields: scores.collect(),
        });
        fields.insert(
            header::DESTINATION_SCORES.to_owned(),
            wire::Value { kind: Some(scores) },
        );
    }
    let namespace = wire::Value {
        kind: Some(wire::Kind::Struct(wire::Struct { fields })),
    };
    wire::Struct {
        fields: HashMap::from([(metadata::LB.to_owned(), namespace)]),
    }
}

/// Numbers by namespace.
fn attribute_metadata(attributes: Vec<Attribute>) -> wire::Struct {
    let mut namespaces: HashMap<String, wire::Struct> = HashMap::new();
    for attribute in attributes {
        let value = wire::Value {
            kind: Some(wire::Kind::Number(attribute.value)),
        };
        let namespace = namespaces.entry(attribute.namespace).or_default();
        namespace.fields.insert(attribute.name, value);
    }
    let value = |fields| wire::Value {
        kind: Some(wire::Kind::Struct(fields)),
    };
    wire::Struct {
        fields: namespaces
            .into_iter()
            .map(|(name, fields)| (name, value(fields)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pieces_keep_every_byte_and_end_once(length in 0usize..200_000, end in any::<bool>()) {
            let body = Bytes::from((0..length).map(|index| index as u8).collect::<Vec<_>>());
            let mut cut = Vec::new();
            pieces(body.clone(), end, |piece| cut.push(piece));
            prop_assert_eq!(cut.iter().map(|piece| &piece.body[..]).collect::<Vec<_>>().concat(), &body[..]);
            prop_assert!(cut.iter().all(|piece| piece.body.len() <= BODY_LIMIT));
            prop_assert_eq!(cut.iter().filter(|piece| piece.end_of_stream).count(), usize::from(end));
            prop_assert!(!end || cut.last().is_some_and(|piece| piece.end_of_stream));
        }
    }
}
