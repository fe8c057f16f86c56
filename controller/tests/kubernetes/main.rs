//! The whole controller against a played API server and played endpoint pickers, over real sockets and real TLS.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod api;
mod picker;
mod world;

use controller::published::Answer;
use controller_core::model::ModelKey;

use crate::world::{MODEL, Replica, World, desired, until};

fn key() -> ModelKey {
    ModelKey {
        namespace: "ns".into(),
        model: MODEL.into(),
    }
}

/// What the metrics APIs of `replica` would say: replicas wanted, or why not.
fn answer(replica: &Replica) -> Result<u32, String> {
    let posted = replica.running.board.latest();
    let now = replica.running.board.clock().now();
    desired(&posted, now)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn demand_of_all_pickers_becomes_replicas_and_a_silent_one_takes_none_away() {
    let world = World::new().await;
    let (a, b) = (
        world.picker(MODEL, "a").await,
        world.picker(MODEL, "b").await,
    );
    a.rate(1.0);
    b.rate(1.0);
    let replica = world.replica("c-0").await;
    until("a first decision", || answer(&replica) == Ok(1)).await;
    let why = replica.running.journal.explain(&key()).unwrap();
    // Both offer the same: it is the one that was heard first.
    let from: Vec<&str> = why.snapshots.iter().map(|one| one.from.as_str()).collect();
    assert!(
        from == ["llama-epp-a"] || from == ["llama-epp-b"],
        "{from:?}"
    );
    assert!(
        why.notes[0].contains("as the endpoint pickers report it"),
        "{:?}",
        why.notes
    );

    // Far beyond what one replica takes, and only together: neither half would need as many.
    a.rate(150.0);
    b.rate(150.0);
    until("more replicas", || {
        answer(&replica).is_ok_and(|count| count >= 3)
    })
    .await;

    // One falls silent while the other's load goes away: nothing is taken away for it.
    a.rate(1.0);
    b.hang(true);
    until("the silent picker is named", || {
        let why = replica.running.journal.explain(&key());
        let silent = why
            .and_then(|why| why.decision)
            .map(|decision| decision.silent);
        silent.is_some_and(|silent| silent.iter().any(|one| one.id == "uid-llama-epp-b"))
    })
    .await;
    let held = replica.running.board.latest().published().models[0].variants[0].desired;
    assert!(held >= 3, "{held}");
    let notes = replica.running.journal.explain(&key()).unwrap().notes;
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("endpoint picker llama-epp-b: no answer")),
        "{notes:?}"
    );

    // Its pod is gone: its share with it.
    world.api.delete("pods", "ns", "llama-epp-b");
    until("nobody is silent", || {
        let why = replica.running.journal.explain(&key());
        let silent = why
            .and_then(|why| why.decision)
            .map(|decision| decision.silent);
        silent.is_some_and(|silent| silent.is_empty())
    })
    .await;
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nonsense_is_silence_and_is_named() {
    let world = World::new().await;
    let picker = world.picker(MODEL, "a").await;
    picker.schema(99);
    let replica = world.replica("c-0").await;
    until("the reason is shown", || {
        let why = replica.running.journal.explain(&key());
        let notes = why.map(|why| why.notes).unwrap_or_default();
        notes
            .iter()
            .any(|note| note.starts_with("endpoint picker llama-epp-a: schema 99"))
    })
    .await;
    let model = replica.running.board.latest().published().models[0].clone();
    assert!(
        matches!(model.state, Answer::Cold { .. }),
        "{:?}",
        model.state
    );
    replica.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn followers_answer_as_the_leader_does_and_go_on_when_it_is_killed() {
    let world = World::new().await;
    let picker = world.picker(MODEL, "a").await;
    picker.rate(200.0);
    let leader = world.replica_apart("c-0");
    until("a leader that decides", || {
        leader.desired().is_ok_and(|count| count >= 3)
    })
    .await;
    let follower = world.replica("c-1").await;
    until("a follower that answers", || answer(&follower).is_ok()).await;
    assert!(!follower.running.leadership.borrow().leader);
    assert_eq!(answer(&follower), leader.desired());

    let before = answer(&follower).unwrap();
    leader.kill();
    let mut refused = Vec::new();
    let mut least = before;
    until("the follower leads", || {
        match answer(&follower) {
            Ok(count) => least = least.min(count),
            Err(error) => refused.push(error),
        }
        follower.running.leadership.borrow().leader
            && follower.running.journal.explain(&key()).is_some()
    })
    .await;
    // What it decides itself stands on what the leader remembered: nothing is taken away, nothing is refused.
    let published = follower.running.board.latest().published().sequence;
    until("decisions of its own", || {
        match answer(&follower) {
            Ok(count) => least = least.min(count),
            Err(error) => refused.push(error),
        }
        follower.running.board.latest().published().sequence > published + 4
    })
    .await;
    assert_eq!(refused, Vec::<String>::new());
    assert!(least >= before, "{least} after {before}");
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_controller_goes_on_from_what_is_kept() {
    let world = World::new().await;
    let picker = world.picker(MODEL, "a").await;
    picker.rate(200.0);
    let first = world.replica("c-0").await;
    until("many replicas", || {
        answer(&first).is_ok_and(|count| count >= 3)
    })
    .await;
    let before = answer(&first).unwrap();
    first.stop().await;
    assert!(world.api.exists("configmaps", "headroom", "headroom-state"));
    assert_eq!(
        world.api.holder("headroom-controller"),
        "",
        "the Lease is given back"
    );

    let second = world.replica("c-1").await;
    let mut seen = Vec::new();
    until("a decision of the second", || {
        seen.extend(answer(&second));
        seen.len() > 3
    })
    .await;
    // The target still asks for one replica: whoever begins anew would begin with that.
    assert!(
        seen.iter().all(|count| *count >= before),
        "{seen:?} after {before}"
    );
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_the_api_server_decisions_go_on_until_the_lease_runs_out_and_come_back() {
    let world = World::new().await;
    let picker = world.picker(MODEL, "a").await;
    picker.rate(200.0);
    let replica = world.replica("c-0").await;
    until("many replicas", || {
        answer(&replica).is_ok_and(|count| count >= 3)
    })
    .await;
    let before = answer(&replica).unwrap();
    world.api.away(true);
    until("the lease runs out", || {
        !replica.running.leadership.borrow().leader
    })
    .await;
    // Nothing else was decided meanwhile: what is served is what was served, or nothing.
    assert!(answer(&replica).is_ok_and(|count| count >= before) || answer(&replica).is_err());
    world.api.away(false);
    until("it leads again", || {
        replica.running.leadership.borrow().leader
    })
    .await;
    until("it decides again", || answer(&replica).is_ok()).await;
    assert!(answer(&replica).unwrap() >= before);
    replica.stop().await;
}
