//! What a controller reads over TLS, and what a restart keeps.

use crate::proxy::*;
use epp::admin_port::{AdminPortOptions, Open, TokenFile};
use epp::{Handle, Options};
use epp_core::{Config, DemandReport, Objectives};
use names::admin;
use predictor::snapshot::{ModelSet, decode};
use predictor::{Features, LearnerConfig, Observation, State, Target};
use reqwest::{Client, Response};
use runtime::{Clock, Shutdown};
use std::path::Path;
use std::sync::Arc;

/// Streams through one endpoint before its labels count.
const COLD: usize = 10;

fn options() -> Options {
    let open = AdminPortOptions {
        address: ([127, 0, 0, 1], 0).into(),
        tls: None,
        gate: Arc::new(Open),
    };
    Options {
        name: "epp-0".into(),
        admin_port: Some(open),
        learner: LearnerConfig {
            min_refit_interval: std::time::Duration::from_millis(1),
            ..LearnerConfig::default()
        },
        trainer_cpu_share: 1.0,
        ..Options::local()
    }
}

async fn start(options: Options) -> Handle {
    let config = Config {
        metrics: None,
        ..Config::headroom_default()
    };
    let picker = epp::start(config, options, Clock::start(), Shutdown::new())
        .await
        .unwrap();
    picker.set_endpoints(vec![endpoint(1)], Objectives::default());
    picker
}

async fn remembering(directory: &Path) -> Handle {
    let model_dir = Some(directory.to_owned());
    start(Options {
        model_dir,
        ..options()
    })
    .await
}

async fn end(picker: Handle) {
    picker.stop();
    picker.join().await;
}

async fn get(picker: &Handle, path: &str, token: &str) -> Response {
    runtime::tls::install_provider();
    // The picker vouches for itself; who it is is not what is tested here.
    let client = Client::builder()
        .tls_danger_accept_invalid_certs(true)
        .build()
        .unwrap();
    let url = format!("https://{}{path}", picker.admin_port.unwrap());
    client.get(url).bearer_auth(token).send().await.unwrap()
}

async fn report(picker: &Handle, mix_after: u64) -> DemandReport {
    let path = format!("{}?mix_after={mix_after}", admin::DEMAND);
    let answer = get(picker, &path, "any").await;
    assert_eq!(answer.status(), 200);
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

async fn models(picker: &Handle) -> ModelSet {
    let answer = get(picker, admin::MODEL, "any").await;
    assert_eq!(answer.status(), 200);
    decode(&answer.bytes().await.unwrap()).unwrap()
}

/// One streamed answer of nine tokens.
async fn serve_one(picker: &Handle) {
    let mut stream = Stream::open(picker).await;
    stream
        .say(request_headers(&[("x-llm-d-slo-ttft-ms", "9000")]))
        .await;
    stream.say(request_body(STREAMED, true)).await;
    stream.next().await;
    stream.next().await;
    stream.say(response_headers("text/event-stream")).await;
    stream.next().await;
    stream
        .say(response_body(
            "data: {\"choices\":[{\"text\":\"a\"}]}\n\n",
            false,
        ))
        .await;
    stream.next().await;
    let usage = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":5,\"completion_tokens\":9}}\n\ndata: [DONE]\n\n";
    stream.say(response_body(usage, true)).await;
    stream.half_close();
    stream.rest().await.unwrap();
}

#[tokio::test]
async fn a_controller_reads_demand_as_it_comes() {
    let picker = start(options()).await;
    for _ in 0..3 {
        serve_one(&picker).await;
    }
    let first = report(&picker, 0).await;
    assert_eq!(
        (first.epp.as_str(), first.pool.name.as_str()),
        ("epp-0", "default")
    );
    assert!(first.ready && first.incarnation > 0);
    let offered = first.totals.offered();
    assert_eq!((offered.requests, first.in_flight), (3, 0));
    assert_eq!((first.mix_from, first.mix.len()), (0, 3));
    let sample = first.mix[0];
    assert_eq!(
        (sample.output_tokens, sample.slo.ttft_ms),
        (9, Some(9_000.0))
    );
    assert_eq!(first.model_names["m"], 3);
    assert_eq!(first.endpoints[0].address, "127.0.0.1:8000");
    serve_one(&picker).await;
    let second = report(&picker, 3).await;
    assert_eq!((second.mix_from, second.mix.len()), (3, 1));
    assert_eq!(second.incarnation, first.incarnation);
    picker.shutdown().begin_drain();
    assert!(!report(&picker, 4).await.ready, "still readable, and tells");
    end(picker).await;
}

#[tokio::test]
async fn the_port_asks_for_the_token() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret").unwrap();
    let mut options = options();
    if let Some(port) = &mut options.admin_port {
        port.gate = Arc::new(TokenFile {
            path: file.path().to_owned(),
        });
    }
    let picker = start(options).await;
    assert_eq!(get(&picker, admin::DEMAND, "guess").await.status(), 401);
    assert_eq!(get(&picker, admin::DEMAND, "secret").await.status(), 200);
    assert_eq!(get(&picker, "/metrics", "secret").await.status(), 404);
    end(picker).await;
}

