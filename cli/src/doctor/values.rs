//! Values as HorizontalPodAutoscalers get them: asked for through the aggregation layer, by the same paths.

use controller::kubernetes::hpas::{From, Hpa, Reading, number};
use controller::published::series::Spelling;
use http::Request;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::Client;
use reqwest::Url;
use serde::Deserialize;

use super::facts::{Known, ValueFact};

/// The list that both metrics APIs answer with.
#[derive(Debug, Deserialize)]
struct List {
    #[serde(default)]
    items: Vec<Item>,
}

#[derive(Debug, Deserialize)]
struct Item {
    value: Quantity,
    #[serde(default)]
    timestamp: String,
}

/// What `hpa` gets for each of our metrics that it reads.
pub(super) async fn ask(client: &Client, hpa: &Hpa) -> Vec<ValueFact> {
    let mut facts = Vec::new();
    for reading in &hpa.reads {
        let Some(path) = path(hpa, reading) else {
            continue;
        };
        facts.push(ValueFact {
            hpa: hpa.source.clone(),
            answer: get(client, &path).await,
            path,
        });
    }
    facts
}

async fn get(client: &Client, path: &str) -> Known<Vec<(f64, u64)>> {
    let request = Request::get(path)
        .body(Vec::new())
        .map_err(|error| error.to_string())?;
    let list: List = client.request(request).await.map_err(|error| match error {
        kube::Error::Api(status) => format!("{} {}", status.code, status.message),
        other => other.to_string(),
    })?;
    list.items.iter().map(read).collect()
}

fn read(item: &Item) -> Known<(f64, u64)> {
    let Item { value, timestamp } = item;
    let number = number(value).ok_or_else(|| format!("`{}` is no quantity", value.0))?;
    let at: jiff::Timestamp = timestamp
        .parse()
        .map_err(|_| format!("`{timestamp}` is no time"))?;
    Ok((number, u64::try_from(at.as_millisecond()).unwrap_or(0)))
}

/// The path and query of a reading; `None` for one that nobody answers (by pod).
fn path(hpa: &Hpa, reading: &Reading) -> Option<String> {
    let name = reading.metric.name();
    let metric = match reading.spelling {
        Spelling::Canonical => name.canonical,
        Spelling::Alias => name.aliases.first().copied()?,
    };
    let namespace = &*hpa.source.namespace;
    let resource;
    let (group, version, parts) = match &reading.from {
        From::External => ("external.metrics.k8s.io", "v1beta1", vec![metric]),
        From::Object(object) => {
            resource = object.resource();
            let parts = vec![&*resource, &*object.name, metric];
            ("custom.metrics.k8s.io", "v1beta2", parts)
        }
        From::Pods => return None,
    };
    let mut url = Url::parse("http://api/").ok()?;
    url.path_segments_mut()
        .ok()?
        .pop_if_empty()
        .extend(["apis", group, version, "namespaces", namespace])
        .extend(parts);
    if let Some(selector) = reading.selector.as_deref().filter(|text| !text.is_empty()) {
        let query = match reading.from {
            From::External => "labelSelector",
            From::Object(_) | From::Pods => "metricLabelSelector",
        };
        url.query_pairs_mut().append_pair(query, selector);
    }
    let query = url.query().map(|query| format!("?{query}"));
    Some(format!("{}{}", url.path(), query.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn hpa(metric: serde_json::Value) -> Hpa {
        let whole = json!({
            "metadata": {"name": "h", "namespace": "chat"},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "llama"}, "maxReplicas": 8, "metrics": [metric]},
        });
        Hpa::trim(serde_json::from_value(whole).unwrap()).unwrap()
    }

    #[test]
    fn paths_are_those_that_the_hpa_controller_asks() {
        let external = hpa(json!({"type": "External", "external": {
            "metric": {"name": "wva_desired_replicas", "selector": {"matchLabels": {"variant_name": "llama"}}},
            "target": {"type": "AverageValue", "averageValue": "1"},
        }}));
        assert_eq!(
            path(&external, &external.reads[0]).unwrap(),
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/chat/wva_desired_replicas?labelSelector=variant_name%3Dllama"
        );
        let object = hpa(json!({"type": "Object", "object": {
            "metric": {"name": "llm_slo_pressure"},
            "describedObject": {"apiVersion": "inference.networking.k8s.io/v1", "kind": "InferencePool", "name": "pool"},
            "target": {"type": "Value", "value": "1"},
        }}));
        assert_eq!(
            path(&object, &object.reads[0]).unwrap(),
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/chat/inferencepools.inference.networking.k8s.io/pool/llm_slo_pressure"
        );
    }

    #[test]
    fn items_are_read_with_their_time() {
        let list: List = serde_json::from_value(json!({"items": [{"metricName": "m", "value": "2500m", "timestamp": "1970-01-01T00:00:02Z"}]})).unwrap();
        assert_eq!(read(&list.items[0]), Ok((2.5, 2_000)));
        let wrong = Item {
            value: Quantity("x".into()),
            timestamp: String::new(),
        };
        assert!(read(&wrong).unwrap_err().contains("`x`"));
    }
}
