//! Every header, label, annotation, metadata and metric name Headroom puts on or takes from a wire, with its aliases.
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
    /// From the proxy, on answers: how many servers were tried.
    pub const ATTEMPT_COUNT: &str = "x-envoy-attempt-count";
    /// From the proxy: the endpoints to choose among.
    pub const DESTINATION_SUBSET: &str = "x-gateway-destination-endpoint-subset";
    /// To the proxy: the weighted score of every candidate.
    pub const DESTINATION_SCORES: &str = "x-gateway-destination-endpoint-scores";
    /// Debug header llm-d's picker adds to every response it saw.
    pub const RESPONSE_SEEN: &str = "x-went-into-resp-headers";
    /// Correlates a request across hops.
    pub const REQUEST_ID: &str = "x-request-id";
    /// The trace that a request is part of (W3C).
    pub const TRACEPARENT: &str = "traceparent";
    /// Response: milliseconds that the request was queued for.
    pub const QUEUE_MS: &str = "x-headroom-queue-ms";
    /// Response: requests that the queue still had room for in the request's band when it was dispatched.
    pub const BAND_ROOM: &str = "x-headroom-band-room";
    /// Request and answer: the endpoint that served the session before, its name in base64.
    pub const SESSION_TOKEN: &str = "x-session-token";
    /// Request: an opaque session.
    pub const SESSION_ID: &str = "x-session-id";
    /// Request: session headers of coding agents, in order of precedence.
    pub const AGENT_SESSIONS: &[&str] = &[
        "x-claude-code-session-id",
        "x-session-affinity",
        "session-id",
        "session_id",
    ];
    /// Request: a client's cookies.
    pub const COOKIE: &str = "cookie";
    /// Request, in conformance tests: the endpoints to choose among, `ip[,ip:port…]`.
    pub const TEST_ENDPOINT_SELECTION: &str = "test-epp-endpoint-selection";
    /// Answer, in conformance tests: the endpoint that served.
    pub const TEST_ENDPOINT_SERVED: &str = "x-conformance-test-served-endpoint";

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
    /// It was taken off its server to make room for requests of a higher priority.
    pub const EVICTED_PRIORITY: &str = "evicted-priority";
    /// No endpoint could meet its SLO.
    pub const SLO_UNATTAINABLE: &str = "rejected-slo-unattainable";
    /// It could not be read.
    pub const BAD_REQUEST: &str = "rejected-bad-request";
    /// Anything else.
    pub const OTHER: &str = "rejected-other";
}

/// Values of [`label::ROLE`] on model servers.
pub mod role {
    /// Reads prompts.
    pub const PREFILL: &str = "prefill";
    /// Makes output.
    pub const DECODE: &str = "decode";
    /// Encodes images and sound.
    pub const ENCODE: &str = "encode";
    /// Encodes and reads prompts.
    pub const ENCODE_PREFILL: &str = "encode-prefill";
    /// Reads prompts and makes output.
    pub const PREFILL_DECODE: &str = "prefill-decode";
    /// Does everything.
    pub const ENCODE_PREFILL_DECODE: &str = "encode-prefill-decode";
    /// Older word for [`PREFILL_DECODE`].
    pub const BOTH: &str = "both";
}

/// Annotations on a HorizontalPodAutoscaler, Deployment, LeaderWorkerSet or InferencePool.
pub mod annotation {
    use super::Name;

