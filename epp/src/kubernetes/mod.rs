//! Endpoints, objectives, rewrites and default targets from Kubernetes.
//!
//! What objects mean is a pure function (`discover`); `follow` feeds it from watches and puts what it says in
//! force. Whatever goes wrong, the last good state stays: while the API server is away, while a list is read
//! anew, and where a value is wrong, which becomes an Event.

mod discover;
mod follow;
mod objects;
mod pods;
mod policy;
pub(crate) mod pool;
mod problem;
mod protocol;
mod status;

#[cfg(test)]
mod tests;

pub(crate) use follow::start;
pub use kubernetes::client::Identity;
pub use pool::Members;

use kube::Client;
use kubernetes::lease::{Candidate, Timing};
use std::fmt;

/// What an InferencePool is called in references and Events.
const POOL_KIND: &str = "InferencePool";
/// The API group that pools are in, unless a flag says otherwise.
pub const POOL_GROUP: &str = "inference.networking.k8s.io";
/// What Events are reported as.
const COMPONENT: &str = "headroom-epp";

/// A pool on a cluster, and how to reach it.
#[derive(Clone)]
pub struct Cluster {
    /// The API server.
    pub client: Client,
    /// Who this picker is.
    pub identity: Identity,
    /// The pool's namespace, in which everything is that is read.
    pub namespace: String,
    /// What is picked for.
    pub source: Source,
    /// Be ready only while holding the pool's Lease.
    pub leader_election: bool,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster")
            .field("identity", &self.identity)
            .field("namespace", &self.namespace)
            .field("source", &self.source)
            .field("leader_election", &self.leader_election)
            .finish_non_exhaustive()
    }
}

/// Which pods are endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Those of an InferencePool.
    Pool {
        /// API group of the pool.
        group: String,
        /// Name of the pool.
        name: String,
    },
    /// Those that a flag selects; no custom resource is read.
    Pods {
        /// Which ones, and their ports.
        members: Members,
        /// What the pool is called; `None` = a name made from the selector.
        name: Option<String>,
    },
}

impl Source {
    /// What the pool is called in metrics and in the Lease's name. Without a name of their own, two pickers of the
    /// same pods agree on one made from the selector.
    pub fn name(&self) -> String {
        match self {
            Self::Pool { name, .. } => name.clone(),
            Self::Pods {
                name: Some(name), ..
            } => name.clone(),
            Self::Pods {
                members,
                name: None,
            } => {
                let plain = |character: char| {
                    if character.is_ascii_alphanumeric() {
                        character.to_ascii_lowercase()
                    } else {
                        '-'
                    }
                };
                let name: String = members.selector.chars().map(plain).collect();
                let name = name.get(..name.len().min(100)).unwrap_or_default();
                name.trim_matches('-').to_owned()
            }
        }
    }
}

impl Cluster {
    /// The Lease that pickers of this pool stand for, named as llm-d's picker names it; this one started at `unix_ms`.
    pub fn candidate(&self, unix_ms: u64) -> Candidate {
        Candidate {
            namespace: self.namespace.clone(),
            name: format!("epp-{}-{}.llm-d.ai", self.namespace, self.source.name()),
            identity: self.identity.candidate(unix_ms),
            address: None,
            timing: Timing::default(),
        }
    }
}

/// Reads `--endpoint-selector` and `--endpoint-target-ports`.
///
/// # Errors
/// A selector that selects everything, or ports that cannot be a pool's; says what would be right.
pub fn members(selector: &str, ports: Vec<u16>) -> Result<Members, String> {
    let selector = selector.trim();
    if selector.is_empty() {
        return Err("the selector is empty and would select every pod of the namespace; name at least one label, such as app=vllm".into());
    }
    Ok(Members {
        selector: selector.to_owned(),
        ports: pool::check_ports(ports)?,
    })
}
