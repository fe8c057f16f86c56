//! What is read beside engines' metrics: their lists of models, and the GPUs' own metrics.

use super::exposition::samples;
use epp_core::config::gpu_utilization;
use serde::Deserialize;
use std::sync::Arc;

/// Models of one engine that are kept; a list with more is cut.
const MOST_MODELS: usize = 1024;
/// Bytes of a model's name; a longer one is left out.
const LONGEST_MODEL: usize = 256;

#[derive(Deserialize)]
struct List {
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

/// The models on an OpenAI list of models, in its order; `None` = it is none.
pub(super) fn models(page: &[u8]) -> Option<Vec<Arc<str>>> {
    let list: List = serde_json::from_slice(page).ok()?;
    let names = list.data.into_iter().map(|entry| entry.id);
    let kept = names.filter(|name| (1..=LONGEST_MODEL).contains(&name.len()));
    Some(kept.take(MOST_MODELS).map(Arc::from).collect())
}

/// Utilisation of the busiest GPU on a page of NVIDIA's exporter, 0 to 1; `None` = it tells none.
pub(super) fn gpu(page: &[u8]) -> Option<f64> {
    let spec = gpu_utilization();
    let seen = samples(page, spec.name.as_bytes()).filter(|sample| sample.is(&spec));
    let busiest = seen.filter_map(|sample| sample.value()).reduce(f64::max)?;
    Some((busiest / 100.0).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_and_adapters_are_listed() {
        let page = br#"{"object":"list","data":[{"id":"llama","object":"model","max_model_len":8192},{"id":"sql-lora","parent":"llama"},{"id":""}]}"#;
        let names: Vec<_> = models(page).unwrap();
        assert_eq!(names, [Arc::from("llama"), Arc::from("sql-lora")]);
        assert_eq!(models(b"<html>"), None);
        assert_eq!(models(br#"{"data":[]}"#), Some(vec![]));
    }

    #[test]
    fn the_busiest_gpu_counts() {
        let page = include_bytes!("../../tests/golden/dcgm_metrics.txt");
        assert_eq!(gpu(page), Some(0.92));
        assert_eq!(gpu(b"DCGM_FI_DEV_GPU_UTIL_OTHER 5\n"), None);
        assert_eq!(gpu(b"DCGM_FI_DEV_GPU_UTIL 250\n"), Some(1.0));
    }
}
