//! What further engines and their GPUs write, and the names that engines go by.

/// Engine types, as the label of an endpoint and the configuration spell them.
pub mod kind {
    /// vLLM.
    pub const VLLM: &str = "vllm";
    /// SGLang.
    pub const SGLANG: &str = "sglang";
    /// TensorRT-LLM's own server.
    pub const TRTLLM_SERVE: &str = "trtllm-serve";
    /// Triton with the TensorRT-LLM backend.
    pub const TRITON_TENSORRT_LLM: &str = "triton-tensorrt-llm";
    /// Triton with any other backend.
    pub const TRITON: &str = "triton";
}

/// vLLM's adapters, as an info gauge whose value is the time it was set.
pub mod lora {
    /// The gauge.
    pub const INFO: &str = "vllm:lora_requests_info";
    /// Label: adapters that fit into a batch.
    pub const MAX: &str = "max_lora";
    /// Label: adapters with a running request, separated by commas.
    pub const RUNNING: &str = "running_lora_adapters";
    /// Label: adapters with a waiting request, separated by commas.
    pub const WAITING: &str = "waiting_lora_adapters";
}

/// `trtllm-serve`.
pub mod trtllm {
    /// Requests waiting for admission to the batch.
    pub const WAITING: &str = "trtllm_num_requests_waiting";
    /// Requests in the running batch.
    pub const RUNNING: &str = "trtllm_num_requests_running";
    /// Share of KV blocks in use, 0 to 1.
    pub const KV_USAGE: &str = "trtllm_kv_cache_utilization";
    /// Tokens per KV block.
    pub const BLOCK_TOKENS: &str = "trtllm_kv_cache_tokens_per_block";
    /// KV blocks.
    pub const BLOCKS: &str = "trtllm_kv_cache_max_blocks";
}

/// Triton's TensorRT-LLM backend: gauges told apart by a label.
pub mod triton_trtllm {
    /// Requests by `request_type`.
    pub const REQUESTS: &str = "nv_trt_llm_request_metrics";
    /// KV cache by `kv_cache_block_type`.
    pub const KV_BLOCKS: &str = "nv_trt_llm_kv_cache_block_metrics";
}

/// Triton.
pub mod triton {
    /// Requests that wait.
    pub const WAITING: &str = "nv_inference_pending_request_count";
    /// Executions.
    pub const RUNNING: &str = "nv_inference_exec_count";
}

/// NVIDIA's exporter beside the engines.
pub mod dcgm {
    /// Utilisation of one GPU, percent.
    pub const UTILIZATION: &str = "DCGM_FI_DEV_GPU_UTIL";
    /// The attribute that an endpoint gets from it, 0 to 1.
    pub const ATTRIBUTE: &str = "GPUUtilization";
    /// Port that the exporter listens on.
    pub const PORT: u16 = 9400;
}
