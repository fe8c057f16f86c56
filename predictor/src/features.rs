//! What is known about a request on one endpoint when it is dispatched.

use serde::{Deserialize, Serialize};

/// Facts about one request on one endpoint, frozen at dispatch. NaN = unknown.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Features {
    /// Tokens of the whole prompt.
    pub input_tokens: f32,
    /// Those of them that are expected to hit the endpoint's prefix cache.
    pub cached_tokens: f32,
    /// Other requests dispatched there that have no first token yet.
    pub waiting: f32,
    /// Uncached prompt tokens of those waiting.
    pub waiting_tokens: f32,
    /// Other requests there that are decoding.
    pub running: f32,
    /// Context tokens (prompt and emitted) of those running.
    pub resident_tokens: f32,
    /// Share of the KV cache in use, 0 to 1, as scraped; NaN = unknown or stale.
    pub kv_utilization: f32,
}

impl Features {
    /// A request of `input_tokens` on an idle endpoint with nothing cached.
    pub fn idle(input_tokens: f32) -> Self {
        Self {
            input_tokens,
            cached_tokens: 0.0,
            waiting: 0.0,
            waiting_tokens: 0.0,
            running: 0.0,
            resident_tokens: 0.0,
            kv_utilization: f32::NAN,
        }
    }

    /// Prompt tokens that must be computed: input less cached, never negative.
    pub fn uncached_tokens(&self) -> f32 {
        // An unknown hit share is no hit: the request must then be computed whole.
        let cached = if self.cached_tokens.is_nan() {
            0.0
        } else {
            self.cached_tokens
        };
        // Written so that an unknown prompt length stays unknown (`max` would drop the NaN).
        let uncached = self.input_tokens - cached;
        if uncached < 0.0 { 0.0 } else { uncached }
    }
}