    /// The model served, as clients name it.
    pub const MODEL: Name = Name::new("headroom.dev/model", &["llm-d.ai/model-id"]);
    /// Time to first token asked for, milliseconds.
    pub const SLO_TTFT_MS: Name = Name::new("headroom.dev/slo-ttft-ms", &[]);
    /// Time per output token asked for, milliseconds.
    pub const SLO_TPOT_MS: Name = Name::new("headroom.dev/slo-tpot-ms", &[]);
    /// Share of the requests that must meet both, in percent.
    pub const SLO_PERCENTILE: Name = Name::new("headroom.dev/slo-percentile", &[]);
    /// What one replica costs per hour, in any one currency.
    pub const COST_PER_HOUR: Name =
        Name::new("headroom.dev/cost-per-hour", &["llm-d.ai/variant-cost"]);
    /// What the replicas run on.
    pub const ACCELERATOR: Name = Name::new("headroom.dev/accelerator", &[]);
    /// `prefill`, `decode` or `both`.
    pub const ROLE: Name = Name::new("headroom.dev/role", &[]);
    /// `advise`, `publish` or `direct`.
    pub const MODE: Name = Name::new("headroom.dev/mode", &[]);
    /// Seconds from a replica's start to its first useful answer, or `auto`.
    pub const STARTUP_SECONDS: Name = Name::new("headroom.dev/startup-seconds", &[]);
    /// The InferencePool whose endpoint picker sees the demand.
    pub const POOL: Name = Name::new("headroom.dev/pool", &[]);
    /// Fewest replicas, where the object itself does not say.
    pub const MIN_REPLICAS: Name = Name::new("headroom.dev/min-replicas", &[]);
    /// Most replicas, where the object itself does not say.
    pub const MAX_REPLICAS: Name = Name::new("headroom.dev/max-replicas", &[]);
    /// llm-d's mark of an autoscaled object: `true` turns its aliases on.
    pub const MANAGED: &str = "llm-d.ai/managed";
    /// Which of a pod's target ports are live.
    pub const ACTIVE_PORTS: Name = Name::new(
        "llm-d.ai/active-ports",
        &["inference.networking.k8s.io/active-ports"],
    );
    /// On a Lease: `host:port` at which the holder serves its followers.
    pub const LEADER_ADDRESS: &str = "headroom.dev/leader-address";
    /// Everything that Headroom reads from an annotated model, for suggestions.
    pub const MODEL_ANNOTATIONS: &[Name] = &[
        MODEL,
        SLO_TTFT_MS,
        SLO_TPOT_MS,
        SLO_PERCENTILE,
        COST_PER_HOUR,
        ACCELERATOR,
        ROLE,
        MODE,
        STARTUP_SECONDS,
        POOL,
        MIN_REPLICAS,
        MAX_REPLICAS,
    ];
}

/// Labels on pods, nodes and our own objects.
pub mod label {
    use super::Name;

    /// What a pod does: `prefill`, `decode`, `both` and llm-d's combinations.
    pub const ROLE: Name = Name::new("llm-d.ai/role", &[]);
    /// The engine a pod runs, for the mapping of its metrics.
    pub const ENGINE_TYPE: Name = Name::new("llm-d.ai/engine-type", &[]);
    /// The address of the node that a pod runs on. Discovery sets it on endpoints.
    pub const NODE_ADDRESS: &str = "headroom.dev/node-address";
    /// What a pod runs on: the class that latencies are learned for.
    pub const ACCELERATOR: Name = Name::new(
        "headroom.dev/accelerator",
        &[
            "inference.optimization/acceleratorName",
            "llm-d.ai/accelerator",
        ],
    );
    /// Prompt lengths in tokens that a pod is for, `min-max`.
    pub const CONTEXT_LENGTH_RANGE: &str = "llm-d.ai/context-length-range";
    /// The host that a pod is on.
    pub const HOST: &str = "kubernetes.io/hostname";
    /// The rack of that host.
    pub const RACK: &str = "topology.kubernetes.io/rack";
    /// Its zone.
    pub const ZONE: &str = "topology.kubernetes.io/zone";
    /// Its region.
    pub const REGION: &str = "topology.kubernetes.io/region";
    /// On endpoint picker pods: the pool they pick for. How the controller finds them.
    pub const POOL: &str = "headroom.dev/pool";
    /// On everything of ours: `headroom`.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// On endpoint picker pods: `epp`; on the controller's: `controller`.
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// On a HorizontalPodAutoscaler that KEDA made: its ScaledObject.
    pub const SCALED_OBJECT: &str = "scaledobject.keda.sh/name";
    /// Accelerator of a node, as NVIDIA's device plugin spells it.
    pub const NODE_GPU_PRODUCT: &str = "nvidia.com/gpu.product";
}

/// API groups and the metric names of the Kubernetes metrics APIs.
pub mod kubernetes {
    use super::Name;

