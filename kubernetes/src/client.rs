//! Reaching the API server, and knowing who one is.

use kube::{Client, Config};
use std::net::IpAddr;

/// Namespace where none is given.
pub const DEFAULT_NAMESPACE: &str = "default";

/// Why there is no API server to talk to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither a kubeconfig nor a service account was found, or it cannot be read.
    #[error(
        "no way to a Kubernetes API server is configured: run in a pod with a mounted service account token, or set KUBECONFIG to a kubeconfig file"
    )]
    Configuration(#[source] Box<kube::config::InferConfigError>),
    /// What was found cannot be used.
    #[error(
        "the Kubernetes API server at {url} cannot be used: check certificates, token and address of the kubeconfig or service account"
    )]
    Client {
        /// The server's address.
        url: String,
        /// What is wrong with it.
        #[source]
        source: Box<kube::Error>,
    },
}

/// A client of the API server that KUBECONFIG (or ~/.kube/config) names, else of the cluster this pod runs in.
/// Nothing is sent yet: a server that does not answer is found out by who uses the client.
///
/// # Errors
/// [`ConnectError`], saying where a configuration was looked for or what is wrong with it.
pub async fn connect() -> Result<Client, ConnectError> {
    client(infer().await?)
}

/// The same, for a person who waits: an answer such as 503 is told at once and not asked for again.
///
/// # Errors
/// As [`connect`].
pub async fn connect_impatiently() -> Result<Client, ConnectError> {
    let mut config = infer().await?;
    config.default_retry = false;
    client(config)
}

async fn infer() -> Result<Config, ConnectError> {
    Config::infer()
        .await
        .map_err(|error| ConnectError::Configuration(Box::new(error)))
}

fn client(config: Config) -> Result<Client, ConnectError> {
    let url = config.cluster_url.to_string();
    Client::try_from(config).map_err(|source| ConnectError::Client {
        url,
        source: Box::new(source),
    })
}

/// Who this process is, as the downward API tells it in NAMESPACE, POD_NAME and POD_IP.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The pod's namespace.
    pub namespace: Option<String>,
    /// The pod's name.
    pub pod: Option<String>,
    /// The pod's address.
    pub pod_ip: Option<IpAddr>,
}

impl Identity {
    /// From the environment; what is empty or not an address counts as absent.
    pub fn from_env() -> Self {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(variable: impl Fn(&str) -> Option<String>) -> Self {
        let text = |name: &str| variable(name).filter(|value| !value.is_empty());
        Self {
            namespace: text("NAMESPACE").or_else(|| text("POD_NAMESPACE")),
            pod: text("POD_NAME"),
            pod_ip: text("POD_IP").and_then(|ip| ip.parse().ok()),
        }
    }

    /// Name of the process, started at `unix_ms`, among those that stand for election. One that restarts in its pod is
    /// another candidate: it has forgotten what it led by, and must not go on leading.
    pub fn candidate(&self, unix_ms: u64) -> String {
        format!("{}{SEPARATOR}{unix_ms:x}", self.holder())
    }

    /// A name that no other process has: the pod's, else the host's with this process's id.
    pub fn holder(&self) -> String {
        if let Some(pod) = &self.pod {
            return pod.clone();
        }
        let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "localhost".into());
        format!("{host}-{}", std::process::id())
    }
}

/// No pod's name has it.
const SEPARATOR: char = '_';

/// The pod of a [`Identity::candidate`].
pub fn pod_of(candidate: &str) -> &str {
    candidate.split(SEPARATOR).next().unwrap_or(candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_says_who_one_is() {
        let identity = Identity::read(|name| match name {
            "NAMESPACE" => Some(String::new()),
            "POD_NAMESPACE" => Some("serving".into()),
            "POD_NAME" => Some("epp-0".into()),
            "POD_IP" => Some("fd00::1".into()),
            _ => None,
        });
        assert_eq!(identity.namespace.as_deref(), Some("serving"));
        assert_eq!(identity.pod_ip, "fd00::1".parse().ok());
        assert_eq!(identity.holder(), "epp-0");
        assert_eq!(pod_of(&identity.candidate(1_700_000_000_000)), "epp-0");
        assert_ne!(identity.candidate(1), identity.candidate(2));
        let alone = Identity::read(|name| (name == "POD_IP").then(|| "nowhere".into()));
        assert_eq!(alone, Identity::default());
        assert_ne!(alone.holder(), "");
    }
}
