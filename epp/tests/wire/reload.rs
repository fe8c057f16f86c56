//! The configuration's file changes under a picker that serves.

use crate::proxy::*;
use epp::reload::{Flags, Origin, hash};
use epp::{Handle, Options};
use epp_core::{Config, EndpointSpec, Objectives};
use names::header;
use runtime::{Clock, Shutdown};
use std::path::Path;

/// Endpoints by zone and by tier, so many requests on each at once.
fn config(zone: u32, tier: u32, most: u32) -> String {
    format!(
        "apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
featureGates: [flowControl]
plugins:
- {{name: zone, type: header-label-affinity-scorer, parameters: {{headerName: x-zone, labelKey: zone}}}}
- {{name: tier, type: header-label-affinity-scorer, parameters: {{headerName: x-tier, labelKey: tier}}}}
- {{type: concurrency-detector, parameters: {{maxConcurrency: {most}}}}}
schedulingProfiles:
- name: default
  plugins:
  - {{pluginRef: zone, weight: {zone}}}
  - {{pluginRef: tier, weight: {tier}}}
flowControl:
  saturationDetector: {{pluginRef: concurrency-detector}}
dataLayer: {{injectDefaults: false}}
"
    )
}

async fn started(path: &Path, text: &str) -> Handle {
    std::fs::write(path, text).unwrap();
    let origin = Origin {
        hash: hash(text),
        file: Some(path.to_owned()),
        flags: Flags::default(),
    };
    let options = Options {
        origin,
        ..Options::local()
    };
    let config = Config::from_yaml(text).unwrap();
    let picker = epp::start(config, options, Clock::start(), Shutdown::new())
        .await
        .unwrap();
    let labelled = |index, key: &str, value: &str| EndpointSpec {
        labels: [(key.to_owned(), value.to_owned())].into(),
        ..endpoint(index)
    };
    let endpoints = vec![labelled(1, "zone", "a"), labelled(2, "tier", "gold")];
    picker.set_endpoints(endpoints, Objectives::default());
    picker
}

/// Replaces the file as editors and the kubelet do.
fn rewrite(path: &Path, text: &str) {
    let next = path.with_extension("next");
    std::fs::write(&next, text).unwrap();
    std::fs::rename(&next, path).unwrap();
}

async fn asked(picker: &Handle) -> Stream {
    let stream = Stream::open(picker).await;
    let of = [("x-zone", "a"), ("x-tier", "gold")];
    stream.say(request_headers(&of)).await;
    stream.say(request_body(BODY, true)).await;
    stream
}

/// Where it was sent.
async fn destination(stream: &mut Stream) -> String {
    use envoy_types::pb::envoy::service::ext_proc::v3::processing_response::Response as Outgoing;
    let Outgoing::RequestHeaders(answer) = stream.next().await else {
        panic!("headers first")
    };
    let change = answer.response.unwrap().header_mutation.unwrap();
    let set = change.set_headers.into_iter().filter_map(|set| set.header);
    let mut set = set.filter(|set| set.key == header::DESTINATION);
    String::from_utf8(set.next().unwrap().raw_value).unwrap()
}

async fn says(picker: &Handle, line: &str) {
    let said = async || picker.metrics().encode().lines().any(|one| one == line);
    until(line, said).await;
}

const FIRST: &str = "127.0.0.1:8000";
const SECOND: &str = "127.0.0.2:8000";

#[tokio::test]
async fn new_weights_decide_and_a_wrong_file_leaves_the_old_ones() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("epp.yaml");
    let picker = started(&path, &config(3, 1, 4)).await;
    let mut running = asked(&picker).await;
    assert_eq!(destination(&mut running).await, FIRST);

    rewrite(&path, &config(1, 3, 4));
    says(
        &picker,
        r#"headroom_config_reloads_total{result="applied"} 1"#,
    )
    .await;
    assert_eq!(destination(&mut asked(&picker).await).await, SECOND);

    rewrite(
        &path,
        &config(9, 1, 4).replace("x-tier,", "x-tier, lable: b,"),
    );
    says(
        &picker,
        r#"headroom_config_reloads_total{result="invalid"} 1"#,
    )
    .await;
    says(&picker, "headroom_config_last_reload_successful 0").await;
    assert_eq!(destination(&mut asked(&picker).await).await, SECOND);

    rewrite(
        &path,
        &config(9, 1, 4).replace("featureGates: [flowControl]\n", ""),
    );
    says(
        &picker,
        r#"headroom_config_reloads_total{result="needs-restart"} 1"#,
    )
    .await;
    assert_eq!(destination(&mut asked(&picker).await).await, SECOND);

    let last = config(9, 1, 4);
    rewrite(&path, &last);
    says(
        &picker,
        r#"headroom_config_reloads_total{result="applied"} 2"#,
    )
    .await;
    says(&picker, "headroom_config_last_reload_successful 1").await;
    assert_eq!(destination(&mut asked(&picker).await).await, FIRST);
    let page = picker.metrics().encode();
    assert!(
        page.contains(&format!(r#"hash="{}"}} 1"#, hash(&last))),
        "{page}"
    );
    assert!(
        page.lines()
            .any(|line| line == "headroom_config_stand_ins 0.0")
    );

    drop(running);
    idle(&picker).await;
    let totals = picker.demand().totals();
    assert_eq!(totals.offered().requests, totals.ended().requests);
}

#[tokio::test]
async fn who_waits_goes_on_under_the_new_limits() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("epp.yaml");
    let picker = started(&path, &config(1, 1, 1)).await;
    let mut running = [asked(&picker).await, asked(&picker).await];
    for stream in &mut running {
        destination(stream).await;
    }
    let mut waiting = asked(&picker).await;
    until("the third to wait", async || {
        picker.queued().total().requests == 1
    })
    .await;
    rewrite(&path, &config(1, 1, 2));
    destination(&mut waiting).await;
    assert_eq!(picker.queued().total().requests, 0);
}
