//! From a prompt to what the engine needs: a length in tokens and the ids of what it shares.

use crate::error::ApiError;
use crate::fields::wrong;
use serde::Deserialize;
use simulator_core::Prefix;
use simulator_core::trace::BYTES_PER_TOKEN;
use xxhash_rust::xxh64::xxh64;

/// A prompt as a string of four-byte tokens.
///
/// There is no tokeniser: four bytes of text are a token, the last one possibly shorter, which is also the estimate
/// of llm-d's token producer. Token ids are kept as the four bytes of each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prompt(Vec<u8>);

impl Prompt {
    /// The `prompt` of a completion: text, token ids, or an array with one of these in it.
    pub(crate) fn of_completion(raw: &str) -> Result<Self, ApiError> {
        const EXPECTED: &str = "a text, an array of token ids, or an array that holds one of these";
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum One {
            Text(String),
            Tokens(Vec<u32>),
        }
        let refuse = || wrong("prompt", raw, EXPECTED);
        // Tried apart rather than as one untagged value, which would buffer every token id.
        let prompt = if raw.starts_with('"') {
            One::Text(serde_json::from_str(raw).map_err(|_| refuse())?)
        } else if let Ok(tokens) = serde_json::from_str(raw) {
            One::Tokens(tokens)
        } else {
            let [one]: [One; 1] = serde_json::from_str(raw).map_err(|_| refuse())?;
            one
        };
        let bytes = match prompt {
            One::Text(text) => text.into_bytes(),
            One::Tokens(tokens) => tokens.into_iter().flat_map(u32::to_le_bytes).collect(),
        };
        if bytes.is_empty() {
            return Err(wrong("prompt", raw, "at least one token long"));
        }
        Ok(Self(bytes))
    }

    /// The `messages` of a chat as one text, in which a longer chat begins with the shorter one.
    pub(crate) fn of_chat(raw: &str) -> Result<Self, ApiError> {
        const EXPECTED: &str =
            "an array of messages with a role and a content that is a text or an array of parts";
        let messages: Vec<Message> =
            serde_json::from_str(raw).map_err(|_| wrong("messages", raw, EXPECTED))?;
        if messages.is_empty() {
            return Err(wrong("messages", raw, "at least one message"));
        }
        let mut text = String::new();
        for message in &messages {
            text.extend(["<|", &message.role, "|>"]);
            match &message.content {
                Some(Content::Text(content)) => text.push_str(content),
                Some(Content::Parts(parts)) => {
                    text.extend(parts.iter().filter_map(|part| part.text.as_deref()))
                }
                None => {}
            }
        }
        text.push_str("<|assistant|>");
        Ok(Self(text.into_bytes()))
    }

    /// Length in tokens; saturates beyond any context.
    pub(crate) fn tokens(&self) -> u32 {
        u32::try_from(self.0.len().div_ceil(BYTES_PER_TOKEN)).unwrap_or(u32::MAX)
    }

    /// A number that equal prompts share.
    pub(crate) fn fingerprint(&self, seed: u64) -> u64 {
        xxh64(&self.0, seed)
    }

    /// One chained id per full block: equal ids are equal prompts up to the end of the block.
    pub(crate) fn prefix(&self, block_tokens: u32) -> Prefix {
        let mut chain = 0;
        let ids = self
            .0
            .chunks_exact(block_tokens.max(1) as usize * BYTES_PER_TOKEN)
            .map(|block| {
                chain = xxh64(block, chain);
                chain
            })
            .collect();
        Prefix {
            ids,
            tokens_per_id: block_tokens,
        }
    }
}

#[derive(Deserialize)]
struct Message {
    role: String,
    content: Option<Content>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

/// A part of a message; parts without text (images) count for nothing here.
#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn completion(raw: &str) -> Prompt {
        Prompt::of_completion(raw).unwrap()
    }

    #[test]
    fn a_token_is_four_bytes_of_text_or_one_id() {
        assert_eq!(completion(r#""abcdefg""#).tokens(), 2);
        assert_eq!(completion(r#"["abcdefgh"]"#).tokens(), 2);
        assert_eq!(completion("[1, 2, 3]").tokens(), 3);
        assert_eq!(completion("[[1, 2, 3, 4]]").tokens(), 4);
        // "abcd" read as a little-endian number.
        assert_eq!(completion(r#""abcd""#), completion("[1684234849]"));
    }

    #[test]
    fn other_prompts_are_refused_by_name() {
        for raw in [
            r#""""#,
            "[]",
            "[[]]",
            "7",
            r#"["a", "b"]"#,
            "[[1], [2]]",
            "[1, -2]",
            "{}",
        ] {
            let error = format!("{:?}", Prompt::of_completion(raw).unwrap_err());
            assert!(error.contains("prompt is"), "{raw}: {error}");
        }
        for raw in [
            "[]",
            r#""hello""#,
            r#"[{"content": "no role"}]"#,
            r#"[{"role": "user", "content": 7}]"#,
        ] {
            let error = format!("{:?}", Prompt::of_chat(raw).unwrap_err());
            assert!(error.contains("messages is"), "{raw}: {error}");
        }
    }

    #[test]
    fn ids_are_those_of_the_shared_blocks() {
        let ids = |length: usize, last: u32| {
            let mut tokens = vec![7u32; length];
            tokens[length - 1] = last;
            completion(&format!("{tokens:?}")).prefix(16).ids
        };
        let (a, b) = (ids(40, 1), ids(48, 2));
        assert_eq!((a.len(), b.len()), (2, 3));
        assert_eq!(a[..], b[..2]);
        assert_ne!(ids(32, 1)[1], ids(32, 2)[1]);
        assert_ne!(
            a[0], a[1],
            "the same tokens at another place are another block"
        );
    }

    #[test]
    fn a_longer_chat_begins_with_the_shorter() {
        let short = Prompt::of_chat(r#"[{"role":"user","content":"hello"}]"#).unwrap();
        let long = Prompt::of_chat(
            r#"[{"role":"user","content":[{"type":"text","text":"hello"}]},{"role":"assistant","content":"yes"},{"role":"tool","content":null}]"#,
        )
        .unwrap();
        assert!(long.0.starts_with(&short.0));
    }
}
