use super::{Engine, SubmitError};
use crate::event::{Event, EventKind, Prefix, Submission};
use crate::profile::{Profile, StepCost};
use std::time::Duration;

pub(super) const BLOCK: u32 = 16;

/// 10 ms per step, 0.1 ms per prompt token, 1 ms per sequence, 0.01 ms per KV token.
pub(super) fn profile() -> Profile {
    Profile {
        name: "test".into(),
        model: "test".into(),
        accelerator: "test".into(),
        step: StepCost {
            base_ms: 10.0,
            prefill_ms_per_token: 0.1,
            sequence_ms: 1.0,
            kv_ms_per_token: 0.01,
            noise: 0.0,
        },
        block_tokens: BLOCK,
        kv_blocks: Some(1_000),
        max_num_seqs: 8,
        max_num_batched_tokens: 256,
        max_model_len: 4_096,
        async_scheduling: false,
        startup: 0.0,
        notes: Vec::new(),
    }
}

fn request(id: u64, prompt_tokens: u32, output_tokens: u32) -> Submission {
    Submission {
        id,
        prompt_tokens,
        prefix: Prefix::default(),
        output_tokens,
    }
}

fn with_prefix(id: u64, prompt_tokens: u32, ids: &[u64]) -> Submission {
    let prefix = Prefix {
        ids: ids.into(),
        tokens_per_id: 2 * BLOCK,
    };
    Submission {
        prefix,
        ..request(id, prompt_tokens, 1)
    }
}

pub(super) fn ms(ms: f64) -> Duration {
    Duration::from_secs_f64(ms / 1e3)
}

fn run(engine: &mut Engine) -> Vec<Event> {
    let mut events = Vec::new();
    while let Some(due) = engine.next_event() {
        engine.advance(due, &mut events);
    }
    events
}

/// Times of the events of one kind of one request, ms, rounded to 1 µs.
fn times(events: &[Event], id: u64, kind: impl Fn(EventKind) -> bool) -> Vec<f64> {
    let matching = events
        .iter()
        .filter(|event| event.id == id && kind(event.kind));
    matching
        .map(|event| (event.at.as_secs_f64() * 1e6).round() / 1e3)
        .collect()
}

pub(super) fn is_token(kind: EventKind) -> bool {
    matches!(kind, EventKind::FirstToken | EventKind::Token)
}

fn cached(events: &[Event], id: u64) -> Vec<u32> {
    let scheduled = events.iter().filter(|event| event.id == id);
    scheduled
        .filter_map(|event| match event.kind {
            EventKind::Scheduled { cached_tokens } => Some(cached_tokens),
            _ => None,
        })
        .collect()
}

#[test]
fn a_step_takes_what_the_formula_says() {
    let mut engine = Engine::new(profile(), 0);
    engine.submit(ms(5.0), request(1, 100, 3)).unwrap();
    let events = run(&mut engine);
    // Prefill 10 + 10 + 1 + 1, then decodes of 10 + 1 + 1.01 and 10 + 1 + 1.02.
    assert_eq!(times(&events, 1, is_token), [27.0, 39.01, 51.03]);
    assert_eq!(
        times(&events, 1, |kind| matches!(
            kind,
            EventKind::Scheduled { .. }
        )),
        [5.0]
    );
    assert_eq!(engine.load().kv_blocks_used, 0);
}

#[test]
fn a_long_prompt_shares_each_step_with_decodes() {
    let mut engine = Engine::new(profile(), 0);
    engine.submit(ms(0.0), request(1, 16, 20)).unwrap();
    engine.submit(ms(1.0), request(2, 600, 1)).unwrap();
    let events = run(&mut engine);
    let decodes = times(&events, 1, is_token);
    // 255 + 255 + 90 prompt tokens beside one decode each.
    assert_eq!(times(&events, 2, is_token), [decodes[3]]);
    assert!(
        decodes[1] - decodes[0] > 35.0,
        "a step with 255 prompt tokens is slow for everybody"
    );
    assert!(decodes[5] - decodes[4] < 12.0);
    assert_eq!(engine.load().prefill_tokens, 616);
}

