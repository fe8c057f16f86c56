//! Who gets in, over real TLS: every kind of proof, and exactly the right status for each.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use runtime::serve::{ServeOptions, https};
use runtime::tls::{ClientAuth, Credentials, ServerTls};
use runtime::{Shutdown, Tasks};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use super::cluster::Authority;
use super::*;

const METRIC: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/team-a/llm_desired_replicas";

struct Server {
    address: SocketAddr,
    tls: ServerTls,
}

impl Server {
    async fn start(api: &MetricsApi) -> Self {
        let tls = ServerTls::self_signed(&["localhost".into()], Clock::start())
            .unwrap()
            .with_client_auth(ClientAuth::Asked)
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let options = ServeOptions::default();
        https(
            listener,
            tls.clone(),
            api.router(),
            options,
            Shutdown::new(),
            &Tasks::new(),
        );
        Self { address, tls }
    }

    /// The status of one request over a connection of its own, and the error's message.
    async fn ask(
        &self,
        client: Option<&Credentials>,
        (method, path): (&str, &str),
        headers: &[(&str, &str)],
    ) -> (u16, String) {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        let own = CertificateDer::from_pem_slice(self.tls.certificate().as_bytes()).unwrap();
        roots.add(own).unwrap();
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let config = match client {
            None => config.with_no_client_auth(),
            Some(Credentials { certificate, key }) => {
                let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(chain, key).unwrap()
            }
        };
        let stream = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(config));
        let stream = connector.connect(name, stream).await.unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = sender
            .send_request(request.body(Body::empty()).unwrap())
            .await
            .unwrap();
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        (
            code,
            body["message"].as_str().unwrap_or_default().to_owned(),
        )
    }
}

const HPA: [(&str, &str); 2] = [
    ("x-remote-user", "hpa-with-rights"),
    ("x-remote-group", "system:authenticated"),
];
const MASTER: [(&str, &str); 2] = [
    ("x-remote-user", "system:kube-aggregator"),
    ("x-remote-group", "system:masters"),
];
const NOBODY: [(&str, &str); 2] = [
    ("x-remote-user", "system:anonymous"),
    ("x-remote-group", "system:unauthenticated"),
];
const STRANGER: [(&str, &str); 2] = [
    ("x-remote-user", "stranger"),
    ("x-remote-group", "system:authenticated"),
];

#[tokio::test]
async fn the_whole_matrix() {
    let cluster = Cluster::strict();
    let server = Server::start(&cluster.api(board()).await).await;
    let aggregator = cluster.front_proxy.client("front-proxy-client");
    let wrong_authority = Authority::new("front-proxy-ca").client("front-proxy-client");
    let wrong_name = cluster.front_proxy.client("somebody-with-rights");
    let alice = cluster.clients.client("alice-with-rights");
    let bob = cluster.clients.client("bob");
    let good = [("authorization", "Bearer good-carol-with-rights")];
    let bad = [("authorization", "Bearer stolen")];
    let powerless = [("authorization", "Bearer good-dave")];
    let spoofed_token = [("authorization", "Bearer good-dave"), MASTER[0], MASTER[1]];
    type Case<'a> = (
        &'a str,
        Option<&'a Credentials>,
        &'a [(&'a str, &'a str)],
        u16,
    );
    let cases: [Case<'_>; 17] = [
        ("aggregator", Some(&aggregator), &HPA, 200),
        ("aggregator itself", Some(&aggregator), &MASTER, 200),
        ("aggregator, no rights", Some(&aggregator), &STRANGER, 403),
        ("aggregator, anonymous", Some(&aggregator), &NOBODY, 403),
        ("aggregator, nobody named", Some(&aggregator), &[], 401),
        ("wrong authority", Some(&wrong_authority), &MASTER, 401),
        ("wrong name", Some(&wrong_name), &MASTER, 401),
        ("wrong name, no headers", Some(&wrong_name), &[], 401),
        ("spoofed headers", None, &MASTER, 403),
        ("user's certificate", Some(&alice), &[], 200),
        (
            "user's certificate, spoofed headers",
            Some(&bob),
            &MASTER,
            403,
        ),
        ("user's certificate, no rights", Some(&bob), &[], 403),
        ("good token", None, &good, 200),
        ("bad token", None, &bad, 401),
        ("token, no rights", None, &powerless, 403),
        ("token, spoofed headers", None, &spoofed_token, 403),
        ("nothing", None, &[], 403),
    ];
    for (case, client, headers, expected) in cases {
        for path in [
            METRIC,
            "/apis/external.metrics.k8s.io/v1beta1",
            "/openapi/v2",
        ] {
            let (code, message) = server.ask(client, ("GET", path), headers).await;
            assert_eq!(code, expected, "{case}: {path}: {message}");
        }
        for path in ["/healthz", "/livez", "/readyz", "/version"] {
            let (code, _) = server.ask(client, ("GET", path), headers).await;
            assert_eq!(code, 200, "{case}: {path}");
        }
    }
    let token_and_wrong_certificate = server
        .ask(Some(&wrong_authority), ("GET", METRIC), &good)
        .await;
    assert_eq!(token_and_wrong_certificate.0, 200);
    let post = ("POST", METRIC);
    assert_eq!(server.ask(Some(&aggregator), post, &HPA).await.0, 405);
    assert_eq!(server.ask(Some(&aggregator), post, &STRANGER).await.0, 403);
    assert_eq!(server.ask(None, post, &bad).await.0, 401);
}

#[tokio::test]
async fn a_denial_says_who_may_not_do_what() {
    let cluster = Cluster::strict();
    let server = Server::start(&cluster.api(board()).await).await;
    let (_, message) = server.ask(None, ("GET", METRIC), &MASTER).await;
    assert_eq!(
        message,
        "llm_desired_replicas.external.metrics.k8s.io is forbidden: User \"system:anonymous\" cannot list resource \"llm_desired_replicas\" in API group \"external.metrics.k8s.io\" in the namespace \"team-a\""
    );
    let wrong_name = cluster.front_proxy.client("somebody");
    let (_, message) = server.ask(Some(&wrong_name), ("GET", METRIC), &HPA).await;
    assert!(
        message.contains("\"somebody\"") && message.contains("front-proxy-client"),
        "{message}"
    );
}

#[tokio::test]
async fn discovery_is_there_during_warm_up() {
    let cluster = Cluster::strict();
    let server = Server::start(&cluster.api(Board::new(Clock::start())).await).await;
    let aggregator = cluster.front_proxy.client("front-proxy-client");
    for path in [
        "/apis/custom.metrics.k8s.io/v1beta1",
        "/apis/custom.metrics.k8s.io/v1beta2",
        "/apis/external.metrics.k8s.io/v1beta1",
    ] {
        let (code, message) = server.ask(Some(&aggregator), ("GET", path), &MASTER).await;
        assert_eq!(code, 200, "{path}: {message}");
    }
    let (code, _) = server.ask(Some(&aggregator), ("GET", METRIC), &HPA).await;
    assert_eq!(code, 503);
}
