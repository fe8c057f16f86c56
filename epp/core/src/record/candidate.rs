//! One endpoint in the record of a decision: what was read of it, predicted for it and made of it.

use std::sync::Arc;
use std::time::Duration;

use predictor::{Prediction, Quantiles};
use serde::{Deserialize, Serialize};

use crate::admit::Trust;
use crate::endpoint::{Attributes, LoadSnapshot, Lora, Scraped};
use crate::schedule::Candidate;

/// One endpoint as it looked.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CandidateRecord {
    /// Index in the pool.
    pub slot: u32,
    /// Dispatched and not ended.
    pub in_flight: u32,
    /// Of those, without a first token.
    pub waiting: u32,
    /// Uncached prompt tokens of the waiting ones.
    pub waiting_tokens: u64,
    /// Context tokens of the others.
    pub resident_tokens: u64,
    /// Labels it has produced.
    pub served: u32,
    /// Dispatches since the last scrape.
    pub since_scrape: u32,
    /// Output tokens expected of those in flight, where they are estimated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub estimated_tokens: u64,
    /// Learned limit on requests in flight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<u32>,
    /// Requests that other pickers are assumed to have sent there since they last told.
    #[serde(default, skip_serializing_if = "is_none_of")]
    pub assumed: u32,
    /// Tightest TPOT target on it, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tightest_tpot_ms: Option<u32>,
    /// The same among those that were expected to meet theirs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_tpot_ms: Option<u32>,
    /// Time left for the most urgent first token that was expected in time, milliseconds; negative = it is late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_first_token_in_ms: Option<i64>,
    /// How it stands with its passive health, unless it serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<String>,
    /// What its engine last said, if that was not too old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scrape: Option<ScrapeRecord>,
    /// Adapters that its engine last told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lora: Option<LoraRecord>,
    /// Numbers told of it beside its metrics.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attributes: Attributes,
    /// Leading blocks of the prompt that it has seen.
    pub matched_blocks: u32,
    /// Prompt tokens that those stand for.
    pub cached_tokens: u32,
    /// What was predicted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prediction: Option<PredictionRecord>,
    /// The filter, or the detector of room, that took it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removed_by: Option<Arc<str>>,
    /// It only prefills: its tokens after the first come from elsewhere.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_prefills: bool,
    /// Scores, in the order of the scorers; none where it was removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<f32>,
    /// Their weighted sum.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<f32>,
}

/// An engine's own numbers; absent = it told none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ScrapeRecord {
    /// Age at the pick, milliseconds.
    pub age_ms: f64,
    /// Requests that it holds back.
    pub waiting: Option<f32>,
    /// Requests in its batch.
    pub running: Option<f32>,
    /// Share of KV blocks in use, 0 to 1.
    pub kv_utilization: Option<f32>,
}

/// Adapters of an engine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoraRecord {
    /// Adapters that fit into a batch.
    pub max: u32,
    /// Those with a running request.
    pub running: Vec<Arc<str>>,
    /// Those with a waiting one.
    pub waiting: Vec<Arc<str>>,
}

/// A prediction: p50, p90 and p99 in milliseconds, and whether the model was to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PredictionRecord {
    /// Time to first token.
    pub ttft_ms: [f32; 3],
    /// Time per output token.
    pub tpot_ms: [f32; 3],
    /// Whether the model of TTFT was trained.
    pub ttft_trusted: bool,
    /// Whether the model of TPOT was.
    pub tpot_trusted: bool,
}

