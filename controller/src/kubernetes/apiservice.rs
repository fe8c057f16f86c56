//! The APIService objects that make the cluster ask us for metrics.
//!
//! There is one provider of each group per cluster. One that is ours, or missing, is applied; one of somebody else's is
//! left alone and told of.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use kubernetes::lease::Leadership;
use runtime::tls::CertificateAuthority;
use runtime::{Shutdown, Tasks};
use serde_json::{Value, json};
use tokio::sync::watch;

use super::models::{Finding, Source, Topic};

/// The groups and versions that we serve, with the priority of each version in its group.
pub const SERVED: [(&str, &str, u32); 3] = [
    ("custom.metrics.k8s.io", "v1beta1", 100),
    ("custom.metrics.k8s.io", "v1beta2", 200),
    ("external.metrics.k8s.io", "v1beta1", 100),
];
/// Time between two looks.
const EVERY: Duration = Duration::from_secs(30);
/// A request that has not been answered by then is given up.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Group and version of the objects.
const API_VERSION: &str = "apiregistration.k8s.io/v1";
/// Annotation by which cert-manager owns the bundle.
const CERT_MANAGER: &str = "cert-manager.io/inject-ca-from";

/// Where the cluster finds us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Port.
    pub port: u16,
}

/// What is to be done about one APIService.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// It is as it should be.
    Good,
    /// It does not exist: to be created so.
    Create(Value),
    /// It is ours and differs: to be applied so.
    Apply(Value),
    /// Somebody else's; who.
    Foreign(String),
}

/// The name of a group's and version's APIService.
pub fn name_of(group: &str, version: &str) -> String {
    format!("{version}.{group}")
}

/// What is to be done about the APIService of `group` and `version`, so that `service` serves it with certificates that
/// `bundle` (PEM) vouches for. `None` leaves the bundle to others.
pub fn judge(
    found: Option<&APIService>,
    (group, version, priority): (&str, &str, u32),
    service: &Service,
    bundle: Option<&str>,
) -> Verdict {
    let mut wanted = json!({
        "apiVersion": API_VERSION,
        "kind": "APIService",
        "metadata": {"name": name_of(group, version)},
        "spec": {
            "group": group,
            "version": version,
            "groupPriorityMinimum": 100,
            "versionPriority": priority,
            "service": {"namespace": service.namespace, "name": service.name, "port": service.port},
        },
    });
    let injected = found.is_some_and(|found| {
        let annotations = found.metadata.annotations.as_ref();
        annotations.is_some_and(|annotations| annotations.contains_key(CERT_MANAGER))
    });
    let bundle = bundle.filter(|_| !injected);
    if let Some(bundle) = bundle {
        wanted["spec"]["caBundle"] = BASE64.encode(bundle).into();
    }
    let Some(found) = found else {
        return Verdict::Create(wanted);
    };
    if let Some(owner) = foreign(found, service) {
        return Verdict::Foreign(owner);
    }
    let spec = found.spec.clone().unwrap_or_default();
    let same_bundle = match bundle {
        Some(bundle) => spec
            .ca_bundle
            .is_some_and(|held| held.0 == bundle.as_bytes()),
        None => true,
    };
    let port = spec.service.and_then(|service| service.port).unwrap_or(443);
    let insecure = spec.insecure_skip_tls_verify == Some(true);
    if same_bundle && port == i32::from(service.port) && !insecure {
        return Verdict::Good;
    }
    // Applied only to the object that was looked at: another that took its place meanwhile is somebody's.
    wanted["metadata"]["resourceVersion"] = json!(found.metadata.resource_version);
    if insecure {
        wanted["spec"]["insecureSkipTLSVerify"] = false.into();
    }
    Verdict::Apply(wanted)
}

/// Who has it, if not `service`.
pub fn foreign(found: &APIService, service: &Service) -> Option<String> {
    let Some(owner) = found.spec.as_ref().and_then(|spec| spec.service.as_ref()) else {
        return Some("the API server itself".to_owned());
    };
    let namespace = owner.namespace.as_deref().unwrap_or_default();
    let name = owner.name.as_deref().unwrap_or_default();
    ((namespace, name) != (&*service.namespace, &*service.name))
        .then(|| format!("Service {namespace}/{name}"))
}

