//! The questions put to Prometheus, and what its answers mean. Pure text in, pure numbers out.
//!
//! A handful of questions is asked for many models at once: the series are grouped by namespace and pool (or by
//! namespace and model, where a series has no pool), and each model finds its own in the answer. A namespace is always
//! part of the question: two namespaces may serve one model name, and series without the label would be taken for
//! both. It is put there by Prometheus's own service discovery.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use names::Name;
use names::metric::epp;

/// Rates are taken over this long by default: four scrapes at the usual 15 s.
pub const WINDOW: Duration = Duration::from_secs(60);
/// A picker that was scraped within so many seconds and is not now is missing.
const MISSED_SECONDS: u64 = 300;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Question {
    /// Pickers of the pool that are scraped.
    Alive,
    /// The most that were lately.
    Lately,
    /// Requests/s that flow control ended in any way, per pool.
    Ended,
    /// Counters that [`Question::Ended`] is the rate of.
    EndedCounters,
    /// Requests in the queue, per pool.
    Queued,
    /// Growth of the queue, requests/s, per pool.
    QueueGrowth,
    /// Requests/s that were handled, per model.
    Requests,
    /// Counters that [`Question::Requests`] is the rate of.
    RequestCounters,
    /// Requests on the endpoints, per model.
    Running,
    /// Prompt tokens/s, per model.
    PromptTokens,
    /// Requests/s whose prompt tokens are in [`Question::PromptTokens`].
    PromptCount,
    /// Output tokens/s, per model.
    OutputTokens,
    /// Requests/s whose output tokens are in [`Question::OutputTokens`].
    OutputCount,
    /// Prompt tokens/s found in a prefix cache, per model.
    CachedTokens,
}

impl Question {
    /// Every question.
    pub const ALL: [Self; 14] = [
        Self::Alive,
        Self::Lately,
        Self::Ended,
        Self::EndedCounters,
        Self::Queued,
        Self::QueueGrowth,
        Self::Requests,
        Self::RequestCounters,
        Self::Running,
        Self::PromptTokens,
        Self::PromptCount,
        Self::OutputTokens,
        Self::OutputCount,
        Self::CachedTokens,
    ];

    fn metric(self) -> Name {
        match self {
            Self::Alive | Self::Lately => epp::READY_ENDPOINTS,
            Self::Ended | Self::EndedCounters => epp::FLOW_REQUESTS,
            Self::Queued | Self::QueueGrowth => epp::QUEUE_SIZE,
            Self::Requests | Self::RequestCounters => epp::REQUESTS,
            Self::Running => epp::RUNNING,
            Self::PromptTokens => epp::INPUT_TOKENS_SUM,
            Self::PromptCount => epp::INPUT_TOKENS_COUNT,
            Self::OutputTokens => epp::OUTPUT_TOKENS_SUM,
            Self::OutputCount => epp::OUTPUT_TOKENS_COUNT,
            Self::CachedTokens => epp::CACHED_TOKENS_SUM,
        }
    }

    /// The label that tells pools or models apart.
    fn subject_label(self) -> &'static str {
        match self {
            Self::Alive | Self::Lately => "name",
            Self::Ended | Self::EndedCounters | Self::Queued | Self::QueueGrowth => {
                "inference_pool"
            }
            _ => "target_model_name",
        }
    }

    /// Whether the subject is a pool (else a model).
    fn by_pool(self) -> bool {
        self.subject_label() != "target_model_name"
    }

    /// What is asked of each series, over `window` where it takes time.
    fn of_series(self, series: &str, window: Duration) -> String {
        let seconds = window.as_secs();
        match self {
            Self::Alive
            | Self::Lately
            | Self::Queued
            | Self::Running
            | Self::EndedCounters
            | Self::RequestCounters => series.to_owned(),
            // A gauge: its slope, not the rate of a counter.
            Self::QueueGrowth => format!("deriv({series}[{seconds}s])"),
            _ => format!("rate({series}[{seconds}s])"),
        }
    }

    /// One number for each subject, of all its series.
    fn together(self, series: &str) -> String {
        let label = self.subject_label();
        match self {
            Self::Alive | Self::EndedCounters | Self::RequestCounters => {
                format!("count by (namespace, {label}) ({series})")
            }
            Self::Lately => format!(
                "max_over_time(count by (namespace, {label}) ({series})[{MISSED_SECONDS}s:15s])"
            ),
            _ => format!("sum by (namespace, {label}) ({series})"),
        }
    }

    /// The question about `subjects`, in PromQL, over `window`; `None` when none of them has what it asks for.
    pub fn text(self, subjects: &[Subject], window: Duration) -> Option<String> {
        let namespaces: BTreeSet<&str> = subjects
            .iter()
            .map(|subject| subject.namespace.as_str())
            .collect();
        let wanted: BTreeSet<&str> = subjects
            .iter()
            .filter_map(|subject| self.subject(subject))
            .collect();
        if wanted.is_empty() {
            return None;
        }
        let (namespaces, wanted) = (one_of(&namespaces), one_of(&wanted));
        let label = self.subject_label();
        let metric = self.metric();
        let each = metric.all().map(|name| {
            let series = format!("{name}{{namespace=~\"{namespaces}\",{label}=~\"{wanted}\"}}");
            self.of_series(&series, window)
        });
        // A picker that writes the new name and the old one is counted once, and beside one that writes the old one only.
        let series: Vec<String> = each.collect();
        let text = self.together(&series.join(" or on (namespace, pod, instance) "));
        Some(text)
    }

    fn subject(self, subject: &Subject) -> Option<&str> {
        if self.by_pool() {
            subject.pool.as_deref()
        } else {
            Some(&subject.model)
        }
    }
}

