//! After any sequence of stores, removals, clearings, gaps and restarts the index equals the engines' truth or says
//! that it does not know.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use kv_cache::events::{Batch, Event, Form, Removed, Stored, encode};
use kv_cache::feed::{Action, Feed, FeedSettings, Input};
use kv_cache::keys::KeyHasher;
use kv_cache::{Ingest, Key, Knowledge, Matches, Pod, Reader, Settings};
use proptest::prelude::*;

const OURS: u32 = 4;
/// Tokens of the longest prompt.
const LENGTH: u32 = 24;
const PROMPTS: u32 = 6;

/// Prompts 2n and 2n+1 begin alike.
fn tokens(prompt: u32) -> Vec<u32> {
    (0..LENGTH)
        .map(|at| {
            if at < LENGTH / 2 {
                1_000 * (prompt / 2) + at
            } else {
                1_000 * prompt + at + 500
            }
        })
        .collect()
}

fn keys(prompt: u32) -> Vec<Key> {
    let mut hasher = KeyHasher::new("m", OURS, usize::MAX);
    hasher.update(&tokens(prompt));
    hasher.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Medium {
    Gpu,
    Cpu,
}

/// An engine that calls its blocks by numbers of its own and knows what it holds.
struct Engine {
    size: u32,
    form: Form,
    /// Differs from life to life.
    seed: u64,
    /// Copies by medium and hash.
    held: BTreeMap<(Medium, u64), u32>,
    /// What each hash is: its prompt, place and variant.
    blocks: BTreeMap<u64, (u32, u32, u32)>,
    sequence: u64,
    log: BTreeMap<u64, Bytes>,
}

impl Engine {
    /// Twin prompts have one hash where they begin alike; `variant` is something only the engine tells apart.
    fn hash(&mut self, prompt: u32, place: u32, variant: u32) -> u64 {
        let alike = (place + 1) * self.size <= LENGTH / 2;
        let name = if alike { prompt / 2 * 2 } else { prompt };
        let hash = self.seed << 32 | u64::from(variant << 16 | name << 8 | place);
        self.blocks.insert(hash, (name, place, variant));
        hash
    }

    fn publish(&mut self, events: Vec<Event>) -> (u64, Bytes) {
        let batch = Batch {
            at: 1.5,
            events,
            ..Batch::default()
        };
        let sequence = self.sequence;
        self.sequence += 1;
        let payload = Bytes::from(encode(&batch, self.form));
        self.log.insert(sequence, payload.clone());
        if self.log.len() > 6 {
            self.log.pop_first();
        }
        (sequence, payload)
    }

    /// Takes in the first `blocks` blocks of a prompt: those behind the first that is missing.
    fn store(&mut self, prompt: u32, blocks: u32, variant: u32) -> Vec<Event> {
        let blocks = blocks.min(LENGTH / self.size);
        let hashes: Vec<u64> = (0..blocks)
            .map(|place| self.hash(prompt, place, variant))
            .collect();
        let cached = hashes
            .iter()
            .take_while(|hash| self.held.contains_key(&(Medium::Gpu, **hash)))
            .count();
        for hash in &hashes[cached..] {
            *self.held.entry((Medium::Gpu, *hash)).or_insert(0) += 1;
        }
        if cached == hashes.len() {
            return Vec::new();
        }
        let from = cached * self.size as usize;
        let to = hashes.len() * self.size as usize;
        vec![Event::Stored(Stored {
            block_hashes: hashes[cached..].to_vec(),
            parent_block_hash: cached.checked_sub(1).map(|parent| hashes[parent]),
            token_ids: tokens(prompt)[from..to].to_vec(),
            block_size: self.size,
            ..Stored::default()
        })]
    }

    fn nth(&self, medium: Medium, nth: usize) -> Option<u64> {
        let of: Vec<u64> = self
            .held
            .keys()
            .filter(|(held, _)| *held == medium)
            .map(|(_, hash)| *hash)
            .collect();
        (!of.is_empty()).then(|| of[nth % of.len()])
    }

    fn remove(&mut self, medium: Medium, nth: usize) -> Vec<Event> {
        let Some(hash) = self.nth(medium, nth) else {
            return Vec::new();
        };
        let copies = self.held.get_mut(&(medium, hash)).unwrap();
        *copies -= 1;
        if *copies == 0 {
            self.held.remove(&(medium, hash));
        }
        vec![Event::Removed(Removed {
            block_hashes: vec![hash],
            medium: (medium == Medium::Cpu).then(|| "CPU".to_owned()),
            ..Removed::default()
        })]
    }

    fn offload(&mut self, nth: usize) -> Vec<Event> {
        let Some(hash) = self.nth(Medium::Gpu, nth).filter(|_| self.size >= OURS) else {
            return Vec::new();
        };
        *self.held.entry((Medium::Cpu, hash)).or_insert(0) += 1;
        vec![Event::Stored(Stored {
            block_hashes: vec![hash],
            block_size: self.size,
            medium: Some("CPU".to_owned()),
            ..Stored::default()
        })]
    }

    /// Our blocks that it holds, and what they are worth.
    fn truth(&self) -> BTreeMap<Key, f32> {
        let mut covered: BTreeMap<(Medium, u32, u32, u32), BTreeSet<u32>> = BTreeMap::new();
        for (medium, hash) in self.held.keys() {
            let (prompt, place, variant) = self.blocks[hash];
            for token in place * self.size..(place + 1) * self.size {
                // What twin prompts have in common counts for both.
                for twin in [prompt, prompt ^ 1] {
                    if twin == prompt || token < LENGTH / 2 {
                        covered
                            .entry((*medium, twin, token / OURS, variant))
                            .or_default()
                            .insert(token);
                    }
                }
            }
        }
        let mut truth = BTreeMap::new();
        for ((medium, prompt, block, _), tokens) in covered {
            if tokens.len() as u32 == OURS {
                let worth: f32 = if medium == Medium::Gpu { 1.0 } else { 0.8 };
                let best = truth.entry(keys(prompt)[block as usize]).or_insert(worth);
                *best = best.max(worth);
            }
        }
        truth
    }
}

#[derive(Clone, Debug)]
enum Step {
    Store {
        prompt: u32,
        blocks: u32,
        variant: u32,
    },
    Remove {
        cpu: bool,
        nth: usize,
    },
    Offload {
        nth: usize,
    },
    Clear,
    Restart,
    /// Messages up to the next `Heard` are not delivered.
    Deaf,
    Heard,
    /// Replays are answered, or only ended.
    Answers(bool),
    Later,
    Broken,
}

fn step() -> impl Strategy<Value = (usize, Step)> {
    let kind = prop_oneof![
        12 => (0..PROMPTS, 1_u32..13, 0_u32..2)
            .prop_map(|(prompt, blocks, variant)| Step::Store { prompt, blocks, variant }),
        12 => (any::<bool>(), any::<usize>()).prop_map(|(cpu, nth)| Step::Remove { cpu, nth }),
        5 => any::<usize>().prop_map(|nth| Step::Offload { nth }),
        1 => Just(Step::Clear),
        1 => Just(Step::Restart),
        1 => Just(Step::Deaf),
        2 => Just(Step::Heard),
        1 => any::<bool>().prop_map(Step::Answers),
        2 => Just(Step::Later),
        1 => Just(Step::Broken),
    ];
    (0_usize..4, kind)
}

struct Source {
    engine: Engine,
    pod: Pod,
    feed: Feed,
    deaf: bool,
    answers: bool,
}

struct World {
    ingest: Ingest,
    reader: Reader,
    sources: Vec<Source>,
    now: Duration,
    most: usize,
}

impl World {
    fn new(entries: usize) -> Self {
        let mut ingest = Ingest::new(Settings {
            block_tokens: OURS,
            entries,
            pods: 4,
            ..Settings::default()
        })
        .unwrap();
        let cuts = [
            (4, Form::FULL),
            (8, Form::Map),
            (2, Form::FULL),
            (
                4,
                Form::Array {
                    stored: 6,
                    removed: 2,
                },
            ),
        ];
        let sources = cuts
            .into_iter()
            .zip(1..)
            .map(|((size, form), seed)| Source {
                engine: Engine {
                    size,
                    form,
                    seed,
                    held: BTreeMap::new(),
                    blocks: BTreeMap::new(),
                    sequence: 0,
                    log: BTreeMap::new(),
                },
                pod: ingest.add_pod().unwrap(),
                feed: Feed::new(FeedSettings::default()),
                deaf: false,
                answers: true,
            })
            .collect();
        Self {
            reader: ingest.reader(),
            ingest,
            sources,
            now: Duration::from_secs(100),
            most: entries,
        }
    }

    fn act(&mut self, source: usize, step: Step) {
        let engine = &mut self.sources[source].engine;
        let events = match step {
            Step::Store {
                prompt,
                blocks,
                variant,
            } => engine.store(prompt, blocks, variant),
            Step::Remove { cpu, nth } => {
                engine.remove(if cpu { Medium::Cpu } else { Medium::Gpu }, nth)
            }
            Step::Offload { nth } => engine.offload(nth),
            Step::Clear => {
                engine.held.clear();
                vec![Event::Cleared]
            }
            Step::Restart => {
                engine.held.clear();
                engine.log.clear();
                (engine.seed, engine.sequence) = (engine.seed + 10, 0);
                self.feed(source, Input::Disconnected);
                Vec::new()
            }
            Step::Deaf => {
                self.sources[source].deaf = true;
                Vec::new()
            }
            Step::Heard => {
                self.sources[source].deaf = false;
                Vec::new()
            }
            Step::Answers(answers) => {
                self.sources[source].answers = answers;
                Vec::new()
            }
            Step::Later => {
                self.now += Duration::from_secs(40);
                Vec::new()
            }
            Step::Broken => {
                self.feed(source, Input::Disconnected);
                Vec::new()
            }
        };
        if events.is_empty() {
            return;
        }
        let (sequence, payload) = self.sources[source].engine.publish(events);
        if !self.sources[source].deaf {
            self.feed(source, Input::Live { sequence, payload });
            self.check(source);
        }
    }

    fn feed(&mut self, source: usize, input: Input) {
        let mut actions = Vec::new();
        let Source {
            feed,
            pod,
            engine,
            answers,
            ..
        } = &mut self.sources[source];
        feed.handle(input, self.now, &mut actions);
        let mut replies = Vec::new();
        for action in actions {
            match action {
                Action::Restart { complete } => self.ingest.restart(*pod, complete),
                Action::Doubt(doubtful) => self.ingest.doubt(*pod, doubtful),
                Action::Apply(payload) => self.ingest.read(*pod, "m", &payload).unwrap(),
                Action::Ask { ask, from } => {
                    if *answers {
                        replies.extend(engine.log.range(from..).map(|(sequence, payload)| {
                            Input::Replayed {
                                ask,
                                sequence: *sequence,
                                payload: payload.clone(),
                            }
                        }));
                    }
                    replies.push(Input::ReplayOver { ask });
                }
            }
        }
        for reply in replies {
            self.feed(source, reply);
        }
    }

    /// What the index says of one endpoint, block by block.
    fn said(&self, pod: Pod) -> BTreeMap<Key, f32> {
        let mut matches = Matches::default();
        let mut said = BTreeMap::new();
        for key in (0..PROMPTS).flat_map(keys) {
            self.reader.matched(&[key], &mut matches);
            if matches.of(pod).blocks > 0 {
                said.insert(key, matches.of(pod).worth);
            }
        }
        said
    }

    fn check(&self, source: usize) {
        assert!(self.ingest.entries() <= self.most);
        let Source {
            engine, pod, deaf, ..
        } = &self.sources[source];
        if *deaf {
            return;
        }
        let (truth, said) = (engine.truth(), self.said(*pod));
        match self.reader.knowledge(*pod) {
            Knowledge::All => assert_eq!(said, truth),
            Knowledge::Some => {
                for (key, worth) in &said {
                    let real = truth.get(key).copied().unwrap_or(0.0);
                    assert!(*worth <= real, "{key:?}: {worth} of {real}");
                }
            }
            Knowledge::Doubtful => {}
            Knowledge::Nothing => assert!(said.is_empty()),
        }
        let mut matches = Matches::default();
        for prompt in 0..PROMPTS {
            let keys = keys(prompt);
            self.reader.matched(&keys, &mut matches);
            let run = keys.iter().take_while(|key| said.contains_key(key)).count();
            assert_eq!(matches.of(*pod).blocks as usize, run);
        }
    }
}

fn run(entries: usize, steps: Vec<(usize, Step)>) -> World {
    let mut world = World::new(entries);
    for (source, step) in steps {
        world.act(source, step);
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn equals_the_truth_or_says_that_it_does_not_know(steps in prop::collection::vec(step(), 0..160)) {
        let mut world = run(10_000, steps);
        // Once everything was cleared and told, everything is known again, and nothing is left.
        for source in 0..4 {
            world.act(source, Step::Heard);
            world.act(source, Step::Later);
            world.act(source, Step::Clear);
            prop_assert_eq!(world.reader.knowledge(world.sources[source].pod), Knowledge::All);
        }
        while world.ingest.tidy(1_000) {}
        prop_assert_eq!((world.ingest.entries(), world.ingest.blocks(), world.ingest.sets()), (0, 0, 0));
    }

    #[test]
    fn a_full_index_says_nothing_that_is_not_so(steps in prop::collection::vec(step(), 0..160)) {
        run(12, steps);
    }
}

#[test]
fn quiet_engines_are_known_wholly() {
    let mut world = World::new(10_000);
    for source in 0..4 {
        for prompt in 0..PROMPTS {
            world.act(
                source,
                Step::Store {
                    prompt,
                    blocks: 12,
                    variant: 0,
                },
            );
        }
        assert_eq!(
            world.reader.knowledge(world.sources[source].pod),
            Knowledge::All
        );
        assert_eq!(world.said(world.sources[source].pod).len(), 3 * 9);
    }
    let pod = world.sources[1].pod;
    world.ingest.remove_pod(pod);
    assert!(world.said(pod).is_empty());
    let again = world.ingest.add_pod().unwrap();
    assert_eq!(
        (again, world.reader.knowledge(again)),
        (pod, Knowledge::Nothing)
    );
    assert!(world.said(pod).is_empty());
}
