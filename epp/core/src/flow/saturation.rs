//! Whether the pool, and one endpoint of it, has room for another request.

use std::time::Duration;

use crate::config::{ConcurrencyDetector, ConcurrencyMode, Detector, UtilizationDetector};
use crate::endpoint::{LoadSnapshot, Scraped};

/// What a detector reads of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) load: LoadSnapshot,
    /// The last scrape, however old.
    pub(crate) scraped: Option<Scraped>,
}

/// How full a pool is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Saturation {
    /// There is no endpoint.
    Empty,
    /// No endpoint has a usable reading. That is not full: a stale metric must not stop a pool.
    Unknown,
    /// 1 = the configured capacity is in use; may exceed 1.
    Level(f64),
}

impl Saturation {
    /// Whether another request may be dispatched below `ceiling`.
    pub(crate) fn admits(self, ceiling: f64) -> bool {
        match self {
            Self::Empty => false,
            Self::Unknown => true,
            Self::Level(level) => level < ceiling,
        }
    }
}

/// Saturation over all endpoints: Σ used ÷ Σ capacity (concurrency; hybrid: mean of the fuller of both), or the
/// mean level of the endpoints with a fresh scrape (utilization).
pub(crate) fn saturation(detector: &Detector, readings: &[Reading], now: Duration) -> Saturation {
    if readings.is_empty() {
        return Saturation::Empty;
    }
    let levels = readings.iter().filter_map(|reading| {
        // Room that peers are assumed to have taken fills an endpoint at most: where the last slot is theirs this time,
        // it is ours elsewhere.
        let told = Reading {
            load: LoadSnapshot {
                assumed: 0,
                ..reading.load
            },
            ..*reading
        };
        let told = level(detector, &told, now)?;
        let assumed = level(detector, reading, now)?;
        Some(assumed.min(1.0).max(told))
    });
    let (sum, known) = levels.fold((0.0, 0_u32), |(sum, known), level| (sum + level, known + 1));
    if known == 0 {
        Saturation::Unknown
    } else {
        Saturation::Level(sum / f64::from(known))
    }
}

/// Whether one endpoint stays within `ceiling·(1 + headroom)` of its capacity before another request is added.
pub(crate) fn has_room(
    detector: &Detector,
    reading: &Reading,
    ceiling: f64,
    now: Duration,
) -> bool {
    let headroom = match detector {
        Detector::Concurrency(parameters) => parameters.headroom,
        Detector::Utilization { parameters, .. } => parameters.headroom,
    };
    level(detector, reading, now).is_none_or(|level| level < ceiling * (1.0 + headroom))
}

/// Share of its capacity that one endpoint uses; `None` = unknown. All endpoints have the same configured
/// capacity, so that the mean of shares is Σ used ÷ Σ capacity.
fn level(detector: &Detector, reading: &Reading, now: Duration) -> Option<f64> {
    match detector {
        Detector::Concurrency(parameters) => Some(concurrency(parameters, &reading.load)),
        Detector::Utilization {
            parameters,
            staleness,
        } => {
            let fresh = reading
                .scraped
                .filter(|scraped| scraped.age(now) <= *staleness)?;
            utilization(parameters, &fresh, reading.load.since_scrape)
        }
    }
}

fn concurrency(parameters: &ConcurrencyDetector, load: &LoadSnapshot) -> f64 {
    let in_flight = f64::from(load.in_flight) + f64::from(load.assumed);
    let requests = in_flight / f64::from(parameters.max_concurrency);
    let tokens = (load.waiting_tokens + load.resident_tokens) as f64
        / parameters.max_token_concurrency as f64;
    match parameters.concurrency_mode {
        ConcurrencyMode::Requests => requests,
        ConcurrencyMode::Tokens => tokens,
        ConcurrencyMode::Hybrid => requests.max(tokens),
    }
}

