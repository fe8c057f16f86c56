//! Answers to requests that are not served, in the shape OpenAI's clients understand.

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
    #[error("no parser for path {path:?}: this pool serves chat/completions and completions")]
    Path {
        /// The path, shortened.
        path: String,
    },
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
            Self::Json(_) | Self::Field { .. } | Self::Header { .. } | Self::Path { .. } => 400,
        }
    }

    /// The field or header at fault, for the error's `param`.
    pub fn param(&self) -> Option<&'static str> {
        match self {
            Self::Field { field, .. } => Some(field),
            Self::Header { name, .. } => Some(name),
            Self::Json(_) | Self::Path { .. } | Self::TooLarge { .. } | Self::Crowded => None,
        }
    }
}

/// Client text as it may appear in an error: at most 80 characters.
pub fn shortened(value: &[u8]) -> String {
    String::from_utf8_lossy(value).chars().take(80).collect()
}

#[derive(Serialize)]
struct Envelope<'a> {
    error: Detail<'a>,
}

#[derive(Serialize)]
struct Detail<'a> {
    message: &'a str,
    r#type: &'a str,
    param: Option<&'a str>,
    code: Option<&'a str>,
}

/// `{"error":{"message","type","param","code"}}` for `status`.
pub fn openai_error(status: u16, message: &str, param: Option<&str>, code: Option<&str>) -> Bytes {
    let r#type = match status {
        429 => "rate_limit_error",
        400..=499 => "invalid_request_error",
        503 => "service_unavailable_error",
        _ => "server_error",
    };
    let envelope = Envelope {
        error: Detail {
            message,
            r#type,
            param,
            code,
        },
    };
    // Strings and nulls only: serialisation has nothing to fail on.
    Bytes::from(serde_json::to_vec(&envelope).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_has_openais_shape() {
        let error = RequestError::Field {
            field: "model",
            problem: "is missing: give the model's name".into(),
        };
        let body = openai_error(error.status(), &error.to_string(), error.param(), None);
        assert_eq!(
            body,
            r#"{"error":{"message":"field `model` is missing: give the model's name","type":"invalid_request_error","param":"model","code":null}}"#
        );
    }
}
