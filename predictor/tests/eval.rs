//! `predictor::eval` on generated recordings, and on real ones where they are at hand.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use predictor::eval::{Evaluation, Metrics, Recording, prequential};
use predictor::{LearnerConfig, Target};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

const HEADER: &str = "model,gpu,n_gpus,users,status,start_ms,accept_ms,ttft_ms,e2e_ms,n_in,n_out,tpot_ms,\
                      itl_p50_ms,itl_p90_ms,itl_max_ms,st_waiting,st_running,st_prefill_tok,st_ctx_tok";

/// A recording in the published shape: levels of 1 to 16 users, two setups interleaved, some failed
/// and some very short requests.
fn generated() -> String {
    let mut random = StdRng::seed_from_u64(5);
    let mut csv = HEADER.to_owned();
    for users in [1_u32, 2, 4, 8, 16] {
        for row in 0..150 * users {
            let start = f64::from(row) * 800.0 / f64::from(users);
            let waiting = random.random_range(0..=users / 2);
            let running = random.random_range(0..users);
            let n_in = random.random_range(10..900_u32);
            let n_out = random.random_range(1..60_u32);
            let (prefill, context) = (waiting * 200, running * 400);
            let noise = 0.7 + 0.7 * random.random::<f64>();
            let ttft = noise * (20.0 + 0.1 * f64::from(n_in + prefill) + f64::from(running));
            let tpot = noise * (10.0 + 0.5 * f64::from(running) + 1e-3 * f64::from(context));
            let e2e = ttft + tpot * f64::from(n_out - 1);
            let status = if row % 40 == 39 { 500 } else { 200 };
            for gpu in ["A10", "H100"] {
                let _ = write!(
                    csv,
                    "\nlab/model,{gpu},2,{users},{status},{start:.0},5.0,{ttft:.1},{e2e:.1},{n_in},{n_out},{tpot:.2},\
                     1,1,1,{waiting},{running},{prefill},{context}"
                );
            }
        }
    }
    csv
}

fn written(name: &str, content: &[u8]) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    (folder, path)
}

fn evaluate(path: &Path, setup: &str, target: Target) -> Evaluation {
    let recording = Recording::read(path, setup).unwrap();
    prequential(&recording, target, LearnerConfig::default()).unwrap()
}

/// The metrics of (actual, p50, p90), from their definitions.
fn recomputed(rows: &[[f64; 3]]) -> Metrics {
    let n = rows.len() as f64;
    let mut apes: Vec<f64> = rows
        .iter()
        .map(|[actual, p50, _]| 100.0 * (p50 - actual).abs() / actual)
        .collect();
    apes.sort_by(f64::total_cmp);
    let half = apes.len() / 2;
    let median_ape = if apes.len() % 2 == 1 {
        apes[half]
    } else {
        (apes[half - 1] + apes[half]) / 2.0
    };
    let logs: f64 = rows
        .iter()
        .map(|[actual, p50, _]| (p50 / actual).ln())
        .sum();
    let covered = rows.iter().filter(|[actual, _, p90]| actual <= p90);
    Metrics {
        n: rows.len(),
        mape: apes.iter().sum::<f64>() / n,
        median_ape,
        bias: 100.0 * ((logs / n).exp() - 1.0),
        p90_coverage: covered.count() as f64 / n,
    }
}

fn assert_close(found: &Metrics, expected: &Metrics) {
    assert_eq!(found.n, expected.n);
    for (found, expected) in [
        (found.mape, expected.mape),
        (found.median_ape, expected.median_ape),
        (found.bias, expected.bias),
        (found.p90_coverage, expected.p90_coverage),
    ] {
        assert!((found - expected).abs() < 1e-9, "{found} {expected}");
    }
}

