//! `label-selector-filter`, `encode-filter`, `prefill-filter`, `decode-filter`: by labels alone, once per pool.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::rngs::StdRng;

use crate::config::{LabelOperator, LabelRequirement, LabelSelectorFilter, ServingStage};
use crate::pool::Pool;
use crate::schedule::{Ask, Candidate, Filter, Stage};

type Labels = BTreeMap<String, String>;

/// Keeps the endpoints whose labels satisfy a rule.
#[derive(Debug)]
pub(super) struct LabelFilter {
    rule: Rule,
    /// In pool order.
    passes: Vec<bool>,
}

#[derive(Debug)]
enum Rule {
    Selector(LabelSelectorFilter),
    Stage(ServingStage),
}

impl LabelFilter {
    pub(super) fn selector(selector: LabelSelectorFilter) -> Self {
        Self {
            rule: Rule::Selector(selector),
            passes: Vec::new(),
        }
    }

    pub(super) fn stage(stage: ServingStage) -> Self {
        Self {
            rule: Rule::Stage(stage),
            passes: Vec::new(),
        }
    }
}

impl Rule {
    fn holds(&self, labels: &Labels) -> bool {
        match self {
            Self::Selector(selector) => selects(selector, labels),
            Self::Stage(stage) => serves(*stage, role(labels)),
        }
    }
}

impl Filter for LabelFilter {
    fn stage(&self) -> Stage {
        Stage::Constraint
    }

    fn pool_changed(&mut self, pool: &Arc<Pool>) {
        self.passes.clear();
        let endpoints = pool.endpoints.iter();
        self.passes
            .extend(endpoints.map(|endpoint| self.rule.holds(&endpoint.labels)));
    }

    fn retain(
        &mut self,
        _: Duration,
        _: &Ask<'_>,
        candidates: &mut Vec<Candidate>,
        _: &mut StdRng,
    ) {
        candidates.retain(|candidate| {
            let slot = candidate.slot as usize;
            self.passes.get(slot).copied().unwrap_or_default()
        });
    }
}

/// Whether a Kubernetes label selector matches.
fn selects(selector: &LabelSelectorFilter, labels: &Labels) -> bool {
    let equal = |(key, value): (&String, &String)| labels.get(key) == Some(value);
    selector.match_labels.iter().all(equal)
        && selector
            .match_expressions
            .iter()
            .all(|requirement| meets(requirement, labels))
}

fn meets(requirement: &LabelRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = || value.is_some_and(|value| requirement.values.contains(value));
    match requirement.operator {
        LabelOperator::In => listed(),
        LabelOperator::NotIn => !listed(),
        LabelOperator::Exists => value.is_some(),
        LabelOperator::DoesNotExist => value.is_none(),
        LabelOperator::InOrDoesNotExist => value.is_none() || listed(),
    }
}

fn role(labels: &Labels) -> Option<&str> {
    names::label::ROLE
        .all()
        .find_map(|name| labels.get(name))
        .map(String::as_str)
}

/// Whether an endpoint of that role serves the stage.
fn serves(stage: ServingStage, role: Option<&str>) -> bool {
    let roles: &[&str] = match stage {
        ServingStage::Encode => &["encode", "encode-prefill", "encode-prefill-decode"],
        ServingStage::Prefill => &[
            "prefill",
            "encode-prefill",
            "prefill-decode",
            "both",
            "encode-prefill-decode",
        ],
        ServingStage::Decode => &["decode", "prefill-decode", "both", "encode-prefill-decode"],
    };
    role.map_or(stage == ServingStage::Decode, |role| roles.contains(&role))
}
