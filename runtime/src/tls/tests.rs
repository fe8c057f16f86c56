use super::server::renewal_due;
use super::*;
use crate::Clock;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use std::fs;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsConnector;

const DAY_MS: u64 = 86_400_000;
const NOW_MS: u64 = 1_790_000_000_000;

fn names() -> Vec<String> {
    vec!["localhost".into(), "127.0.0.1".into()]
}

fn now_ms() -> u64 {
    Clock::start().unix_ms()
}

fn authority() -> CertificateAuthority {
    CertificateAuthority::generate("headroom-controller-ca", now_ms()).unwrap()
}

fn client(trusted: &str, own: Option<&Credentials>) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(trusted.as_bytes()) {
        roots.add(certificate.unwrap()).unwrap();
    }
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots);
    let config = match own {
        None => config.with_no_client_auth(),
        Some(own) => {
            let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes())
                .collect::<Result<_, _>>()
                .unwrap();
            let key = rustls::pki_types::PrivateKeyDer::from_pem_slice(own.key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    TlsConnector::from(Arc::new(config))
}

/// One exchange between a server and a client: the server's view of the client, or what the client met.
async fn exchange(tls: &ServerTls, connector: TlsConnector) -> std::io::Result<PeerCertificates> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (connection, _) = listener.accept().await.unwrap();
        let mut connection = tls.accept(connection).await?;
        let peer = PeerCertificates::of(&connection);
        connection.write_all(b"hello").await?;
        connection.shutdown().await?;
        Ok::<_, std::io::Error>(peer)
    };
    let call = async {
        let connection = TcpStream::connect(address).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let mut connection = connector.connect(name, connection).await?;
        let mut text = String::new();
        connection.read_to_string(&mut text).await?;
        assert_eq!(text, "hello");
        Ok::<_, std::io::Error>(())
    };
    let (peer, called) = tokio::join!(server, call);
    called.and(peer)
}

