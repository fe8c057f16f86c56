use super::super::{Answer, Mode, ObjectRef, Role};
use super::*;

fn variant(name: &str, role: Role, desired: u32, current: u32) -> PublishedVariant {
    PublishedVariant {
        name: name.into(),
        role,
        accelerator: "H100".into(),
        target: ObjectRef::new("apps/v1", "Deployment", name),
        scaler: None,
        desired,
        current,
        ready: Some(current),
        capacity: None,
        lower: None,
        upper: None,
    }
}

fn model(namespace: &str, name: &str, variants: Vec<PublishedVariant>) -> PublishedModel {
    PublishedModel {
        namespace: namespace.into(),
        model: name.into(),
        slug: label_value(name),
        pool: Some("pool".into()),
        source: None,
        mode: Mode::Publish,
        decided_at_ms: 0,
        state: Answer::Fresh,
        slo_pressure: Some(0.8),
        offered_tokens_per_second: Some(1000.0),
        queue_seconds: None,
        variants,
    }
}

fn published(models: Vec<PublishedModel>) -> (Published, Catalog) {
    let published = Published {
        at_ms: 0,
        sequence: 0,
        models,
    };
    let catalog = Catalog::of(&published);
    (published, catalog)
}

#[test]
fn one_variant_is_one_series_and_namespaces_do_not_mix() {
    let same = || vec![variant("h100", Role::Both, 1, 1)];
    let (_, catalog) = published(vec![model("a", "m", same()), model("b", "m", same())]);
    for namespace in ["a", "b"] {
        let series = catalog.in_namespace(namespace);
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].labels["namespace"], namespace);
        assert_eq!(series[0].alias_labels["exported_namespace"], namespace);
    }
    assert!(catalog.in_namespace("c").is_empty());
}

#[test]
fn labels_are_those_that_the_documentation_names() {
    let (_, catalog) = published(vec![model(
        "ns",
        "org/model",
        vec![variant("h100", Role::Prefill, 1, 1)],
    )]);
    let [one] = catalog.in_namespace("ns") else {
        panic!("one series")
    };
    let pairs = |labels: &Labels| {
        labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    assert_eq!(
        pairs(one.labels(Spelling::Canonical)),
        "accelerator=H100,model=org-model,namespace=ns,pool=pool,role=prefill,variant=h100"
    );
    assert_eq!(
        pairs(one.labels(Spelling::Alias)),
        "accelerator_type=H100,exported_namespace=ns,variant_name=h100"
    );
}

#[test]
fn a_target_without_replicas_has_the_wanted_count_as_its_ratio() {
    let (published, catalog) = published(vec![model(
        "ns",
        "m",
        vec![
            variant("zero", Role::Both, 3, 0),
            variant("two", Role::Both, 3, 2),
            variant("same", Role::Both, 4, 4),
        ],
    )]);
    let values: Vec<Option<f64>> = catalog
        .in_namespace("ns")
        .iter()
        .map(|one| one.value(Metric::DesiredRatio, &published))
        .collect();
    assert_eq!(values, [Some(3.0), Some(1.5), Some(1.0)]);
}

#[test]
fn an_hpa_that_multiplies_ready_pods_by_the_ratio_arrives_at_the_wanted_count() {
    for (desired, current, ready) in [
        (5, 4, 1),
        (5, 3, 3),
        (11, 10, 10),
        (7, 10, 9),
        (1, 200, 150),
    ] {
        let mut one = variant("v", Role::Both, desired, current);
        one.ready = Some(ready);
        let told = ratio(&one).unwrap();
        let read = (told * 1000.0).round() / 1000.0;
        assert_eq!(
            (read * f64::from(ready)).ceil(),
            f64::from(desired),
            "{told}"
        );
    }
    let mut starting = variant("v", Role::Both, 5, 4);
    starting.ready = Some(0);
    assert_eq!(ratio(&starting), None, "it would remove all but one");
}

#[test]
fn offered_load_is_split_within_a_role_as_capacity_is_planned() {
    let mut fast = variant("fast", Role::Decode, 2, 2);
    fast.capacity = Some(3.0);
    let mut slow = variant("slow", Role::Decode, 2, 2);
    slow.capacity = Some(1.0);
    let (published, catalog) = published(vec![model(
        "ns",
        "m",
        vec![fast, slow, variant("prompts", Role::Prefill, 0, 0)],
    )]);
    let series = catalog.in_namespace("ns");
    let offered: Vec<Option<f64>> = series
        .iter()
        .map(|one| one.value(Metric::OfferedTokens, &published))
        .collect();
    assert_eq!(offered, [Some(750.0), Some(250.0), Some(1000.0)]);
    let all: Vec<&Series> = series.iter().collect();
    assert_eq!(
        together(Metric::OfferedTokens, &all, &published),
        Some(1000.0)
    );
}

#[test]
fn for_a_pool_replicas_add_up_and_the_worst_ratio_counts() {
    let (published, catalog) = published(vec![model(
        "ns",
        "m",
        vec![
            variant("a", Role::Both, 3, 2),
            variant("b", Role::Both, 4, 4),
        ],
    )]);
    let all: Vec<&Series> = catalog.in_namespace("ns").iter().collect();
    let value = |metric| together(metric, &all, &published);
    assert_eq!(value(Metric::DesiredReplicas), Some(7.0));
    assert_eq!(value(Metric::DesiredRatio), Some(1.5));
    assert_eq!(value(Metric::SloPressure), Some(0.8));
    assert_eq!(value(Metric::QueueSeconds), None);
    assert_eq!(together(Metric::SloPressure, &[], &published), None);
}

#[test]
fn every_name_leads_to_its_metric() {
    assert_eq!(
        Metric::called("llm_desired_replicas"),
        Some((Metric::DesiredReplicas, Spelling::Canonical))
    );
    assert_eq!(
        Metric::called("wva_desired_replicas"),
        Some((Metric::DesiredReplicas, Spelling::Alias))
    );
    assert_eq!(Metric::called("other"), None);
    assert!(Metric::names().all(|name| Metric::called(name).is_some()));
}
