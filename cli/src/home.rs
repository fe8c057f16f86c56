//! Where in a cluster the controller lives.

use k8s_openapi::api::coordination::v1::Lease;
use kube::api::ListParams;
use kube::{Api, Client};

/// Namespace to look into where nothing says which.
pub(crate) const DEFAULT: &str = "headroom-system";

/// The controller's namespace: as `told`, else that of its Lease, `near` (a model's namespace) before others. Who may
/// not list Leases looks into `near` only; what is not found is taken to be [`DEFAULT`].
pub(crate) async fn namespace(client: &Client, told: Option<&str>, near: Option<&str>) -> String {
    if let Some(told) = told {
        return told.to_owned();
    }
    let lease = names::kubernetes::CONTROLLER;
    let everywhere: Api<Lease> = Api::all(client.clone());
    let named = ListParams::default().fields(&format!("metadata.name={lease}"));
    if let Ok(found) = everywhere.list(&named).await {
        let homes = found
            .items
            .into_iter()
            .filter_map(|one| one.metadata.namespace);
        return nearest(homes.collect(), near).unwrap_or_else(|| DEFAULT.to_owned());
    }
    if let Some(near) = near {
        let here: Api<Lease> = Api::namespaced(client.clone(), near);
        if matches!(here.get_opt(lease).await, Ok(Some(_))) {
            return near.to_owned();
        }
    }
    DEFAULT.to_owned()
}

fn nearest(mut homes: Vec<String>, near: Option<&str>) -> Option<String> {
    homes.sort_by_key(|home| (Some(home.as_str()) != near, home.clone()));
    homes.into_iter().next()
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn a_controller_beside_the_model_goes_before_others() {
        let homes = || vec!["headroom-system".to_owned(), "chat".to_owned()];
        assert_eq!(nearest(homes(), Some("chat")).as_deref(), Some("chat"));
        assert_eq!(nearest(homes(), Some("other")).as_deref(), Some("chat"));
        assert_eq!(nearest(Vec::new(), Some("chat")), None);
    }
}
