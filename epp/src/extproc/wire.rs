//! The part of `envoy.service.ext_proc.v3` that a picker speaks, with bodies as shared bytes.
//!
//! Written by hand because bodies must not be copied on their way in, and because the generated
//! bindings of the whole of Envoy's API would be most of this program. Fields that are left out are
//! skipped when read. The tests talk to this server through those generated bindings.

use bytes::Bytes;
use prost::{Message, Oneof};
use std::collections::HashMap;

/// gRPC service name.
pub const SERVICE: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
/// Path of its only method.
pub const PROCESS: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// One message from the proxy.
#[derive(Clone, PartialEq, Message)]
pub struct ProcessingRequest {
    /// Metadata of the HTTP stream by namespace.
    #[prost(message, optional, tag = "8")]
    pub metadata_context: Option<Metadata>,
    /// What happened.
    #[prost(oneof = "Incoming", tags = "2, 3, 4, 5, 6, 7")]
    pub request: Option<Incoming>,
}

/// What the proxy tells of.
#[derive(Clone, PartialEq, Oneof)]
pub enum Incoming {
    /// Request headers.
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    /// Response headers.
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    /// A piece of the request's body.
    #[prost(message, tag = "4")]
    RequestBody(HttpBody),
    /// A piece of the response's body.
    #[prost(message, tag = "5")]
    ResponseBody(HttpBody),
    /// Request trailers; their content does not matter.
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    /// Response trailers.
    #[prost(message, tag = "7")]
    ResponseTrailers(HttpTrailers),
}

/// `envoy.config.core.v3.Metadata`.
#[derive(Clone, PartialEq, Message)]
pub struct Metadata {
    /// Structures by namespace.
    #[prost(map = "string, message", tag = "1")]
    pub filter_metadata: HashMap<String, Struct>,
}

/// `google.protobuf.Struct`.
#[derive(Clone, PartialEq, Message)]
pub struct Struct {
    /// Values by key.
    #[prost(map = "string, message", tag = "1")]
    pub fields: HashMap<String, Value>,
}

/// `google.protobuf.Value`, of the kinds that are used.
#[derive(Clone, PartialEq, Message)]
pub struct Value {
    /// Which kind.
    #[prost(oneof = "Kind", tags = "2, 3, 5, 6")]
    pub kind: Option<Kind>,
}

/// Kinds of [`Value`].
#[derive(Clone, PartialEq, Oneof)]
pub enum Kind {
    /// A number.
    #[prost(double, tag = "2")]
    Number(f64),
    /// A text.
    #[prost(string, tag = "3")]
    Text(String),
    /// A nested structure.
    #[prost(message, tag = "5")]
    Struct(Struct),
    /// A list.
    #[prost(message, tag = "6")]
    List(ListValue),
}

/// `google.protobuf.ListValue`.
#[derive(Clone, PartialEq, Message)]
pub struct ListValue {
    /// Elements.
    #[prost(message, repeated, tag = "1")]
    pub values: Vec<Value>,
}

/// Headers and whether a body follows.
#[derive(Clone, PartialEq, Message)]
pub struct HttpHeaders {
    /// The headers.
    #[prost(message, optional, tag = "1")]
    pub headers: Option<HeaderMap>,
    /// No body follows.
    #[prost(bool, tag = "3")]
    pub end_of_stream: bool,
}

/// A list of headers.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderMap {
    /// In order.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

/// One header. Names are text on the wire; text and bytes are encoded alike.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderValue {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value as text, which older proxies send.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Value as bytes, which newer proxies send and expect.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}

/// A piece of a body.
#[derive(Clone, PartialEq, Message)]
pub struct HttpBody {
    /// The bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
    /// Nothing follows.
    #[prost(bool, tag = "2")]
    pub end_of_stream: bool,
}

/// Trailers.
#[derive(Clone, PartialEq, Message)]
pub struct HttpTrailers {
    /// The trailers.
    #[prost(message, optional, tag = "1")]
    pub trailers: Option<HeaderMap>,
}

