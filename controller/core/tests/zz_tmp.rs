use controller_core::fleet::client::{KindMix, offers};
use controller_core::fleet::*;
use controller_core::{Policy, SloTargets};
use epp_core::Config;
use predictor::LearnerConfig;
use simulator_core::Profile;
use simulator_core::trace::MOONCAKE_BATCH;
use simulator_core::workload::{WorkloadSpec, generate};
use std::time::Duration;
#[test]
fn dump() {
    let seed = 7;
    let trace = generate(&WorkloadSpec::mooncake_conversation(), seed).spread_batches(MOONCAKE_BATCH);
    let offers = offers(&trace, KindMix::default(), seed);
    let profile = Profile::builtin("qwen3-32b-h100-tp2").unwrap();
    let slo = SloTargets { percentile: 0.9, ttft_ms: 5000.0, tpot_ms: 150.0 };
    let mut policy = Policy::new(profile.model.clone(), slo, 1, 24, Duration::from_secs(100));
    policy.scale_down_guard = Duration::from_secs(300);
    policy.max_in_flight = Some(32);
    let spec = FleetSpec {
        name: "headroom".into(),
        epp: Config::headroom_default().with_max_concurrency(32),
        profile,
        startup: Duration::from_secs(100),
        sizing: Sizing::Autoscaled(Box::new(Autoscaling { policy, initial: 6 })),
        learner: Some(LearnerConfig { seed, ..LearnerConfig::default() }),
        slo: Slo { ttft_ms: 5000.0, tpot_ms: 150.0 },
        scrape_interval: Duration::from_millis(50),
        sample_interval: Duration::from_secs(30),
        seed,
    };
    let report = replay(&spec, &offers);
    let scalings: Vec<_> = report.decisions.iter().map(|d| serde_json::json!({"at": d.at.as_secs_f64(), "from": d.previous, "to": d.replicas, "reasons": d.reasons.iter().map(|r| r.to_string()).collect::<Vec<_>>()})).collect();
    std::fs::write("/tmp/core/new.json", serde_json::to_string(&serde_json::json!({"scalings": scalings, "timeline": report.timeline, "replica_seconds": report.replica_seconds, "makespan_s": report.makespan.as_secs_f64(), "hit_share": report.hit_share})).unwrap()).unwrap();
}
