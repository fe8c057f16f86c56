//! Golden files: what is asked, and every byte of the answer that means something.

use std::path::PathBuf;

use super::*;

/// Asks for `paths` one after another, and compares all answers with the committed file; `UPDATE_GOLDEN=1` writes it
/// anew.
async fn assert_exchanges(name: &str, requests: &[&str]) {
    let router = Cluster::lenient().api(board()).await.router();
    let mut text = String::new();
    for request in requests {
        let (method, path) = request.split_once(' ').unwrap();
        let asked = Request::builder()
            .method(method)
            .uri(path)
            .body(Body::empty())
            .unwrap();
        let response = router.clone().oneshot(asked).await.unwrap();
        let code = response.status().as_u16();
        let media = response.headers()[header::CONTENT_TYPE]
            .to_str()
            .unwrap()
            .to_owned();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        text.push_str(&format!("{request}\n{code} {media}\n{body:#}\n\n"));
    }
    let file = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/metrics_api")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(text, golden, "{}", file.display());
}

const EXTERNAL: &str = "GET /apis/external.metrics.k8s.io/v1beta1/namespaces/team-a";
const CUSTOM: &str = "GET /apis/custom.metrics.k8s.io";

#[tokio::test]
async fn external_metrics() {
    let requests: Vec<String> = [
        "llm_desired_replicas",
        "llm_desired_replicas?labelSelector=variant%3Dfast",
        "llm_desired_ratio?labelSelector=variant%20in%20%28cheap%29",
        "llm_slo_pressure?labelSelector=variant%3Dfast",
        "llm_offered_tokens_per_second?labelSelector=variant%3Dfast",
        "llm_queue_seconds?labelSelector=variant%3Dfast",
        "wva_desired_replicas?labelSelector=variant_name%3Dfast",
    ]
    .iter()
    .map(|rest| format!("{EXTERNAL}/{rest}"))
    .collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    assert_exchanges("external.txt", &requests).await;
}

#[tokio::test]
async fn custom_metrics() {
    let requests: Vec<String> = [
        "v1beta2/namespaces/team-a/deployments.apps/llama-fast/llm_desired_replicas",
        "v1beta1/namespaces/team-a/deployments.apps/llama-fast/llm_desired_replicas",
        "v1beta2/namespaces/team-a/inferencepools.inference.networking.k8s.io/llama-pool/llm_slo_pressure",
        "v1beta2/namespaces/team-a/inferencepools.inference.networking.k8s.io/llama-pool/llm_offered_tokens_per_second",
        "v1beta2/namespaces/team-a/modelscalers.headroom.dev/%2A/llm_desired_ratio?metricLabelSelector=accelerator%3DH100%2Crole%20in%20%28both%29",
        "v1beta1/namespaces/team-a/modelscalers.headroom.dev/llama/llm_desired_ratio?metricLabelSelector=accelerator%3DH100",
        "v1beta2/namespaces/team-a/metrics/llm_desired_replicas",
    ]
    .iter()
    .map(|rest| format!("{CUSTOM}/{rest}"))
    .collect();
    let requests: Vec<&str> = requests.iter().map(String::as_str).collect();
    assert_exchanges("custom.txt", &requests).await;
}

#[tokio::test]
async fn discovery() {
    let requests = [
        "GET /apis",
        "GET /apis/custom.metrics.k8s.io",
        "GET /apis/external.metrics.k8s.io",
        "GET /apis/custom.metrics.k8s.io/v1beta2",
        "GET /apis/external.metrics.k8s.io/v1beta1",
        "GET /openapi/v2",
        "GET /openapi/v3",
        "GET /openapi/v3/apis/external.metrics.k8s.io/v1beta1",
    ];
    assert_exchanges("discovery.txt", &requests).await;
}

#[tokio::test]
async fn errors() {
    let requests = [
        "GET /",
        "GET /apis/apps/v1/deployments",
        "GET /apis/external.metrics.k8s.io/v1beta1/llm_desired_replicas",
        "GET /apis/external.metrics.k8s.io/v1beta1/namespaces/team-a/requests",
        "GET /apis/external.metrics.k8s.io/v1beta1/namespaces/team-a/llm_desired_replicas?labelSelector=variant%3Dslow",
        "GET /apis/external.metrics.k8s.io/v1beta1/namespaces/team-z/llm_desired_replicas",
        "GET /apis/external.metrics.k8s.io/v1beta1/namespaces/team-a/llm_desired_replicas?labelSelector=model%3Dmeta-llama%2FLlama",
        "GET /apis/external.metrics.k8s.io/v1beta1/namespaces/team-c/llm_slo_pressure",
        "POST /apis/external.metrics.k8s.io/v1beta1/namespaces/team-a/llm_desired_replicas",
        "DELETE /livez",
        "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/deployments.apps/other/llm_desired_ratio",
        "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/pods/%2A/llm_desired_ratio",
        "GET /apis/custom.metrics.k8s.io/v1beta2/nodes/n1/llm_desired_ratio",
        "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/team-z/metrics/llm_desired_ratio",
        "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/deployments.apps/llama-fast/requests",
        "GET /apis/custom.metrics.k8s.io/v1beta2/namespaces/team-a/deployments.apps/llama-fast/llm_desired_ratio?metricLabelSelector=a%20b",
    ];
    assert_exchanges("errors.txt", &requests).await;
}
