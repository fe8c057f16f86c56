//! What a configuration wants of a request's headers and puts into an answer's, beyond what is always read and put.

use super::head::Header;
use epp_core::Endpoint;
use epp_core::config::{AgentIdentity, Config, Filter, Scorer, SessionSource, SessionStrategy};
use epp_core::expression::{Expression, Usage};
use epp_core::session;
use std::sync::Arc;

/// Made once for a configuration.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Headers that filters and scorers read, in lower case.
    headers: Vec<Arc<str>>,
    session: Option<SessionSource>,
    agent: Option<AgentIdentity>,
    /// Headers of answers that name the endpoint, so that the session comes back to it.
    tokens: Vec<Arc<str>>,
    /// Headers of answers that carry a label of the endpoint: header, label.
    stamps: Vec<(Arc<str>, String)>,
    /// Tell the client which endpoint served.
    served: bool,
    reported: Vec<Reported>,
    /// One answer in so many passes unread, in 2³² parts.
    unread: u64,
}

/// What was taken from a request's headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// Those that filters and scorers read, each once.
    pub headers: Vec<(Arc<str>, String)>,
    /// The request's session.
    pub session: Option<Arc<str>>,
    /// The fairness id of a request that names none.
    pub flow: Option<Arc<str>>,
}

/// A number that is told to the proxy.
#[derive(Clone, Debug)]
struct Reported {
    namespace: String,
    name: String,
    expression: Expression,
    condition: Option<Expression>,
}

/// A number for the proxy's dynamic metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Attribute {
    /// Namespace of the metadata.
    pub namespace: String,
    /// Key in it.
    pub name: String,
    /// The number.
    pub value: f64,
}

impl Wanted {
    /// What `config` wants.
    pub fn of(config: &Config) -> Self {
        let filters = config.profile.filters.iter().map(|named| &named.filter);
        let scorers = || config.profile.scorers.iter().map(|named| &named.scorer);
        let filters = filters.filter_map(|filter| match filter {
            Filter::Session(affinity) => Some(affinity),
            _ => None,
        });
        let stamps = scorers().filter_map(|scorer| match scorer {
            Scorer::HeaderLabel(affinity) if affinity.stamp_response_header => {
                let header = affinity.header_name.to_ascii_lowercase();
                Some((header.into(), affinity.label_key.clone()))
            }
            _ => None,
        });
        let scorers = scorers().filter_map(|scorer| match scorer {
            Scorer::Session(affinity) => Some(affinity),
            _ => None,
        });
        let mut tokens: Vec<Arc<str>> = filters
            .chain(scorers)
            .filter(|affinity| affinity.strategy == SessionStrategy::EncodedEndpointHeader)
            .map(|affinity| affinity.token_header().to_ascii_lowercase().into())
            .collect();
        tokens.sort();
        tokens.dedup();
        let reported = config.reported.iter().filter_map(|attribute| {
            // What cannot be parsed was refused with the configuration.
            let condition = attribute.condition.as_deref().map(str::parse);
            Some(Reported {
                namespace: attribute.key.namespace.clone(),
                name: attribute.key.name.clone(),
                expression: attribute.expression.parse().ok()?,
                condition: condition.transpose().ok()?,
            })
        });
        Self {
            headers: config.headers_in_use(),
            session: config.session.clone(),
            agent: config.agent_identity.clone(),
            tokens,
            stamps: stamps.collect(),
            served: config.verify_served,
            reported: reported.collect(),
            unread: ((1.0 - config.read_answers).clamp(0.0, 1.0) * (1_u64 << 32) as f64) as u64,
        }
    }

    /// Whether the answer to the request with that number is read for its first token and usage. Consecutive numbers
    /// are spread evenly.
    pub fn reads(&self, serial: u64) -> bool {
        // 2³² over the golden ratio: its multiples fall evenly on the circle.
        let place = serial.wrapping_mul(0x9e37_79b9) & u64::from(u32::MAX);
        place >= self.unread
    }

    /// Takes it from a request's headers.
    pub fn take(&self, headers: &[Header]) -> Taken {
        let value = |name: &Arc<str>| {
            let value = find(headers, name)?;
            Some((Arc::clone(name), value.to_owned()))
        };
        let look = |name: &str| find(headers, name);
        let agent = self.agent.as_ref().and_then(|agent| agent.read(look));
        Taken {
            headers: self.headers.iter().filter_map(value).collect(),
            session: self.session.as_ref().and_then(|session| session.read(look)),
            flow: agent.map(Arc::from),
        }
    }

    /// Headers of the answer from `endpoint`.
    pub fn answered(&self, endpoint: &Endpoint) -> Vec<(Arc<str>, String)> {
        let token = |name: &Arc<str>| (Arc::clone(name), session::token(&endpoint.name));
        let served = self.served.then(|| {
            let name = Arc::from(names::header::TEST_ENDPOINT_SERVED);
            (name, endpoint.address.as_ref().to_owned())
        });
        let stamps = self.stamps.iter().filter_map(|(header, label)| {
            let value = endpoint.labels.get(label)?;
            Some((Arc::clone(header), value.clone()))
        });
        let tokens = self.tokens.iter().map(token);
        tokens.chain(stamps).chain(served).collect()
    }