    /// Group of our own resources.
    pub const GROUP: &str = "headroom.dev";
    /// Group of InferencePool.
    pub const INFERENCE_GROUP: &str = "inference.networking.k8s.io";
    /// The component that writes conditions and Events.
    pub const FIELD_MANAGER: &str = "headroom";
    /// Finalizer, leases and Secrets begin with this.
    pub const PREFIX: &str = "headroom";
    /// The controller's Service, unless told otherwise; its Lease.
    pub const CONTROLLER: &str = "headroom-controller";
    /// Secret of the certificate authority that the controller's replicas share.
    pub const AUTHORITY: &str = "headroom-controller-ca";
    /// ConfigMap of what decisions remember.
    pub const STATE: &str = "headroom-state";
    /// Replicas wanted of one variant (HPA: AverageValue 1).
    pub const DESIRED_REPLICAS: Name = Name::new("llm_desired_replicas", &["wva_desired_replicas"]);
    /// Replicas wanted over replicas there (HPA: Value 1).
    pub const DESIRED_RATIO: Name = Name::new("llm_desired_ratio", &["wva_desired_ratio"]);
    /// Predicted latency at the SLO's percentile over the SLO, the larger of TTFT and TPOT (HPA: Value 1).
    pub const SLO_PRESSURE: Name = Name::new("llm_slo_pressure", &[]);
    /// Offered prompt and output tokens per second (HPA: AverageValue = one replica's capacity).
    pub const OFFERED_TOKENS: Name = Name::new("llm_offered_tokens_per_second", &[]);
    /// Seconds that the queue in front of the replicas is worth.
    pub const QUEUE_SECONDS: Name = Name::new("llm_queue_seconds", &[]);
    /// All of them.
    pub const METRICS: &[Name] = &[
        DESIRED_REPLICAS,
        DESIRED_RATIO,
        SLO_PRESSURE,
        OFFERED_TOKENS,
        QUEUE_SECONDS,
    ];
}

/// Labels of the series in the Kubernetes metrics APIs.
pub mod series {
    /// The variant.
    pub const VARIANT: &str = "variant";
    /// The model's name as a label value.
    pub const MODEL: &str = "model";
    /// `prefill`, `decode` or `both`.
    pub const ROLE: &str = "role";
    /// The InferencePool.
    pub const POOL: &str = "pool";
    /// What the replicas run on.
    pub const ACCELERATOR: &str = "accelerator";
    /// The namespace that the variant is scaled in.
    pub const NAMESPACE: &str = "namespace";
    /// Labels of a metric asked for by its old name, as llm-d's autoscaler spelt them.
    pub mod alias {
        /// The variant.
        pub const VARIANT: &str = "variant_name";
        /// The namespace, as Prometheus renames it.
        pub const NAMESPACE: &str = "exported_namespace";
        /// What the replicas run on.
        pub const ACCELERATOR: &str = "accelerator_type";
    }
}

/// Pages of the authenticated admin port of an endpoint picker.
pub mod admin {
    /// The demand report, JSON.
    pub const DEMAND: &str = "/headroom/v1/demand";
    /// The learned models, binary.
    pub const MODEL: &str = "/headroom/v1/model";
    /// Audience of the tokens that the pages are asked with, where the cluster mounts such a token: one that was
    /// taken from us opens these pages and nothing else.
    pub const AUDIENCE: &str = "headroom.dev/epp";
    /// Default port of the pages.
    pub const PORT: u16 = 9443;
}

/// Pages that the controller's replicas show each other.
pub mod followers {
    /// What the leader publishes, as a stream.
    pub const PUBLISHED: &str = "/headroom/v1/published";
}

/// ext_proc dynamic metadata namespaces.
pub mod metadata {
    /// Where the pick is written and the served endpoint read.
    pub const LB: &str = "envoy.lb";
    /// Where the proxy puts the endpoints to choose among.
    pub const SUBSET_HINT: &str = "envoy.lb.subset_hint";
}

/// Pickers among themselves.
pub mod peer {
    /// What the certificate of every picker is for, whatever its address: a member of the pool's pickers.
    pub const SERVER_NAME: &str = "headroom-peers";
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

    pub mod engine;
    pub mod picker;

