//! Whether the pool, and one endpoint of it, has room for another request.

use std::sync::Arc;
use std::time::Duration;

use super::limit::LimitRule;
use super::stage::Stages;
use crate::config::{
    ConcurrencyDetector, ConcurrencyMode, Config, Detector, Filter, UtilizationDetector,
};
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
    /// The fuller of both, which dispatch goes by as long as all endpoints tell.
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
    /// Σ used, of each endpoint at most its limit.
    capped: f64,
    /// Endpoints that tell.
    known: u32,
    /// Σ of what is assumed of the others, 1 = full, and their number.
    assumed: f64,
    unknown: u32,
}

impl Sum {
    /// Adds an endpoint (`sign` 1) or takes it out (−1); one that tells nothing is `assumed` to be as full as that.
    fn add(&mut self, used: Option<Use>, assumed: f64, sign: i32) {
        let signed = f64::from(sign);
        match used {
            Some(used) => {
                let level = used.at_most_full();
                self.used += signed * level;
                self.capped += signed * level.min(used.limit);
                self.limit += signed * used.limit;
                self.known = self.known.saturating_add_signed(sign);
            }
            None => {
                self.assumed += signed * assumed;
                self.unknown = self.unknown.saturating_add_signed(sign);
            }
        }
    }

    /// The level of those that tell; `None` = nobody does.
    fn level(&self) -> Option<f64> {
        (self.known > 0).then(|| self.used / self.limit)
    }

    /// The level that dispatch goes by: those that tell nothing are counted by what is assumed of them, so that a few
    /// that are full do not stop the many of which nothing is known. `None` = nobody tells.
    fn open(&self) -> Option<f64> {
        if self.unknown == 0 {
            return self.level();
        }
        let mean = self.limit / f64::from(self.known.max(1));
        let unknown = f64::from(self.unknown);
        (self.known > 0)
            .then(|| (self.capped + self.assumed * mean) / (self.limit + unknown * mean))
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
    /// By the detector of the queue. Limits are learned for it, else for the first filter of the profile that goes by
    /// them.
    pub(crate) fn of(config: &Config) -> Self {
        let filters = config.profile.filters.iter();
        let mut rooms = filters.filter_map(|named| match &named.filter {
            Filter::Room(detector) => rule(detector),
            _ => None,
        });
        let meter = Self::new(&config.detector);
        Self {
            rule: meter.rule.or_else(|| rooms.next()),
            ..meter
        }
    }

    fn new(detector: &Detector) -> Self {
        let rule = rule(detector);
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

    /// Another configuration is in force.
    pub(crate) fn set_config(&mut self, config: &Config) {
        let stages = std::mem::take(&mut self.stages);
        *self = Self::of(config);
        self.stages = stages;
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
            sum.add(used(detector, before, now), assumed(detector, before), -1);
            sum.add(used(detector, after, now), assumed(detector, after), 1);
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
        let open = [self.prefill.open(), self.decode.open()];
        match open.into_iter().flatten().reduce(f64::max) {
            Some(level) => Saturation::Level(level),
            None => Saturation::Unknown,
        }
    }

    fn sum(&mut self, detector: &Detector, readings: &[Reading], now: Duration) {
        (self.prefill, self.decode) = (Sum::default(), Sum::default());
        for (reading, stages) in readings.iter().zip(&self.stages) {
            let (used, assumed) = (used(detector, reading, now), assumed(detector, reading));
            if stages.prefill {
                self.prefill.add(used, assumed, 1);
            }
            if stages.decode {
                self.decode.add(used, assumed, 1);
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

/// How limits are learned, where they are.
fn rule(detector: &Detector) -> Option<Arc<LimitRule>> {
    match detector {
        Detector::Adaptive { parameters, window } => {
            Some(Arc::new(LimitRule::new(parameters.clone(), *window)))
        }
        Detector::Concurrency(_) | Detector::Utilization { .. } => None,
    }
}

/// How full an endpoint that tells nothing is assumed to be, from 0 to 1: its queue is what has no first token yet.
fn assumed(detector: &Detector, reading: &Reading) -> f64 {
    match detector {
        Detector::Utilization { parameters, .. } => {
            (f64::from(reading.load.waiting) / parameters.queue_depth_threshold).min(1.0)
        }
        Detector::Concurrency(_) | Detector::Adaptive { .. } => 0.0,
    }
}

/// What one endpoint uses; `None` = unknown.
fn used(detector: &Detector, reading: &Reading, now: Duration) -> Option<Use> {
    match detector {
        Detector::Concurrency(parameters) => Some(concurrency(parameters, &reading.load)),
        Detector::Adaptive { parameters, .. } => Some(Use {
            used: f64::from(reading.load.in_flight),
            assumed: f64::from(reading.load.assumed),
            limit: f64::from(parameters.within(reading.load.limit)),
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
        used: load.waiting_tokens.saturating_add(load.resident_tokens) as f64,
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
#[path = "saturation_tests.rs"]
mod tests;
