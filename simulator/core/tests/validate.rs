//! Recorded runs, real and made by the engine itself, against replays.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests")]

use simulator_core::validate::{
    Costs, Recorded, Recording, Replay, Replayed, Sample, Score, validate,
};
use simulator_core::{Profile, StepCost};
use std::fs::read_to_string;
use std::path::PathBuf;

/// Folder of recorded data: `HEADROOM_DATA`, else `shared/data` beside the repository if it exists.
fn data() -> Option<PathBuf> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data");
    let folder = std::env::var_os("HEADROOM_DATA").map_or_else(beside, PathBuf::from);
    folder
        .join("llmservingsim-vllm")
        .is_dir()
        .then(|| folder.join("llmservingsim-vllm"))
}

/// A real run; prints why there is none.
fn real(run: &str) -> Option<Recording> {
    let Some(folder) = data() else {
        println!("not run: needs HEADROOM_DATA (recorded runs in llmservingsim-vllm/)");
        return None;
    };
    let read =
        |name: &str| read_to_string(folder.join(format!("{run}_Llama-3.1-8B_{name}"))).unwrap();
    let (meta, requests, series) = (
        read("meta.json"),
        read("requests.jsonl"),
        read("timeseries.csv"),
    );
    Some(Recording::parse(&meta, &requests, Some(&series), None).unwrap())
}

/// A step that takes as long whatever is in it.
fn constant(base_ms: f64) -> Costs {
    Costs::Given(StepCost {
        base_ms,
        prefill_ms_per_token: 0.0,
        sequence_ms: 0.0,
        kv_ms_per_token: 0.0,
        noise: 0.0,
    })
}

fn assert_no_constant_passes(recording: &Recording) {
    for base_ms in 5..100 {
        let score = validate(recording, constant(f64::from(base_ms)))
            .unwrap()
            .score;
        assert!(
            !score.passes(),
            "a constant step of {base_ms} ms passes: {score:?}"
        );
    }
}

fn assert_fit_passes(recording: &Recording) {
    let score = validate(recording, Costs::FitFirstHalf).unwrap().score;
    assert!(score.passes(), "{score:#?}");
    assert_eq!(score.bars().len(), 8, "all figures are scored");
}

#[test]
fn a_fit_to_the_first_half_of_the_rtx_4090_run_predicts_the_second() {
    real("RTX4090").iter().for_each(assert_fit_passes);
}

#[test]
fn a_fit_to_the_first_half_of_the_rtx_pro_6000_run_predicts_the_second() {
    real("RTXPRO6000").iter().for_each(assert_fit_passes);
}

#[test]
fn a_constant_step_time_fails_on_both_real_runs() {
    real("RTX4090").iter().for_each(assert_no_constant_passes);
    real("RTXPRO6000")
        .iter()
        .for_each(assert_no_constant_passes);
}

#[test]
fn the_builtin_profiles_are_the_fits() {
    for (run, name) in [
        ("RTX4090", "llama-3.1-8b-rtx4090"),
        ("RTXPRO6000", "llama-3.1-8b-rtxpro6000"),
    ] {
        let Some(recording) = real(run) else { return };
        let score = validate(
            &recording,
            Costs::Given(Profile::builtin(name).unwrap().step),
        )
        .unwrap()
        .score;
        assert!(score.passes(), "{name}: {score:#?}");
    }
}

/// The engine that made the twin of a recording.
fn twin_profile() -> Profile {
    Profile {
        step: StepCost {
            base_ms: 15.0,
            prefill_ms_per_token: 0.08,
            sequence_ms: 0.15,
            kv_ms_per_token: 0.0001,
            noise: 0.02,
        },
        kv_blocks: Some(2_587),
        max_num_seqs: 64,
        max_model_len: 8_192,
        ..Profile::builtin("llama-3.1-8b-rtx4090").unwrap()
    }
}

/// Some spread-out number of `range` for each `index`.
fn spread(index: u32, salt: u32, range: std::ops::Range<u32>) -> u32 {
    let hash = (index.wrapping_mul(2_654_435_761) ^ salt).wrapping_mul(0x9e37_79b9);
    range.start + ((u64::from(hash) * u64::from(range.len() as u32)) >> 32) as u32
}

