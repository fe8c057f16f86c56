//! One inference request, as far as routing needs to know it.

use std::sync::Arc;
use std::time::Duration;

use crate::slo::Slo;

/// A parsed request. The shell fills it from headers and body; nothing in it changes afterwards.
#[derive(Clone, Debug)]
pub struct Request {
    /// Correlates the request across hops (`x-request-id`).
    pub id: String,
    /// Model the client asked for.
    pub model: String,
    /// The model it is sent on under, where that is another.
    pub target_model: Option<String>,
    /// Prompt length in tokens, estimated or real.
    pub prompt_tokens: u32,
    /// Chained hashes of the prompt's blocks, from [`crate::PrefixHasher`]; empty = shares nothing.
    pub prefix: Arc<[u64]>,
    /// Tokens per hash of `prefix`.
    pub prefix_block_tokens: u32,
    /// Latency targets, headers first, then the objective's.
    pub slo: Slo,
    /// Band: higher goes first, negative is sheddable.
    pub priority: i32,
    /// The objective allows shedding whatever the priority.
    pub shed: bool,
    /// Fairness id: the flow within the band.
    pub flow: Arc<str>,
    /// The client's own limit on output tokens.
    pub max_output_tokens: Option<u32>,
    /// The client asked for a stream of events.
    pub streams: bool,
    /// Body size in bytes, which the queue's byte caps count.
    pub bytes: u64,
    /// The client's own limit on its time in the queue; it can only shorten the configured one.
    pub ttl: Option<Duration>,
    /// The proxy's choice of endpoints, `ip:port` each (only the IP part counts); `None` = all.
    pub subset: Option<Vec<String>>,
    /// The session it belongs to, as `session-id-producer` reads it; `None` = none was told.
    pub session: Option<Arc<str>>,
    /// Values of those headers that the configuration reads ([`crate::config::Config::headers_in_use`]), names in
    /// lower case.
    pub headers: Vec<(Arc<str>, String)>,
    /// Keep everything that the pick rests on, for [`crate::Decision::explain`] and for its record. A shell that serves
    /// many says for which ones: it takes memory in proportion to the pool.
    pub recorded: bool,
}

impl Request {
    /// The value of a header that the configuration reads; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut named = self.headers.iter().filter(|(known, _)| &**known == name);
        named.next().map(|(_, value)| value.as_str())
    }

    /// The model that the server is asked for.
    pub fn sent_model(&self) -> &str {
        self.target_model.as_deref().unwrap_or(&self.model)
    }

    /// Whether the request may be refused for its SLO: negative priority, or an objective with `shed: true`.
    pub fn sheddable(&self) -> bool {
        self.priority < 0 || self.shed
    }
}

impl Default for Request {
    /// An empty request of priority 0 in the default flow.
    fn default() -> Self {
        Self {
            id: String::new(),
            model: String::new(),
            target_model: None,
            prompt_tokens: 0,
            prefix: Arc::from([]),
            prefix_block_tokens: crate::prefix::MIN_BLOCK_TOKENS,
            slo: Slo::NONE,
            priority: 0,
            shed: false,
            flow: Arc::from("default-flow"),
            max_output_tokens: None,
            streams: false,
            bytes: 0,
            ttl: None,
            subset: None,
            session: None,
            headers: Vec::new(),
            recorded: true,
        }
    }
}