#[test]
fn asynchronous_scheduling_admits_one_step_later() {
    let first_token = |async_scheduling| {
        let mut engine = Engine::new(
            Profile {
                async_scheduling,
                ..profile()
            },
            0,
        );
        engine.submit(ms(0.0), request(1, 16, 50)).unwrap();
        engine.submit(ms(100.0), request(2, 16, 1)).unwrap();
        let events = run(&mut engine);
        let decodes = times(&events, 1, is_token);
        let scheduled = times(&events, 2, |kind| {
            matches!(kind, EventKind::Scheduled { .. })
        })[0];
        let steps = decodes
            .iter()
            .filter(|&&at| at > scheduled && at <= times(&events, 2, is_token)[0])
            .count();
        (steps, times(&events, 1, is_token).len())
    };
    assert_eq!(first_token(false), (1, 50));
    assert_eq!(
        first_token(true),
        (2, 50),
        "the step in the queue has to run first"
    );
}

#[test]
fn an_equal_prefix_is_computed_once() {
    let mut engine = Engine::new(profile(), 0);
    engine
        .submit(ms(0.0), with_prefix(1, 100, &[1, 2]))
        .unwrap();
    run(&mut engine);
    let later = ms(1_000.0);
    engine.submit(later, with_prefix(2, 100, &[1, 2])).unwrap();
    engine.submit(later, with_prefix(3, 100, &[1, 3])).unwrap();
    engine.submit(later, with_prefix(4, 100, &[5, 2])).unwrap();
    engine.submit(later, with_prefix(5, 64, &[1, 2])).unwrap();
    let events = run(&mut engine);
    assert_eq!(cached(&events, 2), [64]);
    assert_eq!(cached(&events, 3), [32], "only the leading equal ids count");
    assert_eq!(cached(&events, 4), [0], "an id is the end of a chain");
    assert_eq!(
        cached(&events, 5),
        [48],
        "the last token is always computed, and with it its block"
    );
    let load = engine.load();
    assert_eq!(
        (load.prefix_query_tokens, load.prefix_hit_tokens),
        (464, 144)
    );
}

#[test]
fn requests_that_run_together_share_their_blocks() {
    let mut engine = Engine::new(profile(), 0);
    engine
        .submit(
            ms(0.0),
            Submission {
                output_tokens: 50,
                ..with_prefix(1, 65, &[1, 2])
            },
        )
        .unwrap();
    engine
        .submit(
            ms(0.0),
            Submission {
                output_tokens: 50,
                ..with_prefix(2, 65, &[1, 2])
            },
        )
        .unwrap();
    engine.advance(ms(50.0), &mut Vec::new());
    assert_eq!(engine.load().running, 2);
    assert_eq!(engine.load().kv_blocks_used, 4 + 1 + 1);
}

#[test]
fn a_cached_prefix_gives_way_to_requests_the_oldest_first() {
    let hits_after_pressure = |ids: &[u64]| {
        let mut engine = Engine::new(
            Profile {
                kv_blocks: Some(10),
                ..profile()
            },
            0,
        );
        engine.submit(ms(0.0), with_prefix(1, 64, &[1, 2])).unwrap();
        engine
            .submit(ms(100.0), with_prefix(2, 64, &[3, 4]))
            .unwrap();
        run(&mut engine);
        // 2 blocks were never used; 3 more come from the end of the prefix used longest ago.
        engine.submit(ms(1_000.0), request(3, 80, 1)).unwrap();
        run(&mut engine);
        engine.submit(ms(2_000.0), with_prefix(4, 65, ids)).unwrap();
        cached(&run(&mut engine), 4)
    };
    assert_eq!(hits_after_pressure(&[1, 2]), [16]);
    assert_eq!(hits_after_pressure(&[3, 4]), [64]);
}

#[test]
fn a_request_is_admitted_only_when_all_of_its_prompt_fits() {
    let mut engine = Engine::new(
        Profile {
            kv_blocks: Some(30),
            ..profile()
        },
        0,
    );
    engine.submit(ms(0.0), request(1, 160, 5)).unwrap();
    engine.submit(ms(0.0), request(2, 336, 1)).unwrap();
    engine.submit(ms(0.0), request(3, 16, 1)).unwrap();
    let events = run(&mut engine);
    let end = times(&events, 1, |kind| {
        matches!(kind, EventKind::Finished { .. })
    });
    let scheduled = |id| {
        times(&events, id, |kind| {
            matches!(kind, EventKind::Scheduled { .. })
        })
    };
    assert_eq!(scheduled(2), end, "10 of 30 blocks are held, 21 are needed");
    assert!(scheduled(3) > scheduled(2), "nobody overtakes");
}