/// A recording of the engine itself: 200 requests, idle and crowded by turns.
fn twin() -> Recording {
    let mut queued = 0.0;
    let request = |index: u32| {
        let gap = if index % 50 < 25 { 600 } else { 60 };
        queued += f64::from(spread(index, 1, 0..gap)) / 1e3;
        let times = Replayed {
            scheduled: 0.0,
            first_token: 0.0,
            last_token: 0.0,
        };
        let (input_tokens, output_tokens) =
            (spread(index, 2, 50..2_500), spread(index, 3, 50..400));
        Recorded {
            input_tokens,
            output_tokens,
            queued,
            times,
        }
    };
    let mut requests: Vec<Recorded> = (0..200).map(request).collect();
    let start = requests[0].queued;
    requests
        .iter_mut()
        .for_each(|request| request.queued -= start);
    let ticks: Vec<f64> = (1..60).map(f64::from).collect();
    let replay = Replay::of(&requests, &twin_profile(), &ticks).unwrap();
    for (request, times) in requests.iter_mut().zip(&replay.requests) {
        request.times = *times;
    }
    let series = ticks
        .iter()
        .zip(&replay.series)
        .map(|(&t, &(running, waiting))| Sample {
            t,
            running: f64::from(running),
            waiting: f64::from(waiting),
        });
    let meta = r#"{"engine_kwargs": {"max_num_seqs": 64, "max_num_batched_tokens": 2048, "max_model_len": 8192},
        "kv_cache": {"num_gpu_blocks": 2588, "block_size": 16}}"#;
    let line = r#"{"input_toks": 1, "output_toks": 1, "queued_ts": 0, "scheduled_ts": 0, "first_token_ts": 0, "last_token_ts": 0}"#;
    let parsed = Recording::parse(meta, &[line; 4].join("\n"), None, None).unwrap();
    Recording {
        requests,
        series: series.collect(),
        ..parsed
    }
}

#[test]
fn a_fit_recovers_the_costs_of_the_engine_that_was_recorded() {
    let recording = twin();
    let fitted = validate(&recording, Costs::FitFirstHalf).unwrap();
    assert!(fitted.score.passes(), "{:#?}", fitted.score);
    let (found, made) = (fitted.profile.step, twin_profile().step);
    let close = |found: f64, made: f64, share: f64| (found / made - 1.0).abs() < share;
    assert!(
        close(found.prefill_ms_per_token, made.prefill_ms_per_token, 0.05),
        "{found:?}"
    );
    assert!(close(found.base_ms, made.base_ms, 0.1), "{found:?}");
    let crowded =
        |step: StepCost| step.base_ms + 40.0 * step.sequence_ms + 40_000.0 * step.kv_ms_per_token;
    assert!(close(crowded(found), crowded(made), 0.05), "{found:?}");
}

#[test]
fn a_constant_step_time_fails_on_a_recording_of_the_engine() {
    assert_no_constant_passes(&twin());
}

#[test]
fn a_recording_replayed_with_its_own_costs_scores_near_zero() {
    let score = validate(&twin(), Costs::Given(twin_profile().step))
        .unwrap()
        .score;
    let worst = score
        .bars()
        .iter()
        .map(|bar| bar.value.abs() / bar.limit)
        .fold(0.0, f64::max);
    assert!(worst < 0.5, "{score:#?}");
}

#[test]
fn the_fit_reads_no_timestamp_of_the_second_half_and_no_series() {
    let recording = twin();
    let mut blind = recording.clone();
    blind.series.clear();
    for request in &mut blind.requests[100..] {
        request.times.first_token += 1_000.0;
        request.times.last_token += 2_000.0;
    }
    let fit = |recording: &Recording| {
        validate(recording, Costs::FitFirstHalf)
            .unwrap()
            .profile
            .step
    };
    assert_eq!(fit(&recording), fit(&blind));
}

