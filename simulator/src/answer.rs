//! Answers on the wire: vLLM's JSON and its server-sent events, one per token.

use crate::options::NullUsage;
use crate::request::Api;
use crate::sampling::{Finish, token};
use std::fmt::Write;

/// The part of an answer that is known before its first token.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) api: Api,
    /// Decides the text.
    pub(crate) fingerprint: u64,
    pub(crate) prompt_tokens: u32,
    /// Tokens the answer will have.
    pub(crate) output_tokens: u32,
    pub(crate) finish: Finish,
    /// Whether a stream ends with a chunk of usage.
    pub(crate) include_usage: bool,
    pub(crate) null_usage: NullUsage,
    /// `"id":…,"object":…` and so on, up to the choices, for every chunk.
    head: String,
}

/// Who answers which request when.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Identity<'a> {
    /// Request id without the API's prefix.
    pub(crate) id: &'a str,
    /// Seconds since the Unix epoch.
    pub(crate) created: u64,
    pub(crate) model: &'a str,
}

impl Identity<'_> {
    fn head(&self, api: Api, stream: bool) -> String {
        let (prefix, object) = match (api, stream) {
            (Api::Completions, _) => ("cmpl", "text_completion"),
            (Api::Chat, false) => ("chatcmpl", "chat.completion"),
            (Api::Chat, true) => ("chatcmpl", "chat.completion.chunk"),
        };
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        format!(
            "\"id\":{},\"object\":\"{object}\",\"created\":{},\"model\":{}",
            quoted(&format!("{prefix}-{}", self.id)),
            self.created,
            quoted(self.model)
        )
    }
}

/// What an answer's shape depends on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) api: Api,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) null_usage: NullUsage,
}

impl Answer {
    pub(crate) fn new(
        identity: Identity<'_>,
        shape: Shape,
        fingerprint: u64,
        prompt_tokens: u32,
        (output_tokens, finish): (u32, Finish),
    ) -> Self {
        Self {
            api: shape.api,
            fingerprint,
            prompt_tokens,
            output_tokens,
            finish,
            include_usage: shape.include_usage,
            null_usage: shape.null_usage,
            head: identity.head(shape.api, shape.stream),
        }
    }

