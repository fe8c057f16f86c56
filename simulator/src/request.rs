//! What a completion or chat request asks for.

use crate::error::ApiError;
use crate::fields::{Fields, wrong};
use crate::prompt::Prompt;
use serde::Deserialize;

/// The two ways to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Api {
    /// `/v1/completions`.
    Completions,
    /// `/v1/chat/completions`.
    Chat,
}

/// A request, understood and within the server's limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Generation {
    pub(crate) api: Api,
    pub(crate) prompt: Prompt,
    /// Most tokens to answer with: what was asked, or the API's default.
    pub(crate) max_tokens: u32,
    pub(crate) ignore_eos: bool,
    pub(crate) stream: bool,
    /// Whether a stream ends with a chunk of usage.
    pub(crate) include_usage: bool,
    /// The client's own seed.
    pub(crate) seed: u64,
}

/// What a server can serve.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) model: String,
    pub(crate) max_model_len: u32,
}

#[derive(Default, Deserialize)]
struct StreamOptions {
    #[serde(default)]
    include_usage: Option<bool>,
}

impl Generation {
    pub(crate) fn of_body(api: Api, body: &[u8], limits: &Limits) -> Result<Self, ApiError> {
        let fields = Fields::of_body(body)?;
        check_model(&fields, &limits.model)?;
        let prompt = match api {
            Api::Completions => Prompt::of_completion(required(&fields, "prompt")?)?,
            Api::Chat => Prompt::of_chat(required(&fields, "messages")?)?,
        };
        check_one_answer(&fields)?;
        let stream = fields.get("stream", "true or false")?.unwrap_or(false);
        let options: Option<StreamOptions> = fields.get(
            "stream_options",
            "an object whose include_usage is true or false",
        )?;
        if options.is_some() && !stream {
            let message = "stream_options is set, but stream is not true: they go together.";
            return Err(ApiError::bad_request(Some("stream_options"), message));
        }
        Ok(Self {
            api,
            max_tokens: max_tokens(api, &fields, prompt.tokens(), limits.max_model_len)?,
            prompt,
            ignore_eos: fields.get("ignore_eos", "true or false")?.unwrap_or(false),
            stream,
            include_usage: options
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            seed: fields
                .get::<i64>("seed", "a whole number")?
                .map_or(0, i64::cast_unsigned),
        })
    }
}

fn required<'a>(fields: &Fields<'a>, field: &'static str) -> Result<&'a str, ApiError> {
    fields
        .raw(field)
        .ok_or_else(|| ApiError::bad_request(Some(field), format!("{field} is missing.")))
}

fn check_model(fields: &Fields<'_>, served: &str) -> Result<(), ApiError> {
    let asked: Option<String> = fields.get("model", "the name of a model")?;
    match asked {
        Some(asked) if asked != served => Err(ApiError::unknown_model(&asked, served)),
        _ => Ok(()),
    }
}

fn check_one_answer(fields: &Fields<'_>) -> Result<(), ApiError> {
    match fields.get::<u32>("n", "1")? {
        None | Some(1) => Ok(()),
        Some(n) => Err(wrong(
            "n",
            &n.to_string(),
            "1: the simulator gives one answer per request",
        )),
    }
}

