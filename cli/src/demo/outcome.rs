//! What the demo found, as the tables, the page and the JSON file show it.

use std::collections::BTreeMap;
use std::time::Duration;

use controller_core::Decision;
use controller_core::fleet::{FleetReport, KindScore, Percentiles, Sample, Slo};
use predictor::{State, Target};
use serde::{Serialize, Serializer};
use simulator_core::trace::TraceStats;

use super::args::{LiveSettings, ReplaySettings};

/// Name and version of the JSON file's schema. The number grows when a field changes its meaning or goes.
pub(crate) const SCHEMA: &str = "headroom.demo/v1";

/// Everything a run of the demo found.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Findings {
    /// [`SCHEMA`].
    pub(crate) schema: &'static str,
    /// Version of the program.
    pub(crate) version: &'static str,
    /// Command that finds the same again.
    pub(crate) command: String,
    /// Seed of everything random.
    pub(crate) seed: u64,
    /// Shares of the kinds of client, percent.
    pub(crate) kinds_percent: [u32; 3],
    /// What was replayed.
    pub(crate) trace: TraceFacts,
    /// The live part.
    pub(crate) live: Option<Live>,
    /// The replay.
    pub(crate) replay: Option<Replay>,
}

/// The trace, described.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TraceFacts {
    /// File name without its folder, or the generator's name.
    pub(crate) name: String,
    /// Requests, lengths and sharing of the whole of it.
    #[serde(flatten)]
    pub(crate) stats: TraceStats,
}

/// What happened behind Envoy.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Live {
    /// What was asked for.
    pub(crate) settings: LiveSettings,
    /// Envoy's own words on its version.
    pub(crate) envoy: String,
    /// Scores by kind of client.
    pub(crate) kinds: BTreeMap<&'static str, Scores>,
    /// Share of the prompt tokens of served requests that a server had cached, as the servers state it.
    pub(crate) hit_share: f64,
    /// The same with one infinite cache, over the requests offered.
    pub(crate) hit_bound: f64,
    /// Seconds from the first request until both halves of the model were trained.
    pub(crate) trained_at_s: Option<f64>,
    /// Replicas on average, starting and draining ones included.
    pub(crate) mean_replicas: f64,
    /// How late the latest request left its client, in milliseconds: above some tens the machine was too busy.
    pub(crate) client_lateness_ms: f64,
    /// Requests that ended in none of the expected ways, by problem.
    pub(crate) problems: BTreeMap<String, u64>,
    /// The predictor at the end.
    pub(crate) predictor: Vec<PredictorScores>,
    /// Changes of the count of replicas.
    pub(crate) scalings: Vec<Scaling>,
    /// Second by second.
    pub(crate) timeline: Vec<LiveSample>,
}

/// The live part at one second.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct LiveSample {
    /// Seconds since the first request was due.
    pub(crate) at: f64,
    /// Requests offered per second, over the last five.
    pub(crate) offered: f64,
    /// Latencies of the last five seconds, milliseconds.
    pub(crate) ttft_p50: Option<f64>,
    pub(crate) ttft_p90: Option<f64>,
    pub(crate) tpot_p50: Option<f64>,
    pub(crate) tpot_p90: Option<f64>,
    /// Cached share of the prompt tokens answered in the last five seconds.
    pub(crate) hit_share: Option<f64>,
    /// Median absolute error of the TTFT prediction, percent, over the learner's window.
    pub(crate) ttft_error: Option<f64>,
    /// The same of TPOT.
    pub(crate) tpot_error: Option<f64>,
    /// The less trusted of the two halves of the model.
    pub(crate) model: State,
    /// Requests in the picker's queue.
    pub(crate) queued: u64,
    /// Shed so far: no server could meet the SLO.
    pub(crate) shed: u64,
    /// Refused or expired so far for other reasons.
    pub(crate) dropped: u64,
    /// Failed so far.
    pub(crate) failed: u64,
    /// Replicas by state.
    pub(crate) ready: u32,
    pub(crate) starting: u32,
    pub(crate) draining: u32,
}

/// What the replay compared.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Replay {
    /// What was asked for.
    pub(crate) settings: ReplaySettings,
    /// Requests replayed.
    pub(crate) requests: usize,
    /// Cached share of prompt blocks that one infinite cache would reach.
    pub(crate) hit_bound: f64,
    /// Headroom first, then the others.
    pub(crate) fleets: Vec<Fleet>,
}

