//! The page of fixed findings, compared with the one that is committed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use controller_core::fleet::{KindScore, Percentiles, Sample, Slo};
use predictor::{State, Target};
use simulator_core::Profile;
use simulator_core::trace::{LengthStats, TraceStats};

use super::*;
use crate::demo::args::{LiveSettings, ReplaySettings};
use crate::demo::outcome::{LiveSample, PredictorScores, SCHEMA, Scores, TraceFacts};

const SLO: Slo = Slo {
    ttft_ms: 2_000.0,
    tpot_ms: 150.0,
};

fn scores(offered: u64, met: u64, ttft: [f64; 3]) -> Scores {
    let [p50, p90, p99] = ttft;
    let score = KindScore {
        offered,
        served: offered - 3,
        refused: BTreeMap::from([("rejected-slo-unattainable", 2)]),
        expired: 1,
        met,
        ttft_ms: Percentiles { p50, p90, p99 },
        tpot_ms: Percentiles {
            p50: 21.0,
            p90: 38.0,
            p99: 60.5,
        },
    };
    score.into()
}

fn kinds(met: u64, ttft: [f64; 3]) -> BTreeMap<&'static str, Scores> {
    Kind::ALL
        .into_iter()
        .map(|kind| (kind.name(), scores(100, met, ttft)))
        .collect()
}

fn predictions() -> Vec<PredictorScores> {
    let one = |target| PredictorScores {
        target,
        state: State::Trained,
        labels: 900,
        refits: 7,
        mape: 14.0,
        median_ape: 9.5,
        coverage_p90: 0.91,
    };
    vec![one(Target::Ttft), one(Target::Tpot)]
}

fn scalings() -> Vec<Scaling> {
    let up = Scaling {
        at: 28.0,
        from: 1,
        to: 3,
        reasons: vec!["24.0 req/s forecast, 9.1 per replica & <SLO> p90".into()],
    };
    vec![
        up,
        Scaling {
            at: 71.0,
            from: 3,
            to: 1,
            reasons: vec!["8.0 req/s forecast".into(), "enough for 10 s".into()],
        },
    ]
}

fn fleet(policy: &str, met: u64, ttft_p90: f64) -> Fleet {
    let sample = |step: u32| Sample {
        at: f64::from(step) * 30.0,
        offered: 3.0 + f64::from(step % 3),
        ready: 2 + step % 2,
        in_transition: step % 2,
        queued: u64::from(step),
        in_flight: 20,
        ttft_p50: Some(400.0),
        ttft_p90: (step != 4).then_some(ttft_p90 + f64::from(step) * 50.0),
    };
    Fleet {
        policy: policy.into(),
        kinds: kinds(met, [400.0, ttft_p90, f64::INFINITY]),
        hit_share: 0.31,
        makespan_s: 300.0,
        mean_replicas: 2.5,
        replica_seconds: 750.0,
        predictor: if policy == "headroom" {
            predictions()
        } else {
            Vec::new()
        },
        scalings: if policy == "headroom" {
            scalings()
        } else {
            Vec::new()
        },
        timeline: (1..=10).map(sample).collect(),
    }
}

fn live() -> Live {
    let sample = |second: u32| LiveSample {
        at: f64::from(second),
        offered: if (26..56).contains(&second) {
            24.0
        } else {
            8.0
        },
        ttft_p50: (second > 1).then_some(120.0),
        ttft_p90: (second > 1).then_some(300.0 + f64::from(second % 7) * 200.0),
        tpot_p50: Some(19.0),
        tpot_p90: Some(33.0),
        hit_share: Some(0.3),
        ttft_error: (second > 5).then_some(12.0),
        tpot_error: (second > 5).then_some(4.0),
        model: if second > 12 {
            State::Trained
        } else {
            State::Warming
        },
        queued: u64::from(second % 4),
        shed: u64::from(second / 9),
        dropped: 0,
        failed: 0,
        ready: if (35..73).contains(&second) { 3 } else { 1 },
        starting: if (28..35).contains(&second) { 2 } else { 0 },
        draining: 0,
    };
    let timeline: Vec<LiveSample> = (1..=90).map(sample).collect();
    Live {
        settings: LiveSettings {
            profile: "llama-3.1-8b-rtxpro6000".into(),
            model: "llama".into(),
            rates: "8:25s,24:30s,8:35s".parse().unwrap(),
            shorten: std::num::NonZeroU32::new(8).unwrap(),
            min: 1,
            max: 10,
            startup: Duration::from_secs(6),
            scale_down_guard: Duration::from_secs(10),
            concurrency: 16,
            slo: SLO,
        },
        envoy: "Envoy 1.40.0".into(),
        kinds: kinds(95, [120.0, 900.0, 2_400.0]),
        hit_share: 0.3,
        hit_bound: 0.366,
        trained_at_s: Some(13.0),
        mean_replicas: 2.0,
        client_lateness_ms: 4.0,
        problems: BTreeMap::new(),
        predictor: predictions(),
        scalings: scalings(),
        timeline,
    }
}