fn is_none_of(value: &u32) -> bool {
    *value == 0
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl From<&Lora> for LoraRecord {
    fn from(lora: &Lora) -> Self {
        Self {
            max: lora.max,
            running: lora.running.clone(),
            waiting: lora.waiting.clone(),
        }
    }
}

impl From<&LoraRecord> for Lora {
    fn from(lora: &LoraRecord) -> Self {
        Self {
            max: lora.max,
            running: lora.running.clone(),
            waiting: lora.waiting.clone(),
        }
    }
}

impl CandidateRecord {
    /// The readings of `candidate` at `now`.
    pub(super) fn of(candidate: &Candidate, now: Duration) -> Self {
        let LoadSnapshot {
            in_flight,
            waiting,
            waiting_tokens,
            resident_tokens,
            estimated_tokens,
            served,
            since_scrape,
            tightest_tpot_ms,
            kept_tpot_ms,
            kept_first_token_ms,
            limit,
            assumed,
            running: _,
        } = candidate.load;
        let left = |at: u64| at as i64 - now.as_millis() as i64;
        let known = |value: f32| (!value.is_nan()).then_some(value);
        let scrape = candidate.scraped.map(|scraped| ScrapeRecord {
            age_ms: scraped.age(now).as_secs_f64() * 1e3,
            waiting: known(scraped.waiting),
            running: known(scraped.running),
            kv_utilization: known(scraped.kv_utilization),
        });
        let of = |quantiles: &Quantiles| [quantiles.p50, quantiles.p90, quantiles.p99];
        let prediction = candidate.prediction.map(|prediction| PredictionRecord {
            ttft_ms: of(&prediction.ttft),
            tpot_ms: of(&prediction.tpot),
            ttft_trusted: candidate.trust.ttft,
            tpot_trusted: candidate.trust.tpot,
        });
        Self {
            slot: candidate.slot,
            in_flight,
            waiting,
            waiting_tokens,
            resident_tokens,
            served,
            since_scrape,
            estimated_tokens,
            limit,
            assumed,
            tightest_tpot_ms,
            kept_tpot_ms,
            kept_first_token_in_ms: kept_first_token_ms.map(left),
            scrape,
            matched_blocks: candidate.matched_blocks,
            cached_tokens: candidate.cached_tokens,
            prediction,
            only_prefills: !candidate.decodes,
            ..Self::default()
        }
    }

    /// The candidate as it was, at `now`.
    pub(crate) fn candidate(&self, now: Duration) -> Candidate {
        let unknown = |value: Option<f32>| value.unwrap_or(f32::NAN);
        let quantiles = |[p50, p90, p99]: [f32; 3]| Quantiles { p50, p90, p99 };
        let trust = self.prediction.map(|prediction| Trust {
            ttft: prediction.ttft_trusted,
            tpot: prediction.tpot_trusted,
        });
        Candidate {
            slot: self.slot,
            load: LoadSnapshot {
                in_flight: self.in_flight,
                waiting: self.waiting,
                waiting_tokens: self.waiting_tokens,
                running: self.in_flight.saturating_sub(self.waiting),
                resident_tokens: self.resident_tokens,
                estimated_tokens: self.estimated_tokens,
                served: self.served,
                since_scrape: self.since_scrape,
                tightest_tpot_ms: self.tightest_tpot_ms,
                kept_tpot_ms: self.kept_tpot_ms,
                limit: self.limit,
                assumed: self.assumed,
                kept_first_token_ms: self
                    .kept_first_token_in_ms
                    .map(|left| (now.as_millis() as i64).saturating_add(left).max(0) as u64),
            },
            scraped: self.scrape.map(|scrape| Scraped {
                at: now.saturating_sub(Duration::from_secs_f64(
                    (scrape.age_ms / 1e3).clamp(0.0, 1e6),
                )),
                waiting: unknown(scrape.waiting),
                running: unknown(scrape.running),
                kv_utilization: unknown(scrape.kv_utilization),
                block_tokens: None,
                kv_blocks: None,
            }),
            matched_blocks: self.matched_blocks,
            cached_tokens: self.cached_tokens,
            prediction: self.prediction.map(|prediction| Prediction {
                ttft: quantiles(prediction.ttft_ms),
                tpot: quantiles(prediction.tpot_ms),
            }),
            trust: trust.unwrap_or(Trust::NONE),
            decodes: !self.only_prefills,
        }
    }
}
