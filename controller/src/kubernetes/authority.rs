//! The certificate authority that all replicas of the controller share, kept in a Secret by whoever comes first.
//!
//! It vouches for the metrics API towards the API server and for the replicas towards each other. Its key leaves the
//! Secret for the controller's own pods only.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::Client;
use kube::api::{Api, ObjectMeta, PostParams};
use names::kubernetes::{AUTHORITY, FIELD_MANAGER};
use runtime::tls::{CertificateAuthority, Credentials, TlsError};

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const PREVIOUS: &str = "previous.crt";
/// An attempt takes no longer.
const DEADLINE: Duration = Duration::from_secs(5);
/// Races with other replicas that are lost before giving up.
const ATTEMPTS: u32 = 5;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The API server refused.
    #[error("Secret {AUTHORITY}: {0}")]
    Api(#[from] kube::Error),
    /// No answer.
    #[error("Secret {AUTHORITY}: no answer within {} s", DEADLINE.as_secs())]
    Deadline,
    /// What the Secret holds is none.
    #[error("Secret {AUTHORITY} holds no usable authority; delete it, and a new one is made: {0}")]
    Unusable(#[from] TlsError),
    /// A key is missing.
    #[error("Secret {AUTHORITY} has no {0}; delete the Secret, and a new one is made")]
    Missing(&'static str),
    /// Other replicas were always quicker, and then it was gone again.
    #[error("Secret {AUTHORITY} changes all the time; is something else writing it?")]
    Contended,
}

/// The authority of the controllers in `namespace`: the one that is kept, or a new one, kept from now on. One that is
/// near its end is succeeded; what it issued stays trusted.
///
/// # Errors
/// [`AuthorityError`].
pub async fn authority(
    client: Client,
    namespace: &str,
    now_ms: u64,
) -> Result<CertificateAuthority, AuthorityError> {
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    for _ in 0..ATTEMPTS {
        let attempt = tokio::time::timeout(DEADLINE, attempt(&secrets, namespace, now_ms));
        match attempt.await.map_err(|_| AuthorityError::Deadline)? {
            // Another replica was quicker: its authority it is.
            Err(AuthorityError::Api(kube::Error::Api(status)))
                if status.is_conflict() || status.is_already_exists() => {}
            done => return done,
        }
    }
    Err(AuthorityError::Contended)
}

async fn attempt(
    secrets: &Api<Secret>,
    namespace: &str,
    now_ms: u64,
) -> Result<CertificateAuthority, AuthorityError> {
    let parameters = PostParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PostParams::default()
    };
    match secrets.get_opt(AUTHORITY).await? {
        None => {
            let made = CertificateAuthority::generate(AUTHORITY, now_ms)?;
            let metadata = ObjectMeta {
                name: Some(AUTHORITY.to_owned()),
                namespace: Some(namespace.to_owned()),
                ..ObjectMeta::default()
            };
            let kept = write(metadata, &made);
            secrets.create(&parameters, &kept).await?;
            Ok(made)
        }
        Some(kept) => {
            let found = read(&kept)?;
            if !found.is_due(now_ms) {
                return Ok(found);
            }
            let next = found.successor(now_ms)?;
            let replacement = write(kept.metadata, &next);
            secrets
                .replace(AUTHORITY, &parameters, &replacement)
                .await?;
            Ok(next)
        }
    }
}

fn read(kept: &Secret) -> Result<CertificateAuthority, AuthorityError> {
    let text = |key: &'static str| {
        let value = kept.data.as_ref().and_then(|data| data.get(key));
        value.map(|ByteString(bytes)| String::from_utf8_lossy(bytes).into_owned())
    };
    let credentials = Credentials {
        certificate: text(CERTIFICATE).ok_or(AuthorityError::Missing(CERTIFICATE))?,
        key: text(KEY).ok_or(AuthorityError::Missing(KEY))?,
    };
    Ok(CertificateAuthority::from_pem(credentials, text(PREVIOUS))?)
}

fn write(metadata: ObjectMeta, authority: &CertificateAuthority) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let Credentials { certificate, key } = authority.credentials();
    let mut data = BTreeMap::from([
        (CERTIFICATE.to_owned(), bytes(certificate)),
        (KEY.to_owned(), bytes(key)),
    ]);
    if let Some(previous) = authority.previous() {
        data.insert(PREVIOUS.to_owned(), bytes(previous));
    }
    Secret {
        metadata,
        data: Some(data),
        ..Secret::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    #[test]
    fn what_is_kept_is_read_back() {
        let made = CertificateAuthority::generate(AUTHORITY, NOW).unwrap();
        let next = made.successor(NOW + 1).unwrap();
        for authority in [made, next] {
            let kept = write(ObjectMeta::default(), &authority);
            assert_eq!(read(&kept).unwrap(), authority);
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = read(&Secret::default()).unwrap_err();
        assert!(error.to_string().contains("has no ca.crt"), "{error}");
    }
}
