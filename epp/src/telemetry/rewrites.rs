//! Which rules chose the models that requests were sent on under.

use super::registrar::Registrar;
use super::series::RequestLabels;
use names::metric::picker;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use std::sync::Arc;

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct RewriteLabels {
    model_rewrite_name: String,
    model_name: Arc<str>,
    target_model: Arc<str>,
}

/// Decisions by rule.
#[derive(Clone, Debug, Default)]
pub struct RewriteDecisions(Family<RewriteLabels, Counter>);

impl RewriteDecisions {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        let decisions = Self::default();
        let help = "Requests whose model an InferenceModelRewrite chose, by its name, the client's model and the chosen one";
        to.add(picker::REWRITES, help, &decisions.0);
        decisions
    }

    /// A rule of `object` chose the model of a request with `labels`, whose models are capped already.
    pub fn decided(&self, object: &str, labels: &RequestLabels) {
        self.0
            .get_or_create(&RewriteLabels {
                model_rewrite_name: object.to_owned(),
                model_name: labels.model_name.clone(),
                target_model: labels.target_model_name.clone(),
            })
            .inc();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prometheus_client::registry::Registry;

    #[test]
    fn decisions_are_counted_by_rule_and_models() {
        let mut registry = Registry::default();
        let decisions = RewriteDecisions::new(&mut Registrar::new(&mut registry, false));
        let labels = RequestLabels {
            model_name: "m".into(),
            target_model_name: "m-v2".into(),
            fairness_id: "f".into(),
            priority: 0,
        };
        decisions.decided("canary", &labels);
        decisions.decided("canary", &labels);
        let mut page = String::new();
        prometheus_client::encoding::text::encode(&mut page, &registry).unwrap();
        let line = r#"model_rewrite_decisions_total{model_rewrite_name="canary",model_name="m",target_model="m-v2"} 2"#;
        assert!(page.contains(line), "{page}");
    }
}
