use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::routing::post;

use super::*;
use crate::kubernetes::prometheus::query::picture;

/// A query and the authorization that it came with.
type Asking = (String, Option<String>);

#[derive(Clone, Default)]
struct Asked {
    queries: Arc<Mutex<Vec<Asking>>>,
    answer: Option<&'static str>,
}

/// The query of a form body.
fn query(body: &str) -> String {
    let pairs = reqwest::Url::parse(&format!("http://form/?{body}")).unwrap();
    let (_, query) = pairs
        .query_pairs()
        .find(|(name, _)| name == "query")
        .unwrap();
    query.into_owned()
}

/// Answers like Prometheus: to the questions it knows, by their first metric.
async fn answer(State(asked): State<Asked>, headers: HeaderMap, body: String) -> String {
    let query = query(&body);
    let token = headers
        .get(AUTHORIZATION)
        .map(|value| value.to_str().unwrap().to_owned());
    asked.queries.lock().unwrap().push((query.clone(), token));
    if let Some(answer) = asked.answer {
        return answer.to_owned();
    }
    let (label, subject, value) = if query.contains("flow_control_requests_total") {
        ("inference_pool", "p", "8")
    } else if query.contains("request_input_tokens_sum") {
        ("target_model_name", "m", "4000")
    } else if query.contains("request_input_tokens_count") {
        ("target_model_name", "m", "8")
    } else if query.contains("request_output_tokens_sum") {
        ("target_model_name", "m", "NaN")
    } else {
        return r#"{"status":"success","data":{"resultType":"vector","result":[]}}"#.into();
    };
    format!(
        r#"{{"status":"success","data":{{"resultType":"vector","result":[{{"metric":{{"namespace":"ns","{label}":"{subject}"}},"value":[1700000000.5,"{value}"]}}]}}}}"#
    )
}

async fn serve(asked: Asked) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/prefix/api/v1/query", post(answer))
        .with_state(asked);
    tokio::spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}/prefix")
}

fn prometheus(options: PrometheusOptions) -> Prometheus {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Prometheus::new(options).unwrap()
}

fn subject() -> Subject {
    Subject {
        namespace: "ns".into(),
        pool: Some("p".into()),
        model: "m".into(),
    }
}

#[tokio::test]
async fn a_model_is_asked_about_and_its_picture_read() {
    let asked = Asked::default();
    let url = serve(asked.clone()).await;
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("token");
    std::fs::write(&token_file, "first\n").unwrap();
    let prometheus = prometheus(PrometheusOptions {
        token_file: Some(token_file.clone()),
        ..PrometheusOptions::new(url)
    });
    let answers = prometheus.ask(&[subject()]).await.unwrap();
    let picture = picture(&answers, &subject()).unwrap();
    assert_eq!((picture.offered, picture.prompt), (8.0, Some(500.0)));
    assert_eq!(picture.output, None);
    std::fs::write(&token_file, "second\n").unwrap();
    prometheus.ask(&[subject()]).await.unwrap();
    let queries = asked.queries.lock().unwrap();
    assert_eq!(queries.len(), 2 * Question::ALL.len());
    assert_eq!(queries[0].1.as_deref(), Some("Bearer first"));
    assert_eq!(queries.last().unwrap().1.as_deref(), Some("Bearer second"));
}

#[tokio::test]
async fn a_refusal_says_what_prometheus_said() {
    let asked = Asked {
        answer: Some(r#"{"status":"error","errorType":"bad_data","error":"parse error: no"}"#),
        ..Asked::default()
    };
    let url = serve(asked).await;
    let prometheus = prometheus(PrometheusOptions::new(url));
    let error = prometheus.ask(&[subject()]).await.unwrap_err();
    assert!(error.to_string().ends_with("parse error: no"), "{error}");
}

#[tokio::test]
async fn what_cannot_be_used_is_named() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let error = Prometheus::new(PrometheusOptions {
        ca_file: Some("/nowhere/ca.pem".into()),
        ..PrometheusOptions::new("http://there")
    })
    .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("--prometheus-ca-file /nowhere/ca.pem"),
        "{error}"
    );
    let gone = prometheus(PrometheusOptions::new("http://127.0.0.1:9"));
    let error = gone.ask(&[subject()]).await.unwrap_err();
    assert!(
        matches!(error, PrometheusError::Unreachable { .. }),
        "{error}"
    );
}
