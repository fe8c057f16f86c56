//! `headroom compare` through the binary: the same answer every time, for every policy, with its bars.

#![expect(clippy::expect_used, reason = "in a test, to expect is to assert")]

use std::process::{Command, Output};

use serde_json::Value;

/// A warm-up of shared prefixes and two minutes of conversations, two seeds each.
fn compare(json: &str) -> Output {
    Command::new(env!("CARGO_BIN_EXE_headroom"))
        .args(["compare", "--seeds", "2", "--stages", "1", "--minutes", "2"])
        .args(["--json", json])
        .output()
        .expect("the binary runs")
}

#[test]
fn a_small_comparison_gives_the_same_answer_twice_and_judges_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let [first, second] = ["first.json", "second.json"].map(|name| {
        let path = folder.path().join(name);
        let output = compare(&path.to_string_lossy());
        let says = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{says}");
        let page = String::from_utf8_lossy(&output.stdout).into_owned();
        (page, std::fs::read_to_string(path).expect("written"))
    });
    assert_eq!(first, second);
    let (page, json) = first;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let workloads = json["workloads"].as_array().expect("a list");
    assert_eq!(workloads.len(), 2);
    for workload in workloads {
        let standings = workload["standings"].as_array().expect("a list");
        assert_eq!(standings.len(), 4);
        for standing in standings {
            assert_eq!(standing["rounds"].as_array().map(Vec::len), Some(2));
            assert_eq!(standing["median"]["unserved"], 0.0, "{standing}");
            assert!(standing["median"]["attainment"].as_f64() > Some(0.5));
        }
        // Where prompts repeat, whoever looks at prefixes finds more of them than who goes round.
        let hits = |at: usize| standings[at]["median"]["hit_share"].as_f64();
        assert!(hits(0) > hits(1), "{workload}");
        assert_eq!(workload["bars"].as_array().map(Vec::len), Some(5));
    }
    let verdicts = page
        .lines()
        .filter(|line| line.starts_with("  met") || line.starts_with("  MISSED"));
    assert_eq!(verdicts.count(), 10, "{page}");
}
