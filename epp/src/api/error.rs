//! Answers to requests that are not served, each in the shape that its API's clients understand.

use super::head::LONGEST_NAME;
use super::json::Kind;
use bytes::Bytes;
use serde::Serialize;

/// Why a request is answered by the picker itself with a client error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The body is no JSON.
    #[error("the request body is {0}")]
    Json(#[from] super::json::JsonError),
    /// A field of the body is missing or of the wrong kind.
    #[error("field `{field}` {problem}")]
    Field {
        /// The field's name.
        field: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A header's value cannot be used.
    #[error("header `{name}` is {value:?}: {expected}")]
    Header {
        /// The header's name.
        name: &'static str,
        /// What the client sent, shortened.
        value: String,
        /// What would be right.
        expected: &'static str,
    },
    /// The path is none that the configured parsers know.
    #[error("no parser for path {path:?}: this pool serves {known}")]
    Path {
        /// The path, shortened.
        path: String,
        /// The ends of paths that would be right.
        known: String,
    },
    /// The body is no gRPC message of the kind that the path asks for.
    #[error("the gRPC message {0}")]
    Message(#[from] super::frame::FrameError),
    /// The body is larger than the picker holds.
    #[error(
        "the request body is larger than {limit} bytes: shorten the prompt, or raise --max-request-bytes on the endpoint picker"
    )]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// The bodies of other requests leave no room for this one.
    #[error("too many large requests are arriving at once: try again")]
    Crowded,
}

impl RequestError {
    /// The HTTP status that fits.
    pub fn status(&self) -> u16 {
        match self {
            Self::TooLarge { .. } => 413,
            Self::Crowded => 429,
            Self::Message(super::frame::FrameError::TooLarge { .. }) => 413,
            Self::Json(_)
            | Self::Field { .. }
            | Self::Header { .. }
            | Self::Path { .. }
            | Self::Message(_) => 400,
        }
    }

    /// The field or header at fault, for the error's `param`.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Field { field, .. } => Some(field),
            Self::Header { name, .. } => Some(name),
            Self::Json(_)
            | Self::Path { .. }
            | Self::Message(_)
            | Self::TooLarge { .. }
            | Self::Crowded => None,
        }
    }
}

/// `field` is not there and should be.
pub(super) fn missing(field: &'static str, right: &str) -> RequestError {
    RequestError::Field {
        field,
        problem: format!("is missing: {right}"),
    }
}

/// `field` is a name that is longer than names may be.
pub(super) fn too_long(field: &'static str) -> RequestError {
    RequestError::Field {
        field,
        problem: format!("is too long: give a name of at most {LONGEST_NAME} bytes"),
    }
}

/// `field` is of another kind than `right` asks for.
pub(super) fn wrong(field: &'static str, found: Kind, right: &str) -> RequestError {
    RequestError::Field {
        field,
        problem: format!("is {}: {right}", found.name()),
    }
}

/// Client text as it may appear in an error: at most 80 characters.
pub fn shortened(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(80).collect()
}

/// How an API's clients are told of errors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ErrorShape {
    /// `{"error":{"message","type","param","code"}}`; vLLM's and SGLang's own APIs speak it too.
    #[default]
    OpenAi,
    /// `{"type":"error","error":{"type","message"}}`.
    Anthropic,
    /// A gRPC status; the body is its message.
    Grpc,
}

impl ErrorShape {
    /// The body that tells of `message` with HTTP status `status`.
    pub fn body(
        self,
        status: u16,
        message: &str,
        param: Option<&str>,
        code: Option<&str>,
    ) -> Bytes {
        match self {
            Self::OpenAi => openai(status, message, param, code),
            Self::Anthropic => anthropic(status, message),
            Self::Grpc => Bytes::copy_from_slice(message.as_bytes()),
        }
    }

    /// The body's `content-type`; `None` = the proxy's own, which a gRPC answer keeps.
    pub fn content_type(self) -> Option<&'static str> {
        match self {
            Self::OpenAi | Self::Anthropic => Some("application/json"),
            Self::Grpc => None,
        }
    }

    /// The gRPC status that says the same as HTTP status `status`; `None` = the API is not gRPC.
    pub fn grpc_status(self, status: u16) -> Option<u32> {
        (self == Self::Grpc).then_some(match status {
            413 | 429 => GRPC_RESOURCE_EXHAUSTED,
            400..=499 => GRPC_INVALID_ARGUMENT,
            503 => GRPC_UNAVAILABLE,
            _ => GRPC_INTERNAL,
        })
    }
}

