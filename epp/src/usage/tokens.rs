//! The `usage` object of OpenAI's answers.

use crate::api::json::{JsonError, Kind, Reader};

/// Token counts as the server told them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Prompt tokens.
    pub prompt: Option<u32>,
    /// Of those, served from the prefix cache.
    pub cached: Option<u32>,
    /// Output tokens.
    pub output: Option<u32>,
}

impl Tokens {
    /// Reads a `usage` object; members of other kinds are passed over.
    ///
    /// # Errors
    /// When the value is no well-formed object.
    pub fn read(reader: &mut Reader<'_>) -> Result<Self, JsonError> {
        let mut tokens = Self::default();
        reader.object(|reader, key| {
            match key.raw {
                b"prompt_tokens" | b"input_tokens" => tokens.prompt = count(reader)?,
                b"completion_tokens" | b"output_tokens" => tokens.output = count(reader)?,
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
        Ok(tokens)
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
                output: Some(8)
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
}