    /// What the proxy is told of an answer with `usage`.
    pub fn attributes(&self, usage: &Usage) -> Vec<Attribute> {
        let wanted = self.reported.iter().filter(|reported| {
            let condition = reported.condition.as_ref();
            condition.is_none_or(|condition| condition.holds(usage))
        });
        let attribute = |reported: &Reported| {
            Some(Attribute {
                namespace: reported.namespace.clone(),
                name: reported.name.clone(),
                value: reported.expression.number(usage)?,
            })
        };
        wanted.filter_map(attribute).collect()
    }

    /// Whether anything is told of answers.
    pub fn reports(&self) -> bool {
        !self.reported.is_empty()
    }
}

/// The first header called `name`, which is in lower case, as far as it is text.
fn find<'h>(headers: &'h [Header], name: &str) -> Option<&'h str> {
    let mut named = headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name.as_bytes()));
    std::str::from_utf8(&named.next()?.value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(plugins: &str, profile: &str) -> Wanted {
        let text = format!(
            "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n- {{type: queue-scorer}}\n{plugins}schedulingProfiles:\n- name: default\n  plugins:\n  - {{pluginRef: queue-scorer}}\n{profile}"
        );
        Wanted::of(&Config::from_yaml(&text).unwrap_or_else(|error| panic!("{error}\n{text}")))
    }

    fn headers(headers: &[(&str, &str)]) -> Vec<Header> {
        headers
            .iter()
            .map(|(name, value)| Header::new(name, value))
            .collect()
    }

    #[test]
    fn a_plain_configuration_wants_nothing() {
        let wanted = wanted("", "");
        let request = headers(&[
            ("x-session-id", "s"),
            ("cookie", "a=b"),
            ("session_id", "t"),
        ]);
        assert_eq!(wanted.take(&request), Taken::default());
        assert!(!wanted.reports());
    }

    #[test]
    fn answers_are_read_in_the_share_that_is_configured() {
        for (share, read) in [(1.0, 1000), (0.25, 250), (0.0, 0)] {
            let config = Config {
                read_answers: share,
                ..Config::default()
            };
            let wanted = Wanted::of(&config);
            let count = (7..1007).filter(|serial| wanted.reads(*serial)).count();
            assert!(count.abs_diff(read) <= 2, "{share}: {count}");
        }
        assert!(Wanted::default().reads(1));
    }

    #[test]
    fn sessions_agents_and_headers_are_read_where_something_wants_them() {
        let wanted = wanted(
            "- {type: session-id-producer, parameters: {cookieName: sid}}\n- {type: agent-identity}\n- {type: header-label-affinity-scorer, parameters: {headerName: X-Tier, labelKey: tier}}\n",
            "  - {pluginRef: header-label-affinity-scorer}\n",
        );
        let request = headers(&[
            ("Cookie", "a=b; sid=me"),
            ("x-tier", "gold"),
            ("x-tier", "lead"),
            ("session_id", "agent-7"),
        ]);
        let taken = wanted.take(&request);
        assert_eq!(
            (taken.session.as_deref(), taken.flow.as_deref()),
            (Some("me"), Some("agent-7"))
        );
        assert_eq!(taken.headers, [("x-tier".into(), "gold".to_owned())]);
    }

    #[test]
    fn answers_carry_the_label_that_requests_are_held_against() {
        let endpoint = |labels: &[(&str, &str)]| {
            let labels = labels
                .iter()
                .map(|(key, value)| (key.to_string(), value.to_string()));
            Endpoint::new("a", "10.0.0.1:80", labels.collect())
        };
        let scorer = |stamp: &str| {
            let parameters = format!("{{headerName: X-Tier, labelKey: tier{stamp}}}");
            wanted(
                &format!("- {{type: header-label-affinity-scorer, parameters: {parameters}}}\n"),
                "  - {pluginRef: header-label-affinity-scorer}\n",
            )
        };
        let gold = endpoint(&[("tier", "gold")]);
        assert_eq!(
            scorer("").answered(&gold),
            [("x-tier".into(), "gold".to_owned())]
        );
        assert_eq!(scorer("").answered(&endpoint(&[])), []);
        assert_eq!(scorer(", stampResponseHeader: false").answered(&gold), []);
    }

    #[test]
    fn numbers_are_told_where_their_condition_holds() {
        let wanted = wanted(
            "- type: request-attribute-reporter\n  parameters:\n    attributes:\n    - {key: {name: cost}, expression: usage.prompt_tokens + 3 * usage.completion_tokens}\n    - {key: {namespace: mine, name: cached}, expression: usage.cached_tokens, condition: usage.cached_tokens > 0}\n",
            "",
        );
        assert!(wanted.reports());
        let mut usage = Usage {
            prompt: Some(7),
            cached: Some(0),
            output: Some(2),
        };
        let told = |usage: &Usage| {
            let attributes = wanted.attributes(usage);
            let told = attributes
                .iter()
                .map(|it| (it.namespace.clone(), it.name.clone(), it.value));
            told.collect::<Vec<_>>()
        };
        let cost = ("envoy.lb".to_owned(), "cost".to_owned(), 13.0);
        assert_eq!(told(&usage), std::slice::from_ref(&cost));
        usage.cached = Some(4);
        assert_eq!(
            told(&usage),
            [cost, ("mine".to_owned(), "cached".to_owned(), 4.0)]
        );
        assert_eq!(told(&Usage::default()), []);
    }
}
