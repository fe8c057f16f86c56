//! Rates become cumulative counts again, which is what demand is measured from.

use std::time::Duration;

use controller_core::mix::Sample;
use controller_core::shares::{Band, Report, Shape, Silent};
use controller_core::signals::{Backlog, Totals, Volume};

use super::query::Picture;

/// A rate is taken to hold for at most this long after it was asked for.
const HOLDS: Duration = Duration::from_secs(30);

/// Sums the rates of one model up over time.
#[derive(Clone, Debug, Default)]
pub struct Integral {
    last: Option<Known>,
    requests: f64,
    prompt_tokens: f64,
    handled: f64,
    shapes: u64,
    /// Since when pickers are missing.
    missing_since: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    picture: Picture,
    /// When Prometheus told it.
    since: Duration,
    /// Up to when it is summed up.
    until: Duration,
}

impl Integral {
    /// Takes a new picture.
    pub fn observe(&mut self, now: Duration, picture: Picture) {
        self.advance(now);
        self.missing_since = (picture.missing > 0).then(|| self.missing_since.unwrap_or(now));
        self.last = Some(Known {
            picture,
            since: now,
            until: now,
        });
    }

    /// The counts as of `now`; `None` before the first picture and when the last one is too old to go by.
    pub fn report(&mut self, now: Duration) -> Option<Report> {
        self.advance(now);
        let picture = self.last?.picture;
        let prompt = picture.prompt.unwrap_or(0.0);
        let shape = picture
            .prompt
            .filter(|_| picture.offered > 0.0)
            .map(|input| Shape {
                priority: 0,
                sample: Sample {
                    input: input as f32,
                    cached: picture.cached.unwrap_or(0.0) as f32,
                    output: picture.output.map(|output| output as f32),
                },
            });
        let mix_from = self.shapes;
        self.shapes += u64::from(shape.is_some());
        Some(Report {
            incarnation: 0,
            // The integral begins at zero, when the first picture comes.
            uptime: Duration::ZERO,
            bands: vec![Band {
                priority: 0,
                totals: Totals {
                    offered: Volume {
                        requests: self.requests as u64,
                        prompt_tokens: self.prompt_tokens as u64,
                    },
                    served: self.handled as u64,
                    ..Totals::default()
                },
                queued: Backlog {
                    requests: picture.queued.round() as u64,
                    sheddable: 0,
                    prompt_tokens: (picture.queued * prompt).round() as u64,
                },
            }],
            in_flight: picture.running.round() as u64,
            mix_from,
            mix: shape.into_iter().collect(),
        })
    }

    /// The pickers whose share is not in the last picture.
    pub fn missing(&self, now: Duration) -> Option<Silent> {
        let count = self.last?.picture.missing;
        let since = self.missing_since?;
        Some(Silent {
            id: format!("{count} endpoint pickers that Prometheus does not scrape any more"),
            unheard: now.saturating_sub(since),
        })
    }

    /// Adds what came until `now` at the last rates, and forgets them when they are too old. Time for which nothing
    /// is known adds nothing: the demand then is unknown, and said to be.
    fn advance(&mut self, now: Duration) {
        let Some(known) = &mut self.last else {
            return;
        };
        let holds_until = known.since + HOLDS;
        let seconds = now
            .min(holds_until)
            .saturating_sub(known.until)
            .as_secs_f64();
        known.until = now;
        let picture = known.picture;
        let requests = picture.offered * seconds;
        self.requests += requests;
        self.prompt_tokens += requests * picture.prompt.unwrap_or(0.0);
        self.handled += picture.handled.unwrap_or(0.0) * seconds;
        if now > holds_until {
            self.last = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn offered(integral: &mut Integral, now: u64) -> Option<(u64, u64)> {
        let report = integral.report(at(now))?;
        let offered = report.bands[0].totals.offered;
        Some((offered.requests, offered.prompt_tokens))
    }

    #[test]
    fn counts_grow_at_the_rates_told() {
        let mut integral = Integral::default();
        assert_eq!(offered(&mut integral, 0), None);
        let picture = Picture {
            offered: 2.0,
            prompt: Some(100.0),
            queued: 5.0,
            ..Picture::default()
        };
        integral.observe(at(10), picture);
        assert_eq!(offered(&mut integral, 15), Some((10, 1000)));
        let doubled = Picture {
            offered: 4.0,
            ..picture
        };
        integral.observe(at(20), doubled);
        assert_eq!(offered(&mut integral, 25), Some((40, 4000)));
        let report = integral.report(at(25)).unwrap();
        assert_eq!(report.bands[0].queued.prompt_tokens, 500);
        assert_eq!(report.mix[0].sample.input, 100.0);
    }

    #[test]
    fn a_missing_picker_is_named_until_it_is_back() {
        let mut integral = Integral::default();
        let picture = |missing| Picture {
            missing,
            ..Picture::default()
        };
        integral.observe(at(0), picture(1));
        integral.observe(at(5), picture(2));
        let silent = integral.missing(at(6)).unwrap();
        assert!(silent.id.starts_with("2 endpoint pickers"), "{}", silent.id);
        assert_eq!(silent.unheard, at(6));
        integral.observe(at(10), picture(0));
        assert_eq!(integral.missing(at(11)), None);
    }

    #[test]
    fn rates_that_are_too_old_say_nothing_and_add_nothing() {
        let mut integral = Integral::default();
        let picture = Picture {
            offered: 2.0,
            ..Picture::default()
        };
        integral.observe(at(0), picture);
        assert_eq!(offered(&mut integral, 10), Some((20, 0)));
        assert_eq!(offered(&mut integral, 25), Some((50, 0)));
        assert_eq!(offered(&mut integral, 31), None);
        integral.observe(at(200), picture);
        assert_eq!(
            offered(&mut integral, 200),
            Some((60, 0)),
            "as long as they held"
        );
    }
}
