//! Prompts made up for traces, which record only lengths and what was shared.

use super::Trace;
use super::TraceRequest;
use xxhash_rust::xxh64::xxh64;

/// Bytes of text per token: the estimate that llm-d's token producer and the simulated server share.
pub const BYTES_PER_TOKEN: usize = 4;

/// Digits of a token's text; 36³ different tokens.
const DIGITS: &[u8; 36] = b"abcdefghijklmnopqrstuvwxyz0123456789";

impl Trace {
    /// A text of exactly `input_tokens` tokens of [`BYTES_PER_TOKEN`] bytes, in which equal leading block ids are
    /// equal leading bytes. What the ids do not cover is the request's own.
    pub fn prompt_text(&self, request: &TraceRequest) -> String {
        let tokens = request.input_tokens as usize;
        let block_tokens = self.block_tokens.max(1) as usize;
        let mut text = String::with_capacity(tokens * BYTES_PER_TOKEN);
        for begin in (0..tokens).step_by(block_tokens) {
            let content = match request.blocks.get(begin / block_tokens) {
                Some(&id) => Content::Shared(id),
                None => Content::Private(request.row, begin as u64),
            };
            for position in 0..block_tokens.min(tokens - begin) {
                content.push_token(position as u64, &mut text);
            }
        }
        text
    }
}

/// What a block's text is made from.
#[derive(Clone, Copy)]
enum Content {
    /// The block's id.
    Shared(u64),
    /// The request's row and the token at which the block begins.
    Private(u64, u64),
}

impl Content {
    fn push_token(self, position: u64, text: &mut String) {
        let (kind, a, b) = match self {
            Self::Shared(id) => (0, id, 0),
            Self::Private(row, begin) => (1, row, begin),
        };
        let mut key = [0; 24];
        key[..8].copy_from_slice(&a.to_le_bytes());
        key[8..16].copy_from_slice(&b.to_le_bytes());
        key[16..].copy_from_slice(&position.to_le_bytes());
        let mut hash = xxh64(&key, kind);
        for _ in 0..BYTES_PER_TOKEN - 1 {
            text.push(char::from(DIGITS[(hash % 36) as usize]));
            hash /= 36;
        }
        text.push(' ');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn texts(rows: &[(u32, &[u64])]) -> Vec<String> {
        let requests = rows
            .iter()
            .zip(0..)
            .map(|(&(input_tokens, blocks), row)| TraceRequest {
                row,
                arrival: Duration::ZERO,
                input_tokens,
                output_tokens: 1,
                blocks: blocks.to_vec(),
            })
            .collect();
        let trace = Trace {
            name: "test".into(),
            block_tokens: 64,
            requests,
        };
        trace
            .requests
            .iter()
            .map(|r| trace.prompt_text(r))
            .collect()
    }

    #[test]
    fn text_has_the_length_of_its_tokens() {
        for (text, tokens) in texts(&[(1, &[]), (64, &[7]), (100, &[7, 8])])
            .iter()
            .zip([1, 64, 100])
        {
            assert_eq!(text.len(), tokens * BYTES_PER_TOKEN);
        }
    }

    #[test]
    fn equal_leading_ids_are_equal_leading_bytes_and_nothing_more() {
        let texts = texts(&[(200, &[1, 2, 3, 4]), (150, &[1, 2, 9])]);
        let shared = texts[0]
            .bytes()
            .zip(texts[1].bytes())
            .take_while(|(a, b)| a == b)
            .count();
        // Two blocks; by chance the first few characters of the third may agree.
        assert!((512..520).contains(&shared), "{shared}");
    }

    #[test]
    fn requests_without_ids_share_nothing() {
        let texts = texts(&[(64, &[]), (64, &[])]);
        assert_ne!(texts[0][..16], texts[1][..16]);
    }
}
