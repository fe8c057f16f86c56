//! Inputs made and tried until one breaks the target or somebody says enough.

use std::any::Any;
use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::mutate::{Random, mutate};
use crate::target::{Shape, Target};

/// Inputs remembered at most; from then on new ones replace others at random.
const MOST_INPUTS: usize = 4_096;

/// An input that broke the target, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The input.
    pub input: Vec<u8>,
    /// What the target said when it broke.
    pub says: String,
}

/// One target under one seed.
#[derive(Debug)]
pub struct Campaign {
    target: &'static Target,
    random: Random,
    inputs: Vec<Vec<u8>>,
    /// Behaviours seen.
    shapes: BTreeSet<Shape>,
    tried: u64,
    input: Vec<u8>,
}

impl Campaign {
    /// A campaign that starts from `corpus`.
    pub fn new(target: &'static Target, corpus: Vec<Vec<u8>>, seed: u64) -> Self {
        Self {
            target,
            random: Random::new(seed),
            inputs: corpus,
            shapes: BTreeSet::new(),
            tried: 0,
            input: Vec::new(),
        }
    }

    /// Inputs tried so far.
    pub fn tried(&self) -> u64 {
        self.tried
    }

    /// Ways to behave that the target has shown.
    pub fn behaviours(&self) -> usize {
        self.shapes.len()
    }

    /// The next input: first those of the corpus as they are, then changed ones.
    pub fn next_input(&mut self) -> &[u8] {
        let number = self.tried as usize;
        self.tried += 1;
        self.input.clear();
        if let Some(whole) = self
            .inputs
            .get(number)
            .filter(|_| self.shapes.len() <= number)
        {
            self.input.extend_from_slice(whole);
            return &self.input;
        }
        let (base, other) = (
            self.random.below(self.inputs.len()),
            self.random.below(self.inputs.len()),
        );
        if let Some(base) = self.inputs.get(base) {
            self.input.extend_from_slice(base);
        }
        let other = self.inputs.get(other).map_or(&[][..], Vec::as_slice);
        mutate(&mut self.input, other, self.target.words, &mut self.random);
        &self.input
    }

    /// Tries the input that was made last; whoever behaves in a new way is remembered.
    pub fn try_input(&mut self) -> Option<Finding> {
        match attempt(self.target, &self.input) {
            Ok(shape) => {
                if self.shapes.insert(shape) {
                    self.remember();
                }
                None
            }
            Err(says) => Some(Finding {
                input: self.input.clone(),
                says,
            }),
        }
    }

    fn remember(&mut self) {
        let input = self.input.clone();
        if self.inputs.len() < MOST_INPUTS {
            self.inputs.push(input);
        } else {
            let at = self.random.below(MOST_INPUTS);
            self.inputs[at] = input;
        }
    }
}

/// Runs the target on one input.
///
/// # Errors
/// What it said when it broke.
pub fn attempt(target: &Target, input: &[u8]) -> Result<Shape, String> {
    catch_unwind(AssertUnwindSafe(|| (target.run)(input))).map_err(|panic| text(&*panic))
}

/// A shorter input that still breaks the target: pieces are cut out, ever smaller ones, as long as that works.
pub fn shortened(target: &Target, finding: &Finding) -> Finding {
    let mut best = finding.clone();
    let mut piece = best.input.len() / 2;
    while piece > 0 {
        let mut at = 0;
        while at < best.input.len() {
            let mut shorter = best.input.clone();
            shorter.drain(at..(at + piece).min(best.input.len()));
            match attempt(target, &shorter) {
                Err(says) => {
                    best = Finding {
                        input: shorter,
                        says,
                    };
                }
                Ok(_) => at += piece,
            }
        }
        piece /= 2;
    }
    best
}

fn text(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "a panic without words".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Breaks on any input with a `{` and, after it, a `!`.
    static FRAGILE: Target = Target {
        name: "fragile",
        words: &[b"!"],
        run: |input| {
            let brace = input.iter().position(|byte| *byte == b'{');
            let after = brace.map_or(&[][..], |at| &input[at..]);
            assert!(!after.contains(&b'!'), "found");
            Shape::default().with(brace.is_some())
        },
    };

    fn first_finding(seed: u64) -> (u64, Finding) {
        let mut campaign = Campaign::new(&FRAGILE, vec![b"a{b".to_vec()], seed);
        loop {
            campaign.next_input();
            if let Some(finding) = campaign.try_input() {
                return (campaign.tried(), finding);
            }
            assert!(campaign.tried() < 100_000, "never found");
        }
    }

    #[test]
    fn what_is_fragile_breaks_the_same_way_under_the_same_seed() {
        let (tried, finding) = first_finding(5);
        assert_eq!((tried, finding.clone()), first_finding(5));
        assert_eq!(finding.says, "found");
        assert_eq!(shortened(&FRAGILE, &finding).input, b"{!");
    }

    #[test]
    fn the_corpus_comes_first_and_new_behaviour_is_remembered() {
        let mut campaign = Campaign::new(&FRAGILE, vec![b"x".to_vec(), b"{".to_vec()], 1);
        assert_eq!(campaign.next_input(), b"x");
        assert_eq!(campaign.try_input(), None);
        assert_eq!(campaign.next_input(), b"{");
        assert_eq!(campaign.try_input(), None);
        assert_eq!(campaign.behaviours(), 2);
    }
}