#[test]
fn when_kv_runs_out_the_last_admitted_is_preempted_and_resumes_where_it_was() {
    let mut engine = Engine::new(
        Profile {
            kv_blocks: Some(20),
            ..profile()
        },
        0,
    );
    engine.submit(ms(0.0), request(1, 100, 120)).unwrap();
    engine.submit(ms(0.0), request(2, 100, 120)).unwrap();
    let events = run(&mut engine);
    let preempted = times(&events, 2, |kind| kind == EventKind::Preempted);
    assert_eq!(preempted.len(), 1);
    assert!(times(&events, 1, |kind| kind == EventKind::Preempted).is_empty());
    assert_eq!(times(&events, 1, is_token).len(), 120);
    assert_eq!(
        times(&events, 2, is_token).len(),
        120,
        "no token is emitted twice"
    );
    let pause = times(&events, 2, is_token)
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .fold(0.0, f64::max);
    let end = times(&events, 1, |kind| {
        matches!(kind, EventKind::Finished { .. })
    });
    assert!(
        pause > end[0] - preempted[0],
        "nothing is emitted while the other runs"
    );
    assert_eq!(engine.load().preemptions, 1);
    assert_eq!(cached(&events, 2).len(), 2);
}

#[test]
fn unbounded_kv_never_preempts() {
    let mut engine = Engine::new(
        Profile {
            kv_blocks: None,
            ..profile()
        },
        0,
    );
    for id in 0..8 {
        engine.submit(ms(0.0), request(id, 2_000, 500)).unwrap();
    }
    assert!(
        run(&mut engine)
            .iter()
            .all(|event| event.kind != EventKind::Preempted)
    );
    assert_eq!(engine.load().kv_usage, 0.0);
}

#[test]
fn what_can_never_run_is_refused_with_the_reason() {
    let mut engine = Engine::new(
        Profile {
            kv_blocks: Some(100),
            ..profile()
        },
        0,
    );
    let refused = |engine: &mut Engine, submission| {
        engine.submit(ms(0.0), submission).unwrap_err().to_string()
    };
    assert!(refused(&mut engine, request(1, 4_000, 97)).contains("max_model_len 4096"));
    assert!(
        refused(&mut engine, request(1, 1_600, 2)).contains("need 101 KV blocks, kv_blocks is 100")
    );
    assert!(refused(&mut engine, request(1, 0, 1)).contains("prompt_tokens is 0"));
    assert!(refused(&mut engine, request(1, 1, 0)).contains("output_tokens is 0"));
    assert!(refused(&mut engine, with_prefix(1, 63, &[1, 2])).contains("cover 64 tokens"));
    let odd = Prefix {
        ids: [1].into(),
        tokens_per_id: 24,
    };
    assert!(
        refused(
            &mut engine,
            Submission {
                prefix: odd,
                ..request(1, 100, 1)
            }
        )
        .contains("tokens_per_id 24")
    );
    engine.submit(ms(0.0), request(1, 1_600, 1)).unwrap();
    assert_eq!(
        engine.submit(ms(0.0), request(1, 1, 1)),
        Err(SubmitError::DuplicateId { id: 1 })
    );
    assert_eq!(engine.load().waiting, 1);
}

#[test]
fn an_abort_frees_everything_at_once() {
    let mut engine = Engine::new(
        Profile {
            async_scheduling: true,
            ..profile()
        },
        0,
    );
    for id in 0..10 {
        engine.submit(ms(0.0), request(id, 100, 100)).unwrap();
    }
    let mut events = Vec::new();
    engine.advance(ms(200.0), &mut events);
    assert_eq!((engine.load().running, engine.load().waiting), (8, 2));
    for id in 0..10 {
        assert!(engine.abort(ms(200.0), id));
        assert!(!engine.abort(ms(200.0), id));
    }
    let load = engine.load();
    assert_eq!((load.running, load.waiting, load.kv_blocks_used), (0, 0, 0));
    assert!(run(&mut engine).is_empty());
}

#[test]
fn another_seed_gives_other_times_and_the_same_tokens() {
    let noisy = Profile {
        step: StepCost {
            noise: 0.1,
            ..profile().step
        },
        ..profile()
    };
    let events = |seed| {
        let mut engine = Engine::new(noisy.clone(), seed);
        engine.submit(ms(0.0), request(1, 100, 20)).unwrap();
        run(&mut engine)
    };
    assert_eq!(events(1), events(1));
    assert_ne!(events(1), events(2));
    assert_eq!(events(1).len(), events(2).len());
}
