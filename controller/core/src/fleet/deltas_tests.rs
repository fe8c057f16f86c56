//! Several pickers against one, on the same offers and the same engines.

use std::sync::Arc;
use std::time::Duration;

use epp_core::Config;
use predictor::LearnerConfig;
use simulator_core::Profile;
use simulator_core::workload::{WorkloadSpec, generate};

use super::client::{KindMix, Offer, offers};
use super::{Deltas, Exchanging, FleetReport, FleetSpec, Partition, Pickers, Sizing, Slo, replay};

const TICK: Duration = epp_core::peers::TICK;
const LIMIT: u32 = 24;
/// Replicas with which there is room most of the time, and with which there mostly is none.
const ROOMY: u32 = 8;
const CROWDED: u32 = 4;

/// The trace records arrivals in batches of three seconds. Nobody can tell another of a request that comes at the very
/// same instant, so they are spread again.
fn quarter_of_an_hour(seed: u64) -> Vec<Offer> {
    let trace =
        generate(&WorkloadSpec::mooncake_conversation(), seed).slice(Duration::from_secs(900));
    let mut offers = offers(&trace, KindMix::default(), seed);
    for offer in &mut offers {
        offer.at += Duration::from_millis(super::client::mix64(offer.row ^ seed) % 3_000);
    }
    offers.sort_by_key(|offer| offer.at);
    offers
}

fn exchanging(count: usize, partitions: Vec<Partition>) -> Pickers {
    Pickers {
        count,
        exchange: Some(Exchanging {
            every: TICK,
            with: Arc::new(Deltas::default()),
            partitions,
        }),
    }
}

fn run(pickers: Pickers, replicas: u32, seed: u64) -> FleetReport {
    let spec = FleetSpec {
        name: "under test".into(),
        epp: Config {
            // Its limit is one that no endpoint may exceed.
            detector: Config::llmd_default().with_max_concurrency(LIMIT).detector,
            ..Config::headroom_default()
        },
        profile: Profile::builtin("qwen3-32b-h100-tp2").unwrap(),
        startup: Duration::from_secs(30),
        sizing: Sizing::Fixed(replicas),
        pickers,
        clients: None,
        learner: Some(LearnerConfig::default()),
        slo: Slo {
            ttft_ms: 5_000.0,
            tpot_ms: 150.0,
        },
        scrape_interval: Duration::from_millis(50),
        sample_interval: Duration::from_secs(10),
        seed,
    };
    replay(&spec, &quarter_of_an_hour(seed))
}

/// TTFT p90 (milliseconds) over all kinds by what was served, and the share of prompt tokens found cached; means over
/// the seeds.
fn figures(pickers: &dyn Fn() -> Pickers) -> (f64, f64) {
    let seeds = 1..=4_u64;
    let count = seeds.clone().count() as f64;
    seeds.fold((0.0, 0.0), |(ttft, hits), seed| {
        let report = run(pickers(), ROOMY, seed);
        let served: f64 = report.kinds.values().map(|kind| kind.served as f64).sum();
        let kinds = report.kinds.values();
        let p90: f64 = kinds
            .map(|kind| kind.ttft_ms.p90 * kind.served as f64)
            .sum();
        (ttft + p90 / served / count, hits + report.hit_share / count)
    })
}

#[test]
fn several_pickers_place_requests_nearly_as_well_as_one() {
    let (ttft, hits) = figures(&|| Pickers::ONE);
    println!("1 picker: TTFT p90 {ttft:.0} ms, hits {hits:.3}");
    for count in [2, 4] {
        let blind = figures(&|| Pickers::blind(count));
        let several = figures(&|| exchanging(count, Vec::new()));
        for (name, (p90, share)) in [("blind", blind), ("exchanging", several)] {
            let (slower, kept) = (p90 / ttft, share / hits);
            println!(
                "{count} {name}: TTFT p90 {p90:.0} ms ({slower:.2} x), hits {share:.3} ({kept:.2} x)"
            );
        }
        assert!(several.0 <= 1.10 * ttft && several.1 >= 0.95 * hits);
        assert!(
            blind.0 > several.0 && blind.1 < several.1,
            "it would not matter"
        );
    }
}

#[test]
fn several_pickers_keep_the_limit_together() {
    for count in [2, 4] {
        let blind = run(Pickers::blind(count), CROWDED, 3).crowding;
        let several = run(exchanging(count, Vec::new()), CROWDED, 3).crowding;
        println!("{count} blind: {blind:?}, exchanging: {several:?}");
        assert!(several.peak <= 1.05 || several.longest <= Duration::from_millis(200));
        assert!(blind.peak > 1.05, "there was nothing to keep");
    }
}

#[test]
fn a_picker_that_is_cut_off_and_comes_back_loses_nothing() {
    let partition = Partition {
        picker: 1,
        from: Duration::from_secs(60),
        until: Duration::from_secs(120),
    };
    let report = run(exchanging(2, vec![partition]), CROWDED, 3);
    let kinds = report.kinds.values();
    let fates: u64 = kinds
        .map(|kind| kind.served + kind.expired + kind.refused.values().sum::<u64>())
        .sum();
    assert_eq!(fates, quarter_of_an_hour(3).len() as u64);
    // Each is beyond the limit by what the other has at most, and only while they are apart.
    println!("cut off for a minute: {:?}", report.crowding);
    assert!(report.crowding.longest <= partition.until - partition.from + Duration::from_secs(30));
}
