//! What the clients saw: every request's fate, and the last few seconds of latencies.

use std::collections::BTreeMap;
use std::time::Duration;

use controller_core::fleet::client::Kind;
use controller_core::fleet::{KindScore, Percentiles, Slo};
use epp_core::Outcome;
use parking_lot::Mutex;

use crate::demo::statistics::Window;

/// Over how long the progress line's percentiles are taken.
pub(super) const WINDOW: Duration = Duration::from_secs(5);
/// Most different problems that are kept for the report.
const MAX_PROBLEMS: usize = 8;

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Answered to the last token.
    Served,
    /// Turned away with a reason.
    Refused {
        /// HTTP status.
        status: u16,
        /// `x-llm-d-request-dropped-reason`.
        reason: String,
    },
    /// Anything else; never expected.
    Failed(String),
}

/// A request that has ended.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    /// Who asked.
    pub(super) kind: Kind,
    /// When it ended, since the start of the load.
    pub(super) at: Duration,
    /// From when it was due to the first token.
    pub(super) ttft_ms: Option<f64>,
    /// Mean time per output token after the first.
    pub(super) tpot_ms: Option<f64>,
    /// Prompt tokens, as the server counted them; 0 = not told.
    pub(super) prompt_tokens: u32,
    /// Of those, from its prefix cache.
    pub(super) cached_tokens: u32,
    /// How it ended.
    pub(super) ending: Ending,
}

/// Written by every client, read once a second.
pub(super) struct Record {
    slo: Slo,
    inner: Mutex<Inner>,
}

struct Inner {
    kinds: BTreeMap<Kind, Fates>,
    arrivals: Window,
    ttft_ms: Window,
    tpot_ms: Window,
    prompt: Window,
    cached: Window,
    prompt_tokens: u64,
    cached_tokens: u64,
    lateness: Duration,
    problems: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Fates {
    offered: u64,
    served: u64,
    refused: BTreeMap<&'static str, u64>,
    expired: u64,
    met: u64,
    ttft_ms: Vec<f64>,
    tpot_ms: Vec<f64>,
}

/// What the clients see at one instant.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Glance {
    /// Requests per second that left lately.
    pub(super) offered: f64,
    /// Latencies of the last few seconds, in milliseconds.
    pub(super) ttft_p50: Option<f64>,
    pub(super) ttft_p90: Option<f64>,
    pub(super) tpot_p50: Option<f64>,
    pub(super) tpot_p90: Option<f64>,
    /// Share of the prompt tokens answered lately that were cached.
    pub(super) hit_share: Option<f64>,
    /// Refused since the start because no server could meet the SLO.
    pub(super) shed: u64,
    /// Refused or expired since the start for any other reason.
    pub(super) dropped: u64,
    /// Failed since the start.
    pub(super) failed: u64,
}

/// The whole of it, when the load has ended.
pub(super) struct Summary {
    /// Scores by kind.
    pub(super) kinds: BTreeMap<&'static str, KindScore>,
    /// Share of the prompt tokens of served requests that were cached.
    pub(super) hit_share: f64,
    /// How late the latest request left.
    pub(super) lateness: Duration,
    /// What went wrong, and how often.
    pub(super) problems: BTreeMap<String, u64>,
}

/// Key under which failures are counted beside the reasons of refusals.
const FAILED: &str = "failed";

impl Record {
    /// Nothing yet; requests with an SLO are scored against `slo`.
    pub(super) fn new(slo: Slo) -> Self {
        let window = || Window::new(WINDOW);
        let inner = Inner {
            kinds: Kind::ALL
                .into_iter()
                .map(|kind| (kind, Fates::default()))
                .collect(),
            arrivals: window(),
            ttft_ms: window(),
            tpot_ms: window(),
            prompt: window(),
            cached: window(),
            prompt_tokens: 0,
            cached_tokens: 0,
            lateness: Duration::ZERO,
            problems: BTreeMap::new(),
        };
        Self {
            slo,
            inner: Mutex::new(inner),
        }
    }

