//! What requests will name: objectives, and the rules that rewrite their models.

use std::collections::BTreeMap;

use epp_core::config::{Finding, Level, Position};
use epp_core::{DiscoveryFile, Objective, Objectives};
use serde::Deserialize;
use serde_saphyr::Spanned;

const OBJECTIVE: &str = "InferenceObjective";
const REWRITE: &str = "InferenceModelRewrite";

/// Objectives of a file, and what there is to say about the file itself.
pub(super) struct Requests {
    pub(super) objectives: Objectives,
    pub(super) findings: Vec<Finding>,
}

/// Why a file tells nothing of requests.
#[derive(Debug, thiserror::Error)]
pub(super) enum RequestsError {
    /// Neither of the two kinds of file.
    #[error("neither an endpoints file ({file}) nor Kubernetes manifests ({manifests})")]
    Neither {
        /// Why not the one.
        file: String,
        /// Why not the other.
        manifests: String,
    },
}

/// A manifest or a list of them; fields of no interest are passed over.
#[derive(Deserialize)]
struct Manifest {
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    items: Vec<Manifest>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: String,
    #[serde(default)]
    creation_timestamp: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    priority: Option<i32>,
    #[serde(default)]
    pool_ref: PoolRef,
    #[serde(default)]
    rules: Vec<Spanned<Rule>>,
}

#[derive(Default, Deserialize)]
struct PoolRef {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(default)]
    matches: Vec<Match>,
}

#[derive(Deserialize)]
struct Match {
    model: Option<ModelMatch>,
}

#[derive(Deserialize)]
struct ModelMatch {
    value: String,
}

impl Requests {
    /// Reads an endpoints file, or manifests: one or several documents, lists too.
    pub(super) fn read(text: &str) -> Result<Self, RequestsError> {
        let file = match DiscoveryFile::parse(text) {
            Ok(file) => {
                return Ok(Self {
                    objectives: file.objectives,
                    findings: Vec::new(),
                });
            }
            Err(error) => error.to_string(),
        };
        let manifests: Vec<Manifest> = serde_saphyr::from_multiple(text).map_err(|error| {
            let manifests = error.without_snippet().to_string();
            RequestsError::Neither { file, manifests }
        })?;
        let mut flat = Vec::new();
        flatten(manifests, &mut flat);
        Ok(Self {
            objectives: objectives(&flat),
            findings: rewrites(&flat),
        })
    }
}

fn flatten(manifests: Vec<Manifest>, flat: &mut Vec<Manifest>) {
    for mut manifest in manifests {
        flatten(std::mem::take(&mut manifest.items), flat);
        flat.push(manifest);
    }
}

fn objectives(manifests: &[Manifest]) -> Objectives {
    let mut objectives = Objectives::default();
    for manifest in manifests
        .iter()
        .filter(|manifest| manifest.kind == OBJECTIVE)
    {
        let objective = Objective {
            priority: manifest.spec.priority.unwrap_or_default(),
            ..Objective::default()
        };
        objectives.insert(manifest.metadata.name.clone(), objective);
    }
    objectives
}

/// Rules that no request reaches: of two for the same model of a pool the one of the older object counts, then the
/// first; so of two for any model.
fn rewrites(manifests: &[Manifest]) -> Vec<Finding> {
    let mut rewrites: Vec<_> = manifests
        .iter()
        .filter(|manifest| manifest.kind == REWRITE)
        .collect();
    // RFC 3339 in UTC sorts as text; what is not created yet will be the youngest.
    rewrites.sort_by_key(|manifest| {
        let created = manifest.metadata.creation_timestamp.as_deref();
        (created.is_none(), created)
    });
    let mut first: BTreeMap<(&str, Option<&str>), String> = BTreeMap::new();
    let mut findings = Vec::new();
    for manifest in rewrites {
        let pool = manifest.spec.pool_ref.name.as_str();
        for (index, rule) in manifest.spec.rules.iter().enumerate() {
            let place = format!("{REWRITE} `{}` spec.rules[{index}]", manifest.metadata.name);
            let models: Vec<Option<&str>> = match rule.value.matches.as_slice() {
                [] => vec![None],
                matches => matches
                    .iter()
                    .map(|one| one.model.as_ref().map(|model| model.value.as_str()))
                    .collect(),
            };
            let earlier: Vec<_> = models
                .iter()
                .filter_map(|model| first.get(&(pool, *model)).cloned())
                .collect();
            if !models.is_empty() && earlier.len() == models.len() {
                findings.push(unreachable(&place, rule, &models, &earlier));
            }
            for model in models {
                first.entry((pool, model)).or_insert_with(|| place.clone());
            }
        }
    }
    findings
}

