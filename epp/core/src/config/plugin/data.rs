//! Where endpoints come from and how their metrics are read.

use serde::{Deserialize, Serialize};

use super::parameters;

parameters! {
    /// `file-discovery`: endpoints and objectives from a file.
    FileDiscovery {
        /// Path of the file.
        path: String = String::new(),
        /// Read it again whenever it changes.
        watch_file: bool = false,
    }
}

parameters! {
    /// `metrics-data-source`: where engines' metrics are read.
    MetricsDataSource {
        /// http or https.
        scheme: String = "http".to_owned(),
        /// Path of the metrics page.
        path: String = "/metrics".to_owned(),
        /// Accept any certificate. Absent = true, as at llm-d, unless there is a CA to verify with.
        insecure_skip_verify: Option<bool> = None,
        /// CA to verify the engine with.
        ca_cert_path: Option<String> = None,
        /// Client certificate.
        client_cert_path: Option<String> = None,
        /// Its key.
        client_key_path: Option<String> = None,
        /// Time between reads, a Go duration; absent = the `--refresh-metrics-interval` flag.
        interval: Option<String> = None,
        /// Time for which requests are held at most after 5 s without any, until every engine has been asked anew; a
        /// Go duration up to 1s, `0s` = they are not.
        hold_after_idle: String = "100ms".to_owned(),
    }
}

parameters! {
    /// `models-data-source`: where engines list the models that they serve.
    ModelsDataSource {
        /// http or https.
        scheme: String = "http".to_owned(),
        /// Path of the list.
        path: String = "/v1/models".to_owned(),
        /// Accept any certificate. Absent = true, unless there is a CA to verify with.
        insecure_skip_verify: Option<bool> = None,
        /// CA to verify the engine with.
        ca_cert_path: Option<String> = None,
        /// Client certificate.
        client_cert_path: Option<String> = None,
        /// Its key.
        client_key_path: Option<String> = None,
        /// Time between reads, a Go duration; absent = 10 s, since models change with deployments.
        interval: Option<String> = None,
    }
}

parameters! {
    /// `dcgm-data-source`: where the metrics of the GPUs beside an engine are read.
    DcgmDataSource {
        /// http or https.
        scheme: String = "http".to_owned(),
        /// Path of the metrics page.
        path: String = "/metrics".to_owned(),
        /// Port of the exporter.
        port: u16 = names::metric::engine::dcgm::PORT,
        /// Ask at the address of the endpoint's node instead of its own.
        use_node_address: bool = false,
        /// Accept any certificate. Absent = true, unless there is a CA to verify with.
        insecure_skip_verify: Option<bool> = None,
        /// CA to verify the exporter with.
        ca_cert_path: Option<String> = None,
        /// Client certificate.
        client_cert_path: Option<String> = None,
        /// Its key.
        client_key_path: Option<String> = None,
        /// Time between reads, a Go duration; absent = 1 s, which is as often as the exporter looks.
        interval: Option<String> = None,
    }
}

parameters! {
    /// `core-metrics-extractor`: which metrics mean what.
    CoreMetricsExtractor {
        /// Label with the endpoint's engine type.
        engine_label_key: String = names::label::ENGINE_TYPE.canonical.to_owned(),
        /// Engine of endpoints without that label.
        default_engine: String = names::metric::engine::kind::VLLM.to_owned(),
        /// Other engines, or other names of known ones' metrics.
        engine_configs: Vec<EngineConfig> = Vec::new(),
    }
}

parameters! {
    /// What the metrics of one engine are called, each as `name{label=value,…}`. For an engine that is known here,
    /// absent = as it is known; an empty text = it has none.
    EngineConfig {
        /// Engine type, as endpoints' labels give it.
        name: String = String::new(),
        /// Requests that wait.
        queued_requests_spec: Option<String> = None,
        /// Requests in the batch.
        running_requests_spec: Option<String> = None,
        /// Share of KV blocks in use, 0 to 1.
        kv_usage_spec: Option<String> = None,
        /// LoRA adapters, in the labels `max_lora`, `running_lora_adapters` and `waiting_lora_adapters`.
        lora_spec: Option<String> = None,
        /// The KV cache's shape, in labels.
        cache_info_spec: Option<String> = None,
        /// Label of that series with the tokens per block.
        cache_block_size_label_name: Option<String> = None,
        /// Label of that series with the number of blocks.
        cache_num_blocks_label_name: Option<String> = None,
        /// Tokens per KV block, as a number.
        cache_block_size_spec: Option<String> = None,
        /// KV blocks, as a number.
        cache_num_blocks_spec: Option<String> = None,
        /// Further numbers, which become attributes of the endpoint.
        custom_metrics: Vec<CustomMetric> = Vec::new(),
    }
}

parameters! {
    /// A number that becomes an attribute of the endpoint; of several series, the largest counts.
    CustomMetric {
        /// The attribute.
        attribute_key: String = String::new(),
        /// The series.
        metric_spec: String = String::new(),
    }
}
