//! How inputs are changed: bytes, pieces of other inputs, and words of the language that the target reads.

use std::ops::Range;

/// Longest input that is made, bytes. Longer ones find nothing more and cost time.
pub const LONGEST: usize = 1 << 14;

/// A stream of random numbers: SplitMix64 (Steele, Lea and Flood 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The stream of that seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 when that is 0.
    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 {
            return 0;
        }
        (self.number() % bound as u64) as usize
    }

    /// A part of `length` things; perhaps an empty one.
    fn part(&mut self, length: usize, longest: usize) -> Range<usize> {
        let begin = self.below(length + 1);
        let most = (length - begin).min(longest);
        begin..begin + self.below(most + 1)
    }
}

/// Bytes at which parsers turn.
const TELLING: &[u8] = b"\0\x01\x7f\x80\xff\n\r\t \"\\{}[]:,-+.eE0189/#'&*|>";

/// Changes `input` one to eight times. `other` is another input of the corpus, `words` what the target's language is
/// made of.
pub fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    for _ in 0..=random.below(8) {
        step(input, other, words, random);
    }
    input.truncate(LONGEST);
}

fn step(input: &mut Vec<u8>, other: &[u8], words: &[&[u8]], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(10) {
        0 => flip(input, random),
        1 => {
            if let Some(byte) = input.get_mut(at) {
                *byte = TELLING[random.below(TELLING.len())];
            }
        }
        2 => input.insert(at, random.number() as u8),
        3 => {
            let gone = random.part(input.len(), 64);
            input.drain(gone);
        }
        4 => {
            let again = random.part(input.len(), 64);
            repeat(input, again, at, 1 + random.below(4));
        }
        // Deep nesting and long runs come from repeating something short very often.
        5 => {
            let again = random.part(input.len(), 4);
            repeat(input, again, at, 1 + random.below(400));
        }
        6 | 7 => {
            if let Some(word) = words.get(random.below(words.len())) {
                input.splice(at..at, word.iter().copied());
            }
        }
        8 => {
            let piece = random.part(other.len(), 256);
            let gone = random.part(input.len(), 64);
            input.splice(gone, other[piece].iter().copied());
        }
        _ => input.truncate(at),
    }
}

fn flip(input: &mut [u8], random: &mut Random) {
    let at = random.below(input.len());
    if let Some(byte) = input.get_mut(at) {
        *byte ^= 1 << random.below(8);
    }
}

fn repeat(input: &mut Vec<u8>, again: Range<usize>, at: usize, times: usize) {
    if again.is_empty() {
        return;
    }
    let times = times.min(LONGEST.saturating_sub(input.len()) / again.len());
    let copies = input[again].repeat(times);
    input.splice(at..at, copies);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(seed: u64) -> Vec<Vec<u8>> {
        let mut random = Random::new(seed);
        let mut input = b"{\"a\": [1, 2]}".to_vec();
        let mut change = || {
            mutate(&mut input, b"other", &[b"null", b"\\u0000"], &mut random);
            input.clone()
        };
        (0..2_000).map(|_| change()).collect()
    }

    #[test]
    fn a_seed_is_a_stream_of_inputs() {
        assert_eq!(made(1), made(1));
        assert_ne!(made(1), made(2));
    }

    #[test]
    fn inputs_stay_short_and_differ() {
        let made = made(7);
        assert!(made.iter().all(|input| input.len() <= LONGEST));
        let distinct: std::collections::BTreeSet<_> = made.iter().collect();
        assert!(distinct.len() > 1_900, "{}", distinct.len());
        assert!(made.iter().any(|input| input.len() > 1_000), "never long");
    }

    #[test]
    fn nothing_can_be_made_of_nothing() {
        let mut random = Random::new(3);
        let mut input = Vec::new();
        for _ in 0..500 {
            mutate(&mut input, b"", &[], &mut random);
        }
    }
}
