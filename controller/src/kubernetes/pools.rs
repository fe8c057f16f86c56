//! InferencePools as the controller keeps them: where demand arrives, and the service levels their annotations give.

use crds::InferencePool;
use crds::annotations::Read;
use kube::Resource as _;

use super::hpas::{asked, source};
use super::models::Source;

/// The kind.
pub const KIND: &str = "InferencePool";

/// What is kept of an InferencePool.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// The pool itself.
    pub source: Source,
    /// What its annotations say of a model; `None` = nothing.
    pub asked: Option<Box<Read>>,
}

impl Pool {
    /// Keeps of a pool what matters here.
    pub fn trim(pool: InferencePool) -> Option<Self> {
        let annotations = pool.metadata.annotations.clone().unwrap_or_default();
        Some(Self {
            source: source(&InferencePool::api_version(&()), KIND, pool.metadata)?,
            asked: asked(&annotations),
        })
    }
}
