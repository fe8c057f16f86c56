//! Everything that a person may apply passes the real API server: chart, overlays, examples, and those of the docs.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::stack::NAMESPACE;
use e2e::{Cluster, cluster, install, objects};

/// Applies on the server's side without keeping anything.
fn dry_run(cluster: &Cluster, what: &str, manifests: &str) {
    let file = cluster.description.directory.join("dry-run.yaml");
    std::fs::write(&file, manifests).expect("a file");
    let file = file.to_str().expect("text");
    let arguments = [
        "kubectl",
        "apply",
        "--server-side",
        "--dry-run=server",
        "-f",
        file,
    ];
    let output = cluster.try_run(&arguments);
    assert!(
        output.status.success(),
        "{what}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    eprintln!(
        "{what}: {} objects",
        String::from_utf8_lossy(&output.stdout).lines().count()
    );
}

async fn start() -> Cluster {
    let cluster = Cluster::start(cluster::Shape {
        arguments: ["kubelet", "scheduler"]
            .into_iter()
            .flat_map(|part| ["--without".to_owned(), part.to_owned()])
            .collect(),
        ..cluster::Shape::default()
    })
    .await;
    for namespace in [NAMESPACE, "other", "headroom"] {
        objects::namespace(&cluster.client, namespace).await;
    }
    cluster
}

fn files(directory: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = std::fs::read_dir(directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rendering_of_chart_and_overlays_is_accepted() {
    let cluster = start().await;
    let root = cluster::repository();
    let full =
        std::fs::read_to_string(root.join("deploy/charts/headroom/ci/full.yaml")).expect("a file");
    let pool = "pools: [{name: p, modelServers: {matchLabels: {app: p}}}]\n";
    let renderings = [
        ("defaults", String::new()),
        ("everything", full),
        (
            "without a controller",
            format!("controller: {{enabled: false}}\n{pool}"),
        ),
        (
            "named namespaces",
            format!("controller: {{namespaces: [{NAMESPACE}, other]}}\n{pool}"),
        ),
        ("self-signed", format!("tls: {{mode: selfSigned}}\n{pool}")),
        (
            "a Secret",
            format!("tls: {{mode: secret, secretName: mine}}\n{pool}"),
        ),
        (
            "KEDA's group",
            format!(
                "controller: {{metricsAPI: {{external: false}}, keda: {{enabled: true}}}}\n{pool}"
            ),
        ),
    ];
    for (what, values) in renderings {
        dry_run(
            &cluster,
            what,
            &install::render(&cluster, NAMESPACE, &values),
        );
    }
    for overlay in ["gateway", "standalone", "keda"] {
        let path = root.join("deploy/kustomize/overlays").join(overlay);
        let built = cluster.kubectl(&["kustomize", path.to_str().expect("text")]);
        dry_run(&cluster, overlay, &built);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_example_is_accepted() {
    let cluster = start().await;
    let root = cluster::repository();
    for file in files(&root.join("deploy/examples"), "yaml") {
        let text = std::fs::read_to_string(&file).expect("a file");
        if is_manifest(&text) {
            dry_run(&cluster, &file.display().to_string(), &text);
        }
    }
    let mut blocks = 0;
    for file in files(&root.join("docs"), "md") {
        let text = std::fs::read_to_string(&file).expect("a file");
        for block in fenced(&text).filter(|block| is_manifest(block)) {
            dry_run(
                &cluster,
                &format!("{}, block {blocks}", file.display()),
                &block,
            );
            blocks += 1;
        }
    }
    assert!(blocks > 0, "the docs have examples");
}

/// Whether a text is for the API server: not a configuration file of ours, not a part of a manifest.
fn is_manifest(text: &str) -> bool {
    let line = |start: &str| text.lines().any(|line| line.starts_with(start));
    line("apiVersion:") && line("kind:") && line("metadata:") && !line("kind: EndpointPickerConfig")
}

/// The blocks of a page that are fenced as YAML.
fn fenced(page: &str) -> impl Iterator<Item = String> {
    page.split("```yaml\n").skip(1).filter_map(|rest| {
        let (block, _) = rest.split_once("```")?;
        Some(block.to_owned())
    })
}

#[test]
fn the_overlays_are_what_the_chart_renders() {
    let root = cluster::repository();
    let rendered = tempfile::tempdir().expect("a directory");
    let helm = cluster::Tools::find().helm;
    let status = Command::new(root.join("deploy/kustomize/render.sh"))
        .arg(helm)
        .arg(rendered.path())
        .status()
        .expect("bash");
    assert!(status.success());
    for file in [
        "base/controller.yaml",
        "pool/picker.yaml",
        "proxy/proxy.yaml",
    ] {
        let read = |root: &Path| std::fs::read_to_string(root.join(file)).expect("a file");
        let (kept, now) = (read(&root.join("deploy/kustomize")), read(rendered.path()));
        assert!(
            kept == now,
            "deploy/kustomize/{file} is stale: run `make manifests`"
        );
    }
}
