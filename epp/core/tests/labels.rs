//! What a stream teaches, and what it does to the counters.

mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::{Config, Director, Dispatch, End, Outcome, Pool, Request, Slo, Unlearned};
use predictor::Target;
use support::{complete, dispatched, pool, request, seconds, warm};

fn sent(pool: &Arc<Pool>, config: Config, request: Request) -> (Director, Box<Dispatch>) {
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, Arc::clone(pool));
    director.submit(Duration::ZERO, request);
    let dispatch = dispatched(&mut director);
    (director, dispatch)
}

fn warm_pool() -> Arc<Pool> {
    let pool = pool(1);
    warm(&pool);
    pool
}

fn ended(status: u16, streaming: bool, output_tokens: Option<u32>) -> End {
    End::Complete {
        status,
        streaming,
        prompt_tokens: None,
        cached_tokens: None,
        output_tokens,
    }
}

#[test]
fn ttft_comes_at_the_first_token_and_tpot_at_the_end_with_real_tokens() {
    let pool = warm_pool();
    let slo = Slo {
        ttft_ms: Some(300.0),
        tpot_ms: Some(60.0),
    };
    let (director, mut dispatch) = sent(
        &pool,
        Config::headroom_default(),
        Request { slo, ..request(0) },
    );
    let predicted = dispatch.decision.prediction.unwrap();
    let stream = &mut dispatch.in_flight;
    let label = stream.first_token(seconds(0.25)).unwrap();
    assert_eq!(
        (label.target, label.actual_ms, label.at),
        (Target::Ttft, 250.0, seconds(0.25))
    );
    assert_eq!(label.predicted, Some(predicted.ttft));
    assert_eq!(
        (label.features.input_tokens, label.features.waiting),
        (100.0, 0.0),
        "as before this dispatch"
    );
    assert_eq!(stream.first_token(seconds(0.3)), None, "once");
    stream.emitted(4);
    stream.emitted(3);
    assert_eq!(pool.endpoints[0].load.snapshot().resident_tokens, 104);
    let completion = dispatch.in_flight.finish(seconds(0.75), complete(11));
    assert_eq!(completion.tpot_ms, Some(50.0), "500 ms over ten gaps");
    assert_eq!(
        (completion.ttft_ms, completion.slo_met, completion.unlearned),
        (Some(250.0), Some(true), None)
    );
    let [label] = &completion.observations[..] else {
        panic!("{completion:?}")
    };
    assert_eq!(
        (label.target, label.actual_ms, label.predicted),
        (Target::Tpot, 50.0, Some(predicted.tpot))
    );
    assert_eq!(pool.endpoints[0].load.snapshot().in_flight, 0);
    let totals = director.demand().totals();
    assert_eq!(
        (totals.bands[0].slo_offered, totals.bands[0].slo_met),
        (1, 1)
    );
    let mix = director.demand().mix();
    assert_eq!(
        (mix.len(), mix[0].input_tokens, mix[0].output_tokens),
        (1, 100, 11)
    );
}

#[test]
fn what_cannot_teach_is_counted_with_its_reason() {
    let cases = [
        (
            ended(500, true, Some(9)),
            true,
            Outcome::Failed,
            Unlearned::NotOk,
        ),
        (
            ended(204, true, Some(9)),
            true,
            Outcome::Served,
            Unlearned::NotOk,
        ),
        (
            ended(200, false, Some(9)),
            false,
            Outcome::Served,
            Unlearned::NotStreaming,
        ),
        (
            ended(200, true, Some(9)),
            false,
            Outcome::Served,
            Unlearned::NotStreaming,
        ),
        (
            ended(200, true, None),
            true,
            Outcome::Served,
            Unlearned::NoUsage,
        ),
        (
            ended(200, true, Some(1)),
            true,
            Outcome::Served,
            Unlearned::TooShort,
        ),
        (
            ended(200, true, Some(0)),
            true,
            Outcome::Served,
            Unlearned::TooShort,
        ),
        (
            End::ClientGone,
            true,
            Outcome::ClientGone,
            Unlearned::Unfinished,
        ),
        (
            End::UpstreamCut,
            true,
            Outcome::UpstreamCut,
            Unlearned::Unfinished,
        ),
        (End::Evicted, false, Outcome::Evicted, Unlearned::Unfinished),
    ];
    for (end, first_token, outcome, reason) in cases {
        let pool = warm_pool();
        let (director, mut dispatch) = sent(&pool, Config::headroom_default(), request(0));
        if first_token {
            assert!(dispatch.in_flight.first_token(seconds(0.1)).is_some());
        }
        let completion = dispatch.in_flight.finish(seconds(1.0), end);
        assert_eq!(
            (completion.outcome, completion.unlearned),
            (outcome, Some(reason)),
            "{end:?}"
        );
        assert!(completion.observations.is_empty());
        assert_eq!(director.demand().totals().outcome(outcome).requests, 1);
    }
}

