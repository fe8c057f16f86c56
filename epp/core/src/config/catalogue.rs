//! Every plugin type that llm-d knows, and what becomes of it here.

use super::plugin::{BUILT, Role};

/// What llm-d promises of a plugin type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// For everybody.
    Beta,
    /// There it takes `--allow-experimental-plugins`.
    Alpha,
    /// On its way out.
    Deprecated,
    /// Headroom's own.
    Own,
}

/// What a plugin type is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It does what it says.
    Built,
    /// Another name for a type; its parameters are translated.
    AliasOf(&'static str),
    /// Known and not built: it is accepted, loudly.
    StandIn {
        /// The built type whose defaults work in its place; `None` = nothing does.
        acts_as: Option<&'static str>,
        /// What happens instead.
        instead: &'static str,
        /// What it waits for.
        until: &'static str,
    },
    /// Refused, with the reason and what to write instead.
    Refused(&'static str),
}

/// A plugin type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeEntry {
    /// As `type` in a configuration.
    pub name: &'static str,
    /// What it is there for.
    pub role: Role,
    /// What llm-d promises of it.
    pub stage: Stage,
    /// What it is here.
    pub status: Status,
}

/// Every known plugin type, built ones first.
pub fn catalogue() -> impl Iterator<Item = &'static TypeEntry> {
    BUILT.iter().chain(ALIASES).chain(STAND_INS).chain(REFUSED)
}

/// The type of that name.
pub fn plugin_type(name: &str) -> Option<&'static TypeEntry> {
    catalogue().find(|entry| entry.name == name)
}

pub(super) fn names() -> impl Iterator<Item = &'static str> {
    catalogue().map(|entry| entry.name)
}

const DISAGGREGATION: &str = "disaggregation";
const KV_EVENTS: &str = "KV events";
const MULTIMODAL: &str = "multimodal routing";
const CLUSTERS: &str = "multi-cluster routing";

/// Deprecated names of built types. How their parameters are translated: [`super::alias`].
const ALIASES: &[TypeEntry] = &[
    alias("by-label", Role::Filter, "label-selector-filter"),
    alias("by-label-selector", Role::Filter, "label-selector-filter"),
    alias(
        "data-parallel-profile-handler",
        Role::ProfileHandler,
        "single-profile-handler",
    ),
];

const REFUSED: &[TypeEntry] = &[TypeEntry {
    name: "latency-detector",
    role: Role::Detector,
    stage: Stage::Alpha,
    status: Status::Refused(
        "was proposed at llm-d and never built; `adaptive-concurrency-detector` learns from latency when the pool is full",
    ),
}];

