//! What the API server tells the servers behind it about whom to believe.

use std::collections::BTreeMap;

use runtime::tls::ClientRoots;

/// Namespace of the ConfigMap.
pub(super) const NAMESPACE: &str = "kube-system";
/// Name of the ConfigMap.
pub(super) const CONFIG_MAP: &str = "extension-apiserver-authentication";

const CLIENT_CA: &str = "client-ca-file";
const FRONT_PROXY_CA: &str = "requestheader-client-ca-file";
const ALLOWED_NAMES: &str = "requestheader-allowed-names";
const USER_HEADERS: &str = "requestheader-username-headers";
const UID_HEADERS: &str = "requestheader-uid-headers";
const GROUP_HEADERS: &str = "requestheader-group-headers";
const EXTRA_PREFIXES: &str = "requestheader-extra-headers-prefix";

/// Whose certificates count for what.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    /// The aggregator; `None` when the API server has none configured: then nobody's headers count.
    pub front_proxy: Option<FrontProxy>,
    /// Authorities whose client certificates name a user; `None` when there are none.
    pub clients: Option<ClientRoots>,
    /// What of the ConfigMap cannot be used; the last good part stays in force.
    pub problems: Vec<String>,
}

/// The aggregator in front of us, which tells in headers who asks.
#[derive(Clone, Debug)]
pub struct FrontProxy {
    /// Authorities of its certificate.
    pub roots: ClientRoots,
    /// Common names that its certificate may have; empty = any.
    pub allowed_names: Vec<String>,
    /// Headers (lower case) with the user's name; the first that is there counts.
    pub user_headers: Vec<String>,
    /// Headers with the user's id; the first that is there counts.
    pub uid_headers: Vec<String>,
    /// Headers with groups; all count.
    pub group_headers: Vec<String>,
    /// Prefixes of headers with further attributes.
    pub extra_prefixes: Vec<String>,
}

impl Trust {
    /// From the data of the ConfigMap; a part that cannot be used stays as it was in `last`.
    pub fn read(data: &BTreeMap<String, String>, last: &Self) -> Self {
        let mut problems = Vec::new();
        let clients = match roots(data, CLIENT_CA) {
            Ok(roots) => roots,
            Err(problem) => {
                problems.push(problem);
                last.clients.clone()
            }
        };
        let front_proxy = match front_proxy(data) {
            Ok(front_proxy) => front_proxy,
            Err(problem) => {
                problems.push(problem);
                last.front_proxy.clone()
            }
        };
        Self {
            front_proxy,
            clients,
            problems,
        }
    }
}

fn front_proxy(data: &BTreeMap<String, String>) -> Result<Option<FrontProxy>, String> {
    let Some(roots) = roots(data, FRONT_PROXY_CA)? else {
        return Ok(None);
    };
    let headers = |key| -> Result<Vec<String>, String> {
        let names = list(data, key)?;
        Ok(names.iter().map(|name| name.to_ascii_lowercase()).collect())
    };
    Ok(Some(FrontProxy {
        roots,
        allowed_names: list(data, ALLOWED_NAMES)?,
        user_headers: headers(USER_HEADERS)?,
        uid_headers: headers(UID_HEADERS)?,
        group_headers: headers(GROUP_HEADERS)?,
        extra_prefixes: headers(EXTRA_PREFIXES)?,
    }))
}

fn roots(data: &BTreeMap<String, String>, key: &str) -> Result<Option<ClientRoots>, String> {
    match data.get(key).map(|pem| pem.trim()) {
        None | Some("") => Ok(None),
        Some(pem) => ClientRoots::from_pem(pem)
            .map(Some)
            .map_err(|error| format!("{key}: {error}")),
    }
}

fn list(data: &BTreeMap<String, String>, key: &str) -> Result<Vec<String>, String> {
    match data.get(key).map(|text| text.trim()) {
        None | Some("") => Ok(Vec::new()),
        Some(text) => serde_json::from_str(text).map_err(|error| {
            format!("{key} must be a JSON list of strings, it is {text:?}: {error}")
        }),
    }
}
