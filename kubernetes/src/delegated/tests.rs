use super::trust::{CONFIG_MAP, NAMESPACE};
use super::*;
use crate::mock::{self, Server};
use crate::watch::{ObjectKey, Store};
use http::{HeaderMap, HeaderName, HeaderValue};
use kube::Client;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use runtime::Clock;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// An authority, with its certificate as PEM.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = subject(name, &[]);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(parameters, key),
        }
    }

    /// A client's certificate.
    fn client(&self, name: &str, groups: &[&str]) -> Vec<CertificateDer<'static>> {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = subject(name, groups);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        vec![certificate.der().clone()]
    }
}

fn subject(name: &str, groups: &[&str]) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if !name.is_empty() {
        subject.push(DnType::CommonName, name);
    }
    for group in groups {
        subject.push(DnType::OrganizationName, *group);
    }
    subject
}

/// A cluster's authorities and what its API server publishes of them.
struct Cluster {
    front_proxy: Authority,
    clients: Authority,
}

impl Cluster {
    fn new() -> Self {
        Self {
            front_proxy: Authority::new("front-proxy-ca"),
            clients: Authority::new("cluster-ca"),
        }
    }

    fn published(&self) -> BTreeMap<String, String> {
        let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        BTreeMap::from([
            entry("client-ca-file", &self.clients.pem),
            entry("requestheader-client-ca-file", &self.front_proxy.pem),
            entry("requestheader-allowed-names", r#"["front-proxy-client"]"#),
            entry("requestheader-username-headers", r#"["X-Remote-User"]"#),
            entry("requestheader-uid-headers", r#"["X-Remote-Uid"]"#),
            entry("requestheader-group-headers", r#"["X-Remote-Group"]"#),
            entry(
                "requestheader-extra-headers-prefix",
                r#"["X-Remote-Extra-"]"#,
            ),
        ])
    }

    fn authenticator(&self) -> (Authenticator, Server) {
        let (client, server) = mock::server();
        (authenticator(client, Some(self.published())), server)
    }
}

fn authenticator(client: Client, data: Option<BTreeMap<String, String>>) -> Authenticator {
    let key = ObjectKey::new(NAMESPACE, CONFIG_MAP);
    let store = Store::fixed(data.map(|data| (key, data)));
    Authenticator::new(client, Clock::start(), Some(store), None)
}

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    pairs
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::try_from(*name).unwrap(),
                HeaderValue::try_from(*value).unwrap(),
            )
        })
        .collect()
}

/// The headers that the aggregator sends for the HPA controller.
fn hpa() -> HeaderMap {
    headers(&[
        ("x-remote-user", HPA),
        ("x-remote-uid", "42"),
        ("x-remote-group", "system:serviceaccounts"),
        ("x-remote-group", "system:authenticated"),
        ("x-remote-extra-scopes.example.com%2fone", "read"),
        ("accept", "application/json"),
    ])
}

const HPA: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

#[tokio::test]
async fn the_aggregator_is_believed_about_who_asks() {
    let cluster = Cluster::new();
    let (authenticator, _server) = cluster.authenticator();
    let mut headers = hpa();
    let peer = cluster.front_proxy.client("front-proxy-client", &[]);
    let identity = authenticator.identify(&mut headers, &peer).await.unwrap();
    assert_eq!(
        identity,
        Identity {
            user: HPA.into(),
            uid: "42".into(),
            groups: vec!["system:serviceaccounts".into(), AUTHENTICATED.into()],
            extra: BTreeMap::from([("scopes.example.com/one".into(), vec!["read".into()])]),
        }
    );
    assert_eq!(headers.keys().collect::<Vec<_>>(), ["accept"]);
    assert_eq!(authenticator.problem(), None);
}

#[tokio::test]
async fn a_certificate_of_another_authority_or_name_is_no_aggregator() {
    let cluster = Cluster::new();
    let (authenticator, _server) = cluster.authenticator();
    let same_name = Authority::new("front-proxy-ca");
    for (peer, why) in [
        (same_name.client("front-proxy-client", &[]), "certificate"),
        (cluster.front_proxy.client("somebody", &[]), "\"somebody\""),
        (cluster.front_proxy.client("", &[]), "common name"),
    ] {
        let refusal = authenticator.identify(&mut hpa(), &peer).await.unwrap_err();
        assert_eq!(refusal.status(), 401);
        assert!(refusal.to_string().contains(why), "{refusal}");
    }
}

