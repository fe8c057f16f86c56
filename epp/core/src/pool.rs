//! An immutable snapshot of the endpoints that may be picked.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::endpoint::Endpoint;

/// The endpoints known at one instant; swapped whole, never edited.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    /// In discovery order.
    pub endpoints: Vec<Arc<Endpoint>>,
}

/// What discovery says of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSpec {
    /// Name, unique in the pool.
    pub name: String,
    /// `ip:port`, `[ip]:port` for IPv6.
    pub address: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Pool {
    /// The pool that `specs` describe. An endpoint that this pool already has under the same name and address
    /// keeps its counters and its last scrape; any other starts cold.
    #[must_use]
    pub fn updated(&self, specs: Vec<EndpointSpec>) -> Self {
        let known: BTreeMap<(&str, &str), &Arc<Endpoint>> = self
            .endpoints
            .iter()
            .map(|endpoint| ((&*endpoint.name, &*endpoint.address), endpoint))
            .collect();
        let endpoints = specs
            .into_iter()
            .map(
                |spec| match known.get(&(spec.name.as_str(), spec.address.as_str())) {
                    Some(endpoint) if endpoint.labels == spec.labels => Arc::clone(endpoint),
                    Some(endpoint) => Arc::new(endpoint.relabelled(spec.labels)),
                    None => Arc::new(Endpoint::new(&spec.name, &spec.address, spec.labels)),
                },
            )
            .collect();
        Self { endpoints }
    }

    /// Whether there is no endpoint.
    pub fn is_empty(&self) -> bool {
        self.endpoints.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Share;

    fn spec(name: &str, address: &str, label: &str) -> EndpointSpec {
        let labels = BTreeMap::from([("role".to_owned(), label.to_owned())]);
        EndpointSpec {
            name: name.into(),
            address: address.into(),
            labels,
        }
    }

    #[test]
    fn an_update_keeps_the_load_of_what_stays() {
        let before = Pool::default().updated(vec![
            spec("a", "10.0.0.1:80", "x"),
            spec("b", "10.0.0.2:80", "x"),
        ]);
        before.endpoints[0].load.dispatched(&Share::default());
        let after = before.updated(vec![
            spec("a", "10.0.0.1:80", "y"),
            spec("b", "10.0.0.3:80", "x"),
        ]);
        assert_eq!(after.endpoints[0].load.snapshot().in_flight, 1);
        assert_eq!(after.endpoints[0].labels["role"], "y");
        assert!(
            !Arc::ptr_eq(&before.endpoints[1].load, &after.endpoints[1].load),
            "another address is another life"
        );
        let same = after.updated(vec![spec("a", "10.0.0.1:80", "y")]);
        assert!(Arc::ptr_eq(&same.endpoints[0], &after.endpoints[0]));
    }
}
