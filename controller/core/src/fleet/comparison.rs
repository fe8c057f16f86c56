//! Several routing policies over the same requests, seed by seed: medians, and the bars that one of them is held to.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use epp_core::Config;
use epp_core::config::ConfigError;
use predictor::LearnerConfig;
use serde::Serialize;
use simulator_core::Profile;

use super::client::Offer;
use super::{FleetReport, FleetSpec, Percentiles, Pickers, Sizing, Slo, replay};

/// Between two scrapes of a replica's metrics, as in llm-d's default refresh.
const SCRAPE_INTERVAL: Duration = Duration::from_millis(50);
/// Between two samples of the timeline, which nobody looks at here.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(60);

/// A policy: the endpoint picker's configuration under a name.
#[derive(Clone, Debug)]
pub struct Policy {
    /// As reports show it.
    pub name: String,
    /// What the endpoint picker is given.
    pub epp: Config,
}

impl Policy {
    /// The policy of an `EndpointPickerConfig` document.
    ///
    /// # Errors
    /// When the document is not a configuration.
    pub fn from_yaml(name: impl Into<String>, document: &str) -> Result<Self, ConfigError> {
        Ok(Self {
            name: name.into(),
            epp: Config::from_yaml(document)?,
        })
    }

    /// Those that come with the program, Headroom's default first: round robin, llm-d's default profile, and llm-d's
    /// newer one (stay with the prefix until its endpoint is overloaded, else the fewest tokens in flight).
    ///
    /// # Errors
    /// Never for the documents that are built in; a test loads them.
    pub fn built_in() -> Result<Vec<Self>, ConfigError> {
        let headroom = Self {
            name: "headroom".into(),
            epp: Config::headroom_default(),
        };
        let peers = [
            ("round-robin", include_str!("policies/round-robin.yaml")),
            ("llm-d default", include_str!("policies/llm-d-default.yaml")),
            (
                "llm-d token load",
                include_str!("policies/llm-d-token-load.yaml"),
            ),
        ];
        let peers = peers.map(|(name, document)| Self::from_yaml(name, document));
        [Ok(headroom)].into_iter().chain(peers).collect()
    }
}

/// What all policies meet alike.
#[derive(Clone, Debug)]
pub struct Setting {
    /// Hardware of the replicas.
    pub profile: Profile,
    /// Replicas, ready from the start.
    pub replicas: u32,
    /// What every request asks for and is scored against.
    pub slo: Slo,
    /// Requests under way at most; see [`FleetSpec::clients`].
    pub clients: Option<u32>,
}

/// The same requests for every policy, from one seed.
#[derive(Clone, Debug)]
pub struct Round {
    /// Seed of the requests, of ties, and of the engines' noise.
    pub seed: u64,
    /// The requests, in order of arrival.
    pub offers: Vec<Offer>,
}

/// What one policy made of one round, or the median over several.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Time to first token as the client sees it; infinite for who was refused or expired.
    pub ttft_ms: Percentiles,
    /// Time per output token of the served.
    pub tpot_ms: Percentiles,
    /// Answer tokens per second, from the first arrival to the last token.
    pub output_rate: f64,
    /// Requests that met both objectives ÷ all.
    pub attainment: f64,
    /// Prompt tokens that a replica found cached ÷ all of the served.
    pub hit_share: f64,
    /// Requests refused or expired.
    pub unserved: f64,
}

/// A policy and what it achieved.
#[derive(Clone, Debug, Serialize)]
pub struct Standing {
    /// The policy's name.
    pub policy: String,
    /// Medians, figure by figure.
    pub median: Figures,
    /// Round by round.
    pub rounds: Vec<Figures>,
}

/// Replays every round through every policy, `workers` at a time; the result does not depend on how many.
/// `done` is told how many of all runs have ended.
pub fn compare(
    policies: &[Policy],
    setting: &Setting,
    rounds: &[Round],
    workers: NonZeroUsize,
    done: &(dyn Fn(usize, usize) + Sync),
) -> Vec<Standing> {
    let runs = policies.len() * rounds.len();
    let (next, ended) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let results = Mutex::new(vec![None; runs]);
    thread::scope(|scope| {
        for _ in 0..workers.get().min(runs) {
            scope.spawn(|| {
                loop {
                    let run = next.fetch_add(1, Relaxed);
                    if run >= runs {
                        return;
                    }
                    let policy = &policies[run / rounds.len()];
                    let figures = play(policy, setting, &rounds[run % rounds.len()]);
                    if let Ok(mut results) = results.lock() {
                        results[run] = Some(figures);
                    }
                    done(ended.fetch_add(1, Relaxed) + 1, runs);
                }
            });
        }
    });
    let results = results.into_inner().unwrap_or_default();
    let standing = |(policy, figures): (&Policy, &[Option<Figures>])| {
        let rounds: Vec<Figures> = figures.iter().copied().flatten().collect();
        Standing {
            policy: policy.name.clone(),
            median: Figures::median(&rounds),
            rounds,
        }
    };
    let by_policy = results.chunks(rounds.len().max(1));
    policies.iter().zip(by_policy).map(standing).collect()
}

