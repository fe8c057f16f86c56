//! What a server answers: how many tokens, and which.

use simulator_core::trace::BYTES_PER_TOKEN;
use simulator_core::workload::{Distribution, WorkloadSpec};
use xxhash_rust::xxh64::xxh64;

/// Why an answer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Finish {
    /// The model had said all.
    Stop,
    /// The limit was reached.
    Length,
}

impl Finish {
    /// The name on the wire and in metrics.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
        }
    }
}

/// Draws answer lengths as a chat model's: those of the published Mooncake conversation trace.
#[derive(Clone, Debug)]
pub(crate) struct Lengths(Distribution);

impl Lengths {
    pub(crate) fn new() -> Self {
        Self(WorkloadSpec::mooncake_conversation().output)
    }

    /// Tokens of the answer to the request with this fingerprint, at most `limit`, exactly `limit` if the end of the
    /// answer is ignored.
    pub(crate) fn answer(&self, fingerprint: u64, limit: u32, ignore_eos: bool) -> (u32, Finish) {
        // The upper 53 bits as a share of 1.
        let share = (fingerprint >> 11) as f64 / (1u64 << 53) as f64;
        let natural = self.0.quantile(share).round().max(1.0) as u32;
        if ignore_eos || natural >= limit {
            (limit, Finish::Length)
        } else {
            (natural, Finish::Stop)
        }
    }
}

/// Words an answer is made of, each with its leading space one token.
const WORDS: [&str; 64] = [
    " the", " and", " for", " are", " but", " not", " you", " all", " any", " can", " her", " was",
    " one", " our", " out", " day", " get", " has", " him", " his", " how", " man", " new", " now",
    " old", " see", " two", " way", " who", " boy", " did", " its", " let", " put", " say", " she",
    " too", " use", " add", " age", " ago", " air", " art", " ask", " bad", " bag", " bed", " big",
    " bit", " box", " car", " cup", " cut", " dog", " dry", " ear", " eat", " end", " eye", " far",
    " few", " fly", " fun", " map",
];

/// The text of token `index` of the answer to the request with this fingerprint: [`BYTES_PER_TOKEN`] bytes that need
/// no escaping in JSON.
pub(crate) fn token(fingerprint: u64, index: u32) -> &'static str {
    const { assert!(WORDS[0].len() == BYTES_PER_TOKEN) };
    WORDS[(xxh64(&index.to_le_bytes(), fingerprint) % WORDS.len() as u64) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignoring_the_end_gives_exactly_the_limit() {
        let lengths = Lengths::new();
        for fingerprint in [0, 1 << 40, u64::MAX] {
            assert_eq!(lengths.answer(fingerprint, 77, true), (77, Finish::Length));
        }
    }

    #[test]
    fn otherwise_lengths_are_spread_and_end_at_the_limit() {
        let lengths = Lengths::new();
        let drawn: Vec<_> = (0..1000u64)
            .map(|i| lengths.answer(xxh64(&i.to_le_bytes(), 0), 400, false))
            .collect();
        assert!(drawn.iter().all(|(tokens, _)| (1..=400).contains(tokens)));
        let stopped = drawn
            .iter()
            .filter(|(_, finish)| *finish == Finish::Stop)
            .count();
        assert!(
            (450..750).contains(&stopped),
            "{stopped} of 1000 end below 400, near the trace's 60 %"
        );
        assert!(
            drawn
                .iter()
                .all(|&(tokens, finish)| (finish == Finish::Length) == (tokens == 400))
        );
    }

    #[test]
    fn every_word_is_one_token_and_plain_json() {
        for word in WORDS {
            assert_eq!(word.len(), BYTES_PER_TOKEN);
            assert_eq!(serde_json::to_string(word).unwrap(), format!("\"{word}\""));
        }
    }

    #[test]
    fn texts_follow_the_fingerprint() {
        let text = |fingerprint| {
            (0..50)
                .map(|index| token(fingerprint, index))
                .collect::<String>()
        };
        assert_eq!(text(5), text(5));
        assert_ne!(text(5), text(6));
    }
}
