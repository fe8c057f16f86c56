//! Several pickers against one, on the same offers and the same engines.

use std::sync::Arc;
use std::time::Duration;

use epp_core::Config;
use predictor::LearnerConfig;
use simulator_core::Profile;
use simulator_core::workload::{WorkloadSpec, generate};

use super::client::{KindMix, Offer, offers};
use super::{
    Deltas, Exchanging, FleetReport, FleetSpec, Partition, Pickers, Sizing, Slo, replay,
};

const TICK: Duration = epp_core::peers::TICK;
const LIMIT: u32 = 24;

fn five_minutes() -> Vec<Offer> {
    let trace = generate(&WorkloadSpec::mooncake_conversation(), 3).slice(Duration::from_secs(300));
    offers(&trace, KindMix::default(), 3)
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

fn run(pickers: Pickers, replicas: u32) -> FleetReport {
    let spec = FleetSpec {
        name: "under test".into(),
        epp: Config::headroom_default().with_max_concurrency(LIMIT),
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
        seed: 3,
    };
    replay(&spec, &five_minutes())
}

/// TTFT p90 over all kinds, weighted by what was served.
fn ttft_p90(report: &FleetReport) -> f64 {
    let kinds = report.kinds.values();
    let (sum, served) = kinds.fold((0.0, 0.0), |(sum, served), kind| {
        (sum + kind.ttft_ms.p90 * kind.served as f64, served + kind.served as f64)
    });
    sum / served
}

#[test]
fn several_pickers_place_requests_nearly_as_well_as_one() {
    for replicas in [4, 5, 6, 8] {
    let one = run(Pickers::ONE, replicas);
    for count in [2, 4] {
        let blind = run(Pickers::blind(count), replicas);
        let several = run(exchanging(count, Vec::new()), replicas);
        println!(
            "{replicas} {count}: ttft {} {} {} hits {} {} {} crowd {:?} {:?} {:?}",
            ttft_p90(&one), ttft_p90(&blind), ttft_p90(&several),
            one.hit_share, blind.hit_share, several.hit_share,
            one.crowding, blind.crowding, several.crowding
        );
    }
    }
}