#[tokio::test]
async fn what_the_authority_issues_is_trusted_through_its_bundle() {
    let ours = authority();
    let tls = ServerTls::issued(&ours, &names(), Clock::start()).unwrap();
    let peer = exchange(&tls, client(&ours.bundle(), None)).await.unwrap();
    assert!(peer.0.is_empty());
    let error = exchange(&tls, client(&authority().bundle(), None))
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("invalid peer certificate"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_that_is_asked_for_is_told_whoever_issued_it() {
    let (ours, theirs) = (authority(), authority());
    let tls = ServerTls::issued(&ours, &names(), Clock::start())
        .unwrap()
        .with_client_auth(ClientAuth::Asked)
        .unwrap();
    let roots = ours.client_roots().unwrap();
    for (issuer, accepted) in [(&ours, true), (&theirs, false)] {
        let own = issuer.issue_client("follower", now_ms()).unwrap();
        let peer = exchange(&tls, client(&ours.bundle(), Some(&own)))
            .await
            .unwrap();
        assert_eq!(peer.0.len(), 1);
        assert_eq!(roots.verify(&peer.0, now_ms()).is_ok(), accepted);
    }
    let nobody = exchange(&tls, client(&ours.bundle(), None)).await.unwrap();
    assert!(roots.verify(&nobody.0, now_ms()).is_err());
}

#[tokio::test]
async fn a_required_certificate_must_come_from_the_authority() {
    let (ours, theirs) = (authority(), authority());
    let tls = ServerTls::issued(&ours, &names(), Clock::start())
        .unwrap()
        .with_client_auth(ClientAuth::Required(ours.client_roots().unwrap()))
        .unwrap();
    let own = |issuer: &CertificateAuthority| issuer.issue_client("follower", now_ms()).unwrap();
    let trusted = ours.bundle();
    assert!(
        exchange(&tls, client(&trusted, Some(&own(&ours))))
            .await
            .is_ok()
    );
    assert!(
        exchange(&tls, client(&trusted, Some(&own(&theirs))))
            .await
            .is_err()
    );
    assert!(exchange(&tls, client(&trusted, None)).await.is_err());
}

#[tokio::test]
async fn a_server_follows_the_authorities_that_it_was_given() {
    let (first, second) = (authority(), authority());
    let required = |of: &CertificateAuthority| ClientAuth::Required(of.client_roots().unwrap());
    let tls = ServerTls::issued(&first, &names(), Clock::start())
        .unwrap()
        .with_client_auth(required(&first))
        .unwrap();
    let own = |of: &CertificateAuthority| of.issue_client("replica", now_ms()).unwrap();
    let (old, new) = (own(&first), own(&second));
    let accepts = async |own: &Credentials| {
        let connector = client(&first.bundle(), Some(own));
        exchange(&tls, connector).await.is_ok()
    };
    assert!(accepts(&old).await && !accepts(&new).await);
    tls.clone().replace_client_auth(required(&second)).unwrap();
    assert!(!accepts(&old).await && accepts(&new).await);
    assert!(ClientRoots::from_pem("no certificate").is_err());
    assert!(accepts(&new).await, "those before stay");
}

#[test]
fn a_serving_certificate_is_not_a_client_certificate() {
    let ours = authority();
    let server = ours.issue_server(&names(), now_ms()).unwrap();
    let chain = [CertificateDer::from_pem_slice(server.certificate.as_bytes()).unwrap()];
    let roots = ours.client_roots().unwrap();
    assert!(roots.verify(&chain, now_ms()).is_err());
}

#[test]
fn certificates_count_only_within_their_dates() {
    let ours = authority();
    let own = ours.issue_client("follower", now_ms()).unwrap();
    let chain = [CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    let roots = ours.client_roots().unwrap();
    let (begins, ends) = own.validity_ms().unwrap();
    for (at, accepted) in [
        (begins - 2000, false),
        (begins, true),
        (ends, true),
        (ends + 2000, false),
    ] {
        assert_eq!(roots.verify(&chain, at).is_ok(), accepted, "{at}");
    }
}

#[test]
fn renewal_is_due_in_the_last_third() {
    let ours = CertificateAuthority::generate("ca", NOW_MS).unwrap();
    let own = ours.issue_server(&names(), NOW_MS).unwrap();
    assert!(!renewal_due(&own, NOW_MS + 59 * DAY_MS).unwrap());
    assert!(renewal_due(&own, NOW_MS + 60 * DAY_MS).unwrap());
    assert!(!ours.is_due(NOW_MS + 2000 * DAY_MS));
    assert!(ours.is_due(NOW_MS + 2600 * DAY_MS));
}

#[test]
fn nothing_outlives_the_authority_that_issued_it() {
    let ours = CertificateAuthority::generate("ca", NOW_MS).unwrap();
    let late = ours
        .issue_client("late", ours.expires_ms() - DAY_MS)
        .unwrap();
    assert_eq!(late.validity_ms().unwrap().1, ours.expires_ms());
}

#[tokio::test]
async fn a_successor_goes_on_trusting_what_came_before() {
    let old = authority();
    let clock = Clock::start();
    let tls = ServerTls::issued(&old, &names(), clock).unwrap();
    let own = old.issue_client("follower", now_ms()).unwrap();
    let new = old.successor(now_ms()).unwrap();
    let chain = [CertificateDer::from_pem_slice(own.certificate.as_bytes()).unwrap()];
    assert!(new.client_roots().unwrap().verify(&chain, now_ms()).is_ok());
    exchange(&tls, client(&new.bundle(), None)).await.unwrap();
    tls.issue_from(&new).unwrap();
    exchange(&tls, client(&new.bundle(), None)).await.unwrap();
    assert!(exchange(&tls, client(&old.bundle(), None)).await.is_err());
    // Kept as PEM and read again, it is the same authority.
    let kept = CertificateAuthority::from_pem(
        new.credentials().clone(),
        new.previous().map(str::to_owned),
    )
    .unwrap();
    assert_eq!(kept, new);
    let third = kept.successor(now_ms()).unwrap();
    assert_eq!(third.bundle().matches("BEGIN CERTIFICATE").count(), 2);
}

#[tokio::test]
async fn files_are_followed_and_the_last_good_pair_stays() {
    let ours = authority();
    let directory = tempfile::tempdir().unwrap();
    let (certificate, key) = (
        directory.path().join("tls.crt"),
        directory.path().join("tls.key"),
    );
    let write = |credentials: &Credentials| {
        fs::write(&certificate, &credentials.certificate).unwrap();
        fs::write(&key, &credentials.key).unwrap();
    };
    let [first, second] = [(); 2].map(|()| ours.issue_server(&names(), now_ms()).unwrap());
    write(&first);
    let tls = ServerTls::from_files(&certificate, &key).unwrap();
    assert!(!tls.refresh().unwrap());
    // Half of a replacement: the key is not the certificate's.
    fs::write(&key, &second.key).unwrap();
    assert!(matches!(tls.refresh(), Err(TlsError::Serving(_))));
    assert_eq!(tls.certificate(), first.certificate);
    exchange(&tls, client(&ours.bundle(), None)).await.unwrap();
    write(&second);
    assert!(tls.refresh().unwrap());
    assert_eq!(tls.certificate(), second.certificate);
    exchange(&tls, client(&ours.bundle(), None)).await.unwrap();
    fs::remove_file(&certificate).unwrap();
    let error = tls.refresh().unwrap_err().to_string();
    assert!(error.contains("tls.crt"), "{error}");
    assert_eq!(tls.certificate(), second.certificate);
}

#[test]
fn what_is_no_authority_is_refused_with_the_reason() {
    let ours = authority();
    let server = ours.issue_server(&names(), now_ms()).unwrap();
    let error = CertificateAuthority::from_pem(server, None)
        .unwrap_err()
        .to_string();
    assert!(error.contains("CA:TRUE"), "{error}");
    let error = ClientRoots::from_pem("nothing").unwrap_err().to_string();
    assert!(error.contains("CERTIFICATE"), "{error}");
    let mut crossed = ours.credentials().clone();
    crossed.key = authority().credentials().key.clone();
    assert!(CertificateAuthority::from_pem(crossed, None).is_err());
}

#[test]
fn a_key_is_never_printed() {
    let ours = authority();
    let printed = format!("{ours:?} {:?}", ours.credentials());
    assert!(!printed.contains("PRIVATE"), "{printed}");
}

#[tokio::test]
async fn a_self_signed_server_names_itself() {
    let tls = ServerTls::self_signed(&names(), Clock::start()).unwrap();
    assert!(!tls.refresh().unwrap());
    exchange(&tls, client(&tls.certificate(), None))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_slow_client_holds_up_no_other() {
    use futures::StreamExt;
    let tls = ServerTls::self_signed(&names(), Clock::start()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut connections = incoming(listener, tls.clone());
    let _silent = TcpStream::connect(address).await.unwrap();
    let connection = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let connector = client(&tls.certificate(), None);
    let (server, client) = tokio::join!(connections.next(), connector.connect(name, connection));
    client.unwrap();
    assert!(server.unwrap().unwrap().get_ref().0.nodelay().unwrap());
}
