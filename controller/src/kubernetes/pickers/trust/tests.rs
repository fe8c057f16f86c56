use super::*;
use runtime::tls::CertificateAuthority;

/// A JWT for `audiences` (JSON), signed by nobody.
fn token(audiences: &str) -> String {
    let part = |json: &str| URL_SAFE_NO_PAD.encode(json);
    let claims =
        format!(r#"{{"aud":{audiences},"sub":"system:serviceaccount:headroom:controller"}}"#);
    format!("{}.{}.c2ln", part(r#"{"alg":"RS256"}"#), part(&claims))
}

struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    fn new(token: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("token"), token).unwrap();
        Self { folder }
    }

    fn options(&self, ca: Option<&str>) -> TrustOptions {
        let ca_file = ca.map(|pem| {
            let path = self.folder.path().join("ca.crt");
            std::fs::write(&path, pem).unwrap();
            path
        });
        TrustOptions {
            ca_file,
            token_file: self.folder.path().join("token"),
        }
    }
}

fn server() -> Server {
    Server {
        namespace: "ns".into(),
        pool: "pool".into(),
        ip: IpAddr::from([10, 0, 0, 7]),
    }
}

const NOW: u64 = 1_800_000_000_000;

fn verify(options: &TrustOptions, pin: &Pin, chain: &str) -> Result<(), String> {
    let certificates: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain.as_bytes())
            .collect::<Result<_, _>>()
            .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let (verifier, _) = options.verifier(&server(), pin, &provider).unwrap();
    let name = ServerName::IpAddress(server().ip.into());
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_millis(NOW + 1_000));
    verifier
        .verify_server_cert(&certificates[0], &certificates[1..], &name, &[], now)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

#[test]
fn only_a_token_for_pickers_is_shown_to_a_server_nobody_vouches_for() {
    for (audiences, shown) in [
        (format!("{:?}", names::admin::AUDIENCE), true),
        (format!("[{:?}]", names::admin::AUDIENCE), true),
        (
            format!(
                "[{:?},\"https://kubernetes.default.svc\"]",
                names::admin::AUDIENCE
            ),
            false,
        ),
        ("[\"https://kubernetes.default.svc\"]".to_owned(), false),
        ("[]".to_owned(), false),
    ] {
        let files = Files::new(&token(&audiences));
        let result = files.options(None).credentials(&server(), &Pin::default());
        assert_eq!(result.is_ok(), shown, "{audiences}");
        if let Err(error) = result {
            assert!(
                matches!(error, TrustError::TokenTooPowerful { .. }),
                "{error}"
            );
        }
    }
    for nonsense in ["opaque", "a.b.c", "a.!.c"] {
        let files = Files::new(nonsense);
        assert!(
            files
                .options(None)
                .credentials(&server(), &Pin::default())
                .is_err()
        );
    }
}

#[test]
fn an_authority_vouches_for_the_pods_address_or_its_service() {
    let authority = CertificateAuthority::generate("pickers", NOW).unwrap();
    let other = CertificateAuthority::generate("others", NOW).unwrap();
    let files = Files::new("opaque");
    let options = files.options(Some(&authority.bundle()));
    let credentials = options.credentials(&server(), &Pin::default()).unwrap();
    assert_eq!(credentials.token, "opaque");
    let of = |authority: &CertificateAuthority, name: &str| {
        let issued = authority.issue_server(&[name.to_owned()], NOW).unwrap();
        verify(&options, &Pin::default(), &issued.certificate)
    };
    assert_eq!(of(&authority, "pool-epp.ns.svc"), Ok(()));
    assert_eq!(of(&authority, "10.0.0.7"), Ok(()));
    assert!(of(&authority, "pool-epp.elsewhere.svc").is_err());
    assert!(of(&authority, "other-epp.ns.svc").is_err());
    assert!(of(&other, "pool-epp.ns.svc").is_err());
}

#[test]
fn without_an_authority_a_container_keeps_its_certificate() {
    let files = Files::new(&token(&format!("{:?}", names::admin::AUDIENCE)));
    let pin = Pin::default();
    let certificate = || {
        let authority = CertificateAuthority::generate("self", NOW).unwrap();
        authority
            .issue_server(&["epp".to_owned()], NOW)
            .unwrap()
            .certificate
    };
    let (first, second) = (certificate(), certificate());
    let options = files.options(None);
    assert_eq!(verify(&options, &pin, &first), Ok(()));
    assert_eq!(verify(&options, &pin, &first), Ok(()));
    let refusal = verify(&options, &pin, &second).unwrap_err();
    assert!(
        refusal.contains("another than this container showed"),
        "{refusal}"
    );
    assert_eq!(
        verify(&options, &Pin::default(), &second),
        Ok(()),
        "a restarted one"
    );
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new("opaque");
    let error = files
        .options(Some("no pem"))
        .credentials(&server(), &Pin::default())
        .unwrap_err();
    assert!(error.to_string().starts_with("--epp-ca-file"), "{error}");
    let gone = TrustOptions {
        ca_file: None,
        token_file: "/nowhere/token".into(),
    };
    let error = gone.credentials(&server(), &Pin::default()).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("--epp-token-file /nowhere/token"),
        "{error}"
    );
}
