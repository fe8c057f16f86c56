//! The record of one decision: what was asked, what every endpoint looked like, what was picked, what became of it.
//!
//! A file of records has one JSON object a line. `pool` lines name endpoints and stand before the `pick` lines that
//! refer to them. Schema 1; fields may be added to it, and readers skip what they do not know. Nothing of a prompt, an
//! answer or a header's value is ever in a record.

mod candidate;

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::decision::{Decision, ModelState, Removal, ScorerName};
use crate::health::Standing;
use crate::in_flight::Completion;
use crate::outcome::Refusal;
use crate::pool::Pool;
use crate::request::Request;
use crate::schedule::Candidate;
use crate::slo::Slo;

pub use candidate::{CandidateRecord, LoraRecord, PredictionRecord, ScrapeRecord};

/// Version of the schema that is written.
pub const SCHEMA: u32 = 1;

/// One line of a file of records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Line {
    /// Endpoints that the picks after it refer to.
    Pool(PoolRecord),
    /// One decision.
    Pick(Box<PickRecord>),
}

/// Why a line is not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// It is no record.
    #[error("is no decision record: {0}")]
    Shape(String),
    /// A later version wrote it.
    #[error("has schema {0}; this version reads up to schema {SCHEMA}")]
    Later(u32),
}

impl Line {
    /// Reads one line.
    ///
    /// # Errors
    /// [`RecordError`].
    pub fn parse(text: &str) -> Result<Self, RecordError> {
        let shape = |error: serde_json::Error| RecordError::Shape(error.to_string());
        let value: serde_json::Value = serde_json::from_str(text).map_err(shape)?;
        let schema = value.get("schema").and_then(serde_json::Value::as_u64);
        match schema.map(|schema| u32::try_from(schema).unwrap_or(u32::MAX)) {
            Some(later) if later > SCHEMA => Err(RecordError::Later(later)),
            _ => serde_json::from_value(value).map_err(shape),
        }
    }
}

/// The endpoints of one pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PoolRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Number that picks refer to; unique in its file.
    pub pool: u64,
    /// In the order of the slots.
    pub endpoints: Vec<EndpointRecord>,
}

/// One endpoint of a pool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EndpointRecord {
    /// Name.
    pub name: Arc<str>,
    /// `ip:port`.
    pub address: Arc<str>,
    /// Labels.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
}

impl PoolRecord {
    /// `pool` under `number`.
    pub fn of(pool: &Pool, number: u64) -> Self {
        let endpoints = pool.endpoints.iter().map(|endpoint| EndpointRecord {
            name: Arc::clone(&endpoint.name),
            address: Arc::clone(&endpoint.address),
            labels: endpoint.labels.clone(),
        });
        Self {
            schema: SCHEMA,
            pool: number,
            endpoints: endpoints.collect(),
        }
    }
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PickRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// When it was made, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The request's id.
    pub id: String,
    /// Version of the configuration that decided.
    pub config: String,
    /// What was asked.
    pub request: RequestRecord,
    /// Time in the queue, milliseconds.
    pub waited_ms: f64,
    /// Where it was sent, and why; absent for a request that was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub picked: Option<Picked>,
    /// Why it was refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<Refused>,
    /// What became of it; absent while it is going on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
}

/// What a decision was asked for: sizes and names, never contents.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestRecord {
    /// Model that the client named.
    pub model: String,
    /// Model that it was sent on under, where that is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_model: Option<String>,
    /// Prompt tokens, estimated or counted.
    pub prompt_tokens: u32,
    /// Blocks that the prompt was hashed into.
    pub blocks: u32,
    /// Tokens per block.
    pub block_tokens: u32,
    /// Bytes of the body.
    pub bytes: u64,
    /// The client's own limit on output tokens.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u32>,
    /// Latency targets.
    #[serde(flatten)]
    pub slo: Slo,
    /// Band.
    pub priority: i32,
    /// Whether it may be refused for its SLO.
    pub sheddable: bool,
    /// Flow.
    pub flow: Arc<str>,
    /// What tells its session from others, as long as the picker runs; not the session's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// Endpoints that the proxy offered, where it offered some only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<u32>,
}

impl RequestRecord {
    /// What is recorded of `request`; `session` stands for its session.
    pub fn of(request: &Request, session: Option<String>) -> Self {
        Self {
            model: request.model.clone(),
            target_model: request.target_model.clone(),
            prompt_tokens: request.prompt_tokens,
            blocks: request.prefix.len() as u32,
            block_tokens: request.prefix_block_tokens,
            bytes: request.bytes,
            max_output_tokens: request.max_output_tokens,
            slo: request.slo,
            priority: request.priority,
            sheddable: request.sheddable(),
            flow: Arc::clone(&request.flow),
            session,
            subset: request.subset.as_ref().map(|subset| subset.len() as u32),
        }
    }
}