/// One policy over one round.
pub fn play(policy: &Policy, setting: &Setting, round: &Round) -> Figures {
    let learns = policy.epp.predicted_latency.is_some();
    let spec = FleetSpec {
        name: policy.name.clone(),
        epp: policy.epp.clone(),
        profile: setting.profile.clone(),
        startup: setting.profile.startup(),
        sizing: Sizing::Fixed(setting.replicas),
        pickers: Pickers::ONE,
        clients: setting.clients,
        learner: learns.then(|| LearnerConfig {
            seed: round.seed,
            ..LearnerConfig::default()
        }),
        slo: setting.slo,
        scrape_interval: SCRAPE_INTERVAL,
        sample_interval: SAMPLE_INTERVAL,
        seed: round.seed,
    };
    Figures::of(&replay(&spec, &round.offers))
}

impl Figures {
    /// The figures of a report over all kinds of client.
    pub fn of(report: &FleetReport) -> Self {
        Self {
            ttft_ms: report.all.ttft_ms,
            tpot_ms: report.all.tpot_ms,
            output_rate: report.output_rate(),
            attainment: report.all.attainment(),
            hit_share: report.hit_share,
            unserved: report.all.unserved() as f64,
        }
    }

    /// The median of each figure by itself; NaN without rounds.
    pub fn median(rounds: &[Self]) -> Self {
        let median = |of: fn(&Self) -> f64| median(rounds.iter().map(of).collect());
        Self {
            ttft_ms: Percentiles {
                p50: median(|it| it.ttft_ms.p50),
                p90: median(|it| it.ttft_ms.p90),
                p99: median(|it| it.ttft_ms.p99),
            },
            tpot_ms: Percentiles {
                p50: median(|it| it.tpot_ms.p50),
                p90: median(|it| it.tpot_ms.p90),
                p99: median(|it| it.tpot_ms.p99),
            },
            output_rate: median(|it| it.output_rate),
            attainment: median(|it| it.attainment),
            hit_share: median(|it| it.hit_share),
            unserved: median(|it| it.unserved),
        }
    }
}

/// The middle value, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().wrapping_sub(1) / 2, values.len() / 2);
    match (values.get(low), values.get(high)) {
        (Some(low), Some(high)) if low == high => *low,
        (Some(low), Some(high)) => (low + high) / 2.0,
        _ => f64::NAN,
    }
}

/// One thing that the policy under test is held to.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bar {
    /// What is compared, and with whom.
    pub what: String,
    /// What the policy under test achieved.
    pub achieved: f64,
    /// The worst that is allowed.
    pub allowed: f64,
    /// Whether it was met.
    pub met: bool,
}

/// TTFT p90 ÷ that of the best policy, at most.
const TTFT_RATIO: f64 = 1.02;
/// Attainment below that of the best policy, at most.
const ATTAINMENT_LESS: f64 = 0.005;
/// TPOT p90 ÷ that of the policy with the best TTFT, at most.
const TPOT_RATIO: f64 = 1.05;
/// Output tokens per second ÷ that of the policy with the best TTFT, at least.
const OUTPUT_RATIO: f64 = 0.98;

