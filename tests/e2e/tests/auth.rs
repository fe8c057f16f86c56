//! Who may read the metrics APIs: the aggregation layer's rules, by certificates and tokens of a real cluster.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr
)]

use e2e::servers::Servers;
use e2e::stack::{MODEL, NAMESPACE, POOL};
use e2e::{Stack, cluster, until};
use reqwest::{Client, Identity};

/// A client with a certificate for `name`, signed by the CA that `ca` names: `cluster`, `front-proxy` or `new`.
fn client(stack: &Stack, ca: &str, name: &str) -> Client {
    let prefix = stack
        .cluster
        .description
        .directory
        .join(format!("{ca}-{name}"));
    let prefix = prefix.to_str().expect("text");
    stack
        .cluster
        .run(&["certificate", "--ca", ca, "--name", name, "--out", prefix]);
    let read = |suffix: &str| std::fs::read(format!("{prefix}{suffix}")).expect("a file");
    let mut pem = read(".crt");
    pem.extend(read(".key"));
    let identity = Identity::from_pem(&pem).expect("an identity");
    anonymous().identity(identity).build().expect("a client")
}

fn anonymous() -> reqwest::ClientBuilder {
    Client::builder().danger_accept_invalid_certs(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_gets_exactly_the_status_that_is_right() {
    let stack = Stack::start(cluster::Shape::default(), &[Servers::new(POOL, MODEL)], "").await;
    stack.apply_example("hpa-external.yaml").await;
    stack.learn().await;
    stack.hpa_active(POOL).await;
    let (_, address) = stack
        .component("controller")
        .await
        .first()
        .cloned()
        .expect("a controller");
    let root = format!("https://{address}:6443");
    let metric = format!(
        "{root}/apis/external.metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/llm_desired_replicas"
    );
    let nobody = anonymous().build().expect("a client");
    let hpa = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";

    // The aggregator, and those who are not.
    let aggregator = client(&stack, "front-proxy", "front-proxy-client");
    let ask = async |client: &Client, user: Option<&str>| {
        let mut request = client.get(&metric);
        if let Some(user) = user {
            request = request
                .header("X-Remote-User", user)
                .header("X-Remote-Group", "system:authenticated");
        }
        request.send().await.expect("an answer").status().as_u16()
    };
    until("the value", async || {
        (ask(&aggregator, Some(hpa)).await == 200).then_some(())
    })
    .await;
    assert_eq!(
        ask(&aggregator, Some("somebody")).await,
        403,
        "the aggregator for a user without rights"
    );
    let wrong_name = client(&stack, "front-proxy", "somebody");
    assert_eq!(
        ask(&wrong_name, Some(hpa)).await,
        401,
        "the right CA, a name that is not allowed"
    );
    let wrong_authority = client(&stack, "new", "front-proxy-client");
    assert_eq!(
        ask(&wrong_authority, Some(hpa)).await,
        401,
        "a CA that nobody trusts"
    );
    assert_eq!(
        ask(&nobody, Some(hpa)).await,
        403,
        "X-Remote-User without a certificate is nobody"
    );
    assert_eq!(ask(&nobody, None).await, 403, "anonymous");

    // Tokens.
    let bearer = async |token: &str| {
        let answer = nobody.get(&metric).bearer_auth(token).send().await;
        answer.expect("an answer").status().as_u16()
    };
    assert_eq!(
        bearer(
            &stack
                .cluster
                .token("kube-system", "horizontal-pod-autoscaler")
        )
        .await,
        200
    );
    assert_eq!(
        bearer(&stack.cluster.token(NAMESPACE, "default")).await,
        403,
        "a good token without rights"
    );
    assert_eq!(bearer("nonsense").await, 401, "a token that is none");

    // The administrator's own certificate, under the cluster's CA.
    let administrator = client(&stack, "cluster", "somebody-else");
    assert_eq!(
        ask(&administrator, None).await,
        403,
        "a user of the cluster without rights"
    );
    // What needs no rights.
    for path in ["/healthz", "/livez", "/readyz", "/version"] {
        let status = nobody
            .get(format!("{root}{path}"))
            .send()
            .await
            .expect("an answer")
            .status();
        assert_eq!(status, 200, "{path}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn discovery_answers_before_anything_is_known() {
    // No model, no request, no label: nothing is warm.
    let stack = Stack::start(cluster::Shape::default(), &[Servers::new(POOL, MODEL)], "").await;
    for group in [
        "external.metrics.k8s.io/v1beta1",
        "custom.metrics.k8s.io/v1beta1",
        "custom.metrics.k8s.io/v1beta2",
    ] {
        let text = stack
            .cluster
            .kubectl(&["get", "--raw", &format!("/apis/{group}")]);
        assert!(text.contains("\"APIResourceList\""), "{group}: {text}");
    }
}
