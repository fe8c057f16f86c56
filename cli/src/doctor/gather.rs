//! Reads the facts from a cluster, changing nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use controller::kubernetes::apiservice::{SERVED, Service, name_of};
use controller::kubernetes::assemble::{Assembler, Inputs};
use controller::kubernetes::explain::Explanation;
use controller::kubernetes::hpas::Hpa;
use controller::kubernetes::models::{Snapshot, Source};
use controller::kubernetes::pools::Pool;
use controller::kubernetes::scalers::Scaler;
use controller::kubernetes::workloads::Workload;
use crds::{DisaggregatedSetRoleScaler, InferencePool, LeaderWorkerSet, ModelScaler};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::authorization::v1::{
    NonResourceAttributes, ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{ListParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client, Resource};
use kubernetes::client::pod_of;
use runtime::Clock;
use serde::de::DeserializeOwned;

use super::facts::{ConditionFact, Facts, Known, LeaseFact, PodFact, Right};
use super::values;
use crate::leader::Controller;

/// The account of the HPA controller.
const HPA: (&str, &str) = ("kube-system", "horizontal-pod-autoscaler");
/// Where aggregated API servers learn whom to trust.
const AUTHENTICATION: (&str, &str) = ("kube-system", "extension-apiserver-authentication");

/// Models that the controller is asked about.
const EXPLAINED: usize = 100;

/// What to look at.
#[derive(Clone, Debug)]
pub(super) struct Scope {
    /// Models of this namespace; `None` = of all.
    pub(super) namespace: Option<String>,
    /// Namespace of the controller.
    pub(super) controller_namespace: String,
    /// The controller's Service.
    pub(super) service: String,
}

/// Reads everything.
///
/// # Errors
/// When the API server does not answer at all; what cannot be read besides is among the facts.
pub(super) async fn facts(client: Client, scope: &Scope, clock: Clock) -> kube::Result<Facts> {
    let version = client.apiserver_version().await?;
    let number = |text: &str| text.trim_end_matches('+').parse::<u32>().ok();
    let cluster = Cluster {
        client,
        namespace: scope.namespace.clone(),
    };
    let home = &scope.controller_namespace;
    let controllers = cluster.controllers(home).await;
    let accounts: BTreeSet<String> = controllers
        .iter()
        .flatten()
        .map(|pod| pod.account.clone())
        .collect();
    let hpas = cluster.list::<HorizontalPodAutoscaler>().await;
    let scalers = cluster.list::<ModelScaler>().await;
    let pools = cluster.list::<InferencePool>().await;
    let conditions = conditions(&hpas, &scalers);
    let trimmed: Vec<Arc<Hpa>> = trim(hpas.clone().unwrap_or_default(), Hpa::trim);
    let mut values = Vec::new();
    for hpa in &trimmed {
        values.extend(values::ask(&cluster.client, hpa).await);
    }
    let pool_names = pools.as_ref().map(|pools| {
        let name = |pool: &InferencePool| {
            let metadata = &pool.metadata;
            Some((metadata.namespace.clone()?, metadata.name.clone()?))
        };
        pools.iter().filter_map(name).collect()
    });
    let workloads = cluster.workloads().await;
    let asked = scalers.and_then(|scalers| {
        hpas?;
        let inputs = Inputs {
            scalers: trim(scalers, Scaler::trim),
            hpas: trimmed,
            workloads: workloads?,
            pools: trim(pools.clone()?, Pool::trim),
        };
        Ok(Assembler::default().assemble(&inputs, true))
    });
    let explained = match &asked {
        Ok(asked) => cluster.explained(home, asked).await,
        Err(_) => Vec::new(),
    };
    Ok(Facts {
        now_ms: clock.unix_ms(),
        version: number(&version.major).zip(number(&version.minor)),
        service: Service {
            namespace: home.clone(),
            name: scope.service.clone(),
            port: 443,
        },
        api_services: cluster.api_services().await,
        authentication: cluster.authentication().await,
        rights: cluster.rights(home, &accounts).await,
        controllers,
        lease: cluster.lease(home).await,
        pools: pool_names.map_err(Clone::clone),
        pickers: cluster.pickers().await,
        asked,
        explained,
        conditions,
        values,
    })
}

fn trim<K, T>(objects: Vec<K>, trim: fn(K) -> Option<T>) -> Vec<Arc<T>> {
    objects.into_iter().filter_map(trim).map(Arc::new).collect()
}

/// An error in words.
fn words(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        other => other.to_string(),
    }
}