#[tokio::test]
async fn headers_without_the_aggregators_certificate_mean_nothing() {
    let cluster = Cluster::new();
    let (authenticator, _server) = cluster.authenticator();
    let mut spoofed = hpa();
    let identity = authenticator.identify(&mut spoofed, &[]).await.unwrap();
    assert_eq!(identity, Identity::anonymous());
    assert_eq!(spoofed.keys().collect::<Vec<_>>(), ["accept"]);
    // Nor with a certificate that names a user: then it is that user who asks.
    let peer = cluster.clients.client("alice", &["developers"]);
    let identity = authenticator.identify(&mut hpa(), &peer).await.unwrap();
    assert_eq!(identity.user, "alice");
    assert_eq!(identity.groups, ["developers", AUTHENTICATED]);
}

#[tokio::test]
async fn an_aggregator_that_names_nobody_is_not_believed() {
    let cluster = Cluster::new();
    let (authenticator, _server) = cluster.authenticator();
    let peer = cluster.front_proxy.client("front-proxy-client", &[]);
    let refusal = authenticator
        .identify(&mut headers(&[("x-remote-group", MASTERS)]), &peer)
        .await
        .unwrap_err();
    assert_eq!(refusal.status(), 401);
}

#[tokio::test]
async fn an_anonymous_request_through_the_aggregator_stays_anonymous() {
    let cluster = Cluster::new();
    let (authenticator, _server) = cluster.authenticator();
    let peer = cluster.front_proxy.client("front-proxy-client", &[]);
    let mut headers = headers(&[
        ("x-remote-user", ANONYMOUS),
        ("x-remote-group", UNAUTHENTICATED),
    ]);
    let identity = authenticator.identify(&mut headers, &peer).await.unwrap();
    assert_eq!(identity, Identity::anonymous());
}

#[tokio::test]
async fn without_the_config_map_everybody_is_anonymous_and_the_reason_is_told() {
    let cluster = Cluster::new();
    let (client, _server) = mock::server();
    let authenticator = authenticator(client, None);
    let peer = cluster.front_proxy.client("front-proxy-client", &[]);
    let identity = authenticator.identify(&mut hpa(), &peer).await.unwrap();
    assert_eq!(identity, Identity::anonymous());
    let problem = authenticator.problem().unwrap();
    assert!(problem.contains(CONFIG_MAP), "{problem}");
    assert!(
        problem.contains("--requestheader-client-ca-file"),
        "{problem}"
    );
}

#[tokio::test]
async fn an_api_server_without_an_aggregator_is_told_apart() {
    let cluster = Cluster::new();
    let (client, _server) = mock::server();
    let mut published = cluster.published();
    published.remove("requestheader-client-ca-file");
    let authenticator = authenticator(client, Some(published));
    let peer = cluster.front_proxy.client("front-proxy-client", &[]);
    let refusal = authenticator.identify(&mut hpa(), &peer).await.unwrap_err();
    assert_eq!(refusal.status(), 401);
    let problem = authenticator.problem().unwrap();
    assert!(problem.contains("names no requestheader"), "{problem}");
}

#[tokio::test]
async fn a_rotated_authority_is_believed_and_a_broken_one_changes_nothing() {
    let cluster = Cluster::new();
    let next = Authority::new("front-proxy-ca-2");
    let mut published = cluster.published();
    let first = Trust::read(&published, &Trust::default());
    let believes = |trust: &Trust, authority: &Authority| {
        let peer = authority.client("front-proxy-client", &[]);
        let now = Clock::start().unix_ms();
        matches!(
            evidence::examine(trust, &hpa(), &peer, now),
            evidence::Evidence::Identity(_)
        )
    };
    assert!(believes(&first, &cluster.front_proxy) && !believes(&first, &next));
    let both = format!("{}{}", cluster.front_proxy.pem, next.pem);
    published.insert("requestheader-client-ca-file".into(), both);
    let rotating = Trust::read(&published, &first);
    assert!(believes(&rotating, &cluster.front_proxy) && believes(&rotating, &next));
    published.insert("requestheader-client-ca-file".into(), "garbage".into());
    published.insert("requestheader-allowed-names".into(), "front".into());
    let broken = Trust::read(&published, &rotating);
    assert!(believes(&broken, &next));
    assert_eq!(broken.problems.len(), 1);
}