/// A pick and what it rested on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Picked {
    /// Number of the pool.
    pub pool: u64,
    /// The endpoint picked.
    pub slot: u32,
    /// Whether the prediction for it was trusted.
    pub trusted: bool,
    /// Whether no endpoint was predicted to meet the SLO.
    pub expected_miss: bool,
    /// State of the latency model; absent = nothing predicts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelState>,
    /// Scorers with their weights.
    pub scorers: Vec<ScorerRecord>,
    /// How many candidates each filter took away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removals: Vec<Removal>,
    /// Every endpoint that it might have gone to, in the order of the slots.
    pub candidates: Vec<CandidateRecord>,
}

/// A scorer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScorerRecord {
    /// Plugin name.
    pub name: Arc<str>,
    /// Weight.
    pub weight: f64,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// What it counts as.
    pub outcome: String,
    /// HTTP status.
    pub status: u16,
    /// Value of `x-llm-d-request-dropped-reason`.
    pub reason: String,
}

impl From<&Refusal> for Refused {
    fn from(refusal: &Refusal) -> Self {
        Self {
            outcome: refusal.outcome.name().to_owned(),
            status: refusal.status,
            reason: refusal.reason.to_owned(),
        }
    }
}

/// What became of a request that was sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ended {
    /// What it counts as.
    pub outcome: String,
    /// HTTP status of the answer; absent = there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Dispatch to first token, milliseconds; absent = no stream of tokens was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttft_ms: Option<f64>,
    /// Time per output token after the first, milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tpot_ms: Option<f64>,
    /// Dispatch to the end, milliseconds.
    pub duration_ms: f64,
    /// Prompt tokens: as told, else as expected.
    pub prompt_tokens: u32,
    /// Of those, from the prefix cache.
    pub cached_tokens: u32,
    /// Output tokens, where they were told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<u32>,
    /// Whether the SLO was met; absent = there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slo_met: Option<bool>,
}

impl Ended {
    /// What is recorded of an end; `status` is that of the answer.
    pub fn of(completion: &Completion, status: Option<u16>) -> Self {
        Self {
            outcome: completion.outcome.name().to_owned(),
            status,
            ttft_ms: completion.ttft_ms,
            tpot_ms: completion.tpot_ms,
            duration_ms: completion.duration.as_secs_f64() * 1e3,
            prompt_tokens: completion.prompt_tokens,
            cached_tokens: completion.cached_tokens,
            output_tokens: completion.output_tokens,
            slo_met: completion.slo_met,
        }
    }
}

impl Picked {
    /// What is recorded of `decision`, whose pool has `number`; `None` = it is not recorded.
    pub fn of(decision: &Decision, number: u64) -> Option<Self> {
        let record = decision.record.as_deref()?;
        let written = |candidate: &Candidate| {
            let endpoint = record.pool.endpoints.get(candidate.slot as usize);
            let attributes = endpoint.and_then(|endpoint| endpoint.attributes());
            let lora = endpoint.and_then(|endpoint| endpoint.lora());
            let standing = endpoint.map(|endpoint| endpoint.load.health.view(decision.at).standing);
            CandidateRecord {
                standing: standing.and_then(not_serving),
                lora: lora.as_deref().map(LoraRecord::from),
                attributes: attributes.as_deref().cloned().unwrap_or_default(),
                ..CandidateRecord::of(candidate, decision.at)
            }
        };
        let scored = record
            .candidates
            .iter()
            .enumerate()
            .map(|(at, candidate)| CandidateRecord {
                scores: record.scores(at).collect(),
                total: record.totals.get(at).copied(),
                ..written(candidate)
            });
        let removed = record.removed.iter().map(|one| CandidateRecord {
            removed_by: Some(Arc::clone(&one.filter)),
            ..written(&one.candidate)
        });
        let mut candidates: Vec<_> = scored.chain(removed).collect();
        candidates.sort_by_key(|candidate| candidate.slot);
        Some(Self {
            pool: number,
            slot: record.candidates.get(record.picked)?.slot,
            trusted: decision.trusted,
            expected_miss: decision.expected_miss,
            model: decision.state,
            scorers: record.scorers.iter().map(ScorerRecord::from).collect(),
            removals: decision.removals(),
            candidates,
        })
    }
}

/// How an endpoint stands, in one word, unless it serves.
fn not_serving(standing: Standing) -> Option<String> {
    let word = match standing {
        Standing::Serving => return None,
        Standing::Ejected { .. } => "ejected",
        Standing::HalfOpen => "half-open",
        Standing::Probing => "probing",
        Standing::Ramping { .. } => "ramping",
    };
    Some(word.to_owned())
}

impl From<&ScorerName> for ScorerRecord {
    fn from(scorer: &ScorerName) -> Self {
        Self {
            name: Arc::clone(&scorer.name),
            weight: scorer.weight,
        }
    }
}
