//! What a request proves about who sends it: a pure function of the request and of whom the API server trusts.

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;
use rustls::pki_types::CertificateDer;
use std::collections::BTreeMap;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{FrontProxy, Identity, Trust};

/// Prefix of the identity headers of every aggregator, configured or not.
const REMOTE: &str = "x-remote-";

/// What a request proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evidence {
    /// Who asks.
    Identity(Identity),
    /// Nothing yet: the API server has to be asked about the token.
    Token {
        /// The bearer token.
        token: String,
        /// What else was shown and does not count, if anything.
        problem: Option<String>,
    },
    /// Nothing, and nothing was tried.
    Nothing,
    /// Nothing, though something was shown: why it does not count.
    Refused(String),
}

/// What a request with `headers`, on a connection with the client certificates `peer`, proves at `unix_ms`.
///
/// As in Kubernetes, the aggregator's headers count when its certificate does; else a certificate of a known
/// authority names a user; else a bearer token may. What is shown and does not count is refused unless something else
/// does.
pub fn examine(
    trust: &Trust,
    headers: &HeaderMap,
    peer: &[CertificateDer<'_>],
    unix_ms: u64,
) -> Evidence {
    let mut problem = None;
    if !peer.is_empty() {
        match certificate_identity(trust, headers, peer, unix_ms) {
            Ok(Some(identity)) => return Evidence::Identity(identity.authenticated()),
            Ok(None) => {}
            Err(refused) => problem = Some(refused),
        }
    }
    match (bearer(headers), problem) {
        (Some(token), problem) => Evidence::Token { token, problem },
        (None, Some(problem)) => Evidence::Refused(problem),
        (None, None) => Evidence::Nothing,
    }
}

/// Takes out every header that tells, or claims to tell, who asks.
pub fn strip(trust: &Trust, headers: &mut HeaderMap) {
    let claims = |name: &HeaderName| {
        let name = name.as_str();
        let configured = trust.front_proxy.as_ref().is_some_and(|proxy| {
            let exact = [
                &proxy.user_headers,
                &proxy.uid_headers,
                &proxy.group_headers,
            ];
            exact.into_iter().flatten().any(|own| own == name)
                || proxy
                    .extra_prefixes
                    .iter()
                    .any(|prefix| name.starts_with(prefix.as_str()))
        });
        configured || name.starts_with(REMOTE) || name == AUTHORIZATION.as_str()
    };
    let claimed: Vec<HeaderName> = headers
        .keys()
        .filter(|name| claims(name))
        .cloned()
        .collect();
    for name in claimed {
        headers.remove(name);
    }
}

fn certificate_identity(
    trust: &Trust,
    headers: &HeaderMap,
    peer: &[CertificateDer<'_>],
    unix_ms: u64,
) -> Result<Option<Identity>, String> {
    let mut problem = None;
    if let Some(proxy) = &trust.front_proxy {
        match through_proxy(proxy, headers, peer, unix_ms) {
            Ok(Some(identity)) => return Ok(Some(identity)),
            Ok(None) => {}
            Err(refused) => problem = Some(refused),
        }
    }
    if let Some(clients) = &trust.clients {
        match clients.verify(peer, unix_ms) {
            Ok(()) => return Ok(subject_identity(&peer[0])),
            // What the aggregator's check found says more: nearly everybody comes through it.
            Err(refused) => problem = problem.or_else(|| Some(refused.to_string())),
        }
    }
    problem.map_or(Ok(None), Err)
}

fn through_proxy(
    proxy: &FrontProxy,
    headers: &HeaderMap,
    peer: &[CertificateDer<'_>],
    unix_ms: u64,
) -> Result<Option<Identity>, String> {
    proxy
        .roots
        .verify(peer, unix_ms)
        .map_err(|error| error.to_string())?;
    let name = subject(&peer[0]).common_name;
    if !proxy.allowed_names.is_empty() && !proxy.allowed_names.contains(&name) {
        return Err(format!(
            "the client certificate's common name {name:?} is not one that the API server allows for its aggregator ({})",
            proxy.allowed_names.join(", ")
        ));
    }
    let Some(user) = first(headers, &proxy.user_headers) else {
        return Ok(None);
    };
    Ok(Some(Identity {
        user,
        uid: first(headers, &proxy.uid_headers).unwrap_or_default(),
        groups: proxy
            .group_headers
            .iter()
            .flat_map(|name| headers.get_all(name.as_str()))
            .filter_map(text)
            .collect(),
        extra: extra(headers, &proxy.extra_prefixes),
    }))
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    names
        .iter()
        .filter_map(|name| headers.get(name.as_str()))
        .find_map(text)
}

/// A header's value, where there is any. Values of other than visible ASCII are UTF-8 on this path.
fn text(value: &HeaderValue) -> Option<String> {
    let text = std::str::from_utf8(value.as_bytes()).ok()?;
    (!text.is_empty()).then(|| text.to_owned())
}

fn extra(headers: &HeaderMap, prefixes: &[String]) -> BTreeMap<String, Vec<String>> {
    let mut extra = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in headers {
        let key = prefixes
            .iter()
            .find_map(|prefix| name.as_str().strip_prefix(prefix.as_str()));
        if let (Some(key), Some(value)) = (key, text(value)) {
            // Percent-encoded by the aggregator where a header's name cannot hold the key.
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            extra.entry(key).or_default().push(value);
        }
    }
    extra
}

#[derive(Default)]
struct Subject {
    common_name: String,
    organisations: Vec<String>,
}

fn subject(certificate: &CertificateDer<'_>) -> Subject {
    let Ok((_, certificate)) = X509Certificate::from_der(certificate) else {
        return Subject::default();
    };
    let subject = certificate.subject();
    let texts = |attribute: &x509_parser::x509::AttributeTypeAndValue<'_>| {
        attribute.as_str().ok().map(str::to_owned)
    };
    Subject {
        common_name: subject
            .iter_common_name()
            .find_map(texts)
            .unwrap_or_default(),
        organisations: subject.iter_organization().filter_map(texts).collect(),
    }
}

/// The user that a certificate names: its common name, in the groups that are its organisations.
fn subject_identity(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let Subject {
        common_name,
        organisations,
    } = subject(certificate);
    (!common_name.is_empty()).then(|| Identity {
        user: common_name,
        groups: organisations,
        ..Identity::default()
    })
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then(|| token.to_owned())
}
