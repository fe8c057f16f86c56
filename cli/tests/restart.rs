//! A picker that is killed at any moment still has its models when it comes back.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "in a test, to expect is to assert"
)]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use predictor::snapshot::{ModelSet, decode};
use predictor::{Features, LearnerConfig, Learners, Observation, State, Target};

/// The picker's process, killed with this.
struct Picker {
    process: Child,
    admin_port: String,
}

impl Picker {
    /// Starts one and waits until it says where it serves.
    fn start(folder: &Path) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_headroom"))
            .args([
                "epp",
                "--log-json",
                "--host",
                "127.0.0.1",
                "--endpoints-file",
                "endpoints.yaml",
            ])
            .args([
                "--grpc-port",
                "0",
                "--grpc-health-port",
                "0",
                "--metrics-port",
                "0",
            ])
            .args(["--admin-port", "0", "--model-dir", "models"])
            .current_dir(folder)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary runs");
        let log = process.stderr.take().expect("it was piped");
        let mut picker = Self {
            process,
            admin_port: String::new(),
        };
        let mut told = Vec::new();
        for line in BufReader::new(log).lines() {
            let line = line.expect("the log is text");
            if let Some((_, rest)) = line.split_once("Some(127.0.0.1:") {
                let port = rest.split(')').next().expect("a port").to_owned();
                picker.admin_port = format!("127.0.0.1:{port}");
                return picker;
            }
            told.push(line);
        }
        panic!("the picker ended: {}", told.join("\n"))
    }

    async fn models(&self) -> ModelSet {
        let client = reqwest::Client::builder()
            .tls_danger_accept_invalid_certs(true)
            .build()
            .expect("a client");
        let url = format!("https://{}{}", self.admin_port, names::admin::MODEL);
        let answer = client.get(url).send().await.expect("an answer");
        decode(&answer.bytes().await.expect("a body")).expect("models")
    }
}

impl Drop for Picker {
    /// SIGKILL: nothing gets to clean up.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A learner that has seen enough of both latencies.
fn trained() -> (Learners, Duration) {
    let mut learners = Learners::new(LearnerConfig::default());
    let mut now = Duration::ZERO;
    for number in 0..600_u32 {
        now += Duration::from_millis(50);
        let features = Features {
            running: (number % 13) as f32,
            ..Features::idle(20.0 + (number * 37 % 900) as f32)
        };
        let labels = [
            (Target::Ttft, 20.0 + 0.2 * features.input_tokens),
            (Target::Tpot, 15.0 + features.running),
        ];
        for (target, actual_ms) in labels {
            let (at, predicted) = (now, None);
            learners.observe(
                "H100",
                Observation {
                    target,
                    features,
                    actual_ms,
                    at,
                    predicted,
                },
            );
        }
        while let Some(due) = learners.due(now) {
            learners.refit(due, || now);
        }
    }
    assert!(learners.models(now).of("H100").trusted());
    (learners, now)
}

#[tokio::test]
async fn a_killed_picker_comes_back_trained_and_a_damaged_file_is_moved_aside() {
    runtime::tls::install_provider();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("endpoints.yaml"), "endpoints: []").expect("written");
    let models = folder.path().join("models");
    std::fs::create_dir(&models).expect("made");
    let (learners, now) = trained();
    let written = runtime::Clock::start().unix_ms();
    let file = models.join("learners.snapshot");
    std::fs::write(&file, learners.save(now, written).expect("saved")).expect("written");
    let row = Features::idle(333.0);
    let expected = learners.models(now).of("H100").predict_one(&row);
    for killed in 0..3 {
        let picker = Picker::start(folder.path());
        let set = picker.models().await;
        let model = &set.classes[0].model;
        for target in Target::ALL {
            assert_eq!(model.state(target), State::Trained, "killed {killed} times");
        }
        assert_eq!(set.classes[0].labels, [600, 600]);
        assert_eq!(model.predict_one(&row), expected);
    }
    std::fs::write(&file, b"HDRMLRNR and then something else").expect("written");
    let picker = Picker::start(folder.path());
    assert_eq!(
        picker.models().await.classes[0].model.state(Target::Ttft),
        State::Prior
    );
    assert!(models.join("learners.snapshot.bad").exists() && !file.exists());
}
