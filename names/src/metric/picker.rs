//! The endpoint picker's own families as llm-d names them. Aliases are the names that they went by before; they are
//! written too where an operator asks for them.

use crate::Name;

/// The prefix between the oldest names and today's. Every family of today has a twin under it.
const ROUTER_PREFIX: &str = "llm_d_router_epp";

/// The names that `family` went by before, the oldest first.
pub fn twins(family: Name) -> impl Iterator<Item = String> {
    let today = super::EPP_PREFIX;
    let router = family.canonical.strip_prefix(today);
    let aliases = family.aliases.iter().map(|name| (*name).to_owned());
    aliases.chain(router.map(|rest| format!("{ROUTER_PREFIX}{rest}")))
}

macro_rules! families {
    ($($(#[$doc:meta])* $name:ident = $canonical:literal $(, $twin:literal)*;)*) => {
        $($(#[$doc])* pub const $name: Name = Name::new(concat!("llm_d_epp_", $canonical), &[$($twin),*]);)*
        /// All of them.
        pub const ALL: &[Name] = &[$($name),*];
    };
}

families! {
    /// Requests.
    REQUESTS = "request", "inference_objective_request";
    /// Requests that ended in an error.
    ERRORS = "request_error", "inference_objective_request_error";
    /// Requests whose latency missed its target.
    SLO_VIOLATIONS = "request_slo_violation", "inference_objective_request_slo_violation";
    /// Arrival to the end of the answer.
    DURATION = "request_duration_seconds", "inference_objective_request_duration_seconds";
    /// Bytes of request bodies.
    REQUEST_SIZE = "request_size_bytes", "inference_objective_request_sizes";
    /// Bytes of answers.
    RESPONSE_SIZE = "response_size_bytes", "inference_objective_response_sizes";
    /// Prompt tokens.
    INPUT_TOKENS = "request_input_tokens", "inference_objective_input_tokens";
    /// Output tokens.
    OUTPUT_TOKENS = "request_output_tokens", "inference_objective_output_tokens";
    /// Prompt tokens found in a prefix cache.
    CACHED_TOKENS = "request_cached_tokens", "inference_objective_prompt_cached_tokens";
    /// Requests on the endpoints.
    RUNNING = "request_running", "inference_objective_running_requests";
    /// Duration over output tokens.
    NTPOT = "request_ntpot_seconds", "inference_objective_normalized_time_per_output_token_seconds";
    /// Arrival to the first token.
    TTFT = "request_ttft_seconds", "inference_objective_request_ttft_seconds";
    /// Time per output token after the first.
    TPOT = "request_streaming_tpot_seconds", "inference_objective_request_tpot_seconds";
    /// Time between two pieces of a streamed answer.
    ITL = "request_streaming_itl_seconds";
    /// Predicted time to first token.
    PREDICTED_TTFT = "request_predicted_ttft_seconds", "inference_objective_request_predicted_ttft_seconds";
    /// Predicted time per output token.
    PREDICTED_TPOT = "request_predicted_tpot_seconds", "inference_objective_request_predicted_tpot_seconds";
    /// Time that predicting TTFT takes.
    TTFT_PREDICTION_DURATION = "request_ttft_prediction_duration_seconds", "inference_objective_request_ttft_prediction_duration_seconds";
    /// Time that predicting TPOT takes.
    TPOT_PREDICTION_DURATION = "request_tpot_prediction_duration_seconds", "inference_objective_request_tpot_prediction_duration_seconds";
    /// The last latency seen and predicted.
    LAST_LATENCY = "inference_request_metric", "inference_objective_inference_request_metric";
    /// Arrival to the decision's way to the proxy, queueing included.
    REQUEST_PROCESSING = "request_processing_duration_seconds";
    /// Time that relaying one answer takes.
    RESPONSE_PROCESSING = "response_processing_duration_seconds";
    /// Endpoints known.
    READY_ENDPOINTS = "ready_endpoints", "inference_pool_ready_pods";
    /// Mean of the requests waiting in engines.
    AVERAGE_QUEUE = "average_queue_size", "inference_pool_average_queue_size";
    /// Mean of the requests in engines' batches.
    AVERAGE_RUNNING = "average_running_requests", "inference_pool_average_running_requests";
    /// Mean share of KV blocks in use.
    AVERAGE_KV = "average_kv_cache_utilization", "inference_pool_average_kv_cache_utilization";
    /// Standard deviation of the same.
    STD_DEV_QUEUE = "std_dev_queue_size";
    /// Standard deviation of the same.
    STD_DEV_RUNNING = "std_dev_running_requests";
    /// Standard deviation of the same.
    STD_DEV_KV = "std_dev_kv_cache_utilization";
    /// Requests waiting in one engine.
    ENDPOINT_QUEUE = "per_endpoint_queue_size", "inference_pool_per_pod_queue_size";
    /// Time that one decision takes.
    SCHEDULER_DURATION = "scheduler_e2e_duration_seconds", "inference_extension_scheduler_e2e_duration_seconds";
    /// Decisions, by where they led.
    SCHEDULER_ATTEMPTS = "scheduler_attempts", "inference_extension_scheduler_attempts";
    /// Time that one plugin takes.
    PLUGIN_DURATION = "plugin_duration_seconds", "inference_extension_plugin_duration_seconds";
    /// What was built.
    INFO = "info", "inference_extension_info";
    /// Requests sent on under another model.
    REWRITES = "model_rewrite_decisions", "inference_extension_model_rewrite_decisions";
    /// Pages that could not be read.
    POLL_ERRORS = "datalayer_poll_errors", "llm_d_inference_scheduler_datalayer_poll_errors";
    /// Pages without what is read in them.
    EXTRACT_ERRORS = "datalayer_extract_errors", "llm_d_inference_scheduler_datalayer_extract_errors";
    /// Blocks in the prefix index.
    PREFIX_SIZE = "prefix_indexer_size", "inference_extension_prefix_indexer_size";
    /// Share of prompts found in the prefix index.
    PREFIX_HIT_RATIO = "prefix_indexer_hit_ratio", "inference_extension_prefix_indexer_hit_ratio";
    /// Bytes of prompts found in the prefix index.
    PREFIX_HIT_BYTES = "prefix_indexer_hit_bytes", "inference_extension_prefix_indexer_hit_bytes";
    /// How evenly programs are served.
    PROGRAM_FAIRNESS = "program_aware_jains_fairness_index";
    /// Mean wait of a program's requests.
    PROGRAM_WAIT = "program_aware_avg_wait_time_milliseconds";
    /// Service that a program has had.
    PROGRAM_SERVICE = "program_aware_attained_service_tokens";
    /// Time in the queue.
    QUEUE_DURATION = "flow_control_request_queue_duration_seconds", "inference_extension_flow_control_request_queue_duration_seconds";
    /// Time that one pass over the queue takes.
    DISPATCH_CYCLE = "flow_control_dispatch_cycle_duration_seconds", "inference_extension_flow_control_dispatch_cycle_duration_seconds";
    /// Time that taking a request in takes.
    ENQUEUE_DURATION = "flow_control_request_enqueue_duration_seconds", "inference_extension_flow_control_request_enqueue_duration_seconds";
    /// Requests queued.
    QUEUE_SIZE = "flow_control_queue_size", "inference_extension_flow_control_queue_size";
    /// Bytes queued.
    QUEUE_BYTES = "flow_control_queue_bytes", "inference_extension_flow_control_queue_bytes";
    /// How full the pool is.
    SATURATION = "flow_control_pool_saturation", "inference_extension_flow_control_pool_saturation";
    /// Endpoints whose metrics are too old to count.
    STALE_ENDPOINTS = "flow_control_stale_endpoints";
    /// Share of a band's requests that are queued.
    BAND_REQUESTS_USED = "flow_control_capacity_utilization_requests";
    /// Share of a band's bytes that are queued.
    BAND_BYTES_USED = "flow_control_capacity_utilization_bytes";
    /// Share of all bands' requests that are queued.
    REQUESTS_USED = "flow_control_global_capacity_utilization_requests";
    /// Share of all bands' bytes that are queued.
    BYTES_USED = "flow_control_global_capacity_utilization_bytes";
    /// Decisions by outcome.
    FLOW_REQUESTS = "flow_control_requests", "inference_extension_flow_control_requests";
    /// Requests taken off their endpoints.
    REVOCATIONS_ISSUED = "flow_control_revocations_issued";
    /// What became of those.
    REVOCATIONS = "flow_control_revocations";
    /// Requests that eviction wants back.
    RECLAIM_TARGET = "flow_control_reclaim_target";
    /// Of those, on their way.
    PENDING_RECLAIM = "flow_control_pending_reclaim";
    /// Time from a revocation to its end.
    REVOCATION_CONFIRMATION = "flow_control_revocation_confirmation_seconds";
    /// ext_proc streams open.
    STREAMS_INFLIGHT = "extproc_streams_inflight";
    /// Life of ext_proc streams.
    STREAM_DURATION = "extproc_stream_duration_seconds";
    /// ext_proc streams finished.
    STREAMS = "extproc_streams";
    /// Requests on an endpoint.
    INFLIGHT_REQUESTS = "inflight_requests";
    /// Tokens on an endpoint.
    INFLIGHT_TOKENS = "inflight_tokens";
}

/// What is told of the configuration in force, after [`super::HEADROOM_PREFIX`].
pub mod config {
    /// Which one it is.
    pub const INFO: &str = "config_info";
    /// Plugins and parameters that something simpler stands in for.
    pub const STAND_INS: &str = "config_stand_ins";
    /// Changes of its file, by what became of them.
    pub const RELOADS: &str = "config_reloads";
    /// Whether the last change is in force.
    pub const LAST_RELOAD: &str = "config_last_reload_successful";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn no_two_families_share_a_name() {
        let mut seen = BTreeSet::new();
        for family in ALL {
            assert!(
                seen.insert(family.canonical.to_owned()),
                "{}",
                family.canonical
            );
            for twin in twins(*family) {
                assert!(seen.insert(twin.clone()), "{twin}");
            }
        }
    }

    #[test]
    fn the_oldest_name_comes_first() {
        let twins: Vec<_> = twins(READY_ENDPOINTS).collect();
        assert_eq!(
            twins,
            [
                "inference_pool_ready_pods",
                "llm_d_router_epp_ready_endpoints"
            ]
        );
    }
}
