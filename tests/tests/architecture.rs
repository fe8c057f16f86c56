//! Dependencies point inwards: heavy crates must not leak into the pure cores.
#![allow(clippy::expect_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// What each of our crates may depend on among ours (build and run time, not tests).
const ALLOWED: &[(&str, &[&str])] = &[
    ("names", &[]),
    ("gbdt", &[]),
    ("predictor", &["gbdt", "names"]),
    ("kv-cache", &[]),
    ("simulator-core", &["names"]),
    (
        "simulator",
        &["simulator-core", "kv-cache", "names", "runtime"],
    ),
    ("epp-core", &["predictor", "kv-cache", "names"]),
    (
        "epp",
        &[
            "epp-core",
            "predictor",
            "kv-cache",
            "crds",
            "kubernetes",
            "names",
            "runtime",
        ],
    ),
    (
        "controller-core",
        &["predictor", "epp-core", "simulator-core", "names"],
    ),
    (
        "controller",
        &[
            "controller-core",
            "epp-core",
            "predictor",
            "crds",
            "kubernetes",
            "names",
            "runtime",
        ],
    ),
    ("crds", &["names"]),
    ("kubernetes", &["crds", "names", "runtime"]),
    ("runtime", &["names"]),
];

/// Crates that bring sockets, runtimes or cluster clients: never in a core.
const HEAVY: &[&str] = &[
    "tokio",
    "tonic",
    "axum",
    "hyper",
    "kube",
    "rustls",
    "envoy-types",
    "reqwest",
];
const CORES: &[&str] = &[
    "names",
    "gbdt",
    "predictor",
    "kv-cache",
    "simulator-core",
    "epp-core",
    "controller-core",
];

/// Package name → names of its normal dependencies.
fn normal_dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo metadata is JSON");
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .map(|package| {
            let dependencies = package["dependencies"].as_array().expect("dependencies");
            let normal = dependencies
                .iter()
                .filter(|d| d["kind"].is_null())
                .map(|d| text(&d["name"]))
                .collect();
            (text(&package["name"]), normal)
        })
        .collect()
}

#[test]
fn our_crates_depend_inwards_only() {
    let packages = normal_dependencies();
    let ours: BTreeSet<&str> = ALLOWED.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in ALLOWED {
        let found: BTreeSet<&str> = packages[*name]
            .iter()
            .map(String::as_str)
            .filter(|dependency| ours.contains(dependency))
            .collect();
        let allowed: BTreeSet<&str> = allowed.iter().copied().collect();
        let outward: Vec<_> = found.difference(&allowed).collect();
        assert!(outward.is_empty(), "{name} depends on {outward:?}");
    }
}

#[test]
fn the_cores_carry_no_runtime_and_no_socket() {
    let packages = normal_dependencies();
    for core in CORES {
        let heavy: Vec<_> = HEAVY
            .iter()
            .filter(|heavy| packages[*core].contains(**heavy))
            .collect();
        assert!(heavy.is_empty(), "{core} depends on {heavy:?}");
    }
}