/// One message to the proxy.
#[derive(Clone, PartialEq, Message)]
pub struct ProcessingResponse {
    /// Metadata to set on the HTTP stream, namespace by namespace.
    #[prost(message, optional, tag = "8")]
    pub dynamic_metadata: Option<Struct>,
    /// What to do.
    #[prost(oneof = "Outgoing", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub response: Option<Outgoing>,
}

/// What the proxy is told to do.
#[derive(Clone, PartialEq, Oneof)]
pub enum Outgoing {
    /// Send the request's headers on.
    #[prost(message, tag = "1")]
    RequestHeaders(PhaseResponse),
    /// Send the response's headers on.
    #[prost(message, tag = "2")]
    ResponseHeaders(PhaseResponse),
    /// Send a piece of the request's body on.
    #[prost(message, tag = "3")]
    RequestBody(PhaseResponse),
    /// Send a piece of the response's body on.
    #[prost(message, tag = "4")]
    ResponseBody(PhaseResponse),
    /// Send the request's trailers on.
    #[prost(message, tag = "5")]
    RequestTrailers(TrailersResponse),
    /// Send the response's trailers on.
    #[prost(message, tag = "6")]
    ResponseTrailers(TrailersResponse),
    /// Answer the client at once.
    #[prost(message, tag = "7")]
    Immediate(ImmediateResponse),
}

/// `HeadersResponse` and `BodyResponse`, which look alike.
#[derive(Clone, PartialEq, Message)]
pub struct PhaseResponse {
    /// The change.
    #[prost(message, optional, tag = "1")]
    pub response: Option<CommonResponse>,
}

/// `TrailersResponse` without a change.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct TrailersResponse {}

/// A change of headers or body.
#[derive(Clone, PartialEq, Message)]
pub struct CommonResponse {
    /// Headers.
    #[prost(message, optional, tag = "2")]
    pub header_mutation: Option<HeaderMutation>,
    /// Body.
    #[prost(message, optional, tag = "3")]
    pub body_mutation: Option<BodyMutation>,
    /// Choose the route anew.
    #[prost(bool, tag = "5")]
    pub clear_route_cache: bool,
}

/// Headers to set and to remove.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderMutation {
    /// To set.
    #[prost(message, repeated, tag = "1")]
    pub set_headers: Vec<HeaderValueOption>,
    /// To remove.
    #[prost(string, repeated, tag = "2")]
    pub remove_headers: Vec<String>,
}

/// `OVERWRITE_IF_EXISTS_OR_ADD` of `HeaderAppendAction`.
pub const OVERWRITE: i32 = 2;

/// A header to set.
#[derive(Clone, PartialEq, Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// What becomes of one that is there already.
    #[prost(int32, tag = "3")]
    pub append_action: i32,
}

/// `BodyMutation` with its only form that full-duplex streaming allows.
#[derive(Clone, PartialEq, Message)]
pub struct BodyMutation {
    /// The piece.
    #[prost(message, optional, tag = "3")]
    pub streamed_response: Option<HttpBody>,
}

/// An answer to the client from here.
#[derive(Clone, PartialEq, Message)]
pub struct ImmediateResponse {
    /// HTTP status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Headers of the answer.
    #[prost(message, optional, tag = "2")]
    pub headers: Option<HeaderMutation>,
    /// Its body.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
    /// How a gRPC call ends by it.
    #[prost(message, optional, tag = "4")]
    pub grpc_status: Option<GrpcStatus>,
    /// Why, for the proxy's access log.
    #[prost(string, tag = "5")]
    pub details: String,
}

/// `GrpcStatus` of ext_proc.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct GrpcStatus {
    /// The number.
    #[prost(uint32, tag = "1")]
    pub status: u32,
}

/// `envoy.type.v3.HttpStatus`.
#[derive(Clone, Copy, PartialEq, Message)]
pub struct HttpStatus {
    /// The number.
    #[prost(int32, tag = "1")]
    pub code: i32,
}