/// What was asked, or the API's default: 16 for completions, the rest of the context for chats.
fn max_tokens(
    api: Api,
    fields: &Fields<'_>,
    prompt: u32,
    max_model_len: u32,
) -> Result<u32, ApiError> {
    const EXPECTED: &str = "a whole number of at least 1";
    let name = match (api, fields.raw("max_completion_tokens")) {
        (Api::Chat, Some(_)) => "max_completion_tokens",
        _ => "max_tokens",
    };
    let asked: Option<u32> = fields.get(name, EXPECTED)?;
    if asked == Some(0) {
        return Err(wrong(name, "0", EXPECTED));
    }
    let room = max_model_len.saturating_sub(prompt);
    let wanted = asked.unwrap_or(match api {
        Api::Completions => 16.min(room.max(1)),
        Api::Chat => room.max(1),
    });
    if wanted > room {
        let field = if room == 0 { "prompt" } else { name };
        let message = format!(
            "The context is too long: {prompt} prompt tokens and {wanted} output tokens exceed the model's {max_model_len}. Shorten the prompt or lower {name}."
        );
        return Err(ApiError::bad_request(Some(field), message));
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(api: Api, body: &str) -> Result<Generation, ApiError> {
        let limits = Limits {
            model: "m".into(),
            max_model_len: 100,
        };
        Generation::of_body(api, body.as_bytes(), &limits)
    }

    #[test]
    fn defaults_are_the_apis() {
        let completion = read(Api::Completions, r#"{"prompt": [1, 2]}"#).unwrap();
        assert_eq!(
            (
                completion.max_tokens,
                completion.stream,
                completion.ignore_eos
            ),
            (16, false, false)
        );
        let near_the_end =
            read(Api::Completions, &format!(r#"{{"prompt": {:?}}}"#, [1; 95])).unwrap();
        assert_eq!(near_the_end.max_tokens, 5);
        let chat = read(
            Api::Chat,
            r#"{"messages": [{"role": "user", "content": "hi"}], "max_tokens": null}"#,
        )
        .unwrap();
        assert_eq!(chat.max_tokens, 100 - chat.prompt.tokens());
    }

    #[test]
    fn what_is_asked_is_understood() {
        let asked = read(
            Api::Chat,
            r#"{"model": "m", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "max_completion_tokens": 5,
                "ignore_eos": true, "stream": true, "stream_options": {"include_usage": true}, "seed": -1, "temperature": 0.7}"#,
        )
        .unwrap();
        assert_eq!(
            (
                asked.max_tokens,
                asked.ignore_eos,
                asked.stream,
                asked.include_usage
            ),
            (5, true, true, true)
        );
        assert_eq!(asked.seed, u64::MAX);
    }

    #[test]
    fn errors_name_the_field_and_the_value() {
        for (body, parts) in [
            ("{", ["body", "JSON object"]),
            ("[]", ["body", "JSON object"]),
            ("{}", ["prompt", "missing"]),
            (
                r#"{"prompt": "a", "max_tokens": 0}"#,
                ["max_tokens is 0", "at least 1"],
            ),
            (
                r#"{"prompt": "a", "max_tokens": "x"}"#,
                ["max_tokens is \\\"x\\\"", "at least 1"],
            ),
            (
                r#"{"prompt": "a", "max_tokens": 100}"#,
                ["1 prompt tokens and 100", "lower max_tokens"],
            ),
            (r#"{"prompt": "a", "n": 2}"#, ["n is 2", "one answer"]),
            (
                r#"{"prompt": "a", "stream": 1}"#,
                ["stream is 1", "true or false"],
            ),
            (
                r#"{"prompt": "a", "stream": true, "stream_options": 4}"#,
                ["stream_options is 4", "include_usage"],
            ),
            (
                r#"{"prompt": "a", "stream_options": {}}"#,
                ["stream_options is set", "go together"],
            ),
            (
                r#"{"prompt": "a", "model": "other"}"#,
                ["`other` does not exist", "has `m`"],
            ),
        ] {
            let error = format!("{:?}", read(Api::Completions, body).unwrap_err());
            assert!(
                parts.iter().all(|part| error.contains(part)),
                "{body}: {error}"
            );
        }
    }

    #[test]
    fn a_prompt_that_fills_the_context_is_too_long() {
        let body = format!(r#"{{"prompt": {:?}}}"#, [1; 100]);
        let error = format!("{:?}", read(Api::Completions, &body).unwrap_err());
        assert!(
            error.contains("\"prompt\"") && error.contains("100 prompt tokens"),
            "{error}"
        );
    }
}
