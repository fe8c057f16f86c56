//! The decisions of many models: of each the last one whole, and in sentences those that changed a count.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use controller_core::model::ModelKey;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::kubernetes::explain::{Change, Explanation, explain};
use crate::kubernetes::models::mode_name;
use crate::kubernetes::status::Report;

/// Most models kept; further ones are decided for all the same and cannot be asked about.
pub const MAX_MODELS: usize = 2_000;
/// Changes kept per model.
pub const MAX_CHANGES: usize = 50;

/// The last decisions on all models; clones share them.
#[derive(Clone, Debug, Default)]
pub struct ModelJournal {
    pages: Arc<Mutex<BTreeMap<ModelKey, Page>>>,
}

#[derive(Debug)]
struct Page {
    at_ms: u64,
    latest: Report,
    changes: VecDeque<Change>,
}

/// One line of the list of models.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Line {
    /// Namespace.
    pub namespace: String,
    /// Model.
    pub model: String,
    /// `advise`, `publish` or `direct`.
    pub mode: String,
    /// When it was decided for last, unix milliseconds.
    pub at_ms: u64,
    /// The decision in sentences; empty before the first.
    pub why: String,
}

impl ModelJournal {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps what a cycle reported at `at_ms`, unix time. Models that are not among `reports` are forgotten.
    pub fn record(&self, at_ms: u64, reports: Vec<Report>) {
        let mut pages = self.pages.lock();
        let mut before = std::mem::take(&mut *pages);
        for latest in reports.into_iter().take(MAX_MODELS) {
            let key = latest.spec.key.clone();
            let held = before.remove(&key).map(|page| page.changes);
            let mut changes = held.unwrap_or_default();
            let change = latest
                .decision
                .as_ref()
                .and_then(|decision| Change::of(decision, at_ms));
            if let Some(change) = change {
                changes.truncate(MAX_CHANGES - 1);
                changes.push_front(change);
            }
            pages.insert(
                key,
                Page {
                    at_ms,
                    latest,
                    changes,
                },
            );
        }
    }

    /// This replica does not decide any more: what it decided last is not the present, and is forgotten.
    pub fn close(&self) {
        self.pages.lock().clear();
    }

    /// Why `key` has the replicas it has; `None` when nothing is known of it.
    pub fn explain(&self, key: &ModelKey) -> Option<Explanation> {
        let pages = self.pages.lock();
        let page = pages.get(key)?;
        let changes = page.changes.iter().cloned().collect();
        Some(explain(&page.latest, page.at_ms, changes))
    }

    /// All models, by key.
    pub fn list(&self) -> Vec<Line> {
        let pages = self.pages.lock();
        let line = |(key, page): (&ModelKey, &Page)| Line {
            namespace: key.namespace.clone(),
            model: key.model.clone(),
            mode: mode_name(page.latest.spec.mode).to_owned(),
            at_ms: page.at_ms,
            why: page
                .latest
                .decision
                .as_ref()
                .map_or_else(String::new, ToString::to_string),
        };
        pages.iter().map(line).collect()
    }

    /// `GET /decisions`: one line per model. `GET /decisions/<namespace>/<model>`: an [`Explanation`].
    pub fn routes(&self) -> Router {
        Router::new()
            .route("/decisions", get(list))
            .route("/decisions/{namespace}/{*model}", get(one))
            .with_state(self.clone())
    }
}

async fn list(State(journal): State<ModelJournal>) -> Json<Vec<Line>> {
    Json(journal.list())
}

async fn one(
    State(journal): State<ModelJournal>,
    Path((namespace, model)): Path<(String, String)>,
) -> Response {
    let key = ModelKey { namespace, model };
    match journal.explain(&key) {
        Some(explanation) => Json(explanation).into_response(),
        None => {
            let known: Vec<String> = journal
                .list()
                .iter()
                .map(|line| format!("{}/{}", line.namespace, line.model))
                .collect();
            let message = format!(
                "nothing is decided for model {key} here; decided for: {}\n",
                if known.is_empty() {
                    "none (only the leader decides)".to_owned()
                } else {
                    known.join(", ")
                }
            );
            (StatusCode::NOT_FOUND, message).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;
    use crate::kubernetes::status::testing::{report, variant};

    fn named(model: &str, previous: u32, replicas: u32) -> Report {
        let mut report = report(vec![variant("h100", previous, replicas)]);
        Arc::make_mut(&mut report.spec).key.model = model.into();
        report
    }

    async fn fetch(journal: &ModelJournal, path: &str) -> (StatusCode, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = journal.routes().oneshot(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_model_is_asked_for_by_its_whole_name() {
        let journal = ModelJournal::new();
        journal.record(1_000, vec![named("meta/llama", 2, 3)]);
        journal.record(2_000, vec![named("meta/llama", 3, 3)]);
        let (status, body) = fetch(&journal, "/decisions/chat/meta/llama").await;
        assert_eq!(status, StatusCode::OK);
        let explanation: Explanation = serde_json::from_str(&body).unwrap();
        assert_eq!(
            (explanation.model.as_str(), explanation.at_ms),
            ("meta/llama", 2_000)
        );
        assert_eq!(explanation.variants[0].wanted, Some(3));
        assert_eq!(explanation.changes.len(), 1);
        assert!(explanation.changes[0].why[0].starts_with("h100 2 → 3: "));
        let (status, body) = fetch(&journal, "/decisions/chat/other").await;
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert!(body.contains("chat/meta/llama"), "{body}");
        let (_, body) = fetch(&journal, "/decisions").await;
        let lines: Vec<Line> = serde_json::from_str(&body).unwrap();
        assert_eq!((lines.len(), lines[0].mode.as_str()), (1, "publish"));
    }

    #[test]
    fn models_and_changes_are_bounded_and_what_is_gone_is_forgotten() {
        let journal = ModelJournal::new();
        for at in 0..2 * MAX_CHANGES as u64 {
            journal.record(at, vec![named("a", 1, 2)]);
        }
        let key = ModelKey {
            namespace: "chat".into(),
            model: "a".into(),
        };
        let changes = journal.explain(&key).unwrap().changes;
        assert_eq!(changes.len(), MAX_CHANGES);
        assert_eq!(changes[0].at_ms, 2 * MAX_CHANGES as u64 - 1);
        let many = (0..MAX_MODELS + 10).map(|number| named(&format!("m{number:05}"), 1, 1));
        journal.record(9, many.collect());
        assert_eq!(journal.list().len(), MAX_MODELS);
        assert_eq!(journal.explain(&key), None);
    }
}
