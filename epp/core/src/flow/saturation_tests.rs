use super::*;

const NOW: Duration = Duration::from_secs(100);

fn busy(in_flight: u32, waiting_tokens: u64) -> Reading {
    let load = LoadSnapshot {
        in_flight,
        waiting_tokens,
        ..LoadSnapshot::default()
    };
    Reading {
        load,
        scraped: None,
    }
}

fn scraped(age_ms: u64, waiting: f32, kv_utilization: f32) -> Reading {
    let at = NOW - Duration::from_millis(age_ms);
    let scraped = Scraped {
        at,
        waiting,
        running: 0.0,
        kv_utilization,
        block_tokens: None,
        kv_blocks: None,
    };
    Reading {
        load: LoadSnapshot::default(),
        scraped: Some(scraped),
    }
}

fn saturation(detector: &Detector, pool: &[Reading], now: Duration) -> Saturation {
    let mut meter = Meter::new(detector);
    let decodes = Stages {
        prefill: false,
        decode: true,
    };
    meter.stages = vec![decodes; pool.len()];
    meter.saturation(detector, pool, now)
}

fn concurrency(mode: ConcurrencyMode) -> Detector {
    Detector::Concurrency(ConcurrencyDetector {
        concurrency_mode: mode,
        max_concurrency: 10,
        max_token_concurrency: 1_000,
        headroom: 0.2,
    })
}

#[test]
fn concurrency_is_in_flight_over_capacity() {
    let pool = [busy(4, 100), busy(10, 900)];
    let of = |mode| saturation(&concurrency(mode), &pool, NOW);
    assert_eq!(of(ConcurrencyMode::Requests), Saturation::Level(0.7));
    assert_eq!(of(ConcurrencyMode::Tokens), Saturation::Level(0.5));
    assert_eq!(of(ConcurrencyMode::Hybrid), Saturation::Level(0.7));
    assert_eq!(
        saturation(&concurrency(ConcurrencyMode::Requests), &[], NOW),
        Saturation::Empty
    );
}

#[test]
fn one_endpoint_may_exceed_its_share_by_the_headroom_only() {
    let detector = concurrency(ConcurrencyMode::Requests);
    assert!(has_room(&detector, &busy(11, 0), 1.0, NOW));
    assert!(!has_room(&detector, &busy(12, 0), 1.0, NOW));
    assert!(!has_room(&detector, &busy(6, 0), 0.5, NOW));
}

#[test]
fn utilization_is_the_mean_of_the_worse_share_of_fresh_endpoints() {
    let detector = Detector::utilization_default();
    let pool = [
        scraped(0, 5.0, 0.5),
        scraped(200, 0.0, 0.5),
        scraped(201, 99.0, 1.0),
        busy(0, 0),
    ];
    assert_eq!(
        saturation(&detector, &pool[..2], NOW),
        Saturation::Level((1.0 + 0.625) / 2.0)
    );
    assert!(!has_room(&detector, &pool[0], 1.0, NOW));
    assert!(
        has_room(&detector, &pool[2], 1.0, NOW),
        "stale is unknown, not full"
    );
    let kv_absent = scraped(0, 2.0, f32::NAN);
    assert_eq!(
        saturation(&detector, &[kv_absent], NOW),
        Saturation::Level(0.4)
    );
}

#[test]
fn dispatches_since_the_scrape_count() {
    let detector = Detector::utilization_default();
    let mut reading = scraped(0, 3.0, 0.0);
    reading.load.since_scrape = 2;
    assert_eq!(
        saturation(&detector, &[reading], NOW),
        Saturation::Level(1.0)
    );
}

/// One full endpoint among nine of which nothing is known, and nine full ones with one.
#[test]
fn a_few_that_are_full_do_not_stop_those_that_are_unknown() {
    let detector = Detector::utilization_default();
    let unknown = |waiting| {
        let mut reading = busy(waiting, 0);
        reading.load.waiting = waiting;
        reading
    };
    let mut pool = vec![unknown(0); 9];
    pool.push(scraped(0, 99.0, 1.0));
    assert_eq!(saturation(&detector, &pool, NOW), Saturation::Level(0.1));
    pool[..9].fill(unknown(5));
    assert_eq!(
        saturation(&detector, &pool, NOW),
        Saturation::Level(1.0),
        "what they have not answered counts as their queue"
    );
    let mut pool = vec![scraped(0, 99.0, 1.0); 9];
    pool.push(unknown(4));
    assert!(saturation(&detector, &pool, NOW).admits(1.0));
    pool[9] = unknown(5);
    assert!(
        !saturation(&detector, &pool, NOW).admits(1.0),
        "it does not get all of what the others have no room for"
    );
}