#[tokio::test]
async fn labels_of_real_streams_outlive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let first = remembering(directory.path()).await;
    const LABELS: u64 = 30;
    for _ in 0..COLD + LABELS as usize {
        serve_one(&first).await;
    }
    until("all labels to be learned", async || {
        let report = first.trainer().report();
        (report.ttft.labels, report.tpot.labels) == (LABELS, LABELS)
    })
    .await;
    let before = first.trainer().report();
    end(first).await;
    let second = remembering(directory.path()).await;
    let after = second.trainer().report();
    assert_eq!((after.ttft.labels, after.tpot.labels), (LABELS, LABELS));
    assert_eq!(
        (after.ttft.rows, after.ttft.mape),
        (before.ttft.rows, before.ttft.mape)
    );
    assert_ne!(after.ttft.state, State::Prior);
    let totals = report(&second, 0).await.totals;
    assert_eq!(totals.offered().requests, 0, "counters belong to one life");
    end(second).await;
}

#[tokio::test]
async fn a_restart_is_trained_without_a_new_label_and_predicts_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let first = remembering(directory.path()).await;
    for number in 0..400_u32 {
        let features = Features {
            running: (number % 13) as f32,
            waiting: (number % 5) as f32,
            waiting_tokens: (number % 5) as f32 * 150.0,
            ..Features::idle(20.0 + (number * 37 % 900) as f32)
        };
        let ahead = features.input_tokens + features.waiting_tokens;
        let labels = [
            (Target::Ttft, 20.0 + 0.2 * ahead),
            (Target::Tpot, 15.0 + features.running),
        ];
        for (target, actual_ms) in labels {
            let at = first.clock().now();
            let predicted = None;
            first.trainer().observe(
                "L4",
                Observation {
                    target,
                    features,
                    actual_ms,
                    at,
                    predicted,
                },
            );
        }
    }
    let trained = async || {
        let (model, report) = (first.trainer().model(), first.trainer().report());
        model.trusted() && (report.ttft.labels, report.tpot.labels) == (400, 400)
    };
    until("it to be trained", trained).await;
    end(first).await;
    // What it knew at its very end is what it saved.
    let saved = |picker: &Handle| picker.trainer().models().of("L4").clone();
    let second = remembering(directory.path()).await;
    let kept = saved(&second);
    assert!(kept.trusted());
    let served = models(&second).await;
    end(second).await;
    let third = remembering(directory.path()).await;
    assert!(saved(&third).trusted());
    assert_eq!(&*served.classes[0].class, "L4");
    assert_eq!(served.classes[0].labels, [400, 400]);
    for tokens in [1.0, 50.0, 333.0, 5_000.0] {
        let row = Features::idle(tokens);
        let expected = kept.predict_one(&row);
        assert_eq!(saved(&third).predict_one(&row), expected);
        assert_eq!(served.classes[0].model.predict_one(&row), expected);
    }
    let told = report(&third, 0).await;
    assert_eq!(
        (told.models[0].class.as_str(), told.models[0].ttft.state),
        ("L4", State::Trained)
    );
    assert_eq!(told.models[0].checksum, served.classes[0].checksum());
    end(third).await;
}