/// Holds the policy called `ours` to its bars against all others: TTFT p90 and attainment against the best policy;
/// TPOT p90 and throughput against the policy with the best TTFT p90; and no other policy may be better on both TTFT
/// p90 and TPOT p90. Hits are not judged. Nothing if no policy is called so.
pub fn judge(ours: &str, standings: &[Standing]) -> Vec<Bar> {
    let Some(own) = standings.iter().find(|standing| standing.policy == ours) else {
        return Vec::new();
    };
    let own = own.median;
    let best = standings
        .iter()
        .min_by(|a, b| a.median.ttft_ms.p90.total_cmp(&b.median.ttft_ms.p90))
        .map_or((ours, own), |best| (&best.policy, best.median));
    let attained = standings
        .iter()
        .max_by(|a, b| a.median.attainment.total_cmp(&b.median.attainment))
        .map_or((ours, own), |best| (&best.policy, best.median));
    let at_most = |what: String, achieved: f64, allowed: f64| Bar {
        what,
        achieved,
        allowed,
        met: achieved <= allowed,
    };
    let at_least = |what: String, achieved: f64, allowed: f64| Bar {
        what,
        achieved,
        allowed,
        met: achieved >= allowed,
    };
    let mut bars = vec![
        at_most(
            format!("TTFT p90, ms: at most {TTFT_RATIO} × the best ({})", best.0),
            own.ttft_ms.p90,
            TTFT_RATIO * best.1.ttft_ms.p90,
        ),
        at_least(
            format!(
                "attainment: at least the best ({}) less {ATTAINMENT_LESS}",
                attained.0
            ),
            own.attainment,
            attained.1.attainment - ATTAINMENT_LESS,
        ),
        at_most(
            format!(
                "TPOT p90, ms: at most {TPOT_RATIO} × that of the best TTFT ({})",
                best.0
            ),
            own.tpot_ms.p90,
            TPOT_RATIO * best.1.tpot_ms.p90,
        ),
        at_least(
            format!(
                "output tokens/s: at least {OUTPUT_RATIO} × that of the best TTFT ({})",
                best.0
            ),
            own.output_rate,
            OUTPUT_RATIO * best.1.output_rate,
        ),
    ];
    let beats = |standing: &&Standing| {
        let other = standing.median;
        other.ttft_ms.p90 < own.ttft_ms.p90 && other.tpot_ms.p90 < own.tpot_ms.p90
    };
    let beaten_by: Vec<&str> = standings
        .iter()
        .filter(|standing| standing.policy != ours)
        .filter(beats)
        .map(|standing| standing.policy.as_str())
        .collect();
    let by = if beaten_by.is_empty() {
        String::new()
    } else {
        format!(" ({})", beaten_by.join(", "))
    };
    bars.push(at_most(
        format!("policies better on both TTFT p90 and TPOT p90: none{by}"),
        beaten_by.len() as f64,
        0.0,
    ));
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    fn standing(policy: &str, ttft: f64, tpot: f64, output_rate: f64, attainment: f64) -> Standing {
        let all = |p90| Percentiles {
            p50: p90,
            p90,
            p99: p90,
        };
        let median = Figures {
            ttft_ms: all(ttft),
            tpot_ms: all(tpot),
            output_rate,
            attainment,
            hit_share: 0.0,
            unserved: 0.0,
        };
        Standing {
            policy: policy.into(),
            median,
            rounds: vec![median],
        }
    }

    fn met(ours: Standing, others: &[Standing]) -> Vec<bool> {
        let standings = [&[ours], others].concat();
        judge("ours", &standings)
            .iter()
            .map(|bar| bar.met)
            .collect()
    }

    #[test]
    fn every_bar_can_be_missed_by_itself() {
        let peer = || standing("peer", 100.0, 50.0, 1_000.0, 0.9);
        let judged = |ttft, tpot, output, attainment| {
            met(standing("ours", ttft, tpot, output, attainment), &[peer()])
        };
        assert_eq!(judged(101.0, 50.0, 1_000.0, 0.9), [true; 5]);
        assert_eq!(
            judged(103.0, 50.0, 1_000.0, 0.9),
            [false, true, true, true, true]
        );
        assert_eq!(
            judged(101.0, 50.0, 1_000.0, 0.894),
            [true, false, true, true, true]
        );
        assert_eq!(
            judged(101.0, 53.0, 1_000.0, 0.9),
            [true, true, false, true, false]
        );
        assert_eq!(
            judged(101.0, 50.0, 979.0, 0.9),
            [true, true, true, false, true]
        );
        assert_eq!(
            judged(101.0, 50.1, 1_000.0, 0.9),
            [true, true, true, true, false]
        );
    }

    #[test]
    fn the_best_ttft_sets_the_other_bars() {
        let fast = standing("fast", 90.0, 60.0, 900.0, 0.8);
        let slow = standing("slow", 200.0, 40.0, 2_000.0, 0.9);
        assert_eq!(
            met(standing("ours", 91.0, 62.0, 890.0, 0.9), &[fast, slow]),
            [true, true, true, true, false],
            "fast is better on both"
        );
    }

    #[test]
    fn medians_are_taken_figure_by_figure() {
        let rounds = [1.0, 9.0, 2.0, 4.0].map(|ttft| standing("p", ttft, 10.0 - ttft, 1.0, 1.0));
        let median = Figures::median(&rounds.map(|standing| standing.median));
        assert_eq!((median.ttft_ms.p90, median.tpot_ms.p90), (3.0, 7.0));
        assert!(Figures::median(&[]).attainment.is_nan());
        let never =
            [1.0, f64::INFINITY, f64::INFINITY].map(|ttft| standing("p", ttft, 1.0, 1.0, 1.0));
        let median = Figures::median(&never.map(|standing| standing.median));
        assert_eq!(median.ttft_ms.p90, f64::INFINITY);
    }

    #[test]
    fn the_built_in_policies_load_and_ours_is_the_default() {
        let policies = Policy::built_in().unwrap();
        let names: Vec<&str> = policies.iter().map(|policy| policy.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "headroom",
                "round-robin",
                "llm-d default",
                "llm-d token load"
            ]
        );
        assert_eq!(policies[0].epp, Config::headroom_default());
        for policy in &policies {
            if policy.name != "headroom" {
                let theirs = Config::llmd_default().detector;
                assert_eq!(policy.epp.detector, theirs, "{}", policy.name);
            }
            assert!(
                policy.epp.flow_control(),
                "{} has another queue",
                policy.name
            );
        }
    }
}
