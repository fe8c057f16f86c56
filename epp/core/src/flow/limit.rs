//! How many requests an endpoint takes at a time, learned from the latencies of those it has.
//!
//! Latencies are followed, each against what it was on the lightly loaded endpoint (its floor): the time to first
//! token per prompt token that had to be read, which rises when the engine queues, and the time per output token,
//! which rises with its batch; of answers that do not stream, and so show neither, the whole time by the tokens read
//! and made. Once per window the worst of the ratios moves the limit.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::config::{AdaptiveConcurrency, LimitAlgorithm};

/// Samples without which a window goes on.
const ENOUGH: u32 = 5;
/// Prompt tokens that a first token costs at least, so that short prompts are comparable with long ones.
const TOKENS_AT_LEAST: f64 = 256.0;
/// Prompt tokens that are read in the time in which one output token is made, about: so that answers of few and of
/// many tokens are comparable.
const READ_PER_MADE: f64 = 128.0;
/// Smallest step down of the gradient in one window.
const LEAST_GRADIENT: f64 = 0.5;
/// Weight of a window's own target.
const SMOOTHING: f64 = 0.5;
/// Factor on the limit after a window that was not well (additive increase, multiplicative decrease).
const BACK_OFF: f64 = 0.9;
/// How fast a floor follows an endpoint that has become slower without being loaded.
const FLOOR_RISE: f64 = 0.1;

/// How limits are learned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LimitRule {
    parameters: AdaptiveConcurrency,
    window: Duration,
}

impl LimitRule {
    pub(crate) fn new(parameters: AdaptiveConcurrency, window: Duration) -> Self {
        Self { parameters, window }
    }
}

/// The limit of one endpoint: read without a lock, moved at first tokens and ends.
#[derive(Debug, Default)]
pub(crate) struct LearnedLimit {
    /// 0 = nothing is learned yet.
    limit: AtomicU32,
    learner: Mutex<Learner>,
}

/// What one window saw, and what is known from before it.
#[derive(Debug, Default)]
struct Learner {
    /// 0 = the rule's initial limit is in force.
    limit: f64,
    since: Duration,
    first_token: Track,
    per_token: Track,
    whole: Track,
    /// Most requests in flight at any sample.
    peak: u32,
    /// The endpoint said itself that it has too much to do.
    overloaded: bool,
}

/// One latency: its sum in this window, and its mean on the lightly loaded endpoint.
#[derive(Debug, Default)]
struct Track {
    sum: f64,
    count: u32,
    floor: Option<f64>,
}

impl LearnedLimit {
    /// Requests in flight that the endpoint is thought to take; `None` = nothing is learned yet.
    pub(crate) fn get(&self) -> Option<u32> {
        Some(self.limit.load(Relaxed)).filter(|&limit| limit > 0)
    }

    /// A first token came `ttft_ms` after dispatch, with `uncached_tokens` to be read and `in_flight` requests there.
    /// True = the limit has risen with that.
    pub(crate) fn first_token(
        &self,
        rule: &LimitRule,
        now: Duration,
        ttft_ms: f64,
        uncached_tokens: u64,
        in_flight: u32,
    ) -> bool {
        let sample = ttft_ms / (uncached_tokens as f64 + TOKENS_AT_LEAST);
        self.learn(rule, now, in_flight, |learner| {
            learner.first_token.add(sample)
        })
    }

    /// A stream ended well with `tpot_ms` per output token after the first.
    pub(crate) fn ended(&self, rule: &LimitRule, now: Duration, tpot_ms: f64, in_flight: u32) {
        self.learn(rule, now, in_flight, |learner| {
            learner.per_token.add(tpot_ms)
        });
    }

    /// An answer that did not stream took `took_ms` from dispatch to end, with (uncached prompt, output) tokens; none of
    /// the latter where it has none (embeddings) or does not tell.
    pub(crate) fn answered(
        &self,
        rule: &LimitRule,
        now: Duration,
        took_ms: f64,
        (uncached_tokens, output_tokens): (u64, u32),
        in_flight: u32,
    ) {
        let work =
            uncached_tokens as f64 + TOKENS_AT_LEAST + READ_PER_MADE * f64::from(output_tokens);
        self.learn(rule, now, in_flight, |learner| {
            learner.whole.add(took_ms / work)
        });
    }

