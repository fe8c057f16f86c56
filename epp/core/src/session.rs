//! Whose request it is, by its headers: its session, the endpoint that served it before, the agent behind it.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::config::{AgentIdentity, SessionSource};

/// Longest id taken from a client; longer ones count as none.
pub const LONGEST_ID: usize = 256;
/// Longest name of an endpoint, a namespace and a name of Kubernetes.
const LONGEST_NAME: usize = 512;

/// What answers carry so that the session's next request comes back: the endpoint's name in base64.
pub fn token(endpoint: &str) -> String {
    STANDARD.encode(endpoint)
}

/// The name that a [`token`] holds; `None` = it is none.
pub(crate) fn endpoint_of(token: &str) -> Option<String> {
    let token = token.trim();
    if token.len() > LONGEST_NAME * 4 / 3 + 4 {
        return None;
    }
    String::from_utf8(STANDARD.decode(token).ok()?).ok()
}

impl SessionSource {
    /// The request's session, where `header` looks up a header by its lower-case name.
    pub fn read<'h>(&self, header: impl Fn(&str) -> Option<&'h str>) -> Option<Arc<str>> {
        let id = match (&self.header_name, &self.cookie_name) {
            (Some(name), _) => header(&name.to_ascii_lowercase())?,
            (None, Some(name)) => cookie(header(names::header::COOKIE)?, name)?,
            (None, None) => return None,
        };
        usable(id).map(Into::into)
    }

    /// The header it is read from, in lower case.
    pub fn header(&self) -> String {
        self.header_name
            .as_deref()
            .unwrap_or(names::header::COOKIE)
            .to_ascii_lowercase()
    }
}

impl AgentIdentity {
    /// The agent's session, which stands in for a fairness id that the request does not name; `header` looks up a
    /// header by its lower-case name.
    pub fn read<'h>(&self, header: impl Fn(&str) -> Option<&'h str>) -> Option<&'h str> {
        let added = self.additional_session_headers.iter().map(String::as_str);
        added
            .chain(names::header::AGENT_SESSIONS.iter().copied())
            .find_map(|name| usable(header(&name.to_ascii_lowercase())?))
    }

    /// The headers it looks at, in lower case.
    pub fn headers(&self) -> impl Iterator<Item = String> {
        let added = self.additional_session_headers.iter().map(String::as_str);
        added
            .chain(names::header::AGENT_SESSIONS.iter().copied())
            .map(str::to_ascii_lowercase)
    }
}

fn usable(id: &str) -> Option<&str> {
    let id = id.trim();
    (!id.is_empty() && id.len() <= LONGEST_ID).then_some(id)
}

/// The value of a cookie in a `cookie` header.
fn cookie<'h>(cookies: &'h str, name: &str) -> Option<&'h str> {
    let pairs = cookies.split(';').filter_map(|pair| pair.split_once('='));
    let mut named = pairs.filter(|(key, _)| key.trim() == name);
    named
        .next()
        .map(|(_, value)| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers<'h>(all: &'h [(&'h str, &'h str)]) -> impl Fn(&str) -> Option<&'h str> {
        |name| {
            let mut named = all.iter().filter(|(known, _)| *known == name);
            named.next().map(|(_, value)| *value)
        }
    }

    #[test]
    fn tokens_name_an_endpoint() {
        assert_eq!(token("ns/pod-rank-0"), "bnMvcG9kLXJhbmstMA==");
        assert_eq!(
            endpoint_of(" bnMvcG9kLXJhbmstMA== ").as_deref(),
            Some("ns/pod-rank-0")
        );
        for bad in ["%%", "bnM", "/w==", &"A".repeat(4_000)] {
            assert_eq!(endpoint_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn sessions_come_from_a_header_or_a_cookie() {
        let by_header = SessionSource {
            header_name: Some("X-My-Session".into()),
            cookie_name: None,
        };
        let by_cookie = SessionSource {
            header_name: None,
            cookie_name: Some("sid".into()),
        };
        let request = [
            ("x-my-session", " a1 "),
            ("cookie", "other=1; sid=\"b2\"; sid=3"),
        ];
        assert_eq!(by_header.read(headers(&request)).as_deref(), Some("a1"));
        assert_eq!(by_cookie.read(headers(&request)).as_deref(), Some("b2"));
        assert_eq!(by_cookie.read(headers(&[("cookie", "sidx=1")])), None);
        let long = "x".repeat(LONGEST_ID + 1);
        assert_eq!(by_header.read(headers(&[("x-my-session", &long)])), None);
        assert_eq!(SessionSource::injected().header(), "x-session-id");
    }

    #[test]
    fn agents_are_known_by_their_session_headers_in_order() {
        let plain = AgentIdentity::default();
        let request = [("session_id", "old"), ("x-claude-code-session-id", "new")];
        assert_eq!(plain.read(headers(&request)), Some("new"));
        assert_eq!(plain.read(headers(&request[..1])), Some("old"));
        assert_eq!(plain.read(headers(&[])), None);
        let added = AgentIdentity {
            additional_session_headers: vec!["X-Mine".into()],
        };
        let request = [("x-mine", "mine"), ("session-id", "theirs")];
        assert_eq!(added.read(headers(&request)), Some("mine"));
        assert_eq!(added.headers().count(), 5);
    }
}