/// The finding that somebody else owns a group.
pub fn owned_by(group: &str, version: &str, owner: &str) -> Finding {
    let about = Source {
        api_version: API_VERSION.into(),
        kind: "APIService".into(),
        name: name_of(group, version).into(),
        ..Source::default()
    };
    let instead = if owner.contains("keda") {
        "let KEDA ask Headroom instead: a ScaledObject with an external-push trigger on the controller's KEDA port"
    } else {
        "remove that provider if nothing needs it, or let KEDA ask Headroom with an external-push trigger"
    };
    let message = format!(
        "{group}/{version} is served by {owner}: HorizontalPodAutoscalers cannot read Headroom's metrics there, and it is left alone; {instead}"
    );
    Finding::new(Topic::Conflict, "ForeignMetricsApi", &about, message)
}

/// Keeps the APIServices, while this process leads.
#[derive(Clone, Debug)]
pub struct ApiServices {
    findings: watch::Receiver<Arc<Vec<Finding>>>,
}

impl ApiServices {
    /// Looks at the APIServices now and then, at once when the authority changes or this process becomes the leader, as
    /// one of `tasks` until `shutdown` is stopped. Without an `authority` the bundle is left to others.
    pub fn start(
        client: Client,
        service: Service,
        authority: Option<watch::Receiver<CertificateAuthority>>,
        leadership: watch::Receiver<Leadership>,
        shutdown: Shutdown,
        tasks: &Tasks,
    ) -> Self {
        let (told, findings) = watch::channel(Arc::default());
        let keeper = Keeper {
            services: Api::all(client),
            service,
            authority,
            leadership,
            told,
        };
        tasks.spawn(async move {
            tokio::select! {
                () = keeper.run() => {}
                () = shutdown.stopped() => {}
            }
        });
        Self { findings }
    }

    /// What is wrong with them.
    pub fn findings(&self) -> Arc<Vec<Finding>> {
        Arc::clone(&self.findings.borrow())
    }
}

struct Keeper {
    services: Api<APIService>,
    service: Service,
    authority: Option<watch::Receiver<CertificateAuthority>>,
    leadership: watch::Receiver<Leadership>,
    told: watch::Sender<Arc<Vec<Finding>>>,
}

impl Keeper {
    async fn run(mut self) {
        loop {
            if self.leadership.borrow_and_update().leader {
                self.look().await;
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                changed = self.leadership.changed() => if changed.is_err() { return },
                () = renewed(&mut self.authority) => {}
            }
        }
    }

    async fn look(&mut self) {
        let bundle = self
            .authority
            .as_mut()
            .map(|authority| authority.borrow_and_update().bundle());
        let mut findings = Vec::new();
        for served in SERVED {
            let (group, version, _) = served;
            let looked = tokio::time::timeout(TIMEOUT, self.keep(served, bundle.as_deref()));
            match looked.await {
                Ok(Ok(finding)) => findings.extend(finding),
                // Who installs may reserve the APIServices to himself: then nothing is missing.
                Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                    tracing::debug!(group, version, "the APIService is left to who installs");
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, group, version, "the APIService could not be kept");
                }
                Err(_) => tracing::warn!(group, version, "the API server did not answer in time"),
            }
        }
        self.told.send_replace(Arc::new(findings));
    }

    async fn keep(
        &self,
        served: (&str, &str, u32),
        bundle: Option<&str>,
    ) -> Result<Option<Finding>, kube::Error> {
        let name = name_of(served.0, served.1);
        let found = self.services.get_opt(&name).await?;
        match judge(found.as_ref(), served, &self.service, bundle) {
            Verdict::Good => Ok(None),
            Verdict::Foreign(owner) => Ok(Some(owned_by(served.0, served.1, &owner))),
            Verdict::Create(wanted) => {
                let ours = PostParams {
                    field_manager: Some(names::kubernetes::FIELD_MANAGER.to_owned()),
                    ..PostParams::default()
                };
                let wanted = serde_json::from_value(wanted).map_err(kube::Error::SerdeError)?;
                self.services.create(&ours, &wanted).await?;
                tracing::info!(name, "the APIService was created");
                Ok(None)
            }
            Verdict::Apply(wanted) => {
                let ours = PatchParams::apply(names::kubernetes::FIELD_MANAGER).force();
                self.services
                    .patch(&name, &ours, &Patch::Apply(&wanted))
                    .await?;
                tracing::info!(name, "the APIService was updated");
                Ok(None)
            }
        }
    }
}

/// Resolves when another authority is in force; never without one.
async fn renewed(authority: &mut Option<watch::Receiver<CertificateAuthority>>) {
    if let Some(authority) = authority
        && authority.changed().await.is_ok()
    {
        return;
    }
    std::future::pending().await
}

#[cfg(test)]
mod tests;
