//! The definitions and manifests at a real API server: `HEADROOM_CLUSTER=.tools/cluster/cluster cargo test -p crds
//! --test cluster -- --ignored`. Nothing is persisted but the definitions: manifests go through `--dry-run=server`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)]

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use serde::Deserialize;
use serde_json::Value;

/// An API server without anything that acts, gone when dropped.
struct Cluster {
    binary: PathBuf,
    directory: tempfile::TempDir,
}

impl Cluster {
    fn start() -> Self {
        let binary = std::env::var_os("HEADROOM_CLUSTER")
            .expect("HEADROOM_CLUSTER names the test cluster's binary (tests/cluster)");
        let cluster = Self {
            binary: binary.into(),
            directory: tempfile::tempdir().unwrap(),
        };
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut up = cluster.command(&["up", "--detach"]);
        for part in ["scheduler", "kubelet", "controller-manager"] {
            up.args(["--without", part]);
        }
        for definitions in ["deploy/crds", "tests/cluster/crds"] {
            up.arg("--crds").arg(repository.join(definitions));
        }
        let up = up.output().unwrap();
        assert!(up.status.success(), "{}", text(&up));
        cluster
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        let (name, rest) = arguments.split_first().unwrap();
        command
            .arg(name)
            .arg("--dir")
            .arg(self.directory.path())
            .args(rest);
        command
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> Output {
        let mut kubectl = self
            .command(&["kubectl"])
            .args(arguments)
            .env_remove("KUBECONFIG")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = kubectl.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        kubectl.wait_with_output().unwrap()
    }

    fn dry_run(&self, manifest: &Value) -> Output {
        let arguments = ["apply", "--dry-run=server", "-f", "-"];
        self.kubectl(&arguments, &manifest.to_string())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.command(&["down", "--delete"]).output();
    }
}

fn text(output: &Output) -> String {
    let (out, error) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(out).into_owned() + &String::from_utf8_lossy(error)
}

fn documents(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    split(&std::fs::read_to_string(path).unwrap())
}

fn split(yaml: &str) -> Vec<Value> {
    serde_yaml_ng::Deserializer::from_str(yaml)
        .map(|document| Value::deserialize(document).unwrap())
        .filter(|document| !document.is_null())
        .collect()
}

/// The YAML blocks of a page of the book that are whole manifests of ours.
fn examples(page: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(page);
    std::fs::read_to_string(path)
        .unwrap()
        .split("```yaml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .flat_map(split)
        .filter(|document| document["apiVersion"].is_string())
        .collect()
}

#[test]
#[ignore = "needs the test cluster"]
fn a_real_api_server_agrees() {
    let cluster = Cluster::start();

    let mut accepted = documents("tests/data/good.yaml");
    accepted.extend(documents("tests/data/read.yaml"));
    let shown = examples("modelscaler.md");
    assert!(!shown.is_empty(), "examples of docs/modelscaler.md");
    accepted.extend(shown);
    accepted.extend(examples("annotations.md"));
    for manifest in accepted {
        let answer = cluster.dry_run(&manifest);
        print!("{}", text(&answer));
        assert!(answer.status.success(), "{manifest:#}: {}", text(&answer));
        assert!(
            !text(&answer).contains("Warning"),
            "{manifest:#}: {}",
            text(&answer)
        );
    }

    let mut refused = documents("tests/data/broken-rules.yaml");
    refused.extend(documents("tests/data/broken-schema.yaml"));
    for manifest in refused {
        let answer = cluster.dry_run(&manifest);
        print!("{}", text(&answer));
        let expected = manifest["metadata"]["annotations"]["expect"]
            .as_str()
            .unwrap();
        assert!(!answer.status.success(), "accepted: {manifest:#}");
        assert!(
            text(&answer).contains(expected),
            "expected `{expected}`: {}",
            text(&answer)
        );
    }

    for field in ["spec.sloClasses.ttftMs", "status.headroom"] {
        let answer = cluster.kubectl(&["explain", &format!("modelscaler.{field}")], "");
        assert!(answer.status.success(), "{}", text(&answer));
        assert!(text(&answer).contains("DESCRIPTION"), "{}", text(&answer));
    }
}

#[test]
#[ignore = "needs the test cluster"]
fn replicas_scale_by_the_subresource_and_columns_are_printed() {
    let cluster = Cluster::start();
    for manifest in documents("tests/data/read.yaml") {
        let kind = manifest["kind"].as_str().unwrap().to_lowercase();
        if !["leaderworkerset", "disaggregatedsetrolescaler"].contains(&kind.as_str()) {
            continue;
        }
        let name = manifest["metadata"]["name"].as_str().unwrap();
        let created = cluster.kubectl(&["create", "-f", "-"], &manifest.to_string());
        assert!(created.status.success(), "{}", text(&created));
        let scaled = cluster.kubectl(&["scale", &kind, name, "--replicas=5"], "");
        assert!(scaled.status.success(), "{}", text(&scaled));
        let path = "-o=jsonpath={.spec.replicas}";
        let replicas = cluster.kubectl(&["get", &kind, name, path], "");
        assert_eq!(text(&replicas), "5");
    }

    let complete = documents("tests/data/good.yaml")
        .into_iter()
        .find(|document| document["metadata"]["name"] == "complete")
        .unwrap();
    let created = cluster.kubectl(&["create", "-f", "-"], &complete.to_string());
    assert!(created.status.success(), "{}", text(&created));
    let status = r#"{"status": {"ready": 2, "desired": 3, "headroom": -1.5, "bindingSlo": "interactive ttft", "costPerHour": 13.5,
        "capacity": 8.5, "demand": {"requestsPerSecond": 10}, "modelSnapshots": [{"accelerator": "H100", "state": "trained"}],
        "variants": [{"name": "h100", "replicas": 2, "desired": 3}],
        "conditions": [{"type": "Ready", "status": "True", "reason": "Deciding", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}}"#;
    let patch = [
        "patch",
        "ms",
        "complete",
        "--subresource=status",
        "--type=merge",
        "-p",
        status,
    ];
    let patched = cluster.kubectl(&patch, "");
    assert!(patched.status.success(), "{}", text(&patched));
    let printed = text(&cluster.kubectl(&["get", "ms", "-o", "wide"], ""));
    println!("{printed}");
    for value in [
        "publish",
        "-1.5",
        "interactive ttft",
        "True",
        "Deciding",
        "10",
        "8.5",
        "13.5",
        "trained",
    ] {
        assert!(printed.contains(value), "{value}: {printed}");
    }
}