/// Reads the predictions as a stranger would and compares all metrics; `users` per eligible row.
fn assert_recomputable(evaluation: &Evaluation, users: &[u32]) {
    let mut csv = Vec::new();
    evaluation.write_predictions(&mut csv).unwrap();
    let csv = String::from_utf8(csv).unwrap();
    let mut lines = csv.lines();
    assert_eq!(lines.next(), Some("row,split,actual,p50,p90,p99"));
    let mut all = Vec::new();
    let mut by_level: BTreeMap<u32, Vec<[f64; 3]>> = BTreeMap::new();
    for (at, line) in lines.enumerate() {
        let fields: Vec<&str> = line.split(',').collect();
        assert_eq!(fields[..2], [at.to_string().as_str(), "test"]);
        let number = |index: usize| fields[index].parse::<f64>().unwrap();
        assert!(number(3) <= number(4) && number(4) <= number(5), "{line}");
        let row = [number(2), number(3), number(4)];
        all.push(row);
        by_level.entry(users[at]).or_default().push(row);
    }
    assert_eq!(all.len(), users.len());
    assert_close(&evaluation.metrics, &recomputed(&all));
    assert_eq!(
        evaluation.by_level.keys().collect::<Vec<_>>(),
        by_level.keys().collect::<Vec<_>>()
    );
    for (level, rows) in &by_level {
        assert_close(&evaluation.by_level[level], &recomputed(rows));
    }
}

fn eligible_users(path: &Path, setup: &str, target: Target) -> Vec<u32> {
    let recording = Recording::read(path, setup).unwrap();
    let rows = recording.requests.iter();
    rows.filter(|row| row.eligible(target))
        .map(|row| row.users)
        .collect()
}

#[test]
fn metrics_are_those_of_the_predictions_and_two_runs_are_identical() {
    let (_folder, path) = written("data.csv", generated().as_bytes());
    for target in Target::ALL {
        let evaluation = evaluate(&path, "lab/model|A10|2", target);
        let users = eligible_users(&path, "lab/model|A10|2", target);
        assert_recomputable(&evaluation, &users);
        assert_eq!(evaluation, evaluate(&path, "lab/model|A10|2", target));
        assert!(evaluation.metrics.mape < 25.0, "{:?}", evaluation.metrics);
        // The first levels have too few rows to say.
        for (users, of) in evaluation.by_level.range(4..) {
            let range = 0.87..=0.93;
            assert!(range.contains(&of.p90_coverage), "{target} {users}: {of:?}");
        }
    }
}

#[test]
fn the_first_request_gets_the_prior_and_only_eligible_rows_count() {
    let (_folder, path) = written("data.csv", generated().as_bytes());
    let recording = Recording::read(&path, "lab/model|A10|2").unwrap();
    let evaluation = evaluate(&path, "lab/model|A10|2", Target::Tpot);
    let first = recording
        .requests
        .iter()
        .find(|row| row.eligible(Target::Tpot));
    let prior =
        predictor::LatencyModel::prior().predict_target(&first.unwrap().features, Target::Tpot);
    assert!((evaluation.rows[0].p50 - f64::from(prior.p50)).abs() < 1e-5);
    let text = generated();
    let counted = text.lines().skip(1).filter(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        fields[1] == "A10" && fields[4] == "200" && fields[10].parse::<u32>().unwrap() >= 4
    });
    assert_eq!(evaluation.metrics.n, counted.count());
}

#[test]
fn labels_are_not_known_before_they_arrive() {
    // The same requests, every label held back to the end of its level: nothing to learn from until
    // then, so the first level is predicted by the prior throughout.
    let late: String = generated()
        .lines()
        .enumerate()
        .map(|(at, line)| {
            let mut fields: Vec<String> = line.split(',').map(str::to_owned).collect();
            if at > 0 {
                fields[8] = "10000000".to_owned();
            }
            fields.join(",") + "\n"
        })
        .collect();
    let (_folder, path) = written("data.csv", late.as_bytes());
    let evaluation = evaluate(&path, "lab/model|A10|2", Target::Tpot);
    let recording = Recording::read(&path, "lab/model|A10|2").unwrap();
    let rows = recording
        .requests
        .iter()
        .filter(|row| row.eligible(Target::Tpot));
    for (row, scored) in rows.zip(&evaluation.rows).filter(|(row, _)| row.users == 1) {
        let prior = predictor::LatencyModel::prior().predict_target(&row.features, Target::Tpot);
        assert!((scored.p90 - f64::from(prior.p90)).abs() < 1e-4);
    }
    assert!(evaluation.by_level[&2].mape < evaluation.by_level[&1].mape);
}

