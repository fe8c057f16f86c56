//! What is followed in the cluster, and everyone who tells of demand.

use std::sync::Arc;

use controller_core::model::ModelKey;
use parking_lot::Mutex;

use super::{Ground, StartError};
use crate::kubernetes::annotated::TargetKey;
use crate::kubernetes::demand::{Gathering, Wanted};
use crate::kubernetes::engines::{Engine, Scraper};
use crate::kubernetes::objects::Followed;
use crate::kubernetes::pickers::{Now, Supervisor, pods};
use crate::kubernetes::prometheus::{Prometheus, Rounds};

/// The sources, running.
pub(super) struct Sources {
    pub(super) followed: Vec<Followed>,
    pub(super) gathering: Arc<Mutex<Gathering>>,
    pub(super) now: Now,
}

impl Sources {
    /// Starts to follow and to ask, until the ground's shutdown is stopped.
    pub(super) fn start(ground: &Ground<'_>) -> Result<Self, StartError> {
        let options = ground.options;
        let namespaces: Vec<Option<&str>> = if options.namespaces.is_empty() {
            vec![None]
        } else {
            let named = options.namespaces.iter();
            named.map(|namespace| Some(namespace.as_str())).collect()
        };
        let each = namespaces.iter();
        let followed: Vec<Followed> = each
            .clone()
            .map(|namespace| {
                Followed::start(
                    &ground.client,
                    *namespace,
                    ground.clock,
                    ground.shutdown,
                    ground.tasks,
                )
            })
            .collect();
        let stores = each.map(|namespace| {
            pods(
                &ground.client,
                *namespace,
                ground.clock,
                ground.shutdown,
                ground.tasks,
            )
        });
        let sources = Self {
            followed,
            gathering: Arc::new(Mutex::new(Gathering::new())),
            now: Now::new(ground.clock),
        };
        let supervisor = Supervisor {
            pods: stores.collect(),
            wanted: wanted(sources.followed.clone()),
            gathering: Arc::clone(&sources.gathering),
            trust: Arc::new(options.trust.clone()),
            now: sources.now.clone(),
        };
        let (shutdown, tasks) = (ground.shutdown.clone(), ground.tasks.clone());
        ground.tasks.spawn(supervisor.run(shutdown, tasks));
        let prometheus = options
            .prometheus
            .clone()
            .map(Prometheus::new)
            .transpose()?;
        if let Some(prometheus) = prometheus {
            let rounds = Rounds {
                prometheus,
                gathering: Arc::clone(&sources.gathering),
                now: sources.now.clone(),
            };
            ground.tasks.spawn(rounds.run(ground.shutdown.clone()));
        }
        let (followed, port) = (sources.followed.clone(), options.engine_port);
        let scraper = Scraper {
            engines: Box::new(move |key| engines(&followed, key, port)),
            gathering: Arc::clone(&sources.gathering),
            now: sources.now.clone(),
        };
        ground.tasks.spawn(scraper.run(ground.shutdown.clone()));
        Ok(sources)
    }
}

/// The models asked for, once all that could ask has been seen.
fn wanted(followed: Vec<Followed>) -> Box<dyn Fn() -> Option<Vec<Wanted>> + Send> {
    Box::new(move || {
        let mut wanted = Vec::new();
        for followed in &followed {
            let snapshot = followed.models.snapshot();
            if !snapshot.synced {
                return None;
            }
            wanted.extend(snapshot.models.iter().map(|spec| Wanted {
                key: spec.key.clone(),
                pool: spec.pool.clone(),
            }));
        }
        Some(wanted)
    })
}

/// The pods of a model's variants that serve.
fn engines(followed: &[Followed], key: &ModelKey, port: u16) -> Vec<Engine> {
    let mut engines = Vec::new();
    for followed in followed {
        let snapshot = followed.models.snapshot();
        let Some(spec) = snapshot.get(key) else {
            continue;
        };
        let pods = followed.pods.index();
        for variant in &spec.variants {
            let target = TargetKey::new(&key.namespace, &variant.target);
            let state = followed.targets.state(&target);
            let ready = pods
                .select(&key.namespace, &state.selector)
                .filter(|pod| pod.is_ready());
            engines.extend(ready.filter_map(|pod| {
                Some(Engine {
                    pod: pod.name.to_string(),
                    address: (pod.ip?, port).into(),
                })
            }));
        }
    }
    engines
}
