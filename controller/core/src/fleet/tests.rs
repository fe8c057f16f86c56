//! The loop on a virtual clock: nothing is lost, nothing depends on anything but the seed, and more replicas serve more.

use std::time::Duration;

use epp_core::Config;
use predictor::LearnerConfig;
use simulator_core::Profile;
use simulator_core::workload::{WorkloadSpec, generate};

use super::client::{KindMix, Offer, offers};
use super::{Autoscaling, FleetReport, FleetSpec, Pickers, Sizing, Slo, replay};
use crate::{Policy, SloTargets};

const SLO: Slo = Slo {
    ttft_ms: 5_000.0,
    tpot_ms: 150.0,
};

fn five_minutes() -> Vec<Offer> {
    let trace = generate(&WorkloadSpec::mooncake_conversation(), 3).slice(Duration::from_secs(300));
    offers(&trace, KindMix::default(), 3)
}

fn spec(epp: Config, sizing: Sizing, learner: bool) -> FleetSpec {
    FleetSpec {
        name: "under test".into(),
        epp: epp.with_max_concurrency(32),
        profile: Profile::builtin("qwen3-32b-h100-tp2").unwrap(),
        startup: Duration::from_secs(30),
        sizing,
        pickers: Pickers::ONE,
        clients: None,
        learner: learner.then(LearnerConfig::default),
        slo: SLO,
        scrape_interval: Duration::from_millis(50),
        sample_interval: Duration::from_secs(10),
        seed: 3,
    }
}

fn autoscaled(initial: u32, max: u32) -> Sizing {
    let slo = SloTargets {
        percentile: 0.9,
        ttft_ms: SLO.ttft_ms,
        tpot_ms: SLO.tpot_ms,
    };
    let policy = Policy::new("m", slo, 1, max, Duration::from_secs(30));
    Sizing::Autoscaled(Box::new(Autoscaling { policy, initial }))
}

fn fates(report: &FleetReport) -> u64 {
    report
        .kinds
        .values()
        .map(|kind| kind.served + kind.expired + kind.refused.values().sum::<u64>())
        .sum()
}

#[test]
fn every_offer_meets_one_fate_even_when_replicas_come_and_go() {
    let offers = five_minutes();
    for sizing in [Sizing::Fixed(1), Sizing::Fixed(6), autoscaled(1, 8)] {
        let report = replay(&spec(Config::headroom_default(), sizing, true), &offers);
        assert_eq!(fates(&report), offers.len() as u64);
        assert_eq!(
            report.kinds.values().map(|kind| kind.offered).sum::<u64>(),
            offers.len() as u64
        );
    }
}

#[test]
fn one_seed_gives_one_report() {
    let offers = five_minutes();
    let run = || {
        let report = replay(
            &spec(Config::headroom_default(), autoscaled(3, 8), true),
            &offers,
        );
        serde_json::to_string(&report).unwrap()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_fixed_fleet_is_paid_for_from_start_to_end() {
    let report = replay(
        &spec(Config::llmd_default(), Sizing::Fixed(5), false),
        &five_minutes(),
    );
    assert!(
        (report.mean_replicas() - 5.0).abs() < 1e-9,
        "{}",
        report.mean_replicas()
    );
    assert!(report.decisions.is_empty() && report.predictor.is_none());
}

#[test]
fn launches_are_paid_for_before_they_serve() {
    let offers = five_minutes();
    let report = replay(
        &spec(Config::headroom_default(), autoscaled(1, 8), true),
        &offers,
    );
    assert!(
        !report.decisions.is_empty(),
        "one replica is not enough and the controller knows"
    );
    let ready: f64 = report
        .timeline
        .iter()
        .map(|sample| f64::from(sample.ready) * 10.0)
        .sum();
    assert!(
        report.replica_seconds > ready,
        "{} paid, {ready} ready",
        report.replica_seconds
    );
}

#[test]
fn more_replicas_attain_more() {
    let offers = five_minutes();
    let attained = |count| {
        let report = replay(
            &spec(Config::round_robin(), Sizing::Fixed(count), false),
            &offers,
        );
        report.kinds["interactive"].attainment()
    };
    let (few, many) = (attained(3), attained(8));
    assert!(few < many, "{few} with 3 replicas, {many} with 8");
}
