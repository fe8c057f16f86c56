//! Whether the pool, and one endpoint of it, has room for another request.

use std::sync::Arc;
use std::time::Duration;

use super::limit::LimitRule;
use super::stage::Stages;
use crate::config::{ConcurrencyDetector, ConcurrencyMode, Detector, UtilizationDetector};
use crate::endpoint::{Endpoint, LoadSnapshot, Scraped};
use crate::pool::Pool;

/// What a detector reads of one endpoint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    pub(crate) load: LoadSnapshot,
    /// The last scrape, however old.
    pub(crate) scraped: Option<Scraped>,
}

impl Reading {
    pub(crate) fn of(endpoint: &Endpoint) -> Self {
        Self {
            load: endpoint.load.snapshot(),
            scraped: endpoint.scraped(),
        }
    }
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

    /// The level, 0 where none is known.
    pub(crate) fn level(self) -> f64 {
        match self {
            Self::Level(level) => level,
            Self::Empty | Self::Unknown => 0.0,
        }
    }
}

/// Saturation of a pool stage by stage; `None` = no endpoint of the stage tells.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct StageSaturation {
    /// Of the endpoints that read prompts.
    pub prefill: Option<f64>,
    /// Of the endpoints that make output.
    pub decode: Option<f64>,
    /// The fuller of both, which dispatch goes by.
    pub effective: Option<f64>,
    /// Endpoints without a usable reading.
    pub unknown: usize,
}

impl StageSaturation {
    /// How full `pool` is at `now` by `detector`. Reads live counters; needs no director.
    pub fn of(detector: &Detector, pool: &Pool, now: Duration) -> Self {
        let mut meter = Meter::new(detector);
        meter.set_pool(pool);
        let readings: Vec<_> = pool.endpoints.iter().map(|one| Reading::of(one)).collect();
        meter.saturation(detector, &readings, now);
        let known = |endpoint: &&Reading| used(detector, endpoint, now).is_some();
        Self {
            prefill: meter.prefill.level(),
            decode: meter.decode.level(),
            effective: meter.effective(),
            unknown: readings.len() - readings.iter().filter(known).count(),
        }
    }
}

/// Σ used and Σ limit over the endpoints of one stage.
#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    used: f64,
    limit: f64,
    /// Endpoints that tell.
    known: u32,
}

impl Sum {
    fn add(&mut self, used: Use) {
        self.used += used.at_most_full();
        self.limit += used.limit;
        self.known += 1;
    }

    fn remove(&mut self, used: Use) {
        self.used -= used.at_most_full();
        self.limit -= used.limit;
        self.known -= 1;
    }

    fn level(&self) -> Option<f64> {
        (self.known > 0).then(|| self.used / self.limit)
    }
}

/// How full the pool is, kept up to date through one pass of dispatches: summed once, then changed by what each
/// dispatch changes.
#[derive(Debug)]
pub(crate) struct Meter {
    /// By slot of the pool.
    stages: Vec<Stages>,
    prefill: Sum,
    decode: Sum,
    /// The instant that the sums are for.
    summed: Option<Duration>,
    rule: Option<Arc<LimitRule>>,
}

impl Meter {
    pub(crate) fn new(detector: &Detector) -> Self {
        let rule = match detector {
            Detector::Adaptive { parameters, window } => {
                Some(Arc::new(LimitRule::new(parameters.clone(), *window)))
            }
            Detector::Concurrency(_) | Detector::Utilization { .. } => None,
        };
        Self {
            stages: Vec::new(),
            prefill: Sum::default(),
            decode: Sum::default(),
            summed: None,
            rule,
        }
    }

    /// How limits are learned, where they are.
    pub(crate) fn rule(&self) -> Option<Arc<LimitRule>> {
        self.rule.clone()
    }

    /// Labels are read once per pool, never per request.
    pub(crate) fn set_pool(&mut self, pool: &Pool) {
        self.stages.clear();
        self.stages
            .extend(pool.endpoints.iter().map(|one| Stages::of(one)));
        self.summed = None;
    }

    /// All endpoints were read anew.
    pub(crate) fn observed(&mut self) {
        self.summed = None;
    }

