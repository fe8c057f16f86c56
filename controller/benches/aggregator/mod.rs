//! The API server's aggregator, as far as the metrics APIs see it: one HTTP/2 connection over TLS with the front
//! proxy's certificate, and requests that carry the HPA controller's name.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Result, ensure};
use axum::body::Body;
use http::Request;
use http_body_util::BodyExt;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use runtime::tls::{CertificateAuthority, Credentials};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// The name in the aggregator's certificate.
pub(crate) const FRONT_PROXY: &str = "front-proxy-client";

/// The ConfigMap that tells servers behind the aggregator whom to believe.
pub(crate) fn trust(front_proxy: &CertificateAuthority) -> Value {
    json!({
        "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system", "resourceVersion": "1"},
        "data": {
            "requestheader-client-ca-file": front_proxy.bundle(),
            "requestheader-allowed-names": json!([FRONT_PROXY]).to_string(),
            "requestheader-username-headers": r#"["X-Remote-User"]"#,
            "requestheader-group-headers": r#"["X-Remote-Group"]"#,
        },
    })
}

/// Connects to the server of the metrics APIs at `address`, whose certificate is of `name` and vouched for by `roots`
/// (PEM).
pub(crate) async fn connect(
    address: SocketAddr,
    name: &str,
    roots: &str,
    own: &Credentials,
) -> Result<SendRequest<Body>> {
    let mut trusted = RootCertStore::empty();
    trusted.add(CertificateDer::from_pem_slice(roots.as_bytes())?)?;
    let chain =
        CertificateDer::pem_slice_iter(own.certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes())?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(trusted)
        .with_client_auth_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(name.to_owned())?, stream)
        .await?;
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::warn!(%error, "connection ended");
        }
    });
    Ok(sender)
}

/// The one item of the list at `path`.
pub(crate) async fn item(mut sender: SendRequest<Body>, path: &str) -> Result<Value> {
    let request = Request::get(format!("https://localhost{path}"))
        .header("accept", "application/json, */*")
        .header(
            "x-remote-user",
            "system:serviceaccount:kube-system:horizontal-pod-autoscaler",
        )
        .header("x-remote-group", "system:authenticated")
        .body(Body::empty())?;
    let response = sender.send_request(request).await?;
    let code = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    let mut list: Value = serde_json::from_slice(&body)?;
    let items = list["items"].as_array().map_or(0, Vec::len);
    ensure!(code == 200 && items == 1, "answer {code} to {path}: {list}");
    Ok(list["items"][0].take())
}