/// Who is asked about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// Namespace of pool and model.
    pub namespace: String,
    /// The InferencePool, if known.
    pub pool: Option<String>,
    /// The model, as clients name it after rewrites.
    pub model: String,
}

/// Alternatives of a fully anchored regular expression, quoted for a PromQL string.
fn one_of(values: &BTreeSet<&str>) -> String {
    let mut text = String::new();
    for value in values {
        if !text.is_empty() {
            text.push('|');
        }
        for letter in value.chars() {
            match letter {
                // A backslash of the expression is itself escaped within the string.
                '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' => {
                    text.push_str("\\\\");
                    text.push(letter);
                }
                '\\' => text.push_str("\\\\\\\\"),
                '"' => text.push_str("\\\""),
                '\n' => text.push_str("\\n"),
                other => text.push(other),
            }
        }
    }
    text
}

/// One element of an answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Element {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value.
    pub value: f64,
}

/// The answers, by question.
pub type Answers = BTreeMap<Question, Vec<Element>>;

/// What the answers say of one model, per second where not said otherwise. `None` = not told.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Picture {
    /// Requests that arrived.
    pub offered: f64,
    /// Requests that were sent to an endpoint.
    pub handled: Option<f64>,
    /// Requests waiting now (a count).
    pub queued: f64,
    /// Requests being answered now (a count).
    pub running: f64,
    /// Mean prompt, tokens.
    pub prompt: Option<f64>,
    /// Mean part of it found in a prefix cache, tokens.
    pub cached: Option<f64>,
    /// Mean output, tokens.
    pub output: Option<f64>,
    /// Pickers that were scraped lately and are not now.
    pub missing: u64,
}

/// What `answers` say of `subject`; `None` when Prometheus knows no picker of it, or not yet how fast its counters grow:
/// that is unknown, not idle.
pub fn picture(answers: &Answers, subject: &Subject) -> Option<Picture> {
    let value = |question: Question| {
        let wanted = question.subject(subject)?;
        let label = question.subject_label();
        answers.get(&question)?.iter().find_map(|element| {
            let is = |name: &str, value: &str| {
                element.labels.get(name).is_some_and(|there| there == value)
            };
            (is("namespace", &subject.namespace) && is(label, wanted) && element.value.is_finite())
                .then_some(element.value)
        })
    };
    let alive = value(Question::Alive);
    let ended = rate(value(Question::Ended), value(Question::EndedCounters))?;
    let requests = rate(value(Question::Requests), value(Question::RequestCounters))?;
    let queued = value(Question::Queued).unwrap_or(0.0).max(0.0);
    let running = value(Question::Running).unwrap_or(0.0).max(0.0);
    // Counters begin to exist with the first request: without any, a picker that is scraped is idle, unless it holds some.
    let idle = alive.is_some() && queued + running == 0.0;
    if ended.or(requests).is_none() && !idle {
        return None;
    }
    // What flow control ended, in any way, and what its queue gained, is what arrived. Where flow control is off,
    // arrivals are counted where requests are handled.
    let growth = value(Question::QueueGrowth).unwrap_or(0.0);
    let offered = ended
        .map(|ended| ended + growth)
        .or(requests)
        .unwrap_or(0.0);
    let mean = |sum: Question, count: Question| {
        let (sum, count) = (value(sum)?, value(count)?);
        (count > 0.0).then(|| (sum / count).max(0.0))
    };
    Some(Picture {
        offered: offered.max(0.0),
        handled: requests,
        queued,
        running,
        prompt: mean(Question::PromptTokens, Question::PromptCount),
        cached: mean(Question::CachedTokens, Question::PromptCount),
        output: mean(Question::OutputTokens, Question::OutputCount),
        missing: (value(Question::Lately).unwrap_or(0.0) - alive.unwrap_or(0.0)).max(0.0) as u64,
    })
}