/// `max(queue ÷ threshold, KV ÷ threshold)` of what was scraped. Requests dispatched since are counted into the
/// queue: the scrape cannot have seen them, and a drain would otherwise overshoot on it.
fn utilization(
    parameters: &UtilizationDetector,
    scraped: &Scraped,
    since_scrape: u32,
) -> Option<f64> {
    let queue = f64::from(scraped.waiting) + f64::from(since_scrape);
    // `max` of f64 ignores a NaN operand: one absent metric leaves the other in charge.
    let level = (queue / parameters.queue_depth_threshold)
        .max(f64::from(scraped.kv_utilization) / parameters.kv_cache_util_threshold);
    (!level.is_nan()).then_some(level)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn busy(in_flight: u32, waiting_tokens: u64) -> Reading {
        let load = LoadSnapshot {
            in_flight,
            waiting_tokens,
            ..LoadSnapshot::default()
        };
        Reading {
            load,
            scraped: None,
        }
    }

    fn scraped(age_ms: u64, waiting: f32, kv_utilization: f32) -> Reading {
        let at = NOW - Duration::from_millis(age_ms);
        let scraped = Scraped {
            at,
            waiting,
            running: 0.0,
            kv_utilization,
            block_tokens: None,
            kv_blocks: None,
        };
        Reading {
            load: LoadSnapshot::default(),
            scraped: Some(scraped),
        }
    }

    fn concurrency(mode: ConcurrencyMode) -> Detector {
        Detector::Concurrency(ConcurrencyDetector {
            concurrency_mode: mode,
            max_concurrency: 10,
            max_token_concurrency: 1_000,
            headroom: 0.2,
        })
    }

    #[test]
    fn concurrency_is_in_flight_over_capacity() {
        let pool = [busy(4, 100), busy(10, 900)];
        let of = |mode| saturation(&concurrency(mode), &pool, NOW);
        assert_eq!(of(ConcurrencyMode::Requests), Saturation::Level(0.7));
        assert_eq!(of(ConcurrencyMode::Tokens), Saturation::Level(0.5));
        assert_eq!(of(ConcurrencyMode::Hybrid), Saturation::Level(0.7));
        assert_eq!(
            saturation(&concurrency(ConcurrencyMode::Requests), &[], NOW),
            Saturation::Empty
        );
    }

    #[test]
    fn one_endpoint_may_exceed_its_share_by_the_headroom_only() {
        let detector = concurrency(ConcurrencyMode::Requests);
        assert!(has_room(&detector, &busy(11, 0), 1.0, NOW));
        assert!(!has_room(&detector, &busy(12, 0), 1.0, NOW));
        assert!(!has_room(&detector, &busy(6, 0), 0.5, NOW));
    }

    #[test]
    fn utilization_is_the_mean_of_the_worse_share_of_fresh_endpoints() {
        let detector = Detector::utilization_default();
        let pool = [
            scraped(0, 5.0, 0.5),
            scraped(200, 0.0, 0.5),
            scraped(201, 99.0, 1.0),
            busy(0, 0),
        ];
        assert_eq!(
            saturation(&detector, &pool, NOW),
            Saturation::Level((1.0 + 0.625) / 2.0)
        );
        assert!(!has_room(&detector, &pool[0], 1.0, NOW));
        assert!(
            has_room(&detector, &pool[2], 1.0, NOW),
            "stale is unknown, not full"
        );
        let kv_absent = scraped(0, 2.0, f32::NAN);
        assert_eq!(
            saturation(&detector, &[kv_absent], NOW),
            Saturation::Level(0.4)
        );
    }

    #[test]
    fn all_stale_never_stops_a_pool() {
        let detector = Detector::utilization_default();
        let pool = [scraped(500, 99.0, 1.0), busy(50, 0)];
        assert_eq!(saturation(&detector, &pool, NOW), Saturation::Unknown);
        assert!(Saturation::Unknown.admits(1.0));
    }

    #[test]
    fn dispatches_since_the_scrape_count() {
        let detector = Detector::utilization_default();
        let mut reading = scraped(0, 3.0, 0.0);
        reading.load.since_scrape = 2;
        assert_eq!(
            saturation(&detector, &[reading], NOW),
            Saturation::Level(1.0)
        );
    }
}
