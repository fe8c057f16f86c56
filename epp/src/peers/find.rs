//! Where the peers are.

use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Api, Client};
use kubernetes::watch::{self as objects, Objects, Selection};
use runtime::{Clock, Shutdown, Tasks};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;
use tokio::sync::watch;

/// How often names in a list are looked up again.
const LOOKED_UP_EVERY: Duration = Duration::from_secs(5);
/// Label of an EndpointSlice with the Service that it belongs to.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where peers are; this picker itself may be among them.
#[derive(Clone)]
pub enum Members {
    /// `host:port` each. A name stands for all addresses that it has.
    Listed(Vec<String>),
    /// Behind a Service, headless or not.
    Service {
        /// The API server.
        client: Client,
        /// The Service's namespace.
        namespace: String,
        /// The Service.
        name: String,
        /// The port on which its pods listen to peers.
        port: u16,
    },
}

impl fmt::Debug for Members {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(list) => f.debug_tuple("Listed").field(list).finish(),
            Self::Service {
                namespace, name, ..
            } => write!(f, "Service({namespace}/{name})"),
        }
    }
}

impl Members {
    /// Tells where they are, as some of `tasks`, until `shutdown` is stopped.
    pub(super) fn follow(
        self,
        clock: Clock,
        shutdown: &Shutdown,
        tasks: &Tasks,
    ) -> watch::Receiver<BTreeSet<SocketAddr>> {
        let (tell, told) = watch::channel(BTreeSet::new());
        let until = shutdown.clone();
        let following: futures::future::BoxFuture<'static, ()> = match self {
            Self::Listed(list) => Box::pin(look_up(list, tell)),
            Self::Service {
                client,
                namespace,
                name,
                port,
            } => {
                let store = objects::follow(
                    Api::<EndpointSlice>::namespaced(client, &namespace),
                    Selection::labels(format!("{SERVICE_NAME}={name}")),
                    |slice| Some(addresses(slice)),
                    clock,
                    shutdown.clone(),
                    tasks,
                );
                Box::pin(async move {
                    let mut changes = store.changes();
                    loop {
                        let found = members(&store.snapshot(), port);
                        tell.send_if_modified(|known| replace(known, found));
                        if changes.changed().await.is_err() {
                            return;
                        }
                    }
                })
            }
        };
        tasks.spawn(async move {
            tokio::select! {
                () = following => {}
                () = until.stopped() => {}
            }
        });
        told
    }
}

fn replace(known: &mut BTreeSet<SocketAddr>, found: BTreeSet<SocketAddr>) -> bool {
    let changed = *known != found;
    *known = found;
    changed
}

/// The addresses of a slice on which something answers, ready or not: a picker that drains still has requests in
/// flight, and one that stands by will have some.
fn addresses(slice: EndpointSlice) -> Vec<IpAddr> {
    let endpoints = slice.endpoints.into_iter();
    let serving = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions.as_ref();
        conditions.is_none_or(|conditions| {
            conditions.serving.or(conditions.ready).unwrap_or(true)
                || conditions.ready.unwrap_or(false)
        })
    });
    let addresses = serving.flat_map(|endpoint| endpoint.addresses);
    addresses
        .filter_map(|address| address.parse().ok())
        .collect()
}

fn members(slices: &Objects<Vec<IpAddr>>, port: u16) -> BTreeSet<SocketAddr> {
    let addresses = slices.values().flat_map(|addresses| addresses.iter());
    addresses.map(|&ip| SocketAddr::new(ip, port)).collect()
}

/// Looks up the names in `list` again and again. One that is not found for the moment keeps what it had.
async fn look_up(list: Vec<String>, tell: watch::Sender<BTreeSet<SocketAddr>>) {
    let mut found: Vec<BTreeSet<SocketAddr>> = vec![BTreeSet::new(); list.len()];
    let names = list
        .iter()
        .any(|member| member.parse::<SocketAddr>().is_err());
    loop {
        for (member, known) in list.iter().zip(&mut found) {
            match tokio::net::lookup_host(member.as_str()).await {
                Ok(addresses) => *known = addresses.collect(),
                Err(error) => tracing::debug!(member, %error, "cannot look up a peer"),
            }
        }
        let all = found.iter().flatten().copied().collect();
        tell.send_if_modified(|known| replace(known, all));
        if !names {
            // Addresses do not change.
            return tell.closed().await;
        }
        tokio::time::sleep(LOOKED_UP_EVERY).await;
    }
}

/// Checks `--peers`.
///
/// # Errors
/// What is wrong with the entry that is, and what would be right.
pub fn listed(list: &[String]) -> Result<Members, String> {
    for member in list {
        let right = member
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
        if !right {
            return Err(format!(
                "{member:?} is no peer's address; write host:port, such as epp-0.epp:9004"
            ));
        }
    }
    Ok(Members::Listed(list.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whoever_answers_is_a_member_whether_ready_or_not() {
        let slice = json!({
            "metadata": {"name": "epp-x", "labels": {SERVICE_NAME: "epp"}},
            "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
                {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false}},
                {"addresses": ["10.0.0.4"]},
                {"addresses": ["not-an-address"]},
            ],
        });
        let found = addresses(serde_json::from_value(slice).unwrap());
        let ips: Vec<String> = found.iter().map(IpAddr::to_string).collect();
        assert_eq!(ips, ["10.0.0.1", "10.0.0.2", "10.0.0.4"]);
    }

    #[test]
    fn a_wrong_entry_is_named() {
        assert!(listed(&["epp-0.epp:9004".into(), "[::1]:9004".into()]).is_ok());
        for wrong in ["epp-0", "epp-0:", ":9004", "epp-0:http"] {
            let said = listed(&[wrong.into()]).unwrap_err();
            assert!(said.contains(wrong) && said.contains("host:port"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_list_of_addresses_is_told_once_and_stays() {
        let (tell, mut told) = watch::channel(BTreeSet::new());
        let list = vec!["127.0.0.1:9004".to_owned(), "127.0.0.1:9005".to_owned()];
        let looking = tokio::spawn(look_up(list, tell));
        told.changed().await.unwrap();
        assert_eq!(told.borrow_and_update().len(), 2);
        assert!(!looking.is_finished());
        looking.abort();
    }
}
