use super::*;

const SERVED_ONE: (&str, &str, u32) = ("external.metrics.k8s.io", "v1beta1", 100);

fn ours() -> Service {
    Service {
        namespace: "headroom-system".into(),
        name: "headroom-metrics".into(),
        port: 443,
    }
}

fn found(service: Value, annotations: Value, bundle: &str) -> APIService {
    serde_json::from_value(json!({
        "metadata": {"name": "v1beta1.external.metrics.k8s.io", "resourceVersion": "7", "annotations": annotations},
        "spec": {
            "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": service, "caBundle": BASE64.encode(bundle),
        },
    }))
    .unwrap()
}

fn own(bundle: &str) -> APIService {
    let service = json!({"namespace": "headroom-system", "name": "headroom-metrics", "port": 443});
    found(service, json!({}), bundle)
}

#[test]
fn a_missing_one_is_created_with_the_bundle() {
    let Verdict::Create(wanted) = judge(None, SERVED_ONE, &ours(), Some("pem")) else {
        panic!("not created")
    };
    assert_eq!(
        wanted["metadata"],
        json!({"name": "v1beta1.external.metrics.k8s.io"})
    );
    assert_eq!(wanted["spec"]["caBundle"], BASE64.encode("pem"));
    assert_eq!(wanted["spec"]["service"]["name"], "headroom-metrics");
    assert!(serde_json::from_value::<APIService>(wanted).is_ok());
}

#[test]
fn ours_is_touched_only_when_something_differs() {
    let judged = |found: &APIService, bundle| judge(Some(found), SERVED_ONE, &ours(), bundle);
    assert_eq!(judged(&own("pem"), Some("pem")), Verdict::Good);
    assert_eq!(
        judged(&own("pem"), None),
        Verdict::Good,
        "others keep the bundle"
    );
    let Verdict::Apply(wanted) = judged(&own("old"), Some("pem")) else {
        panic!("not applied")
    };
    assert_eq!(wanted["metadata"]["resourceVersion"], "7");
    let mut insecure = own("pem");
    if let Some(spec) = &mut insecure.spec {
        spec.insecure_skip_tls_verify = Some(true);
    }
    let Verdict::Apply(wanted) = judged(&insecure, Some("pem")) else {
        panic!("not applied")
    };
    assert_eq!(wanted["spec"]["insecureSkipTLSVerify"], false);
}

#[test]
fn a_bundle_that_cert_manager_injects_is_left_to_it() {
    let service = json!({"namespace": "headroom-system", "name": "headroom-metrics", "port": 443});
    let injected = found(
        service,
        json!({"cert-manager.io/inject-ca-from": "x/y"}),
        "theirs",
    );
    assert_eq!(
        judge(Some(&injected), SERVED_ONE, &ours(), Some("pem")),
        Verdict::Good
    );
}

#[test]
fn somebody_elses_is_never_touched() {
    let keda = json!({"namespace": "keda", "name": "keda-operator-metrics-apiserver"});
    for service in [keda, Value::Null] {
        let foreign = found(service, json!({}), "x");
        let Verdict::Foreign(owner) = judge(Some(&foreign), SERVED_ONE, &ours(), Some("pem"))
        else {
            panic!("not left alone")
        };
        let finding = owned_by(SERVED_ONE.0, SERVED_ONE.1, &owner);
        assert!(finding.message.contains(&owner), "{}", finding.message);
        assert!(
            finding.message.contains("external-push"),
            "{}",
            finding.message
        );
        assert_eq!(&*finding.about.name, "v1beta1.external.metrics.k8s.io");
    }
}

mod shell {
    use kubernetes::mock;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_the_leader_keeps_them_and_a_foreign_one_is_told() {
        let (client, mut server) = mock::server();
        let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
        let authority = CertificateAuthority::generate("ca", 1_800_000_000_000).unwrap();
        let (_authorities, authority) = watch::channel(authority);
        let (leads, leadership) = watch::channel(Leadership::default());
        let kept = ApiServices::start(
            client,
            ours(),
            Some(authority.clone()),
            leadership,
            shutdown.clone(),
            &tasks,
        );
        leads.send_replace(Leadership {
            leader: true,
            ..Leadership::default()
        });
        let base = "/apis/apiregistration.k8s.io/v1/apiservices";
        // custom v1beta1 is missing, custom v1beta2 ours with an old bundle, external KEDA's.
        let read = server.next().await.unwrap();
        assert_eq!(
            read.target(),
            format!("GET {base}/v1beta1.custom.metrics.k8s.io")
        );
        read.fail(404, "NotFound").await;
        let mut create = server.next().await.unwrap();
        assert_eq!(create.target(), format!("POST {base}"));
        let made = create.body().await;
        assert_eq!(
            made["spec"]["caBundle"],
            BASE64.encode(authority.borrow().bundle())
        );
        create.reply(&made).await;
        let whole = serde_json::to_value(own("old")).unwrap();
        server.next().await.unwrap().reply(&whole).await;
        let patch = server.next().await.unwrap();
        assert_eq!(
            patch.target(),
            format!("PATCH {base}/v1beta2.custom.metrics.k8s.io")
        );
        assert!(
            patch.query().contains("fieldManager=headroom"),
            "{}",
            patch.query()
        );
        patch.reply(&whole).await;
        let keda = json!({"namespace": "keda", "name": "keda-operator-metrics-apiserver"});
        let foreign = serde_json::to_value(found(keda, json!({}), "x")).unwrap();
        server.next().await.unwrap().reply(&foreign).await;
        let mut told = kept.findings.clone();
        told.wait_for(|findings| !findings.is_empty())
            .await
            .unwrap();
        assert_eq!(kept.findings()[0].reason, "ForeignMetricsApi");
        shutdown.stop();
        tasks.join().await;
    }
}