    /// A request leaves at `now` that was due at `due`.
    pub(super) fn offered(&self, kind: Kind, due: Duration, now: Duration) {
        let mut inner = self.inner.lock();
        inner.lateness = inner.lateness.max(now.saturating_sub(due));
        inner.arrivals.push(now, 1.0);
        inner.kinds.entry(kind).or_default().offered += 1;
    }

    /// A first token came at `at`, after `ttft`.
    pub(super) fn first_token(&self, at: Duration, ttft: Duration) {
        self.inner.lock().ttft_ms.push(at, ttft.as_secs_f64() * 1e3);
    }

    /// A request has ended.
    pub(super) fn ended(&self, answer: Answer) {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        let fates = inner.kinds.entry(answer.kind).or_default();
        let mut ttft_ms = f64::INFINITY;
        match answer.ending {
            Ending::Served => {
                ttft_ms = answer.ttft_ms.unwrap_or(f64::INFINITY);
                fates.served += 1;
                fates.met += u64::from(meets(self.slo, ttft_ms, answer.tpot_ms));
                fates.tpot_ms.extend(answer.tpot_ms);
                if let Some(tpot_ms) = answer.tpot_ms {
                    inner.tpot_ms.push(answer.at, tpot_ms);
                }
                inner
                    .prompt
                    .push(answer.at, f64::from(answer.prompt_tokens));
                inner
                    .cached
                    .push(answer.at, f64::from(answer.cached_tokens));
                inner.prompt_tokens += u64::from(answer.prompt_tokens);
                inner.cached_tokens += u64::from(answer.cached_tokens);
            }
            Ending::Refused { reason, .. } => match Known::of(&reason) {
                Known::Expired => fates.expired += 1,
                Known::Refused(reason) => *fates.refused.entry(reason).or_default() += 1,
            },
            Ending::Failed(problem) => {
                *fates.refused.entry(FAILED).or_default() += 1;
                if inner.problems.len() < MAX_PROBLEMS || inner.problems.contains_key(&problem) {
                    *inner.problems.entry(problem).or_default() += 1;
                }
            }
        }
        fates.ttft_ms.push(ttft_ms);
    }

    /// What is seen at `now`.
    pub(super) fn glance(&self, now: Duration) -> Glance {
        let mut guard = self.inner.lock();
        let inner = &mut *guard;
        for window in [
            &mut inner.arrivals,
            &mut inner.ttft_ms,
            &mut inner.tpot_ms,
            &mut inner.prompt,
            &mut inner.cached,
        ] {
            window.trim(now);
        }
        let prompt = inner.prompt.sum();
        let refused = |wanted: &str| {
            inner
                .kinds
                .values()
                .filter_map(|fates| fates.refused.get(wanted))
                .sum::<u64>()
        };
        let refusals: u64 = inner
            .kinds
            .values()
            .flat_map(|fates| fates.refused.values())
            .sum();
        let expired: u64 = inner.kinds.values().map(|fates| fates.expired).sum();
        let (shed, failed) = (refused(shed_reason()), refused(FAILED));
        Glance {
            offered: inner.arrivals.rate(now),
            ttft_p50: inner.ttft_ms.percentile(0.5),
            ttft_p90: inner.ttft_ms.percentile(0.9),
            tpot_p50: inner.tpot_ms.percentile(0.5),
            tpot_p90: inner.tpot_ms.percentile(0.9),
            hit_share: (prompt > 0.0).then(|| inner.cached.sum() / prompt),
            shed,
            dropped: refusals - shed - failed + expired,
            failed,
        }
    }

    /// The whole of it.
    pub(super) fn summary(&self) -> Summary {
        let inner = self.inner.lock();
        let score = |fates: &Fates| KindScore {
            offered: fates.offered,
            served: fates.served,
            refused: fates.refused.clone(),
            expired: fates.expired,
            met: fates.met,
            ttft_ms: Percentiles::of(fates.ttft_ms.clone()),
            tpot_ms: Percentiles::of(fates.tpot_ms.clone()),
        };
        Summary {
            kinds: inner
                .kinds
                .iter()
                .map(|(kind, fates)| (kind.name(), score(fates)))
                .collect(),
            hit_share: inner.cached_tokens as f64 / (inner.prompt_tokens as f64).max(1.0),
            lateness: inner.lateness,
            problems: inner.problems.clone(),
        }
    }
}

