//! The replay through the binary: the same seed gives the same bytes.

#![expect(clippy::expect_used, reason = "in a test, to expect is to assert")]

use std::fs;
use std::io;
use std::path::Path;
use std::process::{Command, Output};

fn demo(folder: &Path, flags: &[&str]) -> io::Result<Output> {
    Command::new(env!("CARGO_BIN_EXE_headroom"))
        .arg("demo")
        .args(flags)
        .current_dir(folder)
        .output()
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn five_minutes_replayed_twice_are_byte_identical() {
    let runs = [(); 2].map(|()| {
        let folder = tempfile::tempdir().expect("a folder");
        let output = demo(
            folder.path(),
            &[
                "--replay-only",
                "--replay-minutes",
                "5",
                "--seed",
                "7",
                "--json",
                "results.json",
            ],
        )
        .expect("the binary runs");
        assert!(output.status.success(), "{}", told(&output));
        let read = |name: &str| fs::read(folder.path().join(name)).expect("the demo wrote it");
        (output.stdout, read("out/demo.html"), read("results.json"))
    });
    let [(text, page, json), (text_again, page_again, json_again)] = runs;
    assert!(
        text == text_again,
        "{}\n{}",
        String::from_utf8_lossy(&text),
        String::from_utf8_lossy(&text_again)
    );
    assert!(page == page_again, "the pages differ");
    assert!(json == json_again, "the results differ");

    let results: serde_json::Value = serde_json::from_slice(&json).expect("the results are JSON");
    assert_eq!(results["schema"], "headroom.demo/v1");
    let fleets = results["replay"]["fleets"].as_array().expect("fleets");
    let policies: Vec<_> = fleets
        .iter()
        .map(|fleet| fleet["policy"].as_str().expect("a name"))
        .collect();
    assert_eq!(policies, ["headroom", "round-robin", "llm-d default"]);
    for fleet in fleets {
        let offered: u64 = fleet["kinds"]
            .as_object()
            .expect("kinds")
            .values()
            .map(|kind| kind["offered"].as_u64().expect("a count"))
            .sum();
        assert_eq!(
            Some(offered),
            results["replay"]["requests"].as_u64(),
            "every request has its fate"
        );
        assert!(fleet["hit_share"].as_f64() <= Some(1.0));
    }
    let page = String::from_utf8(page).expect("the page is text");
    assert!(page.contains("llm-d default") && !page.contains("<script") && !page.contains("NaN"));
}

#[test]
fn another_seed_is_another_replay() {
    let folder = tempfile::tempdir().expect("a folder");
    let run = |seed| {
        demo(
            folder.path(),
            &["--replay-only", "--replay-minutes", "1", "--seed", seed],
        )
        .expect("the binary runs")
        .stdout
    };
    assert_ne!(run("1"), run("2"));
}

#[test]
fn what_cannot_work_ends_at_once_with_a_sentence_that_says_what_to_do() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(
        folder.path().join("bad.jsonl"),
        "{\"timestamp\": 0, \"input_length\": -4}\n",
    )
    .expect("written");
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &["--live-only", "--envoy", "/nowhere/envoy"],
            1,
            "make tools",
        ),
        (
            &["--replay-only", "--trace", "missing.jsonl"],
            1,
            "missing.jsonl",
        ),
        (
            &["--replay-only", "--trace", "bad.jsonl"],
            1,
            "input_length",
        ),
        (
            &["--replay-only", "--report", "bad.jsonl/x.html"],
            1,
            "--report",
        ),
        (
            &["--replay-only", "--replay-min", "9", "--replay-max", "3"],
            2,
            "--replay-max is 3",
        ),
    ];
    for (flags, code, says) in cases {
        let output = demo(folder.path(), flags).expect("the binary runs");
        assert_eq!(
            output.status.code(),
            Some(code),
            "{flags:?}: {}",
            told(&output)
        );
        assert!(
            told(&output).starts_with("headroom: ") && told(&output).contains(says),
            "{flags:?}: {}",
            told(&output)
        );
        assert!(output.stdout.is_empty());
    }
}

/// What the replay exists to show, over a whole hour: at no more replica-seconds, Headroom's first tokens come earlier and
/// its attainment is higher than round-robin's, and neither is worse than llm-d's default profile's.
fn assert_the_hour_is_won(trace: &[&str]) {
    let folder = tempfile::tempdir().expect("a folder");
    let flags = [&["--replay-only", "--json", "results.json"], trace].concat();
    let output = demo(folder.path(), &flags).expect("the binary runs");
    assert!(output.status.success(), "{}", told(&output));
    let json = fs::read(folder.path().join("results.json")).expect("the demo wrote it");
    let results: serde_json::Value = serde_json::from_slice(&json).expect("the results are JSON");
    let fleets = &results["replay"]["fleets"];
    let number = |value: &serde_json::Value| value.as_f64().expect("a number");
    let ttft_p90 = |fleet: usize| number(&fleets[fleet]["kinds"]["interactive"]["ttft_ms"]["p90"]);
    let attainment = |fleet: usize| {
        let kind = &fleets[fleet]["kinds"]["interactive"];
        number(&kind["met"]) / number(&kind["offered"])
    };
    let (headroom, round_robin, llmd) = (0, 1, 2);
    let text = String::from_utf8_lossy(&output.stdout);
    for fixed in [round_robin, llmd] {
        let paid = |fleet: usize| number(&fleets[fleet]["mean_replicas"]);
        assert!(paid(headroom) <= paid(fixed), "{text}");
    }
    assert!(ttft_p90(headroom) < ttft_p90(round_robin), "{text}");
    assert!(attainment(headroom) > attainment(round_robin), "{text}");
    assert!(ttft_p90(headroom) <= 1.02 * ttft_p90(llmd), "{text}");
    assert!(attainment(headroom) >= attainment(llmd) - 0.005, "{text}");
}

#[test]
fn a_generated_hour_is_won() {
    assert_the_hour_is_won(&[]);
}

#[test]
fn the_recorded_hour_is_won() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("HEADROOM_DATA").map_or_else(beside, Into::into);
    let trace = folder.join("mooncake/conversation_trace.jsonl");
    if !trace.exists() {
        println!("not run: needs HEADROOM_DATA (mooncake/conversation_trace.jsonl)");
        return;
    }
    assert_the_hour_is_won(&["--trace", trace.to_str().expect("a path in UTF-8")]);
}
