//! What the controller follows in the cluster, and what of it asks for a model to be sized.

use std::sync::Arc;

use crds::{InferencePool, ModelScaler};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Pod as FullPod;
use kube::{Api, Client, Resource};
use kubernetes::watch::{Selection, Store, follow};
use runtime::{Clock, Shutdown, Tasks};
use serde::de::DeserializeOwned;

use super::assemble::{Assembler, Inputs};
use super::hpas::Hpa;
use super::kinds::{Kinds, settled};
use super::models::Models;
use super::pods::{Pod, Pods};
use super::pools::Pool;
use super::scalers::Scaler;
use super::targets::Targets;

/// Everything that is followed; clones share it.
#[derive(Clone, Debug)]
pub struct Followed {
    /// What is asked for.
    pub models: Models,
    /// Pods.
    pub pods: Pods,
    /// ModelScalers, with the status last written.
    pub scalers: Store<Scaler>,
    /// HorizontalPodAutoscalers.
    pub hpas: Store<Hpa>,
    /// InferencePools.
    pub pools: Store<Pool>,
    /// Kinds that are scaled, with their objects.
    pub kinds: Kinds,
    /// What each target's scale subresource says.
    pub targets: Targets,
}

impl Followed {
    /// Follows the objects of one namespace, or of all, as `tasks` until `shutdown` is stopped. Kinds whose CRD is not
    /// installed count as empty until it is.
    pub fn start(
        client: &Client,
        namespace: Option<&str>,
        clock: Clock,
        shutdown: &Shutdown,
        tasks: &Tasks,
    ) -> Self {
        let ground = Ground {
            client,
            namespace,
            clock,
            shutdown,
            tasks,
        };
        let kinds = Kinds::start(
            client.clone(),
            namespace.map(str::to_owned),
            clock,
            shutdown.clone(),
            tasks,
        );
        let models = Models::default();
        let targets = Targets::start(
            client.clone(),
            models.clone(),
            kinds.clone(),
            clock,
            shutdown.clone(),
            tasks,
        );
        let followed = Self {
            models,
            pods: Pods::new(ground.follow::<FullPod, _>(Pod::trim)),
            scalers: ground.follow::<ModelScaler, _>(Scaler::trim),
            hpas: ground.follow::<HorizontalPodAutoscaler, _>(Hpa::trim),
            pools: ground.follow::<InferencePool, _>(Pool::trim),
            kinds,
            targets,
        };
        let (assembling, stopped) = (followed.clone(), shutdown.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = assembling.assemble() => {}
                () = stopped.stopped() => {}
            }
        });
        followed
    }

    /// Whether everything that could ask has been seen once.
    pub fn is_synced(&self) -> bool {
        settled(&self.scalers)
            && settled(&self.hpas)
            && settled(&self.pools)
            && self.pods.store().is_synced()
            && self.kinds.is_synced()
    }

    /// The objects as they are now.
    pub fn inputs(&self) -> Inputs {
        Inputs {
            scalers: objects(&self.scalers),
            hpas: objects(&self.hpas),
            workloads: self.kinds.workloads(),
            pools: objects(&self.pools),
        }
    }

    /// Makes a new snapshot of models whenever an object changed.
    async fn assemble(self) {
        let mut assembler = Assembler::default();
        let (mut scalers, mut hpas) = (self.scalers.changes(), self.hpas.changes());
        let (mut pools, mut kinds) = (self.pools.changes(), self.kinds.changes());
        let mut pods = self.pods.store().changes();
        loop {
            let snapshot = assembler.assemble(&self.inputs(), self.is_synced());
            let synced = snapshot.synced;
            self.models.replace(snapshot);
            let changed = tokio::select! {
                changed = scalers.changed() => changed,
                changed = hpas.changed() => changed,
                changed = pools.changed() => changed,
                changed = kinds.changed() => changed,
                // Pods ask for nothing: only that they have been seen matters.
                changed = pods.changed(), if !synced => changed,
            };
            if changed.is_err() {
                return;
            }
        }
    }
}

fn objects<T>(store: &Store<T>) -> Vec<Arc<T>> {
    store.snapshot().values().cloned().collect()
}

/// What every watch needs.
struct Ground<'a> {
    client: &'a Client,
    namespace: Option<&'a str>,
    clock: Clock,
    shutdown: &'a Shutdown,
    tasks: &'a Tasks,
}

impl Ground<'_> {
    fn follow<K, T>(&self, trim: fn(K) -> Option<T>) -> Store<T>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + DeserializeOwned
            + Send
            + 'static,
        T: PartialEq + Send + Sync + 'static,
    {
        let api: Api<K> = match self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        };
        follow(
            api,
            Selection::all(),
            trim,
            self.clock,
            self.shutdown.clone(),
            self.tasks,
        )
    }
}

#[cfg(test)]
mod tests;