struct Cluster {
    client: Client,
    namespace: Option<String>,
}

impl Cluster {
    /// All objects of a kind in scope; none where the cluster does not have the kind.
    async fn list<K>(&self) -> Known<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let api: Api<K> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        present(api.list(&ListParams::default()).await)
    }

    /// Everything that can be scaled, of the kinds that annotations are read on.
    async fn workloads(&self) -> Known<Vec<Arc<Workload>>> {
        let kinds = [
            ApiResource::erase::<Deployment>(&()),
            ApiResource::erase::<StatefulSet>(&()),
            ApiResource::erase::<LeaderWorkerSet>(&()),
            ApiResource::erase::<DisaggregatedSetRoleScaler>(&()),
        ];
        let mut all = Vec::new();
        for kind in kinds {
            let api: Api<DynamicObject> = match &self.namespace {
                Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
                None => Api::all_with(self.client.clone(), &kind),
            };
            let objects = present(api.list(&ListParams::default()).await)?;
            let trimmed = objects
                .into_iter()
                .filter_map(|object| Workload::trim(&kind.api_version, &kind.kind, object));
            all.extend(trimmed.map(Arc::new));
        }
        Ok(all)
    }

    /// What the controller that leads in `home` says of the models asked for.
    async fn explained(&self, home: &str, asked: &Snapshot) -> Vec<(String, Known<Explanation>)> {
        if asked.models.is_empty() {
            return Vec::new();
        }
        let all = || asked.models.iter().take(EXPLAINED);
        let leader = match Controller::leading_in(self.client.clone(), home.to_owned()).await {
            Ok(leader) => leader,
            Err(error) => {
                let why = format!("{error:#}");
                return all()
                    .map(|spec| (spec.key.to_string(), Err(why.clone())))
                    .collect();
            }
        };
        let mut explained = Vec::new();
        for spec in all() {
            let said = leader.explain(&spec.key.namespace, &spec.key.model).await;
            explained.push((
                spec.key.to_string(),
                said.map_err(|error| format!("{error:#}")),
            ));
        }
        explained
    }

    async fn api_services(&self) -> Vec<(&'static str, &'static str, Known<Option<APIService>>)> {
        let api: Api<APIService> = Api::all(self.client.clone());
        let mut found = Vec::new();
        for (group, version, _) in SERVED {
            let service = api.get_opt(&name_of(group, version)).await.map_err(words);
            found.push((group, version, service));
        }
        found
    }

    async fn authentication(&self) -> Known<Option<std::collections::BTreeMap<String, String>>> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), AUTHENTICATION.0);
        let found = api.get_opt(AUTHENTICATION.1).await.map_err(words)?;
        Ok(found.map(|found| found.data.unwrap_or_default()))
    }

    async fn controllers(&self, home: &str) -> Known<Vec<PodFact>> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), home);
        let labels = format!(
            "{}=controller,{}=headroom",
            names::label::COMPONENT,
            names::label::NAME
        );
        let found = api.list(&ListParams::default().labels(&labels)).await;
        Ok(present(found)?.into_iter().map(pod).collect())
    }

    async fn pickers(&self) -> Known<Vec<(String, PodFact)>> {
        let api: Api<Pod> = match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        let found = api
            .list(&ListParams::default().labels(names::label::POOL))
            .await;
        let named = |found: Pod| {
            let labels = found.metadata.labels.as_ref()?;
            let pool = labels.get(names::label::POOL)?.clone();
            Some((pool, pod(found)))
        };
        Ok(present(found)?.into_iter().filter_map(named).collect())
    }

    async fn lease(&self, home: &str) -> Known<Option<LeaseFact>> {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), home);
        let found = api
            .get_opt(names::kubernetes::CONTROLLER)
            .await
            .map_err(words)?;
        Ok(found.map(|lease| {
            let spec = lease.spec.unwrap_or_default();
            let renewed = spec.renew_time.map_or(0, |time| time.0.as_millisecond());
            let duration = spec.lease_duration_seconds.unwrap_or(15);
            LeaseFact {
                holder: spec
                    .holder_identity
                    .filter(|holder| !holder.is_empty())
                    .map(|holder| pod_of(&holder).to_owned()),
                renewed_ms: u64::try_from(renewed).unwrap_or(0),
                duration_seconds: u64::try_from(duration).unwrap_or(0),
            }
        }))
    }

    /// What the HPA controller and the controller's accounts must be able to do.
    async fn rights(&self, home: &str, accounts: &BTreeSet<String>) -> Vec<Right> {
        const READER: &str = "bind a ClusterRole with get and list on the metrics groups to it (the chart's <release>-controller-hpa)";
        const DELEGATE: &str = "bind it to the ClusterRole system:auth-delegator";
        const TRUST: &str =
            "bind it to the Role extension-apiserver-authentication-reader in kube-system";
        const WATCH: &str =
            "bind it to the chart's ClusterRole, or to its Roles where --namespaces is set";
        let resource = |group: &str, resource: &str, verb: &str| ResourceAttributes {
            group: Some(group.into()),
            resource: Some(resource.into()),
            verb: Some(verb.into()),
            namespace: self.namespace.clone(),
            ..ResourceAttributes::default()
        };
        let metric = names::kubernetes::DESIRED_REPLICAS.canonical;
        let mut rights = vec![
            self.right(
                HPA,
                "read external metrics",
                READER,
                Asked::resource(resource("external.metrics.k8s.io", metric, "list")),
            )
            .await,
            self.right(
                HPA,
                "read custom metrics",
                READER,
                Asked::resource(resource("custom.metrics.k8s.io", "deployments.apps", "get")),
            )
            .await,
        ];
        let cluster = |attributes: ResourceAttributes| ResourceAttributes {
            namespace: None,
            ..attributes
        };
        for account in accounts {
            let who = (home, account.as_str());
            let trusted = ResourceAttributes {
                namespace: Some(AUTHENTICATION.0.into()),
                name: Some(AUTHENTICATION.1.into()),
                ..resource("", "configmaps", "get")
            };
            let page = NonResourceAttributes {
                path: Some(names::admin::DEMAND.into()),
                verb: Some("get".into()),
            };
            let asked = [
                (
                    "check tokens",
                    DELEGATE,
                    Asked::resource(cluster(resource(
                        "authentication.k8s.io",
                        "tokenreviews",
                        "create",
                    ))),
                ),
                (
                    "check access",
                    DELEGATE,
                    Asked::resource(cluster(resource(
                        "authorization.k8s.io",
                        "subjectaccessreviews",
                        "create",
                    ))),
                ),
                (
                    "read whom the API server trusts",
                    TRUST,
                    Asked::resource(trusted),
                ),
                (
                    "watch pods",
                    WATCH,
                    Asked::resource(resource("", "pods", "watch")),
                ),
                (
                    "watch HorizontalPodAutoscalers",
                    WATCH,
                    Asked::resource(resource("autoscaling", "horizontalpodautoscalers", "watch")),
                ),
                (
                    "read the endpoint pickers' demand",
                    WATCH,
                    Asked::Page(page),
                ),
            ];
            for (what, advice, asked) in asked {
                rights.push(self.right(who, what, advice, asked).await);
            }
        }
        rights
    }

    async fn right(
        &self,
        (namespace, account): (&str, &str),
        what: &'static str,
        advice: &'static str,
        asked: Asked,
    ) -> Right {
        let (resource_attributes, non_resource_attributes) = match asked {
            Asked::Resource(attributes) => (Some(*attributes), None),
            Asked::Page(attributes) => (None, Some(attributes)),
        };
        let groups = ["system:serviceaccounts", "system:authenticated"].map(str::to_owned);
        let of_namespace = format!("system:serviceaccounts:{namespace}");
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: Some(format!("system:serviceaccount:{namespace}:{account}")),
                groups: Some(groups.into_iter().chain([of_namespace]).collect()),
                resource_attributes,
                non_resource_attributes,
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let api: Api<SubjectAccessReview> = Api::all(self.client.clone());
        let answer = api.create(&PostParams::default(), &review).await;
        Right {
            who: format!("ServiceAccount {namespace}/{account}"),
            what,
            allowed: answer
                .map(|review| review.status.is_some_and(|status| status.allowed))
                .map_err(words),
            advice,
        }
    }
}