    /// The endpoint refused a request for having too much to do.
    pub(crate) fn refused(&self, rule: &LimitRule, now: Duration, in_flight: u32) {
        self.learn(rule, now, in_flight, |learner| learner.overloaded = true);
    }

    fn learn(
        &self,
        rule: &LimitRule,
        now: Duration,
        in_flight: u32,
        note: impl FnOnce(&mut Learner),
    ) -> bool {
        let mut learner = self.learner.lock().unwrap_or_else(PoisonError::into_inner);
        note(&mut learner);
        learner.peak = learner.peak.max(in_flight);
        let samples = learner.first_token.count + learner.per_token.count + learner.whole.count;
        let full = samples >= ENOUGH || learner.overloaded;
        if !full || now.saturating_sub(learner.since) < rule.window {
            return false;
        }
        learner.close(&rule.parameters, now);
        // At least 1, at most the rule's maximum, which is a u32.
        let limit = learner.limit.round() as u32;
        let before = self.limit.swap(limit, Relaxed);
        limit
            > if before > 0 {
                before
            } else {
                rule.parameters.initial
            }
    }
}

impl Learner {
    /// Moves the limit by what the window saw, and begins the next.
    fn close(&mut self, rule: &AdaptiveConcurrency, now: Duration) {
        if self.limit == 0.0 {
            self.limit = f64::from(rule.initial);
        }
        let least = f64::from(rule.min.max(1));
        let peak = f64::from(self.peak);
        // At its lowest limit an endpoint is as lightly loaded as it ever gets.
        let light = peak * 2.0 <= self.limit || self.limit <= least;
        let tracks = [&mut self.first_token, &mut self.per_token, &mut self.whole];
        let strain = tracks.into_iter().map(|track| track.strain(light));
        let strain = strain.flatten().fold(0.0, f64::max);
        // A limit that nobody comes near is not known to be too low.
        let pressed = peak * 2.0 >= self.limit;
        self.limit = match rule.algorithm {
            LimitAlgorithm::Gradient => self.gradient(rule.tolerance, strain, pressed),
            LimitAlgorithm::Aimd => self.stepped(rule.tolerance, strain, pressed),
        }
        .clamp(least, f64::from(rule.max.max(rule.min)));
        (self.since, self.peak, self.overloaded) = (now, 0, false);
    }

    fn gradient(&self, tolerance: f64, strain: f64, pressed: bool) -> f64 {
        let gradient = if self.overloaded {
            LEAST_GRADIENT
        } else {
            (tolerance / strain.max(f64::MIN_POSITIVE)).clamp(LEAST_GRADIENT, 1.0)
        };
        let room = if pressed { self.limit.sqrt() } else { 0.0 };
        let target = self.limit * gradient + room;
        self.limit + SMOOTHING * (target - self.limit)
    }

    fn stepped(&self, tolerance: f64, strain: f64, pressed: bool) -> f64 {
        if self.overloaded || strain > tolerance {
            self.limit * BACK_OFF
        } else {
            self.limit + f64::from(u8::from(pressed))
        }
    }
}

impl Track {
    fn add(&mut self, sample: f64) {
        if sample.is_finite() && sample > 0.0 {
            self.sum += sample;
            self.count += 1;
        }
    }

