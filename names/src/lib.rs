//! Every header, label and metadata name Headroom puts on or takes from a wire, with its aliases.
//!
//! Nothing else spells these: an alias added here is understood everywhere.

/// A name in force and the older names that mean the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name {
    /// What we write, and what wins when several are present.
    pub canonical: &'static str,
    /// Accepted when read.
    pub aliases: &'static [&'static str],
}

impl Name {
    const fn new(canonical: &'static str, aliases: &'static [&'static str]) -> Self {
        Self { canonical, aliases }
    }

    /// The canonical name, then its aliases, in order of precedence.
    pub fn all(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.canonical).chain(self.aliases.iter().copied())
    }

    /// Whether `name` (already lower case) is this name or one of its aliases.
    pub fn matches(&self, name: &str) -> bool {
        self.canonical == name || self.aliases.contains(&name)
    }
}

/// HTTP headers (lower case, as HTTP/2 carries them).
pub mod header {
    use super::Name;

    /// Request: the time to first token the client asks for, in milliseconds.
    pub const SLO_TTFT_MS: Name = Name::new("x-llm-d-slo-ttft-ms", &["x-slo-ttft-ms"]);
    /// Request: the time per output token the client asks for, in milliseconds.
    pub const SLO_TPOT_MS: Name = Name::new("x-llm-d-slo-tpot-ms", &["x-slo-tpot-ms"]);
    /// Request: the objective that gives the request its priority.
    pub const OBJECTIVE: Name = Name::new(
        "x-llm-d-inference-objective",
        &["x-gateway-inference-objective"],
    );
    /// Request: the tenant whose flow the request joins.
    pub const FAIRNESS_ID: Name = Name::new(
        "x-llm-d-inference-fairness-id",
        &["x-gateway-inference-fairness-id"],
    );
    /// Request: the model name to send on instead of the body's.
    pub const MODEL_REWRITE: Name = Name::new(
        "x-llm-d-model-name-rewrite",
        &["x-gateway-model-name-rewrite"],
    );
    /// Request: a shorter time to live in the queue.
    pub const TTL: Name = Name::new("x-llm-d-inference-ttl", &[]);
    /// Refusal: why the request was dropped.
    pub const DROPPED_REASON: &str = "x-llm-d-request-dropped-reason";
    /// To the proxy: the picked endpoints, `ip:port[,ip:port…]`; also the dynamic metadata key.
    pub const DESTINATION: &str = "x-gateway-destination-endpoint";
    /// From the proxy: the endpoint that answered.
    pub const DESTINATION_SERVED: &str = "x-gateway-destination-endpoint-served";
    /// From the proxy: the endpoints to choose among.
    pub const DESTINATION_SUBSET: &str = "x-gateway-destination-endpoint-subset";
    /// To the proxy: the weighted score of every candidate.
    pub const DESTINATION_SCORES: &str = "x-gateway-destination-endpoint-scores";
    /// Debug header llm-d's picker adds to every response it saw.
    pub const RESPONSE_SEEN: &str = "x-went-into-resp-headers";
    /// Correlates a request across hops.
    pub const REQUEST_ID: &str = "x-request-id";

    /// Headers that choose where a request goes: a client must never set them.
    pub const ROUTING: &[&str] = &[
        DESTINATION,
        DESTINATION_SERVED,
        DESTINATION_SUBSET,
        "x-prefiller-host-port",
        "x-encoder-hosts-ports",
        "x-data-parallel-host-port",
        "x-data-parallel-rank",
        "x-kv-cache-source-host-port",
    ];

    /// Whether the picker keeps `name` to itself: read from the client, never set again on the way out.
    pub fn system_owned(name: &str) -> bool {
        let read = [
            SLO_TTFT_MS,
            SLO_TPOT_MS,
            OBJECTIVE,
            FAIRNESS_ID,
            MODEL_REWRITE,
            TTL,
        ];
        ROUTING.contains(&name)
            || matches!(name, DROPPED_REASON | "content-length")
            || read.iter().any(|owned| owned.matches(name))
    }
}

/// Values of [`header::DROPPED_REASON`]. `BAD_REQUEST`, `SLO_UNATTAINABLE` and `OTHER` are Headroom's, the rest llm-d's.
pub mod dropped_reason {
    /// The queue, or the room for arriving bodies, is full.
    pub const SATURATED: &str = "rejected-saturated";
    /// There is nowhere to send the request.
    pub const NO_ENDPOINTS: &str = "rejected-no-endpoints";
    /// It waited longer than it may.
    pub const TTL_EXPIRED: &str = "rejected-ttl-expired";
    /// Its client left while it was queued.
    pub const CONTEXT_CANCELLED: &str = "rejected-context-cancelled";
    /// The picker is stopping.
    pub const SHUTTING_DOWN: &str = "rejected-shutting-down";
    /// It was taken off its server to make room.
    pub const EVICTED: &str = "evicted";
    /// No endpoint could meet its SLO.
    pub const SLO_UNATTAINABLE: &str = "rejected-slo-unattainable";
    /// It could not be read.
    pub const BAD_REQUEST: &str = "rejected-bad-request";
    /// Anything else.
    pub const OTHER: &str = "rejected-other";
}

/// ext_proc dynamic metadata namespaces.
pub mod metadata {
    /// Where the pick is written and the served endpoint read.
    pub const LB: &str = "envoy.lb";
    /// Where the proxy puts the endpoints to choose among.
    pub const SUBSET_HINT: &str = "envoy.lb.subset_hint";
}

/// gRPC health service names.
pub mod health {
    /// What Envoy's active health check asks for.
    pub const EXT_PROC: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
    /// Serving whenever the process lives.
    pub const LIVENESS: &str = "liveness";
    /// Serving when the picker can route.
    pub const READINESS: &str = "readiness";
}

/// Prometheus metric names. Counters are given without `_total`, which the exposition adds.
pub mod metric {
    /// Prefix of the endpoint picker's own metrics, as llm-d spells it.
    pub const EPP_PREFIX: &str = "llm_d_epp";
    /// Prefix of the metrics only Headroom has.
    pub const HEADROOM_PREFIX: &str = "headroom";

    /// vLLM's names, read from engines and written by the simulator.
    pub mod vllm {
        /// Requests in the running batch.
        pub const RUNNING: &str = "vllm:num_requests_running";
        /// Requests waiting for admission to the batch.
        pub const WAITING: &str = "vllm:num_requests_waiting";
        /// Share of KV blocks in use, 0 to 1.
        pub const KV_USAGE: &str = "vllm:kv_cache_usage_perc";
        /// Info gauge with the labels `block_size` and `num_gpu_blocks`.
        pub const CACHE_CONFIG: &str = "vllm:cache_config_info";
    }
}

#[cfg(test)]
mod tests {
    use super::header;

    #[test]
    fn a_client_cannot_keep_a_routing_header() {
        for name in header::ROUTING {
            assert!(header::system_owned(name), "{name}");
        }
    }

    #[test]
    fn aliases_are_the_old_spellings() {
        let all: Vec<_> = header::SLO_TTFT_MS.all().collect();
        assert_eq!(all, ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"]);
        assert!(header::SLO_TPOT_MS.matches("x-slo-tpot-ms"));
    }
}
