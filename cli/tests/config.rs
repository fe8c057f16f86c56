//! `headroom config` through the binary: what it prints, and how it ends.

#![expect(clippy::expect_used, reason = "in a test, to expect is to assert")]

use std::path::PathBuf;
use std::process::{Command, Output};

fn config(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headroom"))
        .arg("config")
        .args(arguments)
        .output()
        .expect("the binary runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A file with these contents, as long as its folder lives.
fn file(folder: &tempfile::TempDir, name: &str, contents: &str) -> String {
    let path: PathBuf = folder.path().join(name);
    std::fs::write(&path, contents).expect("a file can be written");
    path.to_string_lossy().into_owned()
}

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

#[test]
fn a_usable_configuration_ends_well() {
    let folder = tempfile::tempdir().expect("a folder");
    let bands = "featureGates: [flowControl]\nplugins: [{type: concurrency-detector}, {type: queue-scorer}]\nflowControl:\n  saturationDetector: {pluginRef: concurrency-detector}\n  priorityBands: [{priority: 3}]\n";
    let path = file(&folder, "epp.yaml", &format!("{HEAD}{bands}"));
    let objectives = file(
        &folder,
        "endpoints.yaml",
        "objectives: [{name: gold, priority: 4}]",
    );
    let output = config(&["lint", &path, "--objectives", &objectives]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let page = text(&output.stdout);
    let band =
        format!("{path}:7:19: unused: flowControl.priorityBands[0]: no objective has priority 3");
    assert!(page.contains(&band), "{page}");
    assert!(
        page.contains("\n    instead: give an objective priority 3"),
        "{page}"
    );
    assert!(
        page.contains(&format!("{path}: 1 unused, 1 differs\n")),
        "{page}"
    );
    assert!(
        page.ends_with(&format!("{objectives}: nothing to say\n")),
        "{page}"
    );
}

#[test]
fn a_configuration_that_would_be_refused_ends_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = file(
        &folder,
        "epp.yaml",
        &format!("{HEAD}plugins:\n- type: queue-scoer\n"),
    );
    let output = config(&["lint", &path]);
    assert_eq!(output.status.code(), Some(1));
    let page = text(&output.stdout);
    let line = format!(
        "{path}:4:3: error: plugins[0] `queue-scoer`: unknown plugin type `queue-scoer`; nearest known: `queue-scorer`"
    );
    assert!(page.starts_with(&line), "{page}");
    assert!(text(&output.stderr).contains("cannot be used: 1 line in error"));

    let output = config(&["lint", &path, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(
        (&report["schema"], &report["errors"]),
        (&1.into(), &1.into())
    );
    let finding = &report["files"][0]["findings"][0];
    assert_eq!(
        (&finding["line"], &finding["column"]),
        (&4.into(), &3.into())
    );
    assert_eq!(finding["level"], "error");
}

#[test]
fn what_cannot_be_read_ends_with_2() {
    let folder = tempfile::tempdir().expect("a folder");
    let nowhere = folder
        .path()
        .join("nowhere.yaml")
        .to_string_lossy()
        .into_owned();
    let output = config(&["lint", &nowhere]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("cannot read"),
        "{}",
        text(&output.stderr)
    );
    let path = file(&folder, "epp.yaml", HEAD);
    let output = config(&["lint", &path, "--objectives", &nowhere]);
    assert_eq!(output.status.code(), Some(2));
    let wrong = file(&folder, "wrong.yaml", "gold: 1");
    let output = config(&["lint", &path, "--objectives", &wrong]);
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).contains("neither an endpoints file"),
        "{}",
        text(&output.stderr)
    );
}

#[test]
fn the_schema_is_the_published_one() {
    let output = config(&["schema"]);
    assert_eq!(output.status.code(), Some(0));
    let published = include_str!("../../deploy/schemas/endpoint-picker-config.schema.json");
    assert!(
        text(&output.stdout) == published,
        "deploy/schemas is out of date"
    );
}