/// One replayed fleet.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Fleet {
    /// The policy's name.
    pub(crate) policy: String,
    /// Scores by kind of client.
    pub(crate) kinds: BTreeMap<&'static str, Scores>,
    /// Share of the prompt tokens of served requests that a replica had cached.
    pub(crate) hit_share: f64,
    /// From the first arrival to the last token, seconds.
    pub(crate) makespan_s: f64,
    /// Replicas on average.
    pub(crate) mean_replicas: f64,
    /// From the start of each launch to the end of each drain.
    pub(crate) replica_seconds: f64,
    /// The predictor, where the policy has one.
    pub(crate) predictor: Vec<PredictorScores>,
    /// Changes of the count of replicas.
    pub(crate) scalings: Vec<Scaling>,
    /// The fleet over time.
    pub(crate) timeline: Vec<Sample>,
}

/// What became of one kind of client's requests.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Scores {
    /// Requests that met both SLOs, of all offered; absent when none was.
    pub(crate) attainment: Option<f64>,
    /// The rest.
    #[serde(flatten)]
    pub(crate) score: KindScore,
}

/// One change of the count of replicas.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Scaling {
    /// Seconds since the first request was due.
    pub(crate) at: f64,
    /// Replicas before.
    pub(crate) from: u32,
    /// Replicas wanted.
    pub(crate) to: u32,
    /// Why, a sentence each.
    pub(crate) reasons: Vec<String>,
}

/// How the predictions of one latency fared, each label scored with what was predicted at its dispatch.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct PredictorScores {
    /// Which latency.
    pub(crate) target: Target,
    /// How far the model is trusted.
    pub(crate) state: State,
    /// Labels learned from.
    pub(crate) labels: u64,
    /// Refits put in force.
    pub(crate) refits: u64,
    /// Mean and median absolute error, percent.
    #[serde(serialize_with = "finite")]
    pub(crate) mape: f64,
    #[serde(serialize_with = "finite")]
    pub(crate) median_ape: f64,
    /// Share of labels at or below the predicted 90th percentile.
    #[serde(serialize_with = "finite")]
    pub(crate) coverage_p90: f64,
}

impl From<KindScore> for Scores {
    fn from(score: KindScore) -> Self {
        let attainment = score.attainment();
        Self {
            attainment: attainment.is_finite().then_some(attainment),
            score,
        }
    }
}

impl Scores {
    /// Requests refused for any reason.
    pub(crate) fn refused(&self) -> u64 {
        self.score.refused.values().sum()
    }

    /// TTFT percentiles.
    pub(crate) fn ttft(&self) -> Percentiles {
        self.score.ttft_ms
    }
}

impl Fleet {
    /// The scores of one kind, if it asked at all.
    pub(crate) fn kind(&self, name: &str) -> Option<&Scores> {
        self.kinds.get(name)
    }
}

impl From<FleetReport> for Fleet {
    fn from(report: FleetReport) -> Self {
        Self {
            mean_replicas: report.mean_replicas(),
            policy: report.policy,
            kinds: report
                .kinds
                .into_iter()
                .map(|(kind, score)| (kind, score.into()))
                .collect(),
            hit_share: report.hit_share,
            makespan_s: report.makespan.as_secs_f64(),
            replica_seconds: report.replica_seconds,
            predictor: report
                .predictor
                .as_ref()
                .map(predictor_scores)
                .unwrap_or_default(),
            scalings: report
                .decisions
                .iter()
                .map(|decision| Scaling::of(decision, Duration::ZERO))
                .collect(),
            timeline: report.timeline,
        }
    }
}

impl Scaling {
    /// The change that `decision` makes, seen from `start`.
    pub(crate) fn of(decision: &Decision, start: Duration) -> Self {
        Self {
            at: decision.at.saturating_sub(start).as_secs_f64(),
            from: decision.previous,
            to: decision.replicas,
            reasons: decision.reasons.iter().map(ToString::to_string).collect(),
        }
    }
}

/// Both targets of a learner's report.
pub(crate) fn predictor_scores(report: &predictor::Report) -> Vec<PredictorScores> {
    [Target::Ttft, Target::Tpot]
        .into_iter()
        .map(|target| {
            let scores = report.target(target);
            PredictorScores {
                target,
                state: scores.state,
                labels: scores.labels,
                refits: scores.refits,
                mape: f64::from(scores.mape),
                median_ape: f64::from(scores.median_ape),
                coverage_p90: f64::from(scores.coverage_p90),
            }
        })
        .collect()
}

/// The SLO as a phrase: `TTFT ≤ 2 s, TPOT ≤ 150 ms`.
pub(crate) fn slo_phrase(slo: Slo) -> String {
    format!(
        "TTFT ≤ {}, TPOT ≤ {}",
        super::format::milliseconds(slo.ttft_ms),
        super::format::milliseconds(slo.tpot_ms)
    )
}

fn finite<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.is_finite().then_some(*value).serialize(serializer)
}
