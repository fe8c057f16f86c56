//! How a stream ended, and what is known then.

use std::time::Duration;

use predictor::{Observation, Prediction};
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The server's answer was relayed to its end.
    Complete {
        /// HTTP status of the answer.
        status: u16,
        /// Whether the answer was a stream of events.
        streaming: bool,
        /// Prompt tokens, from usage.
        prompt_tokens: Option<u32>,
        /// Of those cached, from usage.
        cached_tokens: Option<u32>,
        /// Output tokens, from usage.
        output_tokens: Option<u32>,
    },
    /// The client left.
    ClientGone,
    /// The server broke its answer off, and said so.
    UpstreamCut,
    /// The answer broke off; nobody says whether the client left or the server ended it. Where passive health sees
    /// that far more answers of this endpoint break off than of others it counts as [`Self::UpstreamCut`], else as
    /// [`Self::ClientGone`].
    BrokenOff,
    /// The request was taken off the server to make room.
    Evicted,
}

impl End {
    /// What the request counts as; `blamed` = an answer that broke off is held against its endpoint.
    pub(super) fn outcome(self, blamed: bool) -> Outcome {
        match self {
            Self::Complete {
                status: 200..=299, ..
            } => Outcome::Served,
            Self::Complete { .. } => Outcome::Failed,
            Self::ClientGone => Outcome::ClientGone,
            Self::UpstreamCut => Outcome::UpstreamCut,
            Self::BrokenOff if blamed => Outcome::UpstreamCut,
            Self::BrokenOff => Outcome::ClientGone,
            Self::Evicted => Outcome::Evicted,
        }
    }
}

/// Why a stream taught nothing about the time per output token (and, before its first token, nothing at all).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unlearned {
    /// No producer of predictions is configured.
    Off,
    /// The status was not 200.
    NotOk,
    /// The answer was not a stream, so its first token was not seen.
    NotStreaming,
    /// The stream was cancelled, cut or evicted.
    Unfinished,
    /// One of the first ten after the endpoint's start.
    ColdStart,
    /// The server told no token counts.
    NoUsage,
    /// Fewer than two output tokens have no time between them.
    TooShort,
}

impl Unlearned {
    /// The reason as metric labels spell it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::NotOk => "not-ok",
            Self::NotStreaming => "not-streaming",
            Self::Unfinished => "unfinished",
            Self::ColdStart => "cold-start",
            Self::NoUsage => "no-usage",
            Self::TooShort => "too-short",
        }
    }
}

/// What is known of a request once its stream has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Completion {
    /// What the request counts as.
    pub outcome: Outcome,
    /// The labels not yet handed out: the one for TPOT, or none. (That for TTFT came at the first token.)
    pub observations: Vec<Observation>,
    /// Why there is none.
    pub unlearned: Option<Unlearned>,
    /// Time in the queue.
    pub waited: Duration,
    /// Dispatch to first token in milliseconds; `None` = none was seen.
    pub ttft_ms: Option<f64>,
    /// Mean time per output token after the first in milliseconds; needs usage and two tokens.
    pub tpot_ms: Option<f64>,
    /// Dispatch to end.
    pub duration: Duration,
    /// Prompt tokens, from usage else estimated.
    pub prompt_tokens: u32,
    /// Cached prompt tokens, from usage else as the prefix index expected.
    pub cached_tokens: u32,
    /// Output tokens, from usage.
    pub output_tokens: Option<u32>,
    /// Whether the SLO was met, queueing included; `None` = there was no SLO.
    pub slo_met: Option<bool>,
    /// What was predicted at dispatch.
    pub predicted: Option<Prediction>,
}