fn findings() -> Findings {
    let length = LengthStats {
        mean: 12_035.0,
        p50: 6_909,
        p99: 85_401,
    };
    let stats = TraceStats {
        requests: 12_031,
        span_seconds: 3_537.0,
        requests_per_second: 3.4,
        slowest_minute: 2.4,
        fastest_minute: 4.1,
        input: length,
        output: length,
        prefix_hit_share: 0.366,
    };
    let settings = ReplaySettings {
        profile: Profile::builtin("qwen3-32b-h100-tp2").unwrap(),
        startup: Duration::from_secs(100),
        slo: Slo {
            ttft_ms: 5_000.0,
            tpot_ms: 150.0,
        },
        min: 1,
        max: 24,
        initial: 4,
        concurrency: 64,
        scale_down_guard: Duration::from_secs(120),
        minutes: Some(5),
    };
    let fleets = vec![
        fleet("headroom", 97, 1_200.0),
        fleet("round-robin", 61, 9_000.0),
        fleet("llm-d default", 96, 1_300.0),
    ];
    Findings {
        schema: SCHEMA,
        version: "0.0.0",
        command: "headroom demo --seed 1".into(),
        seed: 1,
        kinds_percent: [50, 30, 20],
        trace: TraceFacts {
            name: "a trace".into(),
            stats,
        },
        live: Some(live()),
        replay: Some(Replay {
            settings,
            requests: 1_000,
            hit_bound: 0.366,
            fleets,
        }),
    }
}

/// Compares with the committed file; `UPDATE_GOLDEN=1` writes it anew.
fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    let line = golden
        .lines()
        .zip(text.lines())
        .position(|(a, b)| a != b)
        .map_or(golden.lines().count(), |line| line)
        + 1;
    assert!(
        golden == text,
        "{name} differs from line {line} on; if that is meant, run with UPDATE_GOLDEN=1 and look at the difference"
    );
}

#[test]
fn the_page_is_the_golden_one() {
    assert_golden("demo.html", &render(&findings()).unwrap());
}

#[test]
fn the_printed_summary_is_the_golden_one() {
    assert_golden("demo.txt", &crate::demo::summary(&findings()));
}

#[test]
fn the_page_needs_nothing_else_and_escapes_what_it_shows() {
    let page = render(&findings()).unwrap();
    for foreign in [
        "<script", "http://", "https://", "url(", "@import", "NaN", "inf",
    ] {
        let allowed = if foreign == "inf" {
            page.matches("infinite").count()
        } else {
            0
        };
        assert_eq!(page.matches(foreign).count(), allowed, "{foreign}");
    }
    assert!(page.contains("&#38; &#60;SLO&#62;") || page.contains("&amp; &lt;SLO&gt;"));
    assert_eq!(page.matches("<svg").count(), 9);
}

#[test]
fn the_headline_says_how_it_went() {
    let mut findings = findings();
    let both = headline(&findings);
    assert!(
        both.contains("Live, 95.0 %")
            && both.contains("Replayed, 97.0 %")
            && both.contains("96.0 % (llm-d default)"),
        "{both}"
    );
    findings.live = None;
    assert!(
        headline(&findings).starts_with("Replayed, 97.0 % of interactive requests met both SLOs")
    );
}

#[test]
fn json_has_the_schema_and_no_infinity() {
    let json = serde_json::to_value(findings()).unwrap();
    assert_eq!(json["schema"], "headroom.demo/v1");
    assert_eq!(
        json["replay"]["fleets"][1]["kinds"]["interactive"]["ttft_ms"]["p99"],
        serde_json::Value::Null
    );
    assert_eq!(json["live"]["settings"]["rates"][1]["rate"], 24.0);
    assert_eq!(
        json["replay"]["fleets"][0]["kinds"]["plain"]["attainment"],
        0.97
    );
}
