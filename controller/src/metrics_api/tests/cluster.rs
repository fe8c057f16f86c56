//! A played API server, with the authorities of a cluster.

use std::sync::Arc;

use kubernetes::delegated::{Authenticator, Authorizer};
use kubernetes::mock::{self, Exchange};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair,
};
use runtime::tls::Credentials;
use runtime::{Shutdown, Tasks};
use serde_json::{Value, json};

use crate::metrics_api::MetricsApi;
use crate::published::Board;

/// An authority of client certificates.
pub(super) struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(super) fn new(name: &str) -> Self {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = subject(name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let pem = parameters.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(parameters, key),
        }
    }

    /// A client's certificate and key.
    pub(super) fn client(&self, name: &str) -> Credentials {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = subject(name);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = parameters.signed_by(&key, &self.issuer).unwrap();
        Credentials {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }
}

fn subject(name: &str) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    subject
}

/// A cluster whose RBAC lets everybody, or only users called `…-with-rights`.
pub(super) struct Cluster {
    pub(super) front_proxy: Authority,
    pub(super) clients: Authority,
    lenient: bool,
}

impl Cluster {
    /// Lets everybody do everything.
    pub(super) fn lenient() -> Self {
        Self {
            lenient: true,
            ..Self::strict()
        }
    }

    /// Lets only users called `…-with-rights`.
    pub(super) fn strict() -> Self {
        Self {
            front_proxy: Authority::new("front-proxy-ca"),
            clients: Authority::new("cluster-ca"),
            lenient: false,
        }
    }

    /// A server of the metrics APIs in this cluster, once it knows whom to trust.
    pub(super) async fn api(&self, board: Board) -> MetricsApi {
        self.api_until(board, Shutdown::new()).await
    }

    /// The same, which drains with `shutdown`.
    pub(super) async fn api_until(&self, board: Board, shutdown: Shutdown) -> MetricsApi {
        let data = json!({
            "client-ca-file": self.clients.pem,
            "requestheader-client-ca-file": self.front_proxy.pem,
            "requestheader-allowed-names": r#"["front-proxy-client"]"#,
            "requestheader-username-headers": r#"["X-Remote-User"]"#,
            "requestheader-group-headers": r#"["X-Remote-Group"]"#,
            "requestheader-extra-headers-prefix": r#"["X-Remote-Extra-"]"#,
        });
        let (api, authenticator) = self.start(board, shutdown, Some(data));
        authenticator.synced().await;
        api
    }

    /// A server that has not read yet whom to trust.
    pub(super) fn unread_api(&self, board: Board) -> MetricsApi {
        self.start(board, Shutdown::new(), None).0
    }

    fn start(
        &self,
        board: Board,
        shutdown: Shutdown,
        data: Option<Value>,
    ) -> (MetricsApi, Authenticator) {
        let (client, mut server) = mock::server();
        let lenient = self.lenient;
        let data = Arc::new(data);
        tokio::spawn(async move {
            while let Some(exchange) = server.next().await {
                tokio::spawn(play(exchange, Arc::clone(&data), lenient));
            }
        });
        let clock = board.clock();
        let (running, tasks) = (Shutdown::new(), Tasks::new());
        let authenticator = Authenticator::start(client.clone(), clock, running, &tasks);
        let authorizer = Authorizer::new(client, clock);
        let api = MetricsApi::new(board, authenticator.clone(), authorizer, shutdown);
        (api, authenticator)
    }
}

async fn play(mut exchange: Exchange, data: Arc<Option<Value>>, lenient: bool) {
    let target = exchange.target();
    let body = exchange.body().await;
    match target.as_str() {
        "GET /api/v1/namespaces/kube-system/configmaps" => {
            let Some(data) = &*data else {
                std::future::pending::<()>().await;
                return;
            };
            if exchange.is_watch() {
                let _watch = exchange.watch();
                std::future::pending::<()>().await;
                return;
            }
            let name = "extension-apiserver-authentication";
            let metadata =
                json!({"name": name, "namespace": "kube-system", "resourceVersion": "1"});
            let list = json!({
                "apiVersion": "v1", "kind": "ConfigMapList", "metadata": {"resourceVersion": "1"},
                "items": [{"metadata": metadata, "data": data}],
            });
            exchange.reply(&list).await;
        }
        "POST /apis/authentication.k8s.io/v1/tokenreviews" => {
            // A good token is its user's name.
            let token = body["spec"]["token"].as_str().unwrap_or_default();
            let status = match token.strip_prefix("good-") {
                Some(user) => json!({"authenticated": true, "user": {"username": user}}),
                None => json!({"error": "invalid bearer token"}),
            };
            exchange
                .reply(&review("TokenReview", "authentication", status))
                .await;
        }
        "POST /apis/authorization.k8s.io/v1/subjectaccessreviews" => {
            let user = body["spec"]["user"].as_str().unwrap_or_default();
            let allowed = lenient || user.ends_with("-with-rights");
            let status = json!({"allowed": allowed});
            exchange
                .reply(&review("SubjectAccessReview", "authorization", status))
                .await;
        }
        other => panic!("the server asked for {other}"),
    }
}

fn review(kind: &str, group: &str, status: Value) -> Value {
    json!({
        "apiVersion": format!("{group}.k8s.io/v1"), "kind": kind, "metadata": {}, "spec": {},
        "status": status,
    })
}