    /// The window's mean over the floor, `None` without samples. The floor follows the lowest mean seen, and rises
    /// only while the endpoint is lightly loaded.
    fn strain(&mut self, light: bool) -> Option<f64> {
        let count = std::mem::take(&mut self.count);
        let sum = std::mem::take(&mut self.sum);
        if count == 0 {
            return None;
        }
        let mean = sum / f64::from(count);
        let floor = match self.floor {
            None => mean,
            Some(floor) if light && mean > floor => floor + FLOOR_RISE * (mean - floor),
            Some(floor) => floor.min(mean),
        };
        self.floor = Some(floor);
        Some(mean / floor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(algorithm: LimitAlgorithm) -> LimitRule {
        let parameters = AdaptiveConcurrency {
            algorithm,
            ..AdaptiveConcurrency::default()
        };
        LimitRule::new(parameters, Duration::from_secs(1))
    }

    /// An endpoint that serves `well` requests at once without harm, under as much load as the limit lets through:
    /// ten samples a second of latencies that grow with what is above it.
    fn settled(limit: &LearnedLimit, rule: &LimitRule, well: f64, seconds: std::ops::Range<u64>) {
        for second in seconds {
            let in_flight = limit.get().unwrap_or(rule.parameters.initial);
            let queueing = (f64::from(in_flight) / well).max(1.0).powi(3);
            for tenth in 1..=10 {
                let now = Duration::from_millis(second * 1_000 + tenth * 100);
                limit.first_token(rule, now, 100.0 * queueing, 744, in_flight);
            }
        }
    }

    #[test]
    fn a_limit_finds_what_the_endpoint_takes_from_either_side() {
        for algorithm in [LimitAlgorithm::Gradient, LimitAlgorithm::Aimd] {
            for well in [6.0, 60.0] {
                let (limit, rule) = (LearnedLimit::default(), rule(algorithm));
                // The floor is seen first, while there is little to do.
                limit.first_token(&rule, Duration::ZERO, 100.0, 744, 1);
                for sample in 0..5 {
                    limit.first_token(&rule, Duration::from_secs(1 + sample), 100.0, 744, 1);
                }
                settled(&limit, &rule, well, 10..200);
                let learned = f64::from(limit.get().unwrap());
                assert!(
                    (0.8 * well..2.0 * well).contains(&learned),
                    "{algorithm:?} {well}: {learned}"
                );
            }
        }
    }

    #[test]
    fn a_limit_that_nobody_comes_near_stays() {
        for algorithm in [LimitAlgorithm::Gradient, LimitAlgorithm::Aimd] {
            let (limit, rule) = (LearnedLimit::default(), rule(algorithm));
            for tenth in 0..600 {
                limit.ended(&rule, Duration::from_millis(tenth * 100), 20.0, 2);
            }
            assert_eq!(limit.get(), Some(16), "{algorithm:?}");
        }
    }

    /// Whole times as they are without streams, with a burst of refusals in between.
    #[test]
    fn a_limit_recovers_by_answers_that_do_not_stream() {
        for algorithm in [LimitAlgorithm::Gradient, LimitAlgorithm::Aimd] {
            let (limit, rule) = (LearnedLimit::default(), rule(algorithm));
            for second in 1..20 {
                limit.refused(&rule, Duration::from_secs(second), 16);
            }
            let burst = limit.get().unwrap();
            assert!(burst < 16, "{algorithm:?}: {burst}");
            for tenth in 200..1_000 {
                let (now, in_flight) = (Duration::from_millis(tenth * 100), limit.get().unwrap());
                // Long and short answers of an engine that is never strained.
                let output = 10 * (1 + tenth as u32 % 20);
                let took_ms = 30.0 + 20.0 * f64::from(output);
                limit.answered(&rule, now, took_ms, (400, output), in_flight);
            }
            let learned = limit.get().unwrap();
            assert!(learned > 32, "{algorithm:?}: {learned}");
        }
    }

    #[test]
    fn a_limit_falls_with_answers_that_take_longer_and_do_not_stream() {
        let (limit, rule) = (LearnedLimit::default(), rule(LimitAlgorithm::Gradient));
        for tenth in 0..100 {
            let took_ms = if tenth < 50 { 100.0 } else { 900.0 };
            let now = Duration::from_millis(tenth * 100);
            limit.answered(&rule, now, took_ms, (700, 0), 16);
        }
        assert!(limit.get().unwrap() < 16);
    }

    #[test]
    fn an_endpoint_that_refuses_is_given_less_down_to_the_minimum() {
        let (limit, rule) = (LearnedLimit::default(), rule(LimitAlgorithm::Gradient));
        let mut last = 16;
        for second in 1..60 {
            limit.refused(&rule, Duration::from_secs(second), last);
            let learned = limit.get().unwrap();
            assert!(learned <= last);
            last = learned;
        }
        assert!(last <= 4, "{last}");
    }

    #[test]
    fn what_is_no_latency_teaches_nothing() {
        let (limit, rule) = (LearnedLimit::default(), rule(LimitAlgorithm::Gradient));
        for second in 0..20 {
            limit.ended(&rule, Duration::from_secs(second), f64::NAN, 16);
            limit.ended(&rule, Duration::from_secs(second), 0.0, 16);
        }
        assert_eq!(limit.get(), None);
    }
}