#[test]
fn compressed_data_reads_the_same() {
    let text = generated();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes()).unwrap();
    let (_gz_folder, gz) = written("data.csv.gz", &encoder.finish().unwrap());
    let (_folder, plain) = written("data.csv", text.as_bytes());
    let setup = "lab/model|H100|2";
    assert_eq!(
        evaluate(&gz, setup, Target::Ttft),
        evaluate(&plain, setup, Target::Ttft)
    );
}

#[test]
fn json_has_every_metric_and_level() {
    let (_folder, path) = written("data.csv", generated().as_bytes());
    let evaluation = evaluate(&path, "lab/model|A10|2", Target::Ttft);
    let json = serde_json::to_value(&evaluation).unwrap();
    for object in [&json, &json["by_level"]["16"]] {
        for key in ["n", "mape", "median_ape", "bias", "p90_coverage"] {
            assert!(object[key].is_number(), "{key}: {object}");
        }
    }
    assert_eq!(json["target"], "ttft");
    assert_eq!(json["protocol"], "prequential");
}

#[test]
fn what_is_wrong_with_the_data_is_said() {
    let text = generated();
    let error = |content: &str, setup: &str| {
        let (_folder, path) = written("data.csv", content.as_bytes());
        Recording::read(&path, setup).unwrap_err().to_string()
    };
    let missing = Recording::read(Path::new("nowhere.csv"), "a|b|1").unwrap_err();
    assert!(missing.to_string().starts_with("cannot read nowhere.csv: "));
    let unknown = error(&text, "lab/model|A1O|2");
    assert!(
        unknown.contains("setup `lab/model|A1O|2` is not in the data"),
        "{unknown}"
    );
    assert!(
        unknown.contains("the nearest are `lab/model|A10|2`"),
        "{unknown}"
    );
    let column = error(&text.replace("st_running", "running"), "lab/model|A10|2");
    assert!(column.contains("has no column `st_running`"), "{column}");
    let lines: Vec<&str> = text.lines().collect();
    let broken = lines[1].replacen(",200,", ",200,soon", 1);
    let value = error(&format!("{}\n{broken}", lines[0]), "lab/model|A10|2");
    assert!(
        value.contains("line 2: start_ms is `soon0`, it must be a finite number"),
        "{value}"
    );
    let (_folder, path) = written(
        "data.csv",
        format!("{}\n{}", lines[0], lines[1].replacen(",200,", ",500,", 1)).as_bytes(),
    );
    let recording = Recording::read(&path, "lab/model|A10|2").unwrap();
    let empty = prequential(&recording, Target::Ttft, LearnerConfig::default()).unwrap_err();
    assert!(
        empty.to_string().contains("no eligible row for ttft"),
        "{empty}"
    );
}

/// Where real recordings lie, if anywhere.
fn real_data() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data");
    let folder = std::env::var_os("HEADROOM_DATA").map_or(beside, PathBuf::from);
    let path = folder.join("ibm-llm-pilot/requests_with_state.csv.gz");
    path.is_file().then_some(path)
}

#[test]
fn real_setups_are_recomputable_identical_and_within_bounds() {
    let Some(path) = real_data() else {
        println!("not run: needs HEADROOM_DATA (ibm-llm-pilot/requests_with_state.csv.gz)");
        return;
    };
    for setup in [
        "llama-13b|H100|2",
        "llama-7b|A10|1",
        "google/flan-t5-xxl|A100|2",
    ] {
        let recording = Recording::read(&path, setup).unwrap();
        for (target, most_mape) in [(Target::Ttft, 36.0), (Target::Tpot, 26.0)] {
            let run = || prequential(&recording, target, LearnerConfig::default()).unwrap();
            let evaluation = run();
            assert_eq!(evaluation, run());
            let eligible = recording.requests.iter().filter(|row| row.eligible(target));
            let users: Vec<u32> = eligible.map(|row| row.users).collect();
            assert_recomputable(&evaluation, &users);
            let of = evaluation.metrics;
            assert!(
                of.mape < most_mape && of.bias.abs() < 8.0,
                "{setup} {target}: {of:?}"
            );
            assert!(
                (0.87..0.93).contains(&of.p90_coverage),
                "{setup} {target}: {of:?}"
            );
        }
    }
}