/// What a right is asked for.
enum Asked {
    Resource(Box<ResourceAttributes>),
    Page(NonResourceAttributes),
}

impl Asked {
    fn resource(attributes: ResourceAttributes) -> Self {
        Self::Resource(Box::new(attributes))
    }
}

/// The items of a list; none where the cluster does not have the kind.
fn present<K: Clone>(found: kube::Result<kube::core::ObjectList<K>>) -> Known<Vec<K>> {
    match found {
        Ok(list) => Ok(list.items),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(Vec::new()),
        Err(error) => Err(words(error)),
    }
}

fn pod(pod: Pod) -> PodFact {
    let spec = pod.spec.unwrap_or_default();
    let containers = spec.containers.iter();
    let ports = containers.flat_map(|one| one.ports.iter().flatten());
    let mut conditions = pod
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten());
    PodFact {
        namespace: pod.metadata.namespace.unwrap_or_default(),
        name: pod.metadata.name.unwrap_or_default(),
        ready: conditions.any(|one| one.type_ == "Ready" && one.status == "True"),
        account: spec
            .service_account_name
            .unwrap_or_else(|| "default".into()),
        ports: ports
            .filter_map(|port| u16::try_from(port.container_port).ok())
            .collect(),
    }
}

/// Conditions of the HPAs that read our metrics, and of the ModelScalers.
fn conditions(
    hpas: &Known<Vec<HorizontalPodAutoscaler>>,
    scalers: &Known<Vec<ModelScaler>>,
) -> Vec<ConditionFact> {
    let mut facts = Vec::new();
    for hpa in hpas.iter().flatten() {
        let Some(trimmed) = Hpa::trim(hpa.clone()).filter(|trimmed| !trimmed.reads.is_empty())
        else {
            continue;
        };
        let status = hpa.status.as_ref();
        let held = status.and_then(|status| status.conditions.as_ref());
        for one in held.into_iter().flatten() {
            facts.push(ConditionFact {
                about: trimmed.source.clone(),
                kind: one.type_.clone(),
                status: one.status.clone(),
                reason: one.reason.clone().unwrap_or_default(),
                message: one.message.clone().unwrap_or_default(),
            });
        }
    }
    for scaler in scalers.iter().flatten() {
        let Some(Scaler { source, status, .. }) = Scaler::trim(scaler.clone()) else {
            continue;
        };
        let fact = |one: k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition,
                    about: &Source| {
            ConditionFact {
                about: about.clone(),
                kind: one.type_,
                status: one.status,
                reason: one.reason,
                message: one.message,
            }
        };
        let held = status.conditions.into_iter();
        facts.extend(held.map(|one| fact(one, &source)));
    }
    facts
}