/// A rate as it was told: `Some(None)` where nothing is counted, `None` where `counters` exist and no rate does, since
/// they were scraped once only.
fn rate(told: Option<f64>, counters: Option<f64>) -> Option<Option<f64>> {
    match (told, counters) {
        (None, Some(_)) => None,
        _ => Some(told),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject {
            namespace: "serving".into(),
            pool: Some("llama-pool".into()),
            model: "meta/llama-3.1".into(),
        }
    }

    fn element(subject: (&str, &str), value: f64) -> Element {
        Element {
            labels: [
                ("namespace".to_owned(), "serving".to_owned()),
                (subject.0.to_owned(), subject.1.to_owned()),
            ]
            .into(),
            value,
        }
    }

    const POOL: (&str, &str) = ("inference_pool", "llama-pool");
    const MODEL: (&str, &str) = ("target_model_name", "meta/llama-3.1");

    #[test]
    fn questions_read_as_written_down() {
        let other = Subject {
            namespace: "lab".into(),
            pool: None,
            model: "q\"w|n".into(),
        };
        let subjects = [subject(), other];
        let texts: Vec<String> = Question::ALL
            .iter()
            .filter_map(|question| question.text(&subjects, WINDOW))
            .collect();
        let golden = include_str!("../../../tests/golden/prometheus_queries.txt");
        assert_eq!(texts.join("\n"), golden.trim_end());
    }

    #[test]
    fn nothing_is_asked_about_pools_where_none_is_known() {
        let without = Subject {
            pool: None,
            ..subject()
        };
        assert_eq!(
            Question::Queued.text(std::slice::from_ref(&without), WINDOW),
            None
        );
        assert!(Question::Requests.text(&[without], WINDOW).is_some());
    }

    #[test]
    fn demand_is_all_that_ended_and_all_that_queued_up() {
        let answers: Answers = [
            (Question::Alive, vec![element(("name", "llama-pool"), 3.0)]),
            (Question::Ended, vec![element(POOL, 8.0)]),
            (Question::QueueGrowth, vec![element(POOL, 1.5)]),
            (Question::Queued, vec![element(POOL, 40.0)]),
            (Question::Requests, vec![element(MODEL, 7.0)]),
            (Question::PromptTokens, vec![element(MODEL, 7000.0)]),
            (Question::PromptCount, vec![element(MODEL, 7.0)]),
            (Question::CachedTokens, vec![element(MODEL, 1750.0)]),
        ]
        .into();
        let picture = picture(&answers, &subject()).unwrap();
        assert_eq!((picture.offered, picture.queued), (9.5, 40.0));
        assert_eq!(
            (picture.prompt, picture.cached),
            (Some(1000.0), Some(250.0))
        );
        assert_eq!(picture.output, None, "not told is not zero");
    }

    #[test]
    fn another_namespaces_series_is_not_ours() {
        let mut foreign = element(MODEL, 7.0);
        foreign.labels.insert("namespace".into(), "lab".into());
        let mut nameless = element(MODEL, 7.0);
        nameless.labels.remove("namespace");
        let answers: Answers = [(Question::Requests, vec![foreign, nameless])].into();
        assert_eq!(picture(&answers, &subject()), None);
    }

    #[test]
    fn a_scraped_picker_without_requests_is_idle() {
        let answers: Answers =
            [(Question::Alive, vec![element(("name", "llama-pool"), 0.0)])].into();
        assert_eq!(picture(&answers, &subject()), Some(Picture::default()));
        assert_eq!(picture(&Answers::new(), &subject()), None);
    }

    #[test]
    fn counters_without_a_rate_are_not_idle() {
        let alive = (Question::Alive, vec![element(("name", "llama-pool"), 2.0)]);
        // Scraped once since the picker started, or less often than the window is long.
        for (counters, of) in [
            (Question::EndedCounters, POOL),
            (Question::RequestCounters, MODEL),
            (Question::Running, MODEL),
        ] {
            let answers: Answers = [alive.clone(), (counters, vec![element(of, 3.0)])].into();
            assert_eq!(picture(&answers, &subject()), None, "{counters:?}");
        }
    }

    #[test]
    fn a_picker_that_is_not_scraped_any_more_is_missing() {
        let answers: Answers = [
            (Question::Alive, vec![element(("name", "llama-pool"), 2.0)]),
            (Question::Lately, vec![element(("name", "llama-pool"), 3.0)]),
            (Question::Requests, vec![element(MODEL, 7.0)]),
            (Question::RequestCounters, vec![element(MODEL, 2.0)]),
        ]
        .into();
        let picture = picture(&answers, &subject()).unwrap();
        assert_eq!((picture.offered, picture.missing), (7.0, 1));
    }

    #[test]
    fn what_is_no_number_is_unknown() {
        let answers: Answers = [(Question::Requests, vec![element(MODEL, f64::NAN)])].into();
        assert_eq!(picture(&answers, &subject()), None);
    }
}