    /// The whole answer as one JSON object.
    pub(crate) fn json(&self, cached_tokens: u32) -> String {
        let text: String = (0..self.output_tokens)
            .map(|index| token(self.fingerprint, index))
            .collect();
        let finish = self.finish.as_str();
        let choice = match self.api {
            Api::Completions => format!(
                r#"{{"index":0,"text":"{text}","logprobs":null,"finish_reason":"{finish}","stop_reason":null}}"#
            ),
            Api::Chat => format!(
                r#"{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"logprobs":null,"finish_reason":"{finish}","stop_reason":null}}"#
            ),
        };
        let usage = self.usage(cached_tokens);
        format!(r#"{{{},"choices":[{choice}],"usage":{usage}}}"#, self.head)
    }

    /// Appends the events of tokens `from..to`; the last token brings the end of the stream.
    pub(crate) fn events(&self, from: u32, to: u32, cached_tokens: u32, out: &mut String) {
        if from == 0 && to > 0 && self.api == Api::Chat {
            self.chunk(r#"{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}"#, out);
        }
        for index in from..to {
            self.token(index, out);
        }
        if to == self.output_tokens && from < to {
            if self.include_usage {
                let usage = self.usage(cached_tokens);
                push(
                    out,
                    format_args!(
                        "data: {{{},\"choices\":[],\"usage\":{usage}}}\n\n",
                        self.head
                    ),
                );
            }
            out.push_str("data: [DONE]\n\n");
        }
    }

    fn token(&self, index: u32, out: &mut String) {
        let text = token(self.fingerprint, index);
        let (open, close) = match self.api {
            Api::Completions => (r#""text":""#, r#"""#),
            Api::Chat => (r#""delta":{"content":""#, r#""}"#),
        };
        let last = index + 1 == self.output_tokens;
        let (quote, finish) = if last {
            ("\"", self.finish.as_str())
        } else {
            ("", "null")
        };
        // vLLM's chats carry a stop reason only with a finish reason; its completions always.
        let stop = if last || self.api == Api::Completions {
            r#","stop_reason":null"#
        } else {
            ""
        };
        self.chunk_begin(out);
        push(
            out,
            format_args!(
                r#"{{"index":0,{open}{text}{close},"logprobs":null,"finish_reason":{quote}{finish}{quote}{stop}}}"#
            ),
        );
        self.chunk_end(out);
    }

    fn chunk(&self, choice: &str, out: &mut String) {
        self.chunk_begin(out);
        out.push_str(choice);
        self.chunk_end(out);
    }

    fn chunk_begin(&self, out: &mut String) {
        out.extend(["data: {", &self.head, ",\"choices\":["]);
    }

    fn chunk_end(&self, out: &mut String) {
        let null_usage = match self.null_usage {
            NullUsage::Never => false,
            NullUsage::Requested => self.include_usage,
            NullUsage::Always => true,
        };
        out.push_str(if null_usage {
            "],\"usage\":null}\n\n"
        } else {
            "]}\n\n"
        });
    }

    fn usage(&self, cached_tokens: u32) -> String {
        let (prompt, output) = (self.prompt_tokens, self.output_tokens);
        let total = u64::from(prompt) + u64::from(output);
        format!(
            r#"{{"prompt_tokens":{prompt},"total_tokens":{total},"completion_tokens":{output},"prompt_tokens_details":{{"cached_tokens":{cached_tokens}}}}}"#
        )
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(api: Api, stream: bool, include_usage: bool, null_usage: NullUsage) -> Answer {
        let identity = Identity {
            id: "7",
            created: 9,
            model: "m\"q",
        };
        let shape = Shape {
            api,
            stream,
            include_usage,
            null_usage,
        };
        Answer::new(identity, shape, 1, 10, (3, Finish::Length))
    }

    fn stream(answer: &Answer, cuts: &[u32]) -> String {
        let mut out = String::new();
        for pair in cuts.windows(2) {
            answer.events(pair[0], pair[1], 4, &mut out);
        }
        out
    }

    #[test]
    fn golden_streams_and_answers() {
        let mut actual = String::new();
        for api in [Api::Completions, Api::Chat] {
            actual += &answer(api, false, false, NullUsage::Never).json(4);
            actual += "\n\n";
            for (include_usage, null_usage) in [
                (false, NullUsage::Never),
                (true, NullUsage::Requested),
                (false, NullUsage::Always),
            ] {
                actual += &stream(&answer(api, true, include_usage, null_usage), &[0, 3]);
            }
        }
        assert_eq!(actual, include_str!("../tests/golden/answers.txt"));
    }

    #[test]
    fn every_event_is_json_and_cuts_change_nothing() {
        for api in [Api::Completions, Api::Chat] {
            let answer = answer(api, true, true, NullUsage::Requested);
            let whole = stream(&answer, &[0, 3]);
            assert_eq!(stream(&answer, &[0, 0, 1, 2, 2, 3, 3]), whole);
            let events: Vec<_> = whole.split_terminator("\n\n").collect();
            let (done, chunks) = events.split_last().unwrap();
            assert_eq!(*done, "data: [DONE]");
            for chunk in chunks {
                let json: serde_json::Value =
                    serde_json::from_str(chunk.strip_prefix("data: ").unwrap()).unwrap();
                assert_eq!(json["model"], "m\"q");
            }
        }
    }

    #[test]
    fn a_null_usage_stands_where_it_was_asked_for() {
        let nulls = |include_usage, null_usage| {
            let answer = answer(Api::Completions, true, include_usage, null_usage);
            stream(&answer, &[0, 3]).matches("\"usage\":null").count()
        };
        assert_eq!(nulls(true, NullUsage::Never), 0);
        assert_eq!(
            (
                nulls(false, NullUsage::Requested),
                nulls(true, NullUsage::Requested)
            ),
            (0, 3)
        );
        assert_eq!(
            (
                nulls(false, NullUsage::Always),
                nulls(true, NullUsage::Always)
            ),
            (3, 3)
        );
    }
}