#[tokio::test]
async fn any_name_is_allowed_where_none_is_listed() {
    let cluster = Cluster::new();
    let mut published = cluster.published();
    published.insert("requestheader-allowed-names".into(), "[]".into());
    let (client, _server) = mock::server();
    let authenticator = authenticator(client, Some(published));
    let peer = cluster.front_proxy.client("whoever", &[]);
    let identity = authenticator.identify(&mut hpa(), &peer).await.unwrap();
    assert_eq!(identity.user, HPA);
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[("authorization", &format!("Bearer {token}"))])
}

fn alice() -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": {"authenticated": true, "user": {
            "username": "alice", "uid": "7", "groups": ["developers"], "extra": {"k": ["v"]},
        }},
    })
}

fn nobody() -> Value {
    json!({
        "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {},
        "status": {"error": "[invalid bearer token]"},
    })
}

#[tokio::test(start_paused = true)]
async fn a_token_is_reviewed_once_in_ten_seconds() {
    let (client, mut server) = mock::server();
    let authenticator = Authenticator::tokens_only(client, Clock::start(), None);
    let asked = tokio::spawn(async move {
        for answer in [alice(), alice(), nobody()] {
            let mut exchange = server.next().await.unwrap();
            assert_eq!(
                exchange.target(),
                "POST /apis/authentication.k8s.io/v1/tokenreviews"
            );
            let token = exchange.body().await["spec"]["token"].clone();
            assert_eq!(token, "secret");
            exchange.reply(&answer).await;
        }
        server
    });
    let identify = async || authenticator.identify(&mut bearer("secret"), &[]).await;
    let identity = identify().await.unwrap();
    assert_eq!(
        (identity.user.as_str(), identity.uid.as_str()),
        ("alice", "7")
    );
    assert_eq!(identity.groups, ["developers", AUTHENTICATED]);
    identify().await.unwrap();
    tokio::time::advance(FRESH).await;
    identify().await.unwrap();
    tokio::time::advance(FRESH).await;
    for _ in 0..2 {
        assert_eq!(identify().await.unwrap_err().status(), 401);
    }
    asked.await.unwrap();
}

#[tokio::test]
async fn a_token_may_be_for_us_or_for_the_api_server() {
    let (client, mut server) = mock::server();
    let authenticator = Authenticator::tokens_only(client, Clock::start(), Some("us"));
    let answers = tokio::spawn(async move {
        let mut ours = alice();
        ours["status"]["audiences"] = json!(["us"]);
        // Ours; then one of a reviewer that knows no audiences; then nobody's.
        for (audiences, answer) in [
            (json!(["us"]), ours),
            (json!(["us"]), alice()),
            (Value::Null, alice()),
            (json!(["us"]), nobody()),
            (Value::Null, nobody()),
        ] {
            let mut exchange = server.next().await.unwrap();
            assert_eq!(exchange.body().await["spec"]["audiences"], audiences);
            exchange.reply(&answer).await;
        }
    });
    let identify = async |token| authenticator.identify(&mut bearer(token), &[]).await;
    assert_eq!(identify("for us").await.unwrap().user, "alice");
    assert_eq!(identify("for the API server").await.unwrap().user, "alice");
    assert_eq!(identify("for nobody").await.unwrap_err().status(), 401);
    answers.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_known_token_counts_while_the_api_server_is_away() {
    let (client, mut server) = mock::server();
    let authenticator = Authenticator::tokens_only(client, Clock::start(), None);
    tokio::spawn(async move {
        server.next().await.unwrap().reply(&alice()).await;
        while let Some(exchange) = server.next().await {
            exchange.fail(500, "etcd is away").await;
        }
    });
    let identify = async |token| authenticator.identify(&mut bearer(token), &[]).await;
    identify("known").await.unwrap();
    tokio::time::advance(FRESH + GRACE / 2).await;
    assert_eq!(identify("known").await.unwrap().user, "alice");
    let refusal = identify("unknown").await.unwrap_err();
    assert_eq!(refusal.status(), 503);
    assert!(refusal.to_string().contains("etcd is away"), "{refusal}");
    tokio::time::advance(GRACE).await;
    assert_eq!(identify("known").await.unwrap_err().status(), 503);
}

#[tokio::test]
async fn what_is_no_bearer_token_is_nothing() {
    let (client, _server) = mock::server();
    let authenticator = Authenticator::tokens_only(client, Clock::start(), None);
    for value in ["Basic YTpi", "Bearer", "Bearer  ", "secret"] {
        let mut headers = headers(&[("authorization", value), ("x-remote-user", "admin")]);
        let identity = authenticator.identify(&mut headers, &[]).await.unwrap();
        assert_eq!(identity, Identity::anonymous(), "{value:?}");
        assert!(headers.is_empty());
    }
}

fn external_metric() -> Attributes {
    Attributes::Resource {
        verb: "list",
        group: "external.metrics.k8s.io".into(),
        version: "v1beta1".into(),
        resource: "llm_desired_replicas".into(),
        subresource: String::new(),
        namespace: "team".into(),
        name: String::new(),
    }
}

fn person(user: &str) -> Identity {
    Identity {
        user: user.into(),
        groups: vec![AUTHENTICATED.into()],
        ..Identity::default()
    }
}

fn access(allowed: bool) -> Value {
    json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {},
        "spec": {}, "status": {"allowed": allowed, "reason": if allowed { "" } else { "no role" }},
    })
}

