//! Asks the engines themselves about the models that nobody else tells of.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use controller_core::model::ModelKey;
use controller_core::shares::MAX_PICKERS;
use futures::StreamExt as _;
use parking_lot::Mutex;
use runtime::Shutdown;

use super::page::{Page, parse};
use crate::kubernetes::demand::Gathering;
use crate::kubernetes::pickers::{Ask, Connection, FetchError, Now};

/// Between two rounds.
const PERIOD: Duration = Duration::from_secs(2);
/// One page takes no longer.
const DEADLINE: Duration = Duration::from_secs(2);
/// Largest page that is read, bytes.
const MAX_PAGE: usize = 4 << 20;
/// Engines asked at a time.
const CONCURRENCY: usize = 16;
/// Engines of one model that are asked: as many as are added up. Of more, the demand would be a part and look like the
/// whole.
const MAX_ENGINES: usize = MAX_PICKERS;
/// Where engines show their metrics.
const PATH: &str = "/metrics";

/// One engine of a model.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Engine {
    /// Its pod.
    pub pod: String,
    /// Where it serves.
    pub address: SocketAddr,
}

/// The engines of a model, given the model.
pub(super) type Engines = Box<dyn Fn(&ModelKey) -> Vec<Engine> + Send + Sync>;

/// The rounds, and where pages go.
pub struct Scraper {
    /// Who the engines of a model are.
    pub engines: Engines,
    /// Who wants to know.
    pub gathering: Arc<Mutex<Gathering>>,
    /// The epoch that demand is counted on.
    pub now: Now,
}

impl Scraper {
    /// Asks until `shutdown` is stopped.
    pub async fn run(self, shutdown: Shutdown) {
        tokio::select! {
            () = self.rounds() => {}
            () = shutdown.stopped() => {}
        }
    }

    async fn rounds(&self) {
        let mut connections: BTreeMap<SocketAddr, Connection> = BTreeMap::new();
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let wanted = self.wanted();
            let mut kept = BTreeMap::new();
            let asked = wanted.into_iter().map(|(key, engine)| {
                let connection = connections.remove(&engine.address);
                async move { (key, ask(&engine, connection).await, engine) }
            });
            let mut answers = futures::stream::iter(asked).buffer_unordered(CONCURRENCY);
            while let Some((key, answer, engine)) = answers.next().await {
                match answer {
                    Ok((page, connection)) => {
                        kept.insert(engine.address, connection);
                        if let Some(page) = page {
                            let now = self.now.get();
                            self.gathering.lock().engine(now, &key, &engine.pod, page);
                        }
                    }
                    Err(error) => {
                        tracing::debug!(pod = engine.pod, %error, "an engine does not show its metrics");
                    }
                }
            }
            drop(answers);
            connections = kept;
        }
    }

    /// The engines to ask. The gathering is told of them, so that those that are gone stop counting.
    fn wanted(&self) -> Vec<(ModelKey, Engine)> {
        let subjects = self.gathering.lock().without_pickers();
        let mut wanted = Vec::new();
        for subject in subjects {
            let key = ModelKey {
                namespace: subject.namespace,
                model: subject.model,
            };
            let engines = (self.engines)(&key);
            if engines.len() > MAX_ENGINES {
                tracing::warn!(model = %key, engines = engines.len(), "too many engines to ask each: a part of the demand would look like the whole");
                continue;
            }
            let pods: BTreeSet<String> = engines.iter().map(|engine| engine.pod.clone()).collect();
            self.gathering.lock().engines(&key, &pods);
            wanted.extend(engines.into_iter().map(|engine| (key.clone(), engine)));
        }
        wanted
    }
}

/// The engine's page, and the connection for the next time.
async fn ask(
    engine: &Engine,
    connection: Option<Connection>,
) -> Result<(Option<Page>, Connection), FetchError> {
    let work = async {
        let mut connection = match connection {
            Some(connection) => connection,
            None => Connection::open(engine.address, None).await?,
        };
        let ask = Ask {
            path: PATH,
            token: None,
            unless: None,
            most: MAX_PAGE,
        };
        let page = connection.get(ask).await?;
        let read = page.and_then(|page| parse(&String::from_utf8_lossy(&page.body)));
        Ok((read, connection))
    };
    tokio::time::timeout(DEADLINE, work)
        .await
        .unwrap_or(Err(FetchError::Deadline(DEADLINE)))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::routing::get;
    use runtime::Clock;

    use super::*;
    use crate::kubernetes::demand::{Source, Wanted};

    #[tokio::test]
    async fn engines_that_serve_are_read_and_counted() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let page = "vllm:num_requests_waiting 3\nvllm:num_requests_running 1\nvllm:request_success_total 7\n";
        let router = Router::new().route(PATH, get(move || async move { page }));
        tokio::spawn(async move { axum::serve(listener, router).await });
        let now = Now::new(Clock::start());
        let key = ModelKey {
            namespace: "ns".into(),
            model: "m".into(),
        };
        let gathering = Arc::new(Mutex::new(Gathering::new()));
        let wanted = Wanted {
            key: key.clone(),
            pool: None,
        };
        gathering.lock().expect(now.get(), &[wanted], []);
        let engine = Engine {
            pod: "pod-1".into(),
            address,
        };
        let scraper = Scraper {
            engines: Box::new(move |_| vec![engine.clone()]),
            gathering: Arc::clone(&gathering),
            now: now.clone(),
        };
        let shutdown = Shutdown::new();
        let task = tokio::spawn(scraper.run(shutdown.clone()));
        let known = loop {
            let known = gathering.lock().known(now.get()).remove(&key).unwrap();
            if known.source == Source::Engines {
                break known;
            }
            tokio::task::yield_now().await;
        };
        let waiting: u64 = known
            .demand
            .bands
            .iter()
            .map(|band| band.queued.requests)
            .sum();
        assert_eq!((waiting, known.demand.in_flight), (3, 1));
        shutdown.stop();
        task.await.unwrap();
    }
}