    /// The controller's, on Kubernetes, after [`HEADROOM_PREFIX`].
    pub mod controller {
        /// Replicas wanted of a variant.
        pub const DESIRED: &str = "variant_desired_replicas";
        /// Fewest replicas that the present demand needs.
        pub const LOWER: &str = "variant_desired_replicas_lower";
        /// Most replicas that a cautious forecast asks for.
        pub const UPPER: &str = "variant_desired_replicas_upper";
        /// Replicas that the scale target asks for.
        pub const CURRENT: &str = "variant_current_replicas";
        /// Replicas by state.
        pub const REPLICAS: &str = "variant_replicas";
        /// Requests/s that one replica of a variant serves within the objectives.
        pub const CAPACITY: &str = "variant_capacity_requests_per_second";
        /// Age of the capacity counted by.
        pub const CAPACITY_AGE: &str = "variant_capacity_age_seconds";
        /// Requests/s that the ready replicas of a variant could take beyond their share.
        pub const VARIANT_HEADROOM: &str = "variant_headroom_requests_per_second";
        /// Requests/s offered to a model, by class.
        pub const DEMAND: &str = "model_demand_requests_per_second";
        /// Requests waiting in front of a model's replicas.
        pub const QUEUED: &str = "model_queued_requests";
        /// Requests on a model's replicas.
        pub const IN_FLIGHT: &str = "model_in_flight_requests";
        /// Requests/s that a model's ready replicas could take beyond the offered ones.
        pub const HEADROOM: &str = "model_headroom_requests_per_second";
        /// Predicted latency over the objective, the worst.
        pub const PRESSURE: &str = "model_slo_pressure";
        /// Prompt and output tokens offered per second.
        pub const OFFERED_TOKENS: &str = "model_offered_tokens_per_second";
        /// What the queue is worth in seconds.
        pub const QUEUE_SECONDS: &str = "model_queue_seconds";
        /// 1 for what a model's decision is: fresh, cold, stale.
        pub const STATE: &str = "model_decision_state";
        /// 1 for who tells a model's demand: pickers, prometheus, engines, none.
        pub const SOURCE: &str = "model_demand_source";
        /// Pickers of a model by whether they are heard.
        pub const PICKERS: &str = "model_pickers";
        /// Labels that the latency model in use has learned from, by class and target.
        pub const SNAPSHOT_LABELS: &str = "model_snapshot_labels";
        /// Refits of the latency model in use, by class.
        pub const SNAPSHOT_VERSION: &str = "model_snapshot_version";
        /// 1 while this replica leads.
        pub const LEADER: &str = "controller_leader";
        /// Models decided on, or held of the leader's.
        pub const MODELS: &str = "controller_models";
        /// Models that are too many to be shown as metrics.
        pub const MODELS_LEFT_OUT: &str = "controller_models_left_out";
        /// Age of the oldest decision that this replica answers with.
        pub const DECISION_AGE: &str = "controller_decision_age_seconds";
        /// Length of a cycle.
        pub const CYCLE_SECONDS: &str = "controller_cycle_seconds";
        /// Capacities computed.
        pub const COMPUTATIONS: &str = "controller_capacity_computations";
        /// Pickers that are one too many to be polled.
        pub const PICKERS_LEFT_OUT: &str = "controller_pickers_left_out";
        /// Reads and writes of kept state, by outcome.
        pub const STATE_WRITES: &str = "controller_state_writes";
        /// Answers of the metrics APIs, by status code.
        pub const ANSWERS: &str = "metrics_api_answers";
        /// Time to such an answer.
        pub const ANSWER_SECONDS: &str = "metrics_api_answer_seconds";
    }

