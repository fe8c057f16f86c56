use super::Engine;
use super::tests::{BLOCK, is_token, ms, profile};
use crate::event::{Event, EventKind, Prefix, Submission};
use crate::profile::{Profile, StepCost};
use proptest::prelude::*;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::time::Duration;

/// Checks blocks and queues of an engine against each other.
fn audit(engine: &Engine) {
    let mut holders: FxHashMap<u32, u32> = FxHashMap::default();
    for &slot in &engine.running {
        for &block in &engine.sequences[slot as usize].blocks {
            *holders.entry(block).or_default() += 1;
        }
    }
    engine.pool.audit(&holders);
    assert!(
        engine
            .waiting
            .iter()
            .all(|&slot| engine.sequences[slot as usize].blocks.is_empty())
    );
    assert_eq!(
        engine.slots.len(),
        engine.running.len() + engine.waiting.len()
    );
    assert_eq!(
        engine.slots.len() + engine.vacant.len(),
        engine.sequences.len()
    );
}

#[derive(Clone, Debug)]
enum Op {
    Submit {
        wait_ms: f64,
        prompt_tokens: u32,
        output_tokens: u32,
        family: u64,
    },
    Abort {
        wait_ms: f64,
        id: u64,
    },
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    let submit = (0.0..80.0, 1u32..400, 1u32..80, 0u64..4);
    let submit = submit.prop_map(
        |(wait_ms, prompt_tokens, output_tokens, family)| Op::Submit {
            wait_ms,
            prompt_tokens,
            output_tokens,
            family,
        },
    );
    let abort = (0.0..80.0, 0u64..40).prop_map(|(wait_ms, id)| Op::Abort { wait_ms, id });
    proptest::collection::vec(prop_oneof![5 => submit, 1 => abort], 1..40)
}

fn engines() -> impl Strategy<Value = (Profile, u64)> {
    let bounds = (
        prop_oneof![Just(None), (30u32..120).prop_map(Some)],
        1u32..10,
        16u32..300,
    );
    (bounds, any::<bool>(), 0.0..0.3, any::<u64>()).prop_map(
        |((kv_blocks, max_num_seqs, max_num_batched_tokens), async_scheduling, noise, seed)| {
            let step = StepCost {
                noise,
                ..profile().step
            };
            let limits = Profile {
                kv_blocks,
                max_num_seqs,
                max_num_batched_tokens,
                ..profile()
            };
            (
                Profile {
                    step,
                    async_scheduling,
                    ..limits
                },
                seed,
            )
        },
    )
}

/// Submits request `id`, whose prompt shares with its family as many groups as fit.
fn submit(
    engine: &mut Engine,
    now: Duration,
    id: u64,
    prompt_tokens: u32,
    output_tokens: u32,
    family: u64,
) {
    let ids: Vec<u64> = (0..u64::from(prompt_tokens / (2 * BLOCK)).min(3))
        .map(|group| family * 10 + group)
        .collect();
    let prefix = Prefix {
        ids: ids.into(),
        tokens_per_id: 2 * BLOCK,
    };
    engine
        .submit(
            now,
            Submission {
                id,
                prompt_tokens,
                prefix,
                output_tokens,
            },
        )
        .unwrap();
}

/// Plays `ops`, checking the engine after each step.
fn play(
    engine: &mut Engine,
    ops: &[Op],
    mut step: impl FnMut(&mut Engine, Duration, &mut Vec<Event>),
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut now = Duration::ZERO;
    for (id, op) in ops.iter().enumerate() {
        match *op {
            Op::Submit {
                wait_ms,
                prompt_tokens,
                output_tokens,
                family,
            } => {
                now += ms(wait_ms) + Duration::from_nanos(1);
                step(engine, now, &mut outcome.events);
                submit(engine, now, id as u64, prompt_tokens, output_tokens, family);
                outcome.expected.insert(id as u64, output_tokens);
            }
            Op::Abort { wait_ms, id } => {
                now += ms(wait_ms) + Duration::from_nanos(1);
                step(engine, now, &mut outcome.events);
                if engine.abort(now, id) {
                    outcome.expected.remove(&id);
                }
            }
        }
    }
    step(
        engine,
        now + Duration::from_secs(3_600),
        &mut outcome.events,
    );
    outcome
}

