use epp_core::report::TargetReport;

use super::*;

fn class(name: &str, checksum: &str, fresh_labels: f64) -> ClassReport {
    let target = TargetReport {
        state: State::Trained,
        labels: 1_000,
        labels_last_minute: 10,
        fresh_labels: fresh_labels / 2.0,
        mape: None,
        coverage_p90: None,
    };
    ClassReport {
        class: name.into(),
        version: 3,
        checksum: checksum.into(),
        ttft: target.clone(),
        tpot: target,
    }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn model(name: &str, fresh_labels: f64) -> ClassModel {
    ClassModel {
        class: name.into(),
        model: LatencyModel::prior(),
        labels: [1_000, 900],
        fresh_labels: [fresh_labels / 2.0; 2],
        fitted_at_ms: 7,
    }
}

/// Asks picker `uid` for its models if they are wanted, and gets one for `class`.
fn fetch(snapshots: &mut Snapshots, now: u64, uid: &str, class: &str) -> bool {
    let asked = snapshots.ask(at(now), uid);
    if asked {
        let told = snapshots.offers[uid]
            .classes
            .iter()
            .find(|told| told.class == class);
        let fresh_labels = fresh(told.unwrap());
        snapshots.fetched(at(now), uid, [model(class, fresh_labels)]);
    }
    asked
}

fn from(snapshots: &Snapshots, class: &str) -> Option<String> {
    snapshots.for_class(class).map(|used| used.from.clone())
}

#[test]
fn the_picker_with_the_most_fresh_labels_is_asked() {
    let mut snapshots = Snapshots::default();
    snapshots.offered("u1", "epp-1", &[class("h100", "a", 100.0)]);
    snapshots.offered("u2", "epp-2", &[class("h100", "b", 300.0)]);
    assert!(!fetch(&mut snapshots, 10, "u1", "h100"));
    assert!(fetch(&mut snapshots, 10, "u2", "h100"));
    assert_eq!(from(&snapshots, "h100").as_deref(), Some("epp-2"));
    let checksum = snapshots.in_use()["h100"].checksum.clone();
    snapshots.offered("u2", "epp-2", &[class("h100", &checksum, 310.0)]);
    assert!(!fetch(&mut snapshots, 20, "u2", "h100"), "nothing new");
    snapshots.offered("u2", "epp-2", &[class("h100", "c", 310.0)]);
    assert!(fetch(&mut snapshots, 20, "u2", "h100"), "a refit");
    assert_eq!(snapshots.in_use()["h100"].labels, [1_000, 900]);
}

#[test]
fn two_pickers_that_learn_alike_do_not_take_turns() {
    let mut snapshots = Snapshots::default();
    snapshots.offered("u1", "epp-1", &[class("", "a", 100.0)]);
    assert!(fetch(&mut snapshots, 0, "u1", ""));
    snapshots.offered("u2", "epp-2", &[class("", "b", 110.0)]);
    assert!(!fetch(&mut snapshots, 10, "u2", ""));
    snapshots.offered("u2", "epp-2", &[class("", "b", 130.0)]);
    assert!(fetch(&mut snapshots, 10, "u2", ""));
}

#[test]
fn models_are_not_fetched_at_every_refit() {
    let mut snapshots = Snapshots::default();
    snapshots.offered("u1", "epp-1", &[class("", "a", 100.0)]);
    assert!(fetch(&mut snapshots, 0, "u1", ""));
    snapshots.offered("u1", "epp-1", &[class("", "b", 100.0)]);
    assert!(!fetch(&mut snapshots, 4, "u1", ""));
    assert!(fetch(&mut snapshots, 5, "u1", ""));
}

#[test]
fn the_last_good_one_stays_until_a_newcomer_knows_more() {
    let mut snapshots = Snapshots::default();
    snapshots.offered("u1", "epp-1", &[class("", "a", 400.0)]);
    assert!(fetch(&mut snapshots, 0, "u1", ""));
    snapshots.withdrawn("u1");
    snapshots.offered("u2", "epp-2", &[class("", "", 0.0)]);
    assert!(!fetch(&mut snapshots, 1, "u2", ""));
    assert_eq!(from(&snapshots, "").as_deref(), Some("epp-1"));
    snapshots.offered("u2", "epp-2", &[class("", "b", 200.0)]);
    assert!(!fetch(&mut snapshots, 1, "u2", ""));
    // Two half-lives later a quarter of the old labels counts.
    assert!(fetch(&mut snapshots, 1_201, "u2", ""));
}

#[test]
fn a_picker_that_forgot_does_not_take_its_old_model_away() {
    let mut snapshots = Snapshots::default();
    snapshots.offered("u1", "epp-1", &[class("", "a", 400.0)]);
    assert!(fetch(&mut snapshots, 0, "u1", ""));
    snapshots.offered("u1", "epp-1", &[class("", "b", 3.0)]);
    assert!(!fetch(&mut snapshots, 60, "u1", ""));
    snapshots.offered("u1", "epp-1", &[class("", "c", 380.0)]);
    assert!(fetch(&mut snapshots, 60, "u1", ""));
}

#[test]
fn a_class_without_a_model_takes_the_only_one() {
    let mut snapshots = Snapshots::default();
    assert_eq!(from(&snapshots, "h100"), None);
    snapshots.offered("u1", "epp-1", &[class("a100", "a", 10.0)]);
    assert!(fetch(&mut snapshots, 0, "u1", "a100"));
    assert_eq!(from(&snapshots, "h100").as_deref(), Some("epp-1"));
    snapshots.offered(
        "u1",
        "epp-1",
        &[class("a100", "a", 10.0), class("l40s", "b", 10.0)],
    );
    assert!(fetch(&mut snapshots, 9, "u1", "l40s"));
    assert_eq!(
        from(&snapshots, "h100"),
        None,
        "one of two would be a guess"
    );
}

#[test]
fn models_nobody_offered_are_left_out() {
    let mut snapshots = Snapshots::default();
    snapshots.offered("u1", "epp-1", &[class("", "a", 10.0)]);
    assert!(snapshots.ask(at(0), "u1"));
    snapshots.fetched(at(0), "u1", [model("other", 10.0)]);
    snapshots.fetched(at(0), "nobody", [model("", 10.0)]);
    assert!(snapshots.in_use().is_empty());
}
