//! Token counts as each API tells them: OpenAI's and Anthropic's `usage`, SGLang's `meta_info`.

use crate::api::json::{JsonError, Kind, Reader};

/// Token counts as the server told them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Prompt tokens.
    pub prompt: Option<u32>,
    /// Of the whole prompt, served from the prefix cache.
    pub cached: Option<u32>,
    /// Output tokens.
    pub output: Option<u32>,
    /// Prompt tokens read from or written to the cache that are not among `prompt`: Anthropic counts them apart.
    pub apart: Option<u32>,
}

impl Tokens {
    /// Reads a `usage` or `meta_info` object; members of other kinds are passed over.
    ///
    /// # Errors
    /// When the value is no well-formed object.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let mut tokens = Self::default();
        let mut whole_prompt = false;
        reader.object(|reader, key| {
            match key.raw {
                b"prompt_tokens" => {
                    tokens.prompt = count(reader)?;
                    whole_prompt = true;
                }
                b"input_tokens" => tokens.prompt = count(reader)?,
                b"completion_tokens" | b"output_tokens" => tokens.output = count(reader)?,
                b"cached_tokens" => tokens.cached = count(reader)?,
                b"cache_read_input_tokens" => {
                    tokens.cached = count(reader)?;
                    tokens.apart = sum(tokens.apart, tokens.cached);
                }
                b"cache_creation_input_tokens" => tokens.apart = sum(tokens.apart, count(reader)?),
                b"prompt_tokens_details" | b"input_tokens_details"
                    if reader.kind()? == Kind::Object =>
                {
                    reader.object(|reader, key| {
                        if key.raw == b"cached_tokens" {
                            tokens.cached = count(reader)?;
                            return Ok::<_, JsonError>(());
                        }
                        reader.skip()
                    })?;
                }
                _ => {
                    reader.skip()?;
                }
            }
            Ok::<_, JsonError>(())
        })?;
        if whole_prompt {
            // Told by OpenAI's name, the prompt is the whole one, whatever else is told beside it.
            tokens.apart = None;
        }
        Ok(tokens)
    }

    /// The same with what was told later: a count that was told again replaces the earlier one, and no other.
    #[must_use]
    pub fn merge(self, later: Self) -> Self {
        Self {
            prompt: later.prompt.or(self.prompt),
            cached: later.cached.or(self.cached),
            output: later.output.or(self.output),
            apart: later.apart.or(self.apart),
        }
    }

    /// Tokens of the whole prompt.
    pub fn whole_prompt(&self) -> Option<u32> {
        self.prompt
            .map(|prompt| prompt.saturating_add(self.apart.unwrap_or(0)))
    }
}

fn sum(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    match (one, other) {
        (Some(one), Some(other)) => Some(one.saturating_add(other)),
        (one, other) => one.or(other),
    }
}

fn count(reader: &mut Reader<'_>) -> Result<Option<u32>, JsonError> {
    if reader.kind()? != Kind::Number {
        return reader.skip().map(|()| None);
    }
    Ok(reader
        .unsigned()?
        .map(|count| u32::try_from(count).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_cached_details_are_read() {
        let text = br#"{"prompt_tokens":12,"total_tokens":20,"completion_tokens":8,"prompt_tokens_details":{"cached_tokens":4,"x":[1]}}"#;
        let tokens = Tokens::read(&mut Reader::new(text)).unwrap();
        assert_eq!(
            tokens,
            Tokens {
                prompt: Some(12),
                cached: Some(4),
                output: Some(8),
                apart: None,
            }
        );
    }

    #[test]
    fn null_and_foreign_members_are_unknown_not_zero() {
        let text =
            br#"{"prompt_tokens":null,"completion_tokens":"8","prompt_tokens_details":null}"#;
        assert_eq!(
            Tokens::read(&mut Reader::new(text)).unwrap(),
            Tokens::default()
        );
    }

    fn told(text: &str) -> Tokens {
        Tokens::read(&mut Reader::new(text.as_bytes())).unwrap()
    }

    #[test]
    fn pitfall_15_usage_in_two_parts_adds_up_to_one() {
        let start = told(
            r#"{"input_tokens":10,"cache_read_input_tokens":90,"cache_creation_input_tokens":5,"output_tokens":1}"#,
        );
        let delta = told(r#"{"output_tokens":42,"cache_read_input_tokens":null}"#);
        let tokens = Tokens::default().merge(start).merge(delta);
        assert_eq!(
            (tokens.whole_prompt(), tokens.cached, tokens.output),
            (Some(105), Some(90), Some(42))
        );
        // A server that tells the prompt again at the end does not take the cached part away with it.
        let again = tokens.merge(told(r#"{"input_tokens":10,"output_tokens":43}"#));
        assert_eq!((again.whole_prompt(), again.output), (Some(105), Some(43)));
    }

    #[test]
    fn the_whole_prompt_is_whole_under_openais_names() {
        let openai = told(r#"{"cache_read_input_tokens":90,"prompt_tokens":100}"#);
        assert_eq!(
            (openai.whole_prompt(), openai.cached),
            (Some(100), Some(90))
        );
        let responses = told(
            r#"{"input_tokens":100,"input_tokens_details":{"cached_tokens":90},"output_tokens":7}"#,
        );
        assert_eq!(
            (responses.whole_prompt(), responses.cached),
            (Some(100), Some(90))
        );
        let sglang = told(
            r#"{"id":"x","finish_reason":{"type":"stop"},"prompt_tokens":9,"completion_tokens":3,"cached_tokens":4}"#,
        );
        assert_eq!(
            (sglang.whole_prompt(), sglang.cached, sglang.output),
            (Some(9), Some(4), Some(3))
        );
    }
}