/// §11.4, 8: what is not known is not full.
#[test]
fn pitfall_08_all_stale_never_stops_a_pool() {
    let detector = Detector::utilization_default();
    let pool = [scraped(500, 99.0, 1.0), busy(50, 0)];
    assert_eq!(saturation(&detector, &pool, NOW), Saturation::Unknown);
    assert!(Saturation::Unknown.admits(1.0));
}

fn staged(roles: &[Option<&str>], in_flight: &[u32], detector: &Detector) -> StageSaturation {
    let role = |role: &str| (names::label::ROLE.canonical.to_owned(), role.to_owned());
    let endpoint = |(role_of, count): (&Option<&str>, &u32)| {
        let labels = role_of.iter().map(|of| role(of)).collect();
        let endpoint = Endpoint::new("a", "10.0.0.1:80", labels);
        (0..*count).for_each(|_| endpoint.load.dispatched(&crate::load::Share::default()));
        Arc::new(endpoint)
    };
    let endpoints = roles.iter().zip(in_flight).map(endpoint).collect();
    StageSaturation::of(detector, &Pool { endpoints }, NOW)
}

#[test]
fn the_fuller_stage_counts() {
    let detector = concurrency(ConcurrencyMode::Requests);
    let split = staged(
        &[Some("prefill"), Some("decode"), None],
        &[9, 2, 4],
        &detector,
    );
    assert_eq!(
        (split.prefill, split.decode, split.effective),
        (Some(0.9), Some(0.3), Some(0.9))
    );
    let shared = staged(&[Some("both"), Some("decode")], &[2, 6], &detector);
    assert_eq!((shared.prefill, shared.decode), (Some(0.2), Some(0.4)));
    let encoders = staged(&[Some("encode")], &[50], &detector);
    assert_eq!(encoders.effective, None, "they have no stage to be full in");
    assert_eq!(staged(&[], &[], &detector), StageSaturation::default());
    let silent = staged(&[None, None], &[1, 1], &Detector::utilization_default());
    assert_eq!((silent.effective, silent.unknown), (None, 2));
}

#[test]
fn limits_of_endpoints_are_summed_not_averaged() {
    let detector = Detector::Adaptive {
        parameters: crate::config::AdaptiveConcurrency::default(),
        window: Duration::from_secs(1),
    };
    let reading = |in_flight, limit| {
        let mut reading = busy(in_flight, 0);
        reading.load.limit = limit;
        reading
    };
    let pool = [reading(9, Some(10)), reading(30, Some(90))];
    assert_eq!(saturation(&detector, &pool, NOW), Saturation::Level(0.39));
    assert!(has_room(&detector, &pool[0], 1.0, NOW));
    assert!(
        !has_room(&detector, &reading(16, None), 1.0, NOW),
        "the initial limit"
    );
}

#[test]
fn a_pass_keeps_its_sums_by_what_changes() {
    for detector in [
        concurrency(ConcurrencyMode::Hybrid),
        concurrency(ConcurrencyMode::Tokens),
        Detector::utilization_default(),
    ] {
        let mut pool = [scraped(0, 1.0, 0.5), scraped(0, 2.0, 0.1), busy(3, 0)];
        let mut meter = Meter::new(&detector);
        let decodes = Stages {
            prefill: true,
            decode: true,
        };
        meter.stages = vec![decodes; pool.len()];
        meter.saturation(&detector, &pool, NOW);
        for step in 0..30 {
            let slot = step % 3;
            let before = pool[slot];
            pool[slot].load.in_flight += 1;
            pool[slot].load.since_scrape += 1;
            pool[slot].load.waiting_tokens += 17;
            meter.reread(&detector, slot, &before, &pool[slot]);
            let kept = meter.saturation(&detector, &pool, NOW).level();
            let anew = saturation(&detector, &pool, NOW).level();
            assert!((kept - anew).abs() < 1e-9, "{detector:?}: {kept} {anew}");
        }
    }
}
