//! Reads a streamed completion: when its tokens came, and what the server said of their number.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;

/// Longest event accepted; a completion's event is a few hundred bytes.
const MAX_EVENT_BYTES: usize = 1 << 20;

/// What a stream has told so far.
#[derive(Debug, Default)]
pub(super) struct Stream {
    buffer: Vec<u8>,
    /// When the first event with a choice came.
    pub(super) first_token: Option<Duration>,
    /// When the last event with a choice came.
    pub(super) last_token: Option<Duration>,
    /// Events whose choice carried text.
    texts: u32,
    usage: Option<Usage>,
    /// Whether `[DONE]` came.
    pub(super) done: bool,
}

#[derive(Debug, Deserialize)]
struct Chunk<'a> {
    #[serde(borrow, default)]
    choices: Vec<Choice<'a>>,
    usage: Option<Usage>,
}

#[derive(Debug, Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    text: Option<Cow<'a, str>>,
}

/// Token counts as the server states them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct Usage {
    prompt_tokens: u32,
    completion_tokens: u32,
    prompt_tokens_details: Option<PromptDetails>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u32>,
}

/// A stream that is not a completion's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum StreamError {
    /// An event never ended.
    #[error("an event is longer than {MAX_EVENT_BYTES} bytes")]
    TooLong,
    /// An event is not JSON of a completion.
    #[error("an event is not a completion chunk: {0}")]
    Malformed(String),
}

impl Stream {
    /// Takes bytes that came at `at`, cut anywhere.
    pub(super) fn feed(&mut self, at: Duration, bytes: &[u8]) -> Result<(), StreamError> {
        self.buffer.extend_from_slice(bytes);
        let mut begin = 0;
        while let Some(length) = self.buffer[begin..]
            .windows(2)
            .position(|pair| pair == b"\n\n")
        {
            let event = begin..begin + length;
            begin += length + 2;
            self.event(at, event)?;
        }
        self.buffer.drain(..begin);
        if self.buffer.len() > MAX_EVENT_BYTES {
            Err(StreamError::TooLong)
        } else {
            Ok(())
        }
    }

    fn event(&mut self, at: Duration, event: std::ops::Range<usize>) -> Result<(), StreamError> {
        let lines = self.buffer[event].split(|byte| *byte == b'\n');
        for data in lines.filter_map(|line| line.strip_prefix(b"data:")) {
            let data = data.trim_ascii();
            if data == b"[DONE]" {
                self.done = true;
                continue;
            }
            let chunk: Chunk<'_> = serde_json::from_slice(data)
                .map_err(|error| StreamError::Malformed(error.to_string()))?;
            if !chunk.choices.is_empty() {
                self.first_token.get_or_insert(at);
                self.last_token = Some(at);
                self.texts += u32::from(
                    chunk
                        .choices
                        .iter()
                        .any(|choice| choice.text.as_ref().is_some_and(|text| !text.is_empty())),
                );
            }
            self.usage = chunk.usage.or(self.usage);
        }
        Ok(())
    }

    /// Output tokens: as the server counts them, else one per event with text.
    pub(super) fn output_tokens(&self) -> u32 {
        self.usage
            .map_or(self.texts, |usage| usage.completion_tokens)
    }

    /// Prompt tokens, and how many of them came from the prefix cache, as the server states them.
    pub(super) fn prompt_tokens(&self) -> Option<(u32, u32)> {
        let usage = self.usage?;
        let cached = usage
            .prompt_tokens_details
            .and_then(|details| details.cached_tokens);
        Some((usage.prompt_tokens, cached.unwrap_or(0)))
    }

    /// Mean time per output token after the first, in milliseconds; `None` below two tokens.
    pub(super) fn tpot_ms(&self) -> Option<f64> {
        let tokens = self.output_tokens();
        let decode = self.last_token?.saturating_sub(self.first_token?);
        (tokens >= 2).then(|| decode.as_secs_f64() * 1e3 / f64::from(tokens - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIRE: &str = concat!(
        ": a comment\n\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"text\":\"a\\n\",\"finish_reason\":null}]}\n\n",
        "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"text\":\"b\",\"finish_reason\":\"length\"}],\"usage\":null}\n\n",
        "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":640,\"completion_tokens\":3,\"prompt_tokens_details\":{\"cached_tokens\":128}}}\n\n",
        "data: [DONE]\n\n",
    );

    #[test]
    fn tokens_usage_and_end_are_read_however_the_bytes_are_cut() {
        for cut in 0..WIRE.len() {
            let mut stream = Stream::default();
            let (head, tail) = WIRE.as_bytes().split_at(cut);
            stream.feed(Duration::from_millis(100), head).unwrap();
            stream.feed(Duration::from_millis(140), tail).unwrap();
            assert_eq!(
                (stream.output_tokens(), stream.prompt_tokens(), stream.done),
                (3, Some((640, 128)), true)
            );
            let first = WIRE.find("null}]}\n\n").unwrap() + 9;
            assert_eq!(
                stream.first_token.unwrap().as_millis(),
                if cut >= first { 100 } else { 140 }
            );
            assert!(stream.buffer.is_empty());
        }
    }

    #[test]
    fn time_per_token_is_over_the_tokens_after_the_first() {
        let mut stream = Stream::default();
        for (at, text) in [(10, "a"), (30, "b"), (50, "c"), (90, "")] {
            let event = format!("data: {{\"choices\":[{{\"text\":\"{text}\"}}]}}\n\n");
            stream
                .feed(Duration::from_millis(at), event.as_bytes())
                .unwrap();
        }
        assert_eq!(stream.output_tokens(), 3);
        assert_eq!(stream.tpot_ms(), Some(40.0));
        let mut single = Stream::default();
        single
            .feed(
                Duration::ZERO,
                b"data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
            )
            .unwrap();
        assert_eq!(single.tpot_ms(), None);
    }

    #[test]
    fn what_is_no_completion_is_an_error() {
        let mut stream = Stream::default();
        assert!(matches!(
            stream.feed(Duration::ZERO, b"data: <html>\n\n"),
            Err(StreamError::Malformed(_))
        ));
        let mut endless = Stream::default();
        assert_eq!(
            endless.feed(Duration::ZERO, &vec![b'x'; MAX_EVENT_BYTES + 1]),
            Err(StreamError::TooLong)
        );
    }
}