    /// The endpoint in `slot` has another reading.
    pub(crate) fn reread(
        &mut self,
        detector: &Detector,
        slot: usize,
        before: &Reading,
        after: &Reading,
    ) {
        let Some(now) = self.summed else { return };
        let stages = self.stages.get(slot).copied().unwrap_or_default();
        let sums = [
            (stages.prefill, &mut self.prefill),
            (stages.decode, &mut self.decode),
        ];
        for (_, sum) in sums.into_iter().filter(|(counts, _)| *counts) {
            if let Some(used) = used(detector, before, now) {
                sum.remove(used);
            }
            if let Some(used) = used(detector, after, now) {
                sum.add(used);
            }
        }
    }

    /// Saturation by the readings at `now`: the fullest stage that tells.
    pub(crate) fn saturation(
        &mut self,
        detector: &Detector,
        readings: &[Reading],
        now: Duration,
    ) -> Saturation {
        if readings.is_empty() {
            return Saturation::Empty;
        }
        if self.summed != Some(now) {
            self.sum(detector, readings, now);
        }
        match self.effective() {
            Some(level) => Saturation::Level(level),
            None => Saturation::Unknown,
        }
    }

    fn sum(&mut self, detector: &Detector, readings: &[Reading], now: Duration) {
        (self.prefill, self.decode) = (Sum::default(), Sum::default());
        for (reading, stages) in readings.iter().zip(&self.stages) {
            let Some(used) = used(detector, reading, now) else {
                continue;
            };
            if stages.prefill {
                self.prefill.add(used);
            }
            if stages.decode {
                self.decode.add(used);
            }
        }
        self.summed = Some(now);
    }

    fn effective(&self) -> Option<f64> {
        let levels = [self.prefill.level(), self.decode.level()];
        levels.into_iter().flatten().reduce(f64::max)
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
        Detector::Adaptive { parameters, .. } => parameters.headroom,
    };
    used(detector, reading, now)
        .is_none_or(|used| (used.used + used.assumed) / used.limit < ceiling * (1.0 + headroom))
}

/// What one endpoint uses of what it can.
#[derive(Clone, Copy, Debug)]
struct Use {
    used: f64,
    /// What other pickers are assumed to use beyond what they told.
    assumed: f64,
    limit: f64,
}

impl Use {
    /// A share of a capacity that is told in no unit.
    fn share(level: f64) -> Self {
        Self {
            used: level,
            assumed: 0.0,
            limit: 1.0,
        }
    }

    /// What the pool's sum counts. Assumed use fills an endpoint at most: where the last slot is another picker's this
    /// time, it is ours elsewhere.
    fn at_most_full(self) -> f64 {
        self.used + self.assumed.min(self.limit - self.used).max(0.0)
    }
}

/// What one endpoint uses; `None` = unknown.
fn used(detector: &Detector, reading: &Reading, now: Duration) -> Option<Use> {
    match detector {
        Detector::Concurrency(parameters) => Some(concurrency(parameters, &reading.load)),
        Detector::Adaptive { parameters, .. } => Some(Use {
            used: f64::from(reading.load.in_flight),
            assumed: f64::from(reading.load.assumed),
            limit: f64::from(reading.load.limit.unwrap_or(parameters.initial).max(1)),
        }),
        Detector::Utilization {
            parameters,
            staleness,
        } => {
            let fresh = reading
                .scraped
                .filter(|scraped| scraped.age(now) <= *staleness)?;
            utilization(parameters, &fresh, reading.load.since_scrape).map(Use::share)
        }
    }
}

