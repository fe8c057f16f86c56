use super::*;
use crate::mock::{self, Exchange, Server};
use serde_json::{Value, json};

/// A Lease as an API server keeps it, played for one client.
#[derive(Default)]
struct Shelf {
    lease: Option<Value>,
    version: u64,
    /// Requests are refused while this holds.
    away: bool,
}

impl Shelf {
    async fn answer(&mut self, mut exchange: Exchange) {
        if self.away {
            return;
        }
        let method = exchange.target();
        if method.starts_with("GET") {
            return match &self.lease {
                Some(lease) => exchange.reply(lease).await,
                None => exchange.fail(404, "NotFound").await,
            };
        }
        let mut written = exchange.body().await;
        let told = written["metadata"]["resourceVersion"]
            .as_str()
            .map(str::to_owned);
        let current = self.lease.is_some().then(|| self.version.to_string());
        if told != current {
            return exchange.fail(409, "Conflict").await;
        }
        self.version += 1;
        written["metadata"]["resourceVersion"] = json!(self.version.to_string());
        exchange.reply(&written).await;
        self.lease = Some(written);
    }

    fn holder(&self) -> &str {
        self.lease
            .as_ref()
            .and_then(|lease| lease["spec"]["holderIdentity"].as_str())
            .unwrap_or_default()
    }
}

struct Contender {
    server: Server,
    leadership: watch::Receiver<Leadership>,
    shutdown: Shutdown,
    tasks: Tasks,
}

fn contender(identity: &str, clock: Clock) -> Contender {
    let (client, server) = mock::server();
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let candidate = Candidate {
        namespace: "ns".into(),
        name: "epp-ns-pool.llm-d.ai".into(),
        identity: identity.into(),
        address: Some(format!("{identity}:9443")),
        timing: Timing::default(),
    };
    let leadership = Elector::stand(
        client,
        candidate,
        std::future::ready(()),
        clock,
        shutdown.clone(),
        &tasks,
    );
    Contender {
        server,
        leadership,
        shutdown,
        tasks,
    }
}

impl Contender {
    fn leads(&self) -> bool {
        self.leadership.borrow().leader
    }

    /// Plays the server until `wanted` holds of who leads.
    async fn serve(&mut self, shelf: &mut Shelf, wanted: impl Fn(&Leadership) -> bool) {
        loop {
            if wanted(&self.leadership.borrow_and_update()) {
                return;
            }
            tokio::select! {
                Some(exchange) = self.server.next() => shelf.answer(exchange).await,
                Ok(()) = self.leadership.changed() => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_candidate_follows_and_takes_over_a_released_lease() {
    let clock = Clock::start();
    let mut shelf = Shelf::default();
    let mut first = contender("first", clock);
    first.serve(&mut shelf, |told| told.leader).await;
    let mut second = contender("second", clock);
    second
        .serve(&mut shelf, |told| told.address.is_some())
        .await;
    assert!(!second.leads());
    assert_eq!(second.leadership.borrow().holder.as_deref(), Some("first"));
    first.shutdown.begin_drain();
    first.serve(&mut shelf, |told| !told.leader).await;
    // The release is a write of its own, and the task ends with it.
    let Contender {
        mut server, tasks, ..
    } = first;
    while let Some(exchange) = server.next().await {
        shelf.answer(exchange).await;
    }
    tasks.join().await;
    assert_eq!(shelf.holder(), "");
    let released = clock.now();
    second.serve(&mut shelf, |told| told.leader).await;
    assert!(
        clock.now() - released <= Timing::default().retry,
        "at its next attempt"
    );
    assert_eq!(shelf.lease.unwrap()["spec"]["leaseTransitions"], 1);
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_loses_the_api_steps_down_in_time_and_comes_back() {
    let clock = Clock::start();
    let mut shelf = Shelf::default();
    let mut leader = contender("leader", clock);
    leader.serve(&mut shelf, |told| told.leader).await;
    let lost = clock.now();
    shelf.away = true;
    leader.serve(&mut shelf, |told| !told.leader).await;
    let held = clock.now() - lost;
    assert!(held <= Duration::from_secs(10), "{held:?}");
    assert!(
        held > Duration::from_secs(7),
        "{held:?}: not at the first failure"
    );
    shelf.away = false;
    leader.serve(&mut shelf, |told| told.leader).await;
}

#[tokio::test(start_paused = true)]
async fn a_hanging_api_is_noticed_as_well() {
    let clock = Clock::start();
    let mut shelf = Shelf::default();
    let mut leader = contender("leader", clock);
    leader.serve(&mut shelf, |told| told.leader).await;
    let mut hanging = Vec::new();
    while leader.leads() {
        tokio::select! {
            Some(exchange) = leader.server.next() => hanging.push(exchange),
            Ok(()) = leader.leadership.changed() => {}
        }
    }
    assert!(clock.now() <= Duration::from_secs(12), "{:?}", clock.now());
}

#[tokio::test(start_paused = true)]
async fn a_lost_race_is_no_failure_and_foreign_fields_stay() {
    let clock = Clock::start();
    let mut shelf = Shelf {
        lease: Some(json!({
            "metadata": {"name": "epp-ns-pool.llm-d.ai", "resourceVersion": "0", "labels": {"kept": "yes"}},
            "spec": {"holderIdentity": "", "strategy": "OldestEmulationVersion"},
        })),
        ..Shelf::default()
    };
    let mut one = contender("one", clock);
    let read = one.server.next().await.unwrap();
    shelf.answer(read).await;
    let write = one.server.next().await.unwrap();
    assert!(write.target().starts_with("PUT"), "{}", write.target());
    write.fail(409, "Conflict").await;
    one.serve(&mut shelf, |told| told.leader).await;
    let lease = shelf.lease.unwrap();
    assert_eq!(lease["metadata"]["labels"]["kept"], "yes");
    assert_eq!(lease["spec"]["strategy"], "OldestEmulationVersion");
    assert_eq!(
        lease["metadata"]["annotations"][annotation::LEADER_ADDRESS],
        "one:9443"
    );
    assert_eq!(lease["spec"]["leaseDurationSeconds"], 15);
}
