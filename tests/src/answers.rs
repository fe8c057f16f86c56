//! What the fake model server says: fixed ids and times, so that two answers can be compared byte for byte.

use serde_json::{Value, json};

/// Model every fake serves.
pub const MODEL: &str = "fake-model";
/// Content of the answers, token by token. One token talks about usage, which must not be taken for it.
pub const TOKENS: [&str; 4] = ["Hel", "lo \"usage\":{}", " wor", "ld"];
/// Prompt tokens that the fakes count, whatever the prompt.
pub const PROMPT_TOKENS: u32 = 9;

/// When chunks of a stream carry `"usage":null`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum NullUsage {
    /// Never, as vLLM does.
    #[default]
    Never,
    /// In streams whose request asked for usage, as OpenAI documents it.
    WhenAsked,
    /// In every stream.
    Always,
}

/// The `usage` object of every answer.
pub fn usage() -> Value {
    let output = TOKENS.len();
    json!({
        "prompt_tokens": PROMPT_TOKENS,
        "total_tokens": u64::from(PROMPT_TOKENS) + output as u64,
        "completion_tokens": output,
        "prompt_tokens_details": {"cached_tokens": 4},
    })
}

/// The answer to a request that does not stream, to `chat/completions` or `completions` by `path`.
pub fn document(path: &str) -> String {
    let text = TOKENS.concat();
    let choice = if is_chat(path) {
        json!({"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"})
    } else {
        json!({"index": 0, "text": text, "finish_reason": "stop"})
    };
    let (id, created) = ("answer-1", 1_700_000_000);
    json!({"id": id, "created": created, "model": MODEL, "choices": [choice], "usage": usage()})
        .to_string()
}

/// The events of a streamed answer, each with its closing blank line; the last is `[DONE]`.
pub fn events(path: &str, usage_asked: bool, null_usage: NullUsage) -> Vec<String> {
    let null = match null_usage {
        NullUsage::Always => true,
        NullUsage::WhenAsked => usage_asked,
        NullUsage::Never => false,
    };
    let null = if null { r#","usage":null"# } else { "" };
    let head = format!(r#""id":"answer-1","created":1700000000,"model":"{MODEL}""#);
    let last = TOKENS.len() - 1;
    let mut events: Vec<_> = TOKENS
        .iter()
        .enumerate()
        .map(|(index, token)| {
            let token = Value::from(*token);
            let finish = if index == last { r#""stop""# } else { "null" };
            let content =
                if is_chat(path) { format!(r#""delta":{{"content":{token}}}"#) } else { format!(r#""text":{token}"#) };
            format!("data: {{{head},\"choices\":[{{\"index\":0,{content},\"finish_reason\":{finish}}}]{null}}}\n\n")
        })
        .collect();
    if usage_asked {
        events.push(format!(
            "data: {{{head},\"choices\":[],\"usage\":{}}}\n\n",
            usage()
        ));
    }
    events.push("data: [DONE]\n\n".to_owned());
    events
}

fn is_chat(path: &str) -> bool {
    path.ends_with("chat/completions")
}
