//! Three pickers of one pool over mutual TLS: they find each other by their Service, count each other's requests, and
//! do without one that is killed until it is back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::time::Duration;

use e2e::load::{End, Outcome, lost};
use e2e::servers::Servers;
use e2e::stack::{MODEL, POOL};
use e2e::{Stack, cluster, until};
use runtime::Clock;
use serde_json::Value;

const PICKERS: usize = 3;

/// What a picker says of itself; `None` = it does not answer.
async fn state(address: &str) -> Option<Value> {
    let url = format!("http://{address}:9090/debug/state");
    let page = reqwest::get(url).await.ok()?.text().await.ok()?;
    serde_json::from_str(&page).ok()
}

/// The peers of the picker at `address` that it shares room with, by name.
async fn peers(address: &str) -> Vec<String> {
    let state = state(address).await.unwrap_or_default();
    let peers = state["peers"].as_array().cloned().unwrap_or_default();
    let sharing = peers.iter().filter(|peer| peer["hearsUs"] == true);
    sharing
        .filter_map(|peer| Some(peer["name"].as_str()?.to_owned()))
        .collect()
}

/// Requests in flight on all servers that the picker at `address` counts, and those among them that are its peers'.
async fn in_flight(address: &str) -> Option<(u64, u64)> {
    let state = state(address).await?;
    let mut loads = state["endpoints"]
        .as_array()?
        .iter()
        .map(|one| &one["load"]);
    loads.try_fold((0, 0), |(all, theirs), load| {
        let of_peers = load["ofPeers"].as_u64()?;
        Some((all + load["inFlight"].as_u64()?, theirs + of_peers))
    })
}

/// Waits until each of `pickers` shares room with exactly the others.
async fn all_share(pickers: &[(String, String)]) {
    until("every picker to share room with the others", async || {
        for (name, address) in pickers {
            let mut found = peers(address).await;
            found.sort();
            let others = pickers.iter().filter(|(other, _)| other != name);
            let mut others: Vec<_> = others.map(|(other, _)| other.clone()).collect();
            others.sort();
            if found != others {
                return None;
            }
        }
        Some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_pickers_count_as_one_and_do_without_one_that_is_killed() {
    let values = format!("poolDefaults: {{epp: {{replicas: {PICKERS}}}}}\n");
    let servers = [Servers::new(POOL, MODEL)];
    let stack = Stack::start(cluster::Shape::default(), &servers, &values).await;
    let pickers = stack.component("epp").await;
    assert_eq!(pickers.len(), PICKERS, "{pickers:?}");
    all_share(&pickers).await;
    stack.reachable().await;

    // Answers that are long enough to be looked at: each picker counts those of all, and knows which are not its own.
    const LONG: u64 = 9;
    let mut long = stack.load(50, 1500).await;
    for _ in 0..LONG {
        long.send();
    }
    let counted = until("every picker to count every request", async || {
        let mut counted = Vec::new();
        for (_, address) in &pickers {
            let (all, theirs) = in_flight(address).await?;
            if all != LONG {
                return None;
            }
            counted.push(theirs);
        }
        // Each request is a peer's to all but one.
        let twice = counted.iter().sum::<u64>() == LONG * (PICKERS as u64 - 1);
        twice.then_some(counted)
    })
    .await;
    eprintln!("{LONG} in flight; of peers, by picker: {counted:?}");

    let mut load = stack.load(200, 40).await;
    load.at_rate(6.0, Duration::from_secs(2)).await;
    let (victim, others) = pickers.split_first().expect("three pickers");
    let clock = Clock::start();
    stack.crash(&victim.0).await;
    let killed = load.elapsed();
    // By those that stay: a picker that is started again is a peer again.
    let gone = async {
        until("the others to see that it is gone", async || {
            for (_, address) in others {
                if peers(address).await.contains(&victim.0) {
                    return None;
                }
            }
            Some(())
        })
        .await;
        clock.now()
    };
    let ((), gone) = tokio::join!(load.at_rate(6.0, Duration::from_secs(4)), gone);
    eprintln!("the others did without the killed picker after {gone:.2?}");

    // The same pod, started again, under another incarnation.
    all_share(&pickers).await;
    load.at_rate(6.0, Duration::from_secs(3)).await;
    let back = clock.now();
    let outcomes = load.finish().await;
    let broken: Vec<&Outcome> = lost(&outcomes);
    eprintln!(
        "all shared again {back:.2?} after the kill; {} of {} not served: {broken:?}",
        broken.len(),
        outcomes.len()
    );
    for one in broken {
        // What it carried, or was asked before the proxy had noticed.
        assert!(one.sent < killed + Duration::from_secs(2), "{one:?}");
        assert!(one.sent + one.took >= killed, "{one:?}");
    }
    let served = long.finish().await;
    assert!(
        served.iter().any(|one| one.end == End::Served),
        "those of the others go on: {served:?}"
    );
    // Nothing of the dead picker's is left anywhere.
    until("every picker to count nothing", async || {
        for (_, address) in &pickers {
            if in_flight(address).await? != (0, 0) {
                return None;
            }
        }
        Some(())
    })
    .await;
}
