//! Late binding: a request that waits in the picker is given its endpoint when there is room for it; one that is
//! dispatched at once waits where it was sent. The same requests, replicas and profile of scorers, both ways.

use std::time::Duration;

use epp_core::Config;
use epp_core::config::FlowConfig;
use simulator_core::Profile;
use simulator_core::workload::{SharedPrefix, Stage};

use super::client::{KindMix, Offer, offers};
use super::{FleetReport, FleetSpec, Pickers, Sizing, Slo, replay};

/// More prompts than four replicas can read, with common beginnings that fill three quarters of all their caches; a
/// third comes from people who wait. Nobody may be refused.
fn saturating(seed: u64) -> Vec<Offer> {
    let prompts = SharedPrefix {
        output_tokens: 100,
        stages: vec![Stage {
            rate: 30.0,
            duration: Duration::from_secs(60),
        }],
        ..SharedPrefix::optimized_baseline()
    };
    let mix = KindMix {
        interactive: 30,
        plain: 70,
    };
    offers(&prompts.generate(seed), mix, seed)
}

/// The default configuration; with its queue, or dispatching at once.
fn run(queue: bool, seed: u64) -> FleetReport {
    let patient = FlowConfig {
        request_ttl: None,
        ..FlowConfig::default()
    };
    let spec = FleetSpec {
        name: if queue { "queue" } else { "at once" }.into(),
        epp: Config {
            flow: queue.then_some(patient),
            ..Config::headroom_default()
        },
        profile: Profile::builtin("qwen3-32b-h100-tp2").unwrap(),
        startup: Duration::from_secs(30),
        sizing: Sizing::Fixed(4),
        pickers: Pickers::ONE,
        clients: None,
        learner: None,
        slo: Slo {
            ttft_ms: 5_000.0,
            tpot_ms: 150.0,
        },
        scrape_interval: Duration::from_millis(50),
        sample_interval: Duration::from_secs(60),
        seed,
    };
    replay(&spec, &saturating(seed))
}

/// One line of the table.
fn line(seed: u64, report: &FleetReport) -> String {
    let high = &report.kinds["interactive"];
    let low = &report.kinds["plain"];
    format!(
        "{seed:>4}  {:<8} {:>12.0} {:>12.0} {:>14.0} {:>14.0} {:>6.1} {:>9.0}",
        report.policy,
        high.ttft_ms.p50,
        high.ttft_ms.p90,
        low.ttft_ms.p50,
        low.ttft_ms.p90,
        report.hit_share * 100.0,
        report.output_rate(),
    )
}

#[test]
fn late_binding_serves_the_high_band_sooner_and_finds_more_of_its_prefixes() {
    println!(
        "seed  dispatch  high p50, ms high p90, ms    low p50, ms    low p90, ms hits,% tokens/s"
    );
    for seed in [1, 2, 3] {
        let (queued, at_once) = (run(true, seed), run(false, seed));
        println!("{}\n{}", line(seed, &at_once), line(seed, &queued));
        assert_eq!((queued.all.unserved(), at_once.all.unserved()), (0, 0));
        let p90 = |report: &FleetReport| report.kinds["interactive"].ttft_ms.p90;
        assert!(p90(&at_once) > 10_000.0, "the replicas are not saturated");
        assert!(p90(&queued) < p90(&at_once));
        assert!(queued.hit_share > at_once.hit_share);
    }
}
