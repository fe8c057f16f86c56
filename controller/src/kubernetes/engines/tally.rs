//! From the pages of one engine to the requests that came to it.
//!
//! An engine counts what it has served and shows what it holds. What came to it is the sum of the two: requests in
//! front of it (a queue elsewhere, requests turned away) are not seen, which is why this is the last of the sources.

use std::time::Duration;

use controller_core::mix::Sample;
use controller_core::shares::{Band, Report, Shape};
use controller_core::signals::{Backlog, Totals, Volume};

use super::page::Page;

/// Cumulative arrivals of one engine, its restarts told apart.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Tells the engine's runs apart, also those of which an earlier tally told: when the process started where the page
    /// says so, else when it was first seen, nanoseconds.
    incarnation: Option<u64>,
    /// Since when this incarnation is watched, once one was seen to begin.
    begun: Option<Duration>,
    served: Option<f64>,
    offered: u64,
    prompt_tokens: u64,
    shapes: u64,
}

impl Tally {
    /// Takes a page read at `now`; `None` when it does not tell of requests, so that unknown does not become zero.
    pub fn observe(&mut self, now: Duration, page: Page) -> Option<Report> {
        let served = page.served?;
        let (waiting, running) = (page.waiting?, page.running?);
        let first_seen = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let started = page.started.map(|started| (started * 1e9) as u64);
        let restarted = match (self.incarnation, started) {
            (Some(before), Some(started)) => before != started,
            _ => self.served.is_some_and(|before| served < before),
        };
        if restarted {
            *self = Self {
                begun: Some(now),
                ..Self::default()
            };
        }
        let incarnation = *self
            .incarnation
            .get_or_insert(started.unwrap_or(first_seen));
        let answered = self.served.is_some_and(|before| served > before);
        self.served = Some(served);
        // A request whose client left goes out of what the engine holds without being served: the sum may shrink,
        // what has come cannot.
        self.offered = self.offered.max(whole(served + waiting + running));
        let mean_prompt = mean(page.prompt_tokens, served);
        let queued_tokens = waiting * mean_prompt.unwrap_or(0.0);
        let prompt = page.prompt_tokens.unwrap_or(0.0) + queued_tokens;
        self.prompt_tokens = self.prompt_tokens.max(whole(prompt));
        let totals = Totals {
            offered: Volume {
                requests: self.offered,
                prompt_tokens: self.prompt_tokens,
            },
            served: whole(served),
            ..Totals::default()
        };
        let queued = Backlog {
            requests: whole(waiting),
            sheddable: 0,
            prompt_tokens: whole(queued_tokens),
        };
        let shape = mean_prompt.filter(|_| answered).map(|input| Shape {
            priority: 0,
            sample: Sample {
                input: input as f32,
                cached: mean(page.cached_tokens, served).unwrap_or(0.0) as f32,
                output: mean(page.output_tokens, served).map(|output| output as f32),
            },
        });
        let mix_from = self.shapes;
        self.shapes += u64::from(shape.is_some());
        Some(Report {
            incarnation,
            // An engine that was there before us has counted for who knows how long.
            uptime: self
                .begun
                .map_or(Duration::MAX, |begun| now.saturating_sub(begun)),
            bands: vec![Band {
                priority: 0,
                totals,
                queued,
            }],
            in_flight: whole(running),
            mix_from,
            mix: shape.into_iter().collect(),
        })
    }
}

/// Tokens per served request.
fn mean(tokens: Option<f64>, served: f64) -> Option<f64> {
    tokens
        .filter(|_| served >= 1.0)
        .map(|tokens| tokens / served)
}

/// A count that a page gave as a number, 0 or more.
fn whole(value: f64) -> u64 {
    value.round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(served: f64, waiting: f64, running: f64) -> Page {
        Page {
            waiting: Some(waiting),
            running: Some(running),
            served: Some(served),
            prompt_tokens: Some(served * 100.0),
            cached_tokens: Some(served * 25.0),
            output_tokens: Some(served * 10.0),
            kv_tokens: Some(1000.0),
            started: None,
        }
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn offered(report: &Report) -> u64 {
        report.bands[0].totals.offered.requests
    }

    #[test]
    fn what_came_is_what_is_served_and_what_is_held() {
        let mut tally = Tally::default();
        let report = tally.observe(at(0), page(10.0, 3.0, 2.0)).unwrap();
        assert_eq!((offered(&report), report.in_flight), (15, 2));
        assert_eq!(report.bands[0].totals.offered.prompt_tokens, 1300);
        assert_eq!(report.bands[0].queued.requests, 3);
        assert!(report.mix.is_empty(), "nothing was answered since");
        let report = tally.observe(at(1), page(12.0, 1.0, 2.0)).unwrap();
        let sample = report.mix[0].sample;
        assert_eq!(
            (sample.input, sample.cached, sample.output),
            (100.0, 25.0, Some(10.0))
        );
    }

    #[test]
    fn a_client_that_leaves_takes_no_arrival_back() {
        let mut tally = Tally::default();
        let _ = tally.observe(at(0), page(10.0, 5.0, 0.0));
        let report = tally.observe(at(1), page(10.0, 0.0, 0.0)).unwrap();
        assert_eq!(offered(&report), 15);
    }

    #[test]
    fn a_restarted_engine_counts_anew() {
        let mut tally = Tally::default();
        let before = tally.observe(at(0), page(10.0, 5.0, 0.0)).unwrap();
        let report = tally.observe(at(1), page(1.0, 0.0, 1.0)).unwrap();
        assert_eq!((offered(&report), report.uptime), (2, at(0)));
        assert_ne!(report.incarnation, before.incarnation);
    }

    #[test]
    fn an_engine_that_was_out_of_sight_is_told_from_one_that_restarted() {
        let started = |started, served| Page {
            started: Some(started),
            ..page(served, 0.0, 0.0)
        };
        let run = |page| Tally::default().observe(at(0), page).unwrap().incarnation;
        assert_eq!(run(started(1.5, 10.0)), run(started(1.5, 12.0)));
        assert_ne!(run(started(1.5, 10.0)), run(started(2.5, 12.0)));
        let mut tally = Tally::default();
        let _ = tally.observe(at(0), started(1.5, 10.0));
        let report = tally.observe(at(1), started(2.5, 12.0)).unwrap();
        assert_eq!(
            offered(&report),
            12,
            "it served more than before within a second"
        );
        // Where no page tells, one that comes back is taken as new, and counts from what it shows first.
        let first = Tally::default()
            .observe(at(0), page(10.0, 0.0, 0.0))
            .unwrap();
        let again = Tally::default()
            .observe(at(9), page(3.0, 0.0, 0.0))
            .unwrap();
        assert_ne!(first.incarnation, again.incarnation);
    }

    #[test]
    fn a_page_without_requests_is_unknown() {
        let silent = Page {
            kv_tokens: Some(1.0),
            ..Page::default()
        };
        assert_eq!(Tally::default().observe(at(0), silent), None);
    }
}