fn unreachable(
    place: &str,
    rule: &Spanned<Rule>,
    models: &[Option<&str>],
    earlier: &[String],
) -> Finding {
    let models: Vec<_> = models
        .iter()
        .map(|model| model.map_or_else(|| "every model".to_owned(), |model| format!("`{model}`")))
        .collect();
    let at = rule.referenced;
    Finding {
        level: Level::Unreachable,
        place: place.to_owned(),
        position: (at.line() > 0).then(|| Position {
            line: at.line(),
            column: at.column(),
        }),
        message: format!(
            "is never used: {} is taken by {} already",
            models.join(" and "),
            earlier.join(" and ")
        ),
        advice: "leave the rule out, or merge its targets into the earlier one".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFESTS: &str = "\
apiVersion: v1
kind: List
items:
- apiVersion: llm-d.ai/v1alpha2
  kind: InferenceObjective
  metadata: {name: batch, namespace: ns}
  spec: {priority: -10, poolRef: {name: pool}}
- apiVersion: llm-d.ai/v1alpha2
  kind: InferenceObjective
  metadata: {name: plain}
  spec: {poolRef: {name: pool}}
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: younger, creationTimestamp: \"2026-02-01T00:00:00Z\"}
spec:
  poolRef: {name: pool}
  rules:
  - targets: [{modelRewrite: a}]
  - matches: [{model: {value: chat}}]
    targets: [{modelRewrite: b}]
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: older, creationTimestamp: \"2026-01-01T00:00:00Z\"}
spec:
  poolRef: {name: pool}
  rules:
  - targets: [{modelRewrite: c}]
  - matches: [{model: {value: chat}}, {model: {value: other}}]
    targets: [{modelRewrite: d}]
---
apiVersion: llm-d.ai/v1alpha2
kind: InferenceModelRewrite
metadata: {name: elsewhere}
spec:
  poolRef: {name: another}
  rules: [{targets: [{modelRewrite: e}]}]
";

    #[test]
    fn manifests_tell_priorities() {
        let requests = Requests::read(MANIFESTS).unwrap();
        let priorities: Vec<_> = requests
            .objectives
            .iter()
            .map(|(name, objective)| (name.to_owned(), objective.priority))
            .collect();
        assert_eq!(
            priorities,
            [("batch".to_owned(), -10), ("plain".to_owned(), 0)]
        );
    }

    #[test]
    fn of_two_rules_for_the_same_model_the_older_object_s_counts() {
        let findings = Requests::read(MANIFESTS).unwrap().findings;
        let told: Vec<_> = findings
            .iter()
            .map(|finding| (finding.position.unwrap().line, finding.message.as_str()))
            .collect();
        assert_eq!(
            told,
            [
                (
                    19,
                    "is never used: every model is taken by InferenceModelRewrite `older` spec.rules[0] already"
                ),
                (
                    20,
                    "is never used: `chat` is taken by InferenceModelRewrite `older` spec.rules[1] already"
                ),
            ]
        );
    }

    #[test]
    fn an_endpoints_file_tells_objectives() {
        let text = "objectives:\n- {name: gold, priority: 7, shed: true}\n";
        let requests = Requests::read(text).unwrap();
        assert_eq!(requests.objectives.resolve(Some("gold")).priority, 7);
        let error = Requests::read("objectivs: []").err().unwrap().to_string();
        assert!(error.contains("nearest known: `objectives`"), "{error}");
    }
}
