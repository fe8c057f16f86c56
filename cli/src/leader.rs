//! Asks the leading controller for what it explains: its admin page, directly or through the API server.

use std::time::Duration;

use anyhow::Context as _;
use controller::kubernetes::explain::Explanation;
use http::Request;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{Api, Client};
use kubernetes::client::pod_of;
use reqwest::Url;

use crate::home;
use crate::story::Trouble;

/// Port of the controller's admin pages.
const ADMIN_PORT: u16 = 9090;
/// An answer that has not come by then will not.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A controller that can be asked.
pub(crate) enum Controller {
    /// Its own pages.
    Direct(Url),
    /// A pod's pages, through the API server.
    Proxied {
        client: Client,
        namespace: String,
        pod: String,
    },
}

impl Controller {
    /// The one whose admin pages are at `url`.
    pub(crate) fn at(url: Url) -> Self {
        Self::Direct(url)
    }

    /// The one that leads: it holds the Lease, in the namespace `told` or found, `near` before others.
    pub(crate) async fn leading(told: Option<&str>, near: &str) -> anyhow::Result<Self> {
        let client =
            kubernetes::client::connect_impatiently()
                .await
                .map_err(|error| {
                    Trouble::failed("no controller was found")
                .because(error)
                .advice("set KUBECONFIG, or give the address of its admin page with --controller")
                })?;
        let found = tokio::time::timeout(TIMEOUT, home::namespace(&client, told, Some(near)));
        let namespace = found
            .await
            .context("the Kubernetes API server does not answer")?;
        Self::leading_in(client, namespace).await
    }

    /// The one that leads in `namespace`.
    pub(crate) async fn leading_in(client: Client, namespace: String) -> anyhow::Result<Self> {
        let lease = names::kubernetes::CONTROLLER;
        let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
        let found = tokio::time::timeout(TIMEOUT, leases.get_opt(lease))
            .await
            .context("the Kubernetes API server does not answer")?;
        let found = found.map_err(|error| {
            Trouble::failed(format!("Lease {namespace}/{lease} cannot be read")).because(error)
        })?;
        let holder = found
            .and_then(|lease| lease.spec?.holder_identity)
            .filter(|holder| !holder.is_empty());
        let Some(pod) = holder.map(|holder| pod_of(&holder).to_owned()) else {
            let what =
                format!("no controller leads in namespace {namespace}: nobody holds Lease {lease}");
            let advice = "see that its pods run, name another namespace with --controller-namespace, or give an address with --controller";
            return Err(Trouble::failed(what).advice(advice).into());
        };
        Ok(Self::Proxied {
            client,
            namespace,
            pod,
        })
    }

    /// Asks why `model` has the replicas it has.
    pub(crate) async fn explain(
        &self,
        namespace: &str,
        model: &str,
    ) -> anyhow::Result<Explanation> {
        let asked = tokio::time::timeout(TIMEOUT, self.ask(namespace, model));
        let text = asked
            .await
            .context("the controller does not answer in time")??;
        serde_json::from_str(&text).map_err(|error| {
            Trouble::failed("the controller's answer is not understood")
                .because(error)
                .advice("use the same version of headroom as the controller's")
                .into()
        })
    }

    async fn ask(&self, namespace: &str, model: &str) -> anyhow::Result<String> {
        match self {
            Self::Direct(url) => {
                let mut url = url.clone();
                extend(&mut url, namespace, model);
                let answer = reqwest::Client::new()
                    .get(url.clone())
                    .send()
                    .await
                    .map_err(|error| {
                        Trouble::failed(format!("no controller answers at {url}"))
                            .because(error)
                            .advice("see that the address is right and the port is forwarded")
                    })?;
                let status = answer.status();
                let text = answer.text().await.context("the answer broke off")?;
                if status.is_success() {
                    return Ok(text);
                }
                Err(refused(status.as_u16(), text.trim()))
            }
            Self::Proxied {
                client,
                namespace: home,
                pod,
            } => {
                let mut url = Url::parse("http://proxy/").context("cannot build an address")?;
                let of = format!("{pod}:{ADMIN_PORT}");
                if let Ok(mut path) = url.path_segments_mut() {
                    path.extend(["api", "v1", "namespaces", home, "pods", &of, "proxy"]);
                }
                extend(&mut url, namespace, model);
                let request = Request::get(url.path())
                    .body(Vec::new())
                    .context("cannot build a request")?;
                client
                    .request_text(request)
                    .await
                    .map_err(|error| match error {
                        kube::Error::Api(status) => refused(status.code, status.message.trim()),
                        other => {
                            Trouble::failed(format!("controller pod {home}/{pod} cannot be asked"))
                                .because(other)
                                .into()
                        }
                    })
            }
        }
    }
}

/// Adds the page of one model; a model's name may have slashes.
fn extend(url: &mut Url, namespace: &str, model: &str) {
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty()
            .extend(["decisions", namespace])
            .extend(model.split('/'));
    }
}

fn refused(code: u16, message: &str) -> anyhow::Error {
    if code == 404 && message.trim().is_empty() {
        let what = "this controller has no page for models by their namespace";
        return Trouble::failed(what)
            .advice("a controller on one machine (`headroom controller`, `headroom demo`) explains itself at /decisions of the same address")
            .into();
    }
    let trouble = Trouble::failed(format!("the controller says: {message}"));
    match code {
        404 => trouble.advice(
            "see `kubectl get modelscalers` and the annotations of the model, or ask the leader",
        ),
        403 => trouble
            .advice("ask for the right to get pods/proxy, or forward a port and use --controller"),
        _ => trouble,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_of_a_model_keeps_its_slashes_and_hides_the_rest() {
        let mut url = Url::parse("http://127.0.0.1:9090").unwrap();
        extend(&mut url, "chat", "meta/llama 3?");
        assert_eq!(
            url.as_str(),
            "http://127.0.0.1:9090/decisions/chat/meta/llama%203%3F"
        );
    }
}