/// Known types that wait for a feature.
const STAND_INS: &[TypeEntry] = &[
    waits(
        "disagg-profile-handler",
        Role::ProfileHandler,
        Stage::Beta,
        "the decode profile runs alone, and never on a pod that only encodes or only prefills",
        DISAGGREGATION,
    ),
    waits(
        "pd-profile-handler",
        Role::ProfileHandler,
        Stage::Deprecated,
        "the decode profile runs alone, and never on a pod that only encodes or only prefills",
        DISAGGREGATION,
    ),
    waits(
        "header-profile-handler",
        Role::ProfileHandler,
        Stage::Alpha,
        "the default profile runs alone, whatever the header says",
        DISAGGREGATION,
    ),
    waits(
        "disagg-headers-handler",
        Role::Processor,
        Stage::Deprecated,
        "no request is told of a server that encodes or prefills for it",
        DISAGGREGATION,
    ),
    waits(
        "prefill-header-handler",
        Role::Processor,
        Stage::Deprecated,
        "no request is told of a server that prefills for it",
        DISAGGREGATION,
    ),
    waits(
        "prefix-based-pd-decider",
        Role::Decider,
        Stage::Beta,
        "no prompt is prefilled elsewhere",
        DISAGGREGATION,
    ),
    waits(
        "always-disagg-pd-decider",
        Role::Decider,
        Stage::Beta,
        "no prompt is prefilled elsewhere",
        DISAGGREGATION,
    ),
    waits(
        "always-disagg-multimodal-decider",
        Role::Decider,
        Stage::Beta,
        "no image is encoded elsewhere",
        DISAGGREGATION,
    ),
    waits(
        "p2p-source-producer",
        Role::Producer,
        Stage::Alpha,
        "no server is told of another to pull a prefix from",
        DISAGGREGATION,
    ),
    waits(
        "disaggregatedset-rollout-screener",
        Role::Screener,
        Stage::Alpha,
        "every revision counts as one",
        DISAGGREGATION,
    ),
    acts(
        "precise-prefix-cache-producer",
        Role::Producer,
        Stage::Beta,
        "approx-prefix-cache-producer",
        "prefixes are those that the picker sent itself, not those that engines report",
        KV_EVENTS,
    ),
    acts(
        "precise-prefix-cache-scorer",
        Role::Scorer,
        Stage::Deprecated,
        "prefix-cache-scorer",
        "prefixes are those that the picker sent itself, not those that engines report",
        KV_EVENTS,
    ),
    acts(
        "burst-prefix-cache-producer",
        Role::Producer,
        Stage::Alpha,
        "approx-prefix-cache-producer",
        "requests are not held to be sent together; prefixes count as for approx-prefix-cache-producer",
        "batches of bursts",
    ),
    waits(
        "endpoint-notification-source",
        Role::Source,
        Stage::Beta,
        "what is attached to it hears nothing",
        KV_EVENTS,
    ),
    waits(
        "k8s-notification-source",
        Role::Source,
        Stage::Beta,
        "what is attached to it hears nothing",
        KV_EVENTS,
    ),
    waits(
        "mm-embeddings-cache-producer",
        Role::Producer,
        Stage::Beta,
        "nobody remembers which server has encoded which image",
        MULTIMODAL,
    ),
    waits(
        "mm-embeddings-cache-scorer",
        Role::Scorer,
        Stage::Beta,
        "it rates every server 0, so that its weight has no effect",
        MULTIMODAL,
    ),
    acts(
        "multicluster-file-discovery",
        Role::Discovery,
        Stage::Alpha,
        "file-discovery",
        "the file is read as a list of servers, not of clusters",
        CLUSTERS,
    ),
    waits(
        "multicluster-metrics-data-source",
        Role::Source,
        Stage::Alpha,
        "no cluster's metrics are read",
        CLUSTERS,
    ),
    waits(
        "multicluster-metrics-extractor",
        Role::Extractor,
        Stage::Alpha,
        "no cluster's metrics are read",
        CLUSTERS,
    ),
    waits(
        "multicluster-session-affinity-filter",
        Role::Filter,
        Stage::Alpha,
        "every candidate passes",
        CLUSTERS,
    ),
    waits(
        "multicluster-kv-cache-utilization-scorer",
        Role::Scorer,
        Stage::Alpha,
        "it rates every candidate 0, so that its weight has no effect",
        CLUSTERS,
    ),
    waits(
        "multicluster-queue-scorer",
        Role::Scorer,
        Stage::Alpha,
        "it rates every candidate 0, so that its weight has no effect",
        CLUSTERS,
    ),
    waits(
        "multicluster-prefix-cache-scorer",
        Role::Scorer,
        Stage::Alpha,
        "it rates every candidate 0, so that its weight has no effect",
        CLUSTERS,
    ),
];

const fn alias(name: &'static str, role: Role, of: &'static str) -> TypeEntry {
    TypeEntry {
        name,
        role,
        stage: Stage::Deprecated,
        status: Status::AliasOf(of),
    }
}

const fn waits(
    name: &'static str,
    role: Role,
    stage: Stage,
    instead: &'static str,
    until: &'static str,
) -> TypeEntry {
    let status = Status::StandIn {
        acts_as: None,
        instead,
        until,
    };
    TypeEntry {
        name,
        role,
        stage,
        status,
    }
}

const fn acts(
    name: &'static str,
    role: Role,
    stage: Stage,
    as_type: &'static str,
    instead: &'static str,
    until: &'static str,
) -> TypeEntry {
    let status = Status::StandIn {
        acts_as: Some(as_type),
        instead,
        until,
    };
    TypeEntry {
        name,
        role,
        stage,
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_type_is_in_one_table_only() {
        let mut seen = BTreeSet::new();
        for entry in catalogue() {
            assert!(
                seen.insert(entry.name),
                "`{}` is listed twice: a type that is built leaves the tables of what is not",
                entry.name
            );
        }
    }

    #[test]
    fn what_stands_in_is_there_and_plays_the_same_role() {
        for entry in catalogue() {
            let other = match entry.status {
                Status::AliasOf(other) => other,
                Status::StandIn {
                    acts_as: Some(other),
                    ..
                } => other,
                _ => continue,
            };
            let target =
                plugin_type(other).unwrap_or_else(|| panic!("`{}` → `{other}`", entry.name));
            assert_eq!(target.role, entry.role, "{}", entry.name);
            assert!(
                !matches!(target.status, Status::AliasOf(_)),
                "{}",
                entry.name
            );
        }
    }
}