#[tokio::test(start_paused = true)]
async fn rights_are_asked_for_once_and_denials_say_what_is_missing() {
    let (client, mut server) = mock::server();
    let authorizer = Authorizer::new(client, Clock::start());
    let asked = tokio::spawn(async move {
        let mut questions = Vec::new();
        for allowed in [true, false, false] {
            let mut exchange = server.next().await.unwrap();
            assert_eq!(
                exchange.target(),
                "POST /apis/authorization.k8s.io/v1/subjectaccessreviews"
            );
            questions.push(exchange.body().await["spec"].clone());
            exchange.reply(&access(allowed)).await;
        }
        questions
    });
    for _ in 0..2 {
        authorizer
            .allow(&person("alice"), &external_metric())
            .await
            .unwrap();
    }
    let denied = authorizer
        .allow(&person("bob"), &external_metric())
        .await
        .unwrap_err();
    assert_eq!(
        denied.to_string(),
        "llm_desired_replicas.external.metrics.k8s.io is forbidden: User \"bob\" cannot list resource \"llm_desired_replicas\" in API group \"external.metrics.k8s.io\" in the namespace \"team\": no role"
    );
    let page = Attributes::Page {
        verb: "get",
        path: "/apis".into(),
    };
    let denied = authorizer
        .allow(&Identity::anonymous(), &page)
        .await
        .unwrap_err();
    assert_eq!(
        denied.to_string(),
        "forbidden: User \"system:anonymous\" cannot get path \"/apis\": no role"
    );
    let questions = asked.await.unwrap();
    assert_eq!(
        questions[0],
        json!({
            "user": "alice", "groups": [AUTHENTICATED],
            "resourceAttributes": {
                "verb": "list", "group": "external.metrics.k8s.io", "version": "v1beta1",
                "resource": "llm_desired_replicas", "namespace": "team",
            },
        })
    );
    assert_eq!(
        questions[2]["nonResourceAttributes"],
        json!({"verb": "get", "path": "/apis"})
    );
}

#[tokio::test]
async fn masters_may_without_asking_and_nobody_else_while_it_cannot_be_asked() {
    let (client, server) = mock::server();
    drop(server);
    let authorizer = Authorizer::new(client, Clock::start());
    let mut master = person("system:kube-aggregator");
    master.groups.push(MASTERS.into());
    authorizer.allow(&master, &external_metric()).await.unwrap();
    let refusal = authorizer
        .allow(&person("alice"), &external_metric())
        .await
        .unwrap_err();
    assert_eq!(refusal.status(), 503);
}

#[tokio::test]
async fn the_config_map_is_followed() {
    use runtime::{Shutdown, Tasks};
    let cluster = Cluster::new();
    let (client, mut server) = mock::server();
    let (shutdown, tasks) = (Shutdown::new(), Tasks::new());
    let authenticator = Authenticator::start(client, Clock::start(), shutdown.clone(), &tasks);
    assert!(!authenticator.is_synced());
    let exchange = server.next().await.unwrap();
    assert_eq!(
        exchange.target(),
        "GET /api/v1/namespaces/kube-system/configmaps"
    );
    assert!(
        exchange.query().contains("metadata.name"),
        "{}",
        exchange.query()
    );
    let map = json!({
        "metadata": {"name": CONFIG_MAP, "namespace": NAMESPACE, "resourceVersion": "7"},
        "data": cluster.published(),
    });
    exchange
        .reply(&json!({
            "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "7"},
            "items": [map],
        }))
        .await;
    authenticator.synced().await;
    let peer = cluster.front_proxy.client("front-proxy-client", &[]);
    let identity = authenticator.identify(&mut hpa(), &peer).await.unwrap();
    assert_eq!(identity.user, HPA);
    shutdown.stop();
    tasks.join().await;
}
