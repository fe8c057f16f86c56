//! Where endpoints come from and how their metrics are read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

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
        /// Accept any certificate.
        insecure_skip_verify: bool = true,
        /// CA to verify the engine with.
        ca_cert_path: Option<String> = None,
        /// Client certificate.
        client_cert_path: Option<String> = None,
        /// Its key.
        client_key_path: Option<String> = None,
        /// Time between reads, a Go duration; absent = the `--refresh-metrics-interval` flag.
        interval: Option<String> = None,
    }
}

parameters! {
    /// `core-metrics-extractor`: which metrics mean what.
    CoreMetricsExtractor {
        /// Label with the endpoint's engine type.
        engine_label_key: String = "llm-d.ai/engine-type".to_owned(),
        /// Engine of endpoints without that label; only `vllm` is built.
        default_engine: String = "vllm".to_owned(),
        /// Other engines' metric names; not built, must stay empty.
        engine_configs: Vec<Value> = Vec::new(),
    }
}
