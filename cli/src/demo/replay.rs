//! The trace unscaled on a virtual clock: Headroom's autoscaled fleet, then others of the same size.

use std::thread;
use std::time::Duration;

use controller_core::fleet::{Autoscaling, FleetReport, FleetSpec, Pickers, Sizing, replay};
use controller_core::{Policy, SloTargets};
use epp_core::Config;
use predictor::LearnerConfig;

use super::args::ReplaySettings;
use super::outcome::{Fleet, Replay};
use super::source::Part;

/// Between two scrapes of a replica's metrics, as in llm-d's default refresh.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(50);
/// Between two samples of the timeline.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(30);
/// The percentile of the SLO that capacity is computed for.
const PERCENTILE: f32 = 0.9;

/// Replays `part` through the three policies. `note` is told what is being waited for.
///
/// Headroom goes first, since the others get its mean count of replicas, rounded up; those two run side by side, and
/// neither can see the other.
pub(crate) fn run(
    settings: &ReplaySettings,
    part: &Part,
    seed: u64,
    note: &(dyn Fn(&str) + Sync),
) -> Replay {
    note("Headroom, autoscaled (1 of 3)");
    let headroom = replay(&headroom(settings, seed), &part.offers);
    let count = fixed_count(&headroom);
    note(&format!(
        "round-robin and llm-d's default profile, {count} replicas each (2 and 3 of 3)"
    ));
    let fixed = [
        ("round-robin", Config::round_robin()),
        ("llm-d default", Config::llmd_default()),
    ]
    .map(|(name, config)| fixed_fleet(settings, seed, name, config, count));
    let [round_robin, llmd] = side_by_side(&fixed, part);
    Replay {
        settings: settings.clone(),
        requests: part.offers.len(),
        hit_bound: part.hit_bound,
        fleets: [headroom, round_robin, llmd].map(Fleet::from).into(),
    }
}

/// Replicas of the fixed fleets: Headroom's mean, rounded up.
fn fixed_count(headroom: &FleetReport) -> u32 {
    headroom.mean_replicas().ceil().max(1.0) as u32
}

fn side_by_side(specs: &[FleetSpec; 2], part: &Part) -> [FleetReport; 2] {
    let [first, second] = specs;
    thread::scope(|scope| {
        let other = scope.spawn(|| replay(second, &part.offers));
        let first = replay(first, &part.offers);
        // A panic in there is a defect: it goes on here, where it would have gone without the thread.
        let second = other
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        [first, second]
    })
}

fn headroom(settings: &ReplaySettings, seed: u64) -> FleetSpec {
    let slo = SloTargets {
        percentile: PERCENTILE,
        ttft_ms: settings.slo.ttft_ms,
        tpot_ms: settings.slo.tpot_ms,
    };
    let mut policy = Policy::new(
        settings.profile.model.clone(),
        slo,
        settings.min,
        settings.max,
        settings.startup,
    );
    policy.scale_down_guard = settings.scale_down_guard;
    policy.max_in_flight = Some(settings.concurrency);
    FleetSpec {
        sizing: Sizing::Autoscaled(Box::new(Autoscaling {
            policy,
            initial: settings.initial,
        })),
        learner: Some(LearnerConfig {
            seed,
            ..LearnerConfig::default()
        }),
        ..fixed_fleet(
            settings,
            seed,
            "headroom",
            Config::headroom_default(),
            settings.initial,
        )
    }
}

/// A fleet of `count` replicas with nothing to learn. Queue limits, times to live and the room per replica are the
/// same for every policy.
fn fixed_fleet(
    settings: &ReplaySettings,
    seed: u64,
    name: &str,
    config: Config,
    count: u32,
) -> FleetSpec {
    FleetSpec {
        name: name.into(),
        epp: config.with_max_concurrency(settings.concurrency),
        profile: settings.profile.clone(),
        startup: settings.startup,
        sizing: Sizing::Fixed(count),
        pickers: Pickers::ONE,
        clients: None,
        learner: None,
        slo: settings.slo,
        scrape_interval: SCRAPE_INTERVAL,
        sample_interval: SAMPLE_INTERVAL,
        seed,
    }
}