#[test]
fn the_first_ten_labels_of_an_endpoint_teach_nothing() {
    let pool = pool(1);
    let mut director = Director::new(Config::headroom_default(), 1);
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    for number in 0..12 {
        director.submit(Duration::ZERO, request(0));
        let mut dispatch = dispatched(&mut director);
        let learned = number >= 10;
        assert_eq!(
            dispatch.in_flight.first_token(seconds(0.1)).is_some(),
            learned,
            "label {number}"
        );
        let completion = dispatch.in_flight.finish(seconds(1.0), complete(10));
        assert_eq!(
            completion.unlearned,
            (!learned).then_some(Unlearned::ColdStart)
        );
    }
}

#[test]
fn nothing_is_learned_when_nothing_reads_predictions() {
    let pool = warm_pool();
    let (_, mut dispatch) = sent(&pool, Config::llmd_default(), request(0));
    assert_eq!(dispatch.in_flight.first_token(seconds(0.1)), None);
    assert_eq!(
        dispatch
            .in_flight
            .finish(seconds(1.0), complete(9))
            .unlearned,
        Some(Unlearned::Off)
    );
}

#[test]
fn a_dropped_stream_gives_its_load_back_and_counts_once() {
    let pool = pool(1);
    let slo = Slo {
        ttft_ms: None,
        tpot_ms: Some(25.9),
    };
    let (director, mut dispatch) =
        sent(&pool, Config::llmd_default(), Request { slo, ..request(0) });
    let load = &pool.endpoints[0].load;
    assert_eq!(
        (load.snapshot().waiting, load.snapshot().tightest_tpot_ms),
        (1, Some(25))
    );
    dispatch.in_flight.first_token(seconds(1.0));
    dispatch.in_flight.emitted(7);
    drop(dispatch);
    let after = load.snapshot();
    assert_eq!(
        (
            after.in_flight,
            after.waiting,
            after.running,
            after.resident_tokens
        ),
        (0, 0, 0, 0)
    );
    assert_eq!((after.waiting_tokens, after.tightest_tpot_ms), (0, None));
    assert_eq!(
        director
            .demand()
            .totals()
            .outcome(Outcome::ClientGone)
            .requests,
        1
    );
}

#[test]
fn the_user_s_ttft_includes_the_queue() {
    let pool = pool(1);
    let config = Config::llmd_default().with_max_concurrency(1);
    let (mut director, first) = sent(&pool, config, request(0));
    director.submit(Duration::ZERO, support::with_slo(0, 1_000.0));
    first.in_flight.finish(seconds(0.9), complete(2));
    director.advance(seconds(0.9));
    let mut second = dispatched(&mut director);
    second.in_flight.first_token(seconds(1.1));
    let completion = second.in_flight.finish(seconds(2.0), complete(2));
    let ttft = completion.ttft_ms.unwrap();
    assert!((ttft - 200.0).abs() < 1e-6, "service time only: {ttft}");
    assert_eq!(
        (completion.waited, completion.slo_met),
        (seconds(0.9), Some(false))
    );
}

#[test]
fn usage_wins_over_the_estimate() {
    let pool = pool(1);
    let (director, dispatch) = sent(&pool, Config::llmd_default(), request(0));
    let end = End::Complete {
        status: 200,
        streaming: false,
        prompt_tokens: Some(80),
        cached_tokens: Some(90),
        output_tokens: Some(5),
    };
    let completion = dispatch.in_flight.finish(seconds(1.0), end);
    assert_eq!(
        (completion.prompt_tokens, completion.cached_tokens),
        (80, 80),
        "cached never exceeds the prompt"
    );
    let served = director.demand().totals().outcome(Outcome::Served);
    assert_eq!((served.prompt_tokens, served.output_tokens), (80, 5));
}

#[test]
fn a_director_and_its_streams_may_move_between_threads() {
    fn movable<T: Send>() {}
    movable::<Director>();
    movable::<Dispatch>();
}