#[test]
fn scores_are_signed_percentages_of_the_second_half() {
    let recording = twin();
    let ticks: Vec<f64> = recording.series.iter().map(|sample| sample.t).collect();
    let mut replay = Replay {
        requests: recording
            .requests
            .iter()
            .map(|request| request.times)
            .collect(),
        ..Replay::default()
    };
    replay.series = recording
        .series
        .iter()
        .map(|sample| (sample.running as u32 + 1, sample.waiting as u32))
        .collect();
    assert_eq!(ticks.len(), replay.series.len());
    let exact = Score::of(&recording, &replay);
    assert_eq!(
        (exact.tpot_mean, exact.makespan, exact.waiting),
        (0.0, 0.0, Some(0.0))
    );
    let most = recording
        .series
        .iter()
        .map(|sample| sample.running)
        .fold(0.0, f64::max);
    assert!((exact.running.unwrap() - 100.0 / most).abs() < 1e-9);
    for (index, times) in replay.requests.iter_mut().enumerate() {
        let stretch = if index < 100 { 5.0 } else { 1.1 };
        times.last_token = times.first_token + stretch * (times.last_token - times.first_token);
    }
    let slower = Score::of(&recording, &replay);
    assert!(
        (slower.tpot_mean - 10.0).abs() < 1e-9 && (slower.tpot_p90 - 10.0).abs() < 1e-9,
        "{slower:?}"
    );
    assert_eq!(slower.scheduled_ttft_mean, 0.0);
}

#[test]
fn what_is_wrong_with_a_file_is_told_by_line_field_and_value() {
    let meta = r#"{"engine_kwargs": {"max_num_seqs": 8, "max_num_batched_tokens": 2048}}"#;
    let line = r#"{"input_toks": 10, "output_toks": 2, "queued_ts": 1.0, "scheduled_ts": 1.0, "first_token_ts": 2.0, "last_token_ts": 3.0}"#;
    let error = |meta: &str, lines: &[&str], series: Option<&str>, blocks| {
        Recording::parse(meta, &lines.join("\n"), series, blocks)
            .unwrap_err()
            .to_string()
    };
    let bad = line.replace("\"output_toks\": 2", "\"output_toks\": -2");
    assert_eq!(
        error(meta, &[line, &bad], None, None),
        "requests line 2: output_toks is -2, must be a positive integer"
    );
    let late = line.replace("\"scheduled_ts\": 1.0", "\"scheduled_ts\": 9.0");
    assert!(
        error(meta, &[&late], None, None)
            .starts_with("requests line 1: first_token_ts is 2, must not be before")
    );
    assert!(error(meta, &[line, "{"], None, None).starts_with("requests line 2: "));
    assert!(error(meta, &[line], None, None).contains("there are 1 requests"));
    assert!(error("{}", &[line], None, None).contains("/engine_kwargs/max_num_seqs is missing"));
    assert!(
        error(&meta.replace("8,", "\"8\","), &[line], None, None).contains("max_num_seqs is \"8\"")
    );
    assert!(
        error(meta, &[line; 4], Some("t,running\n"), None)
            .contains("timeseries line 1: no column waiting")
    );
    let series = "t,running,waiting\n1,2,3\n2,x,3\n";
    assert!(
        error(meta, &[line; 4], Some(series), None).contains("timeseries line 3: running is \"x\"")
    );
    assert!(error(meta, &[line; 4], None, Some(1)).contains("at least 2"));
}

#[test]
fn recorded_blocks_go_before_those_given() {
    let line = r#"{"input_toks": 10, "output_toks": 2, "queued_ts": 1.0, "scheduled_ts": 1.0, "first_token_ts": 2.0, "last_token_ts": 3.0}"#;
    let blocks = |kv_cache: &str, given| {
        let limits =
            r#"{"max_num_seqs": 8, "max_num_batched_tokens": 2048, "max_model_len": null}"#;
        let meta = format!(r#"{{"engine_kwargs": {limits}, "kv_cache": {kv_cache}}}"#);
        let recording = Recording::parse(&meta, &[line; 4].join("\n"), None, given).unwrap();
        recording.profile(twin_profile().step).kv_blocks
    };
    assert_eq!(
        blocks(r#"{"num_gpu_blocks": 100}"#, Some(50)),
        Some(99),
        "one block is never handed out"
    );
    assert_eq!(blocks("{}", Some(50)), Some(49));
    assert_eq!(blocks("{}", None), None);
}