const GRPC_CANCELLED: u32 = 1;
const GRPC_INVALID_ARGUMENT: u32 = 3;
const GRPC_DEADLINE_EXCEEDED: u32 = 4;
const GRPC_NOT_FOUND: u32 = 5;
const GRPC_PERMISSION_DENIED: u32 = 7;
const GRPC_RESOURCE_EXHAUSTED: u32 = 8;
const GRPC_FAILED_PRECONDITION: u32 = 9;
const GRPC_OUT_OF_RANGE: u32 = 11;
const GRPC_UNIMPLEMENTED: u32 = 12;
const GRPC_INTERNAL: u32 = 13;
const GRPC_UNAVAILABLE: u32 = 14;
const GRPC_UNAUTHENTICATED: u32 = 16;

/// The HTTP status that says the same as a server's gRPC status (`google.rpc.Code`'s table).
pub fn http_status(grpc: u32) -> u16 {
    match grpc {
        0 => 200,
        GRPC_CANCELLED => 499,
        GRPC_INVALID_ARGUMENT | GRPC_FAILED_PRECONDITION | GRPC_OUT_OF_RANGE => 400,
        GRPC_DEADLINE_EXCEEDED => 504,
        GRPC_NOT_FOUND => 404,
        GRPC_PERMISSION_DENIED => 403,
        GRPC_RESOURCE_EXHAUSTED => 429,
        GRPC_UNIMPLEMENTED => 501,
        GRPC_UNAVAILABLE => 503,
        GRPC_UNAUTHENTICATED => 401,
        _ => 500,
    }
}

#[derive(Serialize)]
struct OpenAi<'a> {
    error: OpenAiDetail<'a>,
}

#[derive(Serialize)]
struct OpenAiDetail<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

fn openai(status: u16, message: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    let r#type = match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "service_unavailable_error",
        _ => "server_error",
    };
    json(&OpenAi {
        error: OpenAiDetail {
            message,
            r#type,
            param,
            code,
        },
    })
}

#[derive(Serialize)]
struct Anthropic<'a> {
    r#type: &'a str,
    error: AnthropicDetail<'a>,
}

#[derive(Serialize)]
struct AnthropicDetail<'a> {
    r#type: &'a str,
    message: &'a str,
}

fn anthropic(status: u16, message: &str) -> Bytes {
    let r#type = match status {
        413 => "request_too_large",
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "overloaded_error",
        _ => "api_error",
    };
    json(&Anthropic {
        r#type: "error",
        error: AnthropicDetail { r#type, message },
    })
}

fn json(value: &impl Serialize) -> Bytes {
    // Strings and nulls only: serialisation has nothing to fail on.
    Bytes::from(serde_json::to_vec(value).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_shape_of_their_api() {
        let error = missing("model", "give the model's name");
        let told = |shape: ErrorShape| {
            let body = shape.body(error.status(), &error.to_string(), error.param(), None);
            String::from_utf8(body.to_vec()).unwrap()
        };
        assert_eq!(
            told(ErrorShape::OpenAi),
            r#"{"error":{"message":"field `model` is missing: give the model's name","type":"invalid_request_error","param":"model","code":null}}"#
        );
        assert_eq!(
            told(ErrorShape::Anthropic),
            r#"{"type":"error","error":{"type":"invalid_request_error","message":"field `model` is missing: give the model's name"}}"#
        );
        assert_eq!(
            told(ErrorShape::Grpc),
            "field `model` is missing: give the model's name"
        );
    }

    #[test]
    fn grpc_and_http_statuses_say_the_same() {
        let shape = ErrorShape::Grpc;
        for (http, grpc) in [(400, 3), (413, 8), (429, 8), (503, 14), (500, 13)] {
            assert_eq!(shape.grpc_status(http), Some(grpc));
            assert_eq!(http_status(grpc) / 100, http / 100);
        }
        assert_eq!(ErrorShape::OpenAi.grpc_status(400), None);
        assert_eq!(
            (http_status(0), http_status(2), http_status(99)),
            (200, 500, 500)
        );
    }
}