    /// When a process started, unix seconds: what the Prometheus clients of Python and Go export.
    pub const PROCESS_START: &str = "process_start_time_seconds";

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
        /// Requests answered to the end, by reason.
        pub const SERVED: &str = "vllm:request_success_total";
        /// Prompt tokens taken in.
        pub const PROMPT_TOKENS: &str = "vllm:prompt_tokens_total";
        /// Tokens generated.
        pub const OUTPUT_TOKENS: &str = "vllm:generation_tokens_total";
        /// Prompt tokens found in the prefix cache.
        pub const CACHED_TOKENS: &str = "vllm:prefix_cache_hits_total";
        /// Prompt tokens looked up in the prefix cache.
        pub const PREFIX_QUERIES: &str = "vllm:prefix_cache_queries_total";
        /// Preemptions for want of KV blocks.
        pub const PREEMPTIONS: &str = "vllm:num_preemptions_total";
        /// Arrival to first token.
        pub const TTFT: &str = "vllm:time_to_first_token_seconds";
        /// Between two tokens of a request.
        pub const ITL: &str = "vllm:inter_token_latency_seconds";
        /// The older name of [`ITL`].
        pub const TPOT: &str = "vllm:time_per_output_token_seconds";
        /// Mean time per token after the first, per request.
        pub const REQUEST_TPOT: &str = "vllm:request_time_per_output_token_seconds";
        /// Arrival to last token.
        pub const E2E: &str = "vllm:e2e_request_latency_seconds";
        /// Arrival to admission.
        pub const QUEUE_TIME: &str = "vllm:request_queue_time_seconds";
        /// Admission to first token.
        pub const PREFILL_TIME: &str = "vllm:request_prefill_time_seconds";
        /// First token to last.
        pub const DECODE_TIME: &str = "vllm:request_decode_time_seconds";
        /// Admission to last token.
        pub const INFERENCE_TIME: &str = "vllm:request_inference_time_seconds";
        /// Prompt tokens per request.
        pub const REQUEST_PROMPT_TOKENS: &str = "vllm:request_prompt_tokens";
        /// Generated tokens per request.
        pub const REQUEST_OUTPUT_TOKENS: &str = "vllm:request_generation_tokens";
        /// Most tokens generated by one answer of a request.
        pub const MAX_OUTPUT_TOKENS: &str = "vllm:request_max_num_generation_tokens";
        /// `max_tokens` of the requests.
        pub const MAX_TOKENS: &str = "vllm:request_params_max_tokens";
        /// Older vLLM's name of [`KV_USAGE`].
        pub const OLD_KV_USAGE: &str = "vllm:gpu_cache_usage_perc";
    }

    /// SGLang's names, read from engines.
    pub mod sglang {
        /// Requests in the running batch.
        pub const RUNNING: &str = "sglang:num_running_reqs";
        /// Requests waiting for admission to the batch.
        pub const WAITING: &str = "sglang:num_queue_reqs";
        /// Share of the KV cache in use, 0 to 1.
        pub const KV_USAGE: &str = "sglang:token_usage";
        /// Info gauge with the labels `page_size` and `num_pages`.
        pub const CACHE_CONFIG: &str = "sglang:cache_config_info";
        /// Requests answered to the end.
        pub const SERVED: &str = "sglang:num_requests_total";
        /// Prompt tokens taken in.
        pub const PROMPT_TOKENS: &str = "sglang:prompt_tokens_total";
        /// Tokens generated.
        pub const OUTPUT_TOKENS: &str = "sglang:generation_tokens_total";
        /// Prompt tokens found in the prefix cache.
        pub const CACHED_TOKENS: &str = "sglang:cached_tokens_total";
    }

    /// What other endpoint pickers write, as Prometheus stores it (`_total` and `_sum` included): llm-d's names and
    /// the older ones of the inference extension.
    pub mod epp {
        use crate::Name;

        /// Ready endpoints of the pool in the label `name`: there while a picker is scraped.
        pub const READY_ENDPOINTS: Name =
            Name::new("llm_d_epp_ready_endpoints", &["inference_pool_ready_pods"]);
        /// Requests that flow control ended, by `outcome`, `priority` and `inference_pool`.
        pub const FLOW_REQUESTS: Name = Name::new(
            "llm_d_epp_flow_control_requests_total",
            &["inference_extension_flow_control_requests_total"],
        );
        /// Requests in the queue, by `inference_pool` among others.
        pub const QUEUE_SIZE: Name = Name::new(
            "llm_d_epp_flow_control_queue_size",
            &["inference_extension_flow_control_queue_size"],
        );
        /// Requests, by `model_name` and `target_model_name`.
        pub const REQUESTS: Name = Name::new(
            "llm_d_epp_request_total",
            &["inference_objective_request_total"],
        );
        /// Requests on the endpoints, by the same labels.
        pub const RUNNING: Name = Name::new(
            "llm_d_epp_request_running",
            &["inference_objective_running_requests"],
        );
        /// Prompt tokens, sum of a histogram.
        pub const INPUT_TOKENS_SUM: Name = Name::new(
            "llm_d_epp_request_input_tokens_sum",
            &["inference_objective_input_tokens_sum"],
        );
        /// Requests whose prompt tokens are known.
        pub const INPUT_TOKENS_COUNT: Name = Name::new(
            "llm_d_epp_request_input_tokens_count",
            &["inference_objective_input_tokens_count"],
        );
        /// Output tokens, sum of a histogram.
        pub const OUTPUT_TOKENS_SUM: Name = Name::new(
            "llm_d_epp_request_output_tokens_sum",
            &["inference_objective_output_tokens_sum"],
        );
        /// Requests whose output tokens are known.
        pub const OUTPUT_TOKENS_COUNT: Name = Name::new(
            "llm_d_epp_request_output_tokens_count",
            &["inference_objective_output_tokens_count"],
        );
        /// Prompt tokens found in a prefix cache, sum of a histogram.
        pub const CACHED_TOKENS_SUM: Name = Name::new(
            "llm_d_epp_request_cached_tokens_sum",
            &["inference_objective_prompt_cached_tokens_sum"],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::header;

    #[test]
    fn aliases_are_the_old_spellings() {
        let all: Vec<_> = header::SLO_TTFT_MS.all().collect();
        assert_eq!(all, ["x-llm-d-slo-ttft-ms", "x-slo-ttft-ms"]);
        assert!(header::SLO_TPOT_MS.matches("x-slo-tpot-ms"));
    }
}
