use super::*;

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Two requests of two and one tokens; the second waits 700 ms for admission.
fn recorded() -> Metrics {
    let profile = Profile {
        max_model_len: 40,
        ..Profile::builtin("llama-3.1-8b-rtx4090").unwrap()
    };
    let mut metrics = Metrics::new("a \"model\"".into(), &profile);
    metrics.first_token(ms(50), ms(0), 12);
    metrics.next_token(ms(25));
    let timeline = Timeline {
        arrived: ms(0),
        scheduled: Some(ms(10)),
        first_token: Some(ms(50)),
        last_token: ms(75),
    };
    let counts = Counts {
        prompt: 12,
        output: 2,
        max: 2,
    };
    metrics.finished(Finish::Length, counts, timeline);
    metrics.first_token(ms(850), ms(100), 30);
    let timeline = Timeline {
        arrived: ms(100),
        scheduled: Some(ms(800)),
        first_token: Some(ms(850)),
        last_token: ms(850),
    };
    let counts = Counts {
        prompt: 30,
        output: 1,
        max: 8,
    };
    metrics.finished(Finish::Stop, counts, timeline);
    metrics.aborted();
    metrics
}

#[test]
fn golden_exposition() {
    let load = Load {
        running: 3,
        waiting: 2,
        kv_blocks_used: 25,
        kv_blocks_total: Some(100),
        kv_usage: 0.25,
        preemptions: 1,
        prefix_query_tokens: 42,
        prefix_hit_tokens: 16,
        ..Load::default()
    };
    assert_eq!(
        recorded().exposition(&load),
        include_str!("../../tests/golden/metrics.txt")
    );
}

#[test]
fn time_to_first_token_includes_the_queue_and_the_parts_add_up() {
    let metrics = recorded();
    let near = |histogram: &Histogram, sum: f64, count: u64| {
        assert_eq!(histogram.count(), count);
        assert!(
            (histogram.sum() - sum).abs() < 1e-9,
            "{} against {sum}",
            histogram.sum()
        );
    };
    near(&metrics.time_to_first_token, 0.050 + 0.750, 2);
    near(&metrics.queue, 0.010 + 0.700, 2);
    near(&metrics.prefill, 0.040 + 0.050, 2);
    near(&metrics.decode, 0.025, 2);
    near(&metrics.inference, 0.065 + 0.050, 2);
    near(&metrics.e2e, 0.075 + 0.750, 2);
    near(&metrics.inter_token, 0.025, 1);
    near(&metrics.request_per_token, 0.025, 1);
}

#[test]
fn token_bounds_are_the_1_2_5_series() {
    assert_eq!(token_bounds(100), [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
    assert_eq!(token_bounds(u32::MAX).last(), Some(&2e9));
}