fn concurrency(parameters: &ConcurrencyDetector, load: &LoadSnapshot) -> Use {
    let requests = Use {
        used: f64::from(load.in_flight),
        assumed: f64::from(load.assumed),
        limit: f64::from(parameters.max_concurrency),
    };
    let tokens = Use {
        used: (load.waiting_tokens + load.resident_tokens) as f64,
        assumed: 0.0,
        limit: parameters.max_token_concurrency as f64,
    };
    match parameters.concurrency_mode {
        ConcurrencyMode::Requests => requests,
        ConcurrencyMode::Tokens => tokens,
        ConcurrencyMode::Hybrid => {
            let share = (requests.used / requests.limit).max(tokens.used / tokens.limit);
            let assumed = (requests.used + requests.assumed) / requests.limit - share;
            Use {
                assumed: assumed.max(0.0),
                ..Use::share(share)
            }
        }
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

    fn saturation(detector: &Detector, pool: &[Reading], now: Duration) -> Saturation {
        let mut meter = Meter::new(detector);
        let decodes = Stages {
            prefill: false,
            decode: true,
        };
        meter.stages = vec![decodes; pool.len()];
        meter.saturation(detector, pool, now)
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
    fn dispatches_since_the_scrape_count() {
        let detector = Detector::utilization_default();
        let mut reading = scraped(0, 3.0, 0.0);
        reading.load.since_scrape = 2;
        assert_eq!(
            saturation(&detector, &[reading], NOW),
            Saturation::Level(1.0)
        );
    }

    /// §11.4, 8: what is not known is not full.
    #[test]
    fn pitfall_08_all_stale_never_stops_a_pool() {
        let detector = Detector::utilization_default();
        let pool = [scraped(500, 99.0, 1.0), busy(50, 0)];
        assert_eq!(saturation(&detector, &pool, NOW), Saturation::Unknown);
        assert!(Saturation::Unknown.admits(1.0));
    }

    fn staged(roles: &[Option<&str>], in_flight: &[u32], detector: &Detector) -> StageSaturation {
        let role = |role: &str| (names::label::ROLE.canonical.to_owned(), role.to_owned());
        let endpoint = |(role_of, count): (&Option<&str>, &u32)| {
            let labels = role_of.iter().map(|of| role(of)).collect();
            let endpoint = Endpoint::new("a", "10.0.0.1:80", labels);
            (0..*count).for_each(|_| endpoint.load.dispatched(&crate::load::Share::default()));
            Arc::new(endpoint)
        };
        let endpoints = roles.iter().zip(in_flight).map(endpoint).collect();
        StageSaturation::of(detector, &Pool { endpoints }, NOW)
    }

    #[test]
    fn the_fuller_stage_counts() {
        let detector = concurrency(ConcurrencyMode::Requests);
        let split = staged(
            &[Some("prefill"), Some("decode"), None],
            &[9, 2, 4],
            &detector,
        );
        assert_eq!(
            (split.prefill, split.decode, split.effective),
            (Some(0.9), Some(0.3), Some(0.9))
        );
        let shared = staged(&[Some("both"), Some("decode")], &[2, 6], &detector);
        assert_eq!((shared.prefill, shared.decode), (Some(0.2), Some(0.4)));
        let encoders = staged(&[Some("encode")], &[50], &detector);
        assert_eq!(encoders.effective, None, "they have no stage to be full in");
        assert_eq!(staged(&[], &[], &detector), StageSaturation::default());
        let silent = staged(&[None, None], &[1, 1], &Detector::utilization_default());
        assert_eq!((silent.effective, silent.unknown), (None, 2));
    }

    #[test]
    fn limits_of_endpoints_are_summed_not_averaged() {
        let detector = Detector::Adaptive {
            parameters: crate::config::AdaptiveConcurrency::default(),
            window: Duration::from_secs(1),
        };
        let reading = |in_flight, limit| {
            let mut reading = busy(in_flight, 0);
            reading.load.limit = limit;
            reading
        };
        let pool = [reading(9, Some(10)), reading(30, Some(90))];
        assert_eq!(saturation(&detector, &pool, NOW), Saturation::Level(0.39));
        assert!(has_room(&detector, &pool[0], 1.0, NOW));
        assert!(
            !has_room(&detector, &reading(16, None), 1.0, NOW),
            "the initial limit"
        );
    }

    #[test]
    fn a_pass_keeps_its_sums_by_what_changes() {
        for detector in [
            concurrency(ConcurrencyMode::Hybrid),
            concurrency(ConcurrencyMode::Tokens),
            Detector::utilization_default(),
        ] {
            let mut pool = [scraped(0, 1.0, 0.5), scraped(0, 2.0, 0.1), busy(3, 0)];
            let mut meter = Meter::new(&detector);
            let decodes = Stages {
                prefill: true,
                decode: true,
            };
            meter.stages = vec![decodes; pool.len()];
            meter.saturation(&detector, &pool, NOW);
            for step in 0..30 {
                let slot = step % 3;
                let before = pool[slot];
                pool[slot].load.in_flight += 1;
                pool[slot].load.since_scrape += 1;
                pool[slot].load.waiting_tokens += 17;
                meter.reread(&detector, slot, &before, &pool[slot]);
                let kept = meter.saturation(&detector, &pool, NOW).level();
                let anew = saturation(&detector, &pool, NOW).level();
                assert!((kept - anew).abs() < 1e-9, "{detector:?}: {kept} {anew}");
            }
        }
    }
}