#[derive(Default)]
struct Outcome {
    events: Vec<Event>,
    /// Output tokens of the requests that were not aborted.
    expected: BTreeMap<u64, u32>,
}

/// One event at a time, auditing between.
fn carefully(engine: &mut Engine, now: Duration, events: &mut Vec<Event>) {
    while let Some(due) = engine.next_event().filter(|&due| due <= now) {
        engine.advance(due, events);
        audit(engine);
    }
}

/// Where a request is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Stage {
    #[default]
    Waiting,
    Running,
    Over,
}

/// Checks that each request's events come in an order that makes sense; returns the tokens of those that ended.
fn lives(events: &[Event]) -> BTreeMap<u64, u32> {
    let mut stages: BTreeMap<u64, (Stage, u32)> = BTreeMap::new();
    for event in events {
        let (stage, tokens) = stages.entry(event.id).or_default();
        match event.kind {
            EventKind::Scheduled { .. } => {
                assert_eq!(*stage, Stage::Waiting);
                *stage = Stage::Running;
            }
            EventKind::Preempted => {
                assert_eq!(*stage, Stage::Running);
                *stage = Stage::Waiting;
            }
            EventKind::FirstToken | EventKind::Token => {
                assert_ne!(*stage, Stage::Over);
                assert_eq!(*tokens == 0, event.kind == EventKind::FirstToken);
                *tokens += 1;
            }
            EventKind::Finished { .. } => *stage = Stage::Over,
        }
    }
    stages
        .into_iter()
        .filter(|(_, (stage, _))| *stage == Stage::Over)
        .map(|(id, (_, tokens))| (id, tokens))
        .collect()
}

proptest! {
    #[test]
    fn blocks_and_tokens_are_conserved((profile, seed) in engines(), ops in ops()) {
        let mut engine = Engine::new(profile, seed);
        let outcome = play(&mut engine, &ops, carefully);
        audit(&engine);
        prop_assert_eq!(engine.load().kv_blocks_used, 0);
        prop_assert_eq!(engine.next_event(), None);
        prop_assert!(outcome.events.is_sorted_by_key(|event| event.at));
        let ended = lives(&outcome.events);
        for (id, tokens) in &outcome.expected {
            prop_assert_eq!(ended.get(id), Some(tokens), "request {}", id);
        }
        let emitted = outcome.events.iter().filter(|event| is_token(event.kind)).count();
        prop_assert_eq!(engine.load().output_tokens, emitted as u64);
    }

    #[test]
    fn how_often_the_engine_is_advanced_changes_nothing(
        kv_blocks in 30u32..120,
        async_scheduling: bool,
        seed: u64,
        ops in ops(),
    ) {
        let step = StepCost { noise: 0.1, ..profile().step };
        let profile = Profile { kv_blocks: Some(kv_blocks), async_scheduling, step, ..profile() };
        let careful = play(&mut Engine::new(profile.clone(), seed), &ops, carefully);
        let at_once = play(&mut Engine::new(profile, seed), &ops, |engine, now, events| engine.advance(now, events));
        prop_assert_eq!(careful.events, at_once.events);
    }

    #[test]
    fn arrivals_known_ahead_change_nothing(seed: u64, ops in ops()) {
        let step = StepCost { noise: 0.1, ..profile().step };
        let profile = Profile { kv_blocks: Some(60), step, async_scheduling: true, ..profile() };
        let submissions: Vec<Op> = ops.into_iter().filter(|op| matches!(op, Op::Submit { .. })).collect();
        let in_time = play(&mut Engine::new(profile.clone(), seed), &submissions, carefully);
        let ahead = play(&mut Engine::new(profile, seed), &submissions, |engine, now, events| {
            if now > Duration::from_secs(3_600) {
                engine.advance(now, events);
            }
        });
        prop_assert_eq!(in_time.events, ahead.events);
    }
}