fn meets(slo: Slo, ttft_ms: f64, tpot_ms: Option<f64>) -> bool {
    ttft_ms <= slo.ttft_ms && tpot_ms.is_none_or(|tpot_ms| tpot_ms <= slo.tpot_ms)
}

/// The reason that a shed request is told.
fn shed_reason() -> &'static str {
    Outcome::RejectedSlo
        .refusal()
        .map_or("", |(_, reason)| reason)
}

/// A reason as reports sort it.
enum Known {
    Expired,
    Refused(&'static str),
}

impl Known {
    fn of(reason: &str) -> Self {
        let outcome = Outcome::ALL
            .into_iter()
            .find(|outcome| outcome.refusal().is_some_and(|(_, known)| known == reason));
        match outcome {
            Some(Outcome::EvictedTtl | Outcome::EvictedNoEndpoints) => Self::Expired,
            Some(outcome) => Self::Refused(outcome.refusal().map_or("other", |(_, reason)| reason)),
            None => Self::Refused("other"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLO: Slo = Slo {
        ttft_ms: 2_000.0,
        tpot_ms: 150.0,
    };

    fn answer(kind: Kind, second: u64, ttft_ms: f64, ending: Ending) -> Answer {
        let at = Duration::from_secs(second);
        Answer {
            kind,
            at,
            ttft_ms: Some(ttft_ms),
            tpot_ms: Some(20.0),
            prompt_tokens: 100,
            cached_tokens: 25,
            ending,
        }
    }

    #[test]
    fn every_request_is_counted_where_it_ended() {
        let record = Record::new(SLO);
        let refused = |reason: &str| Ending::Refused {
            status: 429,
            reason: reason.into(),
        };
        let endings = [
            (Kind::Interactive, 500.0, Ending::Served),
            (Kind::Interactive, 2_500.0, Ending::Served),
            (Kind::Interactive, 0.0, refused("rejected-ttl-expired")),
            (Kind::Sheddable, 0.0, refused("rejected-slo-unattainable")),
            (Kind::Sheddable, 0.0, refused("rejected-saturated")),
            (Kind::Plain, 0.0, Ending::Failed("status 500".into())),
        ];
        for (kind, ttft_ms, ending) in endings {
            record.offered(kind, Duration::from_secs(1), Duration::from_millis(1_003));
            record.ended(answer(kind, 2, ttft_ms, ending));
        }
        let glance = record.glance(Duration::from_secs(3));
        assert_eq!((glance.shed, glance.dropped, glance.failed), (1, 2, 1));
        assert_eq!((glance.offered, glance.hit_share), (2.0, Some(0.25)));
        let summary = record.summary();
        let interactive = &summary.kinds["interactive"];
        assert_eq!(
            (
                interactive.offered,
                interactive.served,
                interactive.met,
                interactive.expired
            ),
            (3, 2, 1, 1)
        );
        assert_eq!(interactive.ttft_ms.p90, f64::INFINITY);
        assert_eq!(
            summary.kinds["sheddable"].refused["rejected-slo-unattainable"],
            1
        );
        assert_eq!(
            (summary.lateness.as_millis(), summary.problems["status 500"]),
            (3, 1)
        );
    }

    #[test]
    fn a_glance_forgets_what_is_older_than_its_window() {
        let record = Record::new(SLO);
        record.first_token(Duration::from_secs(1), Duration::from_millis(900));
        record.first_token(Duration::from_secs(8), Duration::from_millis(100));
        assert_eq!(record.glance(Duration::from_secs(9)).ttft_p90, Some(100.0));
        assert_eq!(record.glance(Duration::from_secs(60)).ttft_p90, None);
    }

    #[test]
    fn problems_kept_for_the_report_are_bounded() {
        let record = Record::new(SLO);
        for number in 0..100 {
            record.ended(answer(
                Kind::Plain,
                1,
                1.0,
                Ending::Failed(number.to_string()),
            ));
        }
        assert_eq!(record.summary().problems.len(), MAX_PROBLEMS);
        assert_eq!(record.summary().kinds["plain"].refused[FAILED], 100);
    }
}
