//! Whatever happens, in whatever order: one outcome per request, counters back to zero, caps held, bands obeyed.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use epp_core::config::{
    AdaptiveConcurrency, BandConfig, Detector, Fairness, Ordering, PriorityHoldback,
    ProgramAwareFairness, UsageLimit, VirtualTokenCounter,
};
use epp_core::{Config, Director, Dispatch, End, Endpoint, Pool, Request, Ticket, Verdict};
use proptest::prelude::*;
use support::{complete, request, updated};

const MOST_QUEUED: u64 = 6;
const CONCURRENCY: u32 = 2;

#[derive(Clone, Debug)]
enum Step {
    Submit {
        priority: i32,
        tokens: u32,
        ttl: Option<u8>,
        slo: bool,
        subset: bool,
        flow: u8,
    },
    Cancel(usize),
    FirstToken(usize),
    Emit(usize, u32),
    Finish(usize, u8),
    Drop(usize),
    Pool(u8),
    Wait(u16),
    /// Another configuration, by its number.
    Reload(u16),
    /// Readings are on their way, for so many milliseconds at most.
    Awaited(u8),
    Readings,
    Drain,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let submit = (
        -2_i32..3,
        0_u32..500,
        prop::option::of(0_u8..5),
        any::<bool>(),
        prop::bool::weighted(0.2),
        0_u8..3,
    )
        .prop_map(|(priority, tokens, ttl, slo, subset, flow)| Step::Submit {
            priority,
            tokens,
            ttl,
            slo,
            subset,
            flow,
        });
    let step = prop_oneof![
        8 => submit,
        2 => (0_usize..20).prop_map(Step::Cancel),
        3 => (0_usize..20).prop_map(Step::FirstToken),
        2 => (0_usize..20, 0_u32..50).prop_map(|(stream, tokens)| Step::Emit(stream, tokens)),
        4 => (0_usize..20, 0_u8..6).prop_map(|(stream, end)| Step::Finish(stream, end)),
        1 => (0_usize..20).prop_map(Step::Drop),
        2 => (0_u8..16).prop_map(Step::Pool),
        3 => (0_u16..5_000).prop_map(Step::Wait),
        2 => any::<u16>().prop_map(Step::Reload),
        1 => (0_u8..200).prop_map(Step::Awaited),
        1 => Just(Step::Readings),
        1 => Just(Step::Drain),
    ];
    prop::collection::vec(step, 1..80)
}

/// A director, what it was told, and what it said.
struct World {
    director: Director,
    /// Requests that one endpoint may have at a time.
    most: u32,
    now: Duration,
    pool: Arc<Pool>,
    endpoints: Vec<Arc<Endpoint>>,
    tickets: Vec<Ticket>,
    priorities: BTreeMap<Ticket, i32>,
    verdicts: BTreeMap<Ticket, u32>,
    streams: Vec<Dispatch>,
}

impl World {
    fn new(config: Config) -> Self {
        let config = bounded(config);
        Self {
            most: most(&config.detector),
            director: Director::new(config, 7),
            now: Duration::ZERO,
            pool: Arc::default(),
            endpoints: Vec::new(),
            tickets: Vec::new(),
            priorities: BTreeMap::new(),
            verdicts: BTreeMap::new(),
            streams: Vec::new(),
        }
    }

    fn apply(&mut self, step: &Step) {
        match *step {
            Step::Submit {
                priority,
                tokens,
                ttl,
                slo,
                subset,
                flow,
            } => {
                let template = if slo {
                    support::with_slo(priority, 50.0)
                } else {
                    request(priority)
                };
                let ttl = ttl.map(|seconds| Duration::from_secs(u64::from(seconds)));
                let subset = subset.then(|| vec!["10.0.0.1:8000".to_owned()]);
                let prefix: Arc<[u64]> = (0..u64::from(tokens / 64)).collect();
                let request = Request {
                    prompt_tokens: tokens,
                    ttl,
                    subset,
                    prefix,
                    flow: format!("f{flow}").into(),
                    ..template
                };
                let ticket = self.director.submit(self.now, request);
                self.priorities.insert(ticket, priority);
                self.tickets.push(ticket);
            }
            Step::Cancel(which) => {
                if let Some(&ticket) = self.tickets.get(which) {
                    self.director.cancel(self.now, ticket);
                }
            }
            Step::FirstToken(which) => {
                if let Some(stream) = self.streams.get_mut(which) {
                    stream.in_flight.first_token(self.now);
                }
            }
            Step::Emit(which, tokens) => {
                if let Some(stream) = self.streams.get_mut(which) {
                    stream.in_flight.emitted(tokens);
                }
            }
            Step::Finish(which, end) if which < self.streams.len() => self.finish(which, end),
            Step::Drop(which) if which < self.streams.len() => {
                drop(self.streams.swap_remove(which))
            }
            Step::Finish(..) | Step::Drop(_) => {}
            Step::Pool(mask) => self.set_pool(mask),
            Step::Wait(millis) => {
                self.now += Duration::from_millis(u64::from(millis));
                self.director.advance(self.now);
            }
            Step::Reload(number) => {
                let config = numbered(number);
                // What was dispatched under the last configuration stays.
                self.most = self.most.max(most(&config.detector));
                self.director.set_config(self.now, config);
            }
            Step::Awaited(millis) => {
                let until = self.now + Duration::from_millis(u64::from(millis));
                self.director.await_readings(self.now, until);
            }
            Step::Readings => self.director.readings_came(self.now),
            Step::Drain => self.director.drain(self.now),
        }
    }

    fn finish(&mut self, which: usize, end: u8) {
        let end = match end {
            0 => End::ClientGone,
            1 => End::UpstreamCut,
            2 => End::Evicted,
            _ => complete(u32::from(end)),
        };
        self.streams
            .swap_remove(which)
            .in_flight
            .finish(self.now, end);
        self.director.advance(self.now);
    }

    fn set_pool(&mut self, mask: u8) {
        self.pool = updated(&self.pool, (0..4).filter(|bit| mask & (1 << bit) != 0));
        self.endpoints.extend(self.pool.endpoints.iter().cloned());
        self.director.set_pool(self.now, Arc::clone(&self.pool));
    }

    fn collect(&mut self) {
        // Who is to end, ends: it is lower than somebody who waits.
        let depth = self.director.queued();
        let waiting = depth.bands.iter().filter(|band| band.requests > 0);
        let highest = waiting.map(|band| band.priority).max();
        let named: Vec<_> = std::iter::from_fn(|| self.director.poll_eviction()).collect();
        for (ticket, _) in named {
            let evicted = |stream: &Dispatch| stream.in_flight.evictable() == Some(ticket);
            assert!(highest.is_some_and(|highest| self.priorities[&ticket] < highest));
            if let Some(which) = self.streams.iter().position(evicted) {
                self.finish(which, 2);
            }
        }
        while let Some((ticket, verdict)) = self.director.poll() {
            *self.verdicts.entry(ticket).or_default() += 1;
            if let Verdict::Dispatched(dispatch) = verdict {
                self.streams.push(*dispatch);
            }
        }
    }

    /// What holds at every instant.
    fn check(&self) {
        let queued = self.director.queued();
        assert!(queued.total().requests <= MOST_QUEUED);
        assert!(
            queued
                .bands
                .iter()
                .all(|band| band.priority >= 0 || (band.requests <= 3 && band.bytes <= 1_000))
        );
        assert!(self.verdicts.values().all(|&count| count == 1));
        let undecided = (self.tickets.len() - self.verdicts.len()) as u64;
        let waiting = queued.total().requests + self.director.held() as u64;
        assert_eq!(undecided, waiting, "what has no verdict is queued or held");
        let totals = self.director.demand().totals();
        assert_eq!(totals.offered().requests, self.tickets.len() as u64);
        let alive = waiting + self.streams.len() as u64;
        assert_eq!(totals.offered().requests, totals.ended().requests + alive);
        for endpoint in &self.endpoints {
            let load = endpoint.load.snapshot();
            let here = |stream: &&Dispatch| Arc::ptr_eq(&stream.endpoint.load, &endpoint.load);
            assert_eq!(
                load.in_flight as usize,
                self.streams.iter().filter(here).count()
            );
            assert!(
                load.in_flight <= self.most,
                "never more than its capacity and headroom"
            );
        }
    }

    /// Ends everything that is left.
    fn finish_all(&mut self) {
        while !self.streams.is_empty() {
            self.finish(0, 9);
            self.collect();
        }
        self.now += Duration::from_secs(100);
        self.director.advance(self.now);
        self.collect();
        while !self.streams.is_empty() {
            self.finish(0, 0);
            self.collect();
        }
    }
}

/// The same with the limits that hold at every instant.
fn bounded(mut config: Config) -> Config {
    if let Some(flow) = &mut config.flow {
        flow.max_requests = Some(MOST_QUEUED);
        flow.negative_band = BandConfig {
            max_requests: 3,
            max_bytes: 1_000,
            ..flow.negative_band.clone()
        };
        flow.request_ttl = Some(Duration::from_secs(3));
        flow.no_endpoint_ttl = Some(Duration::from_secs(4));
    }
    if matches!(config.detector, Detector::Adaptive { .. }) {
        config
    } else {
        config.with_max_concurrency(CONCURRENCY)
    }
}

fn most(detector: &Detector) -> u32 {
    match detector {
        Detector::Concurrency(it) => (f64::from(CONCURRENCY) * (1.0 + it.headroom)).ceil() as u32,
        _ => CONCURRENCY,
    }
}

const PRESETS: [fn() -> Config; 5] = [
    Config::headroom_default,
    Config::llmd_default,
    Config::round_robin,
    fair,
    evicting,
];

/// A configuration made from the bits of a number: presets, bands with entries of their own, policies.
fn numbered(number: u16) -> Config {
    let bit = |at: u16| number >> at & 1 == 1;
    let mut config = PRESETS[usize::from(number) % PRESETS.len()]();
    if let Some(flow) = &mut config.flow {
        let fairness = match number >> 3 & 3 {
            0 => Fairness::GlobalStrict,
            1 => Fairness::RoundRobin,
            2 => Fairness::VirtualTokens(VirtualTokenCounter::default()),
            _ => Fairness::ProgramAware(ProgramAwareFairness::default()),
        };
        let ordering = if bit(5) {
            Ordering::Edf
        } else {
            Ordering::Fcfs
        };
        flow.default_band = BandConfig {
            fairness,
            ordering,
            max_requests: u64::from(number >> 6 & 3) + 1,
            ..BandConfig::default()
        };
        flow.negative_band = flow.default_band.clone();
        flow.negative_shares = bit(8);
        for (priority, _) in (-2..3).zip(9..).filter(|&(_, at)| bit(at)) {
            let band = BandConfig {
                max_requests: 2,
                max_bytes: 900,
                ..BandConfig::default()
            };
            flow.bands.insert(priority, band);
        }
        flow.eviction = bit(14);
    }
    bounded(config)
}

/// Virtual token counters in every band, and one budget for negative ones.
fn fair() -> Config {
    let mut config = Config::llmd_default();
    if let Some(flow) = &mut config.flow {
        flow.default_band.fairness = Fairness::VirtualTokens(VirtualTokenCounter::default());
        flow.default_band.ordering = Ordering::Edf;
        flow.negative_shares = true;
    }
    config
}

/// Learned limits, turns, bands held back, and requests that are taken off their servers.
fn evicting() -> Config {
    let mut config = Config::round_robin();
    if let Some(flow) = &mut config.flow {
        flow.default_band.fairness = Fairness::RoundRobin;
        flow.eviction = true;
    }
    let parameters = AdaptiveConcurrency {
        initial: CONCURRENCY,
        max: CONCURRENCY,
        ..AdaptiveConcurrency::default()
    };
    config.detector = Detector::Adaptive {
        parameters,
        window: Duration::from_secs(1),
    };
    config.usage_limit = UsageLimit::Holdback(PriorityHoldback {
        min_ceiling: Some(0.5),
        ..PriorityHoldback::default()
    });
    config
}

proptest! {
    #[test]
    fn every_request_ends_once_and_counters_return_to_zero(steps in steps(), preset in 0_usize..5) {
        let mut world = World::new(PRESETS[preset]());
        for step in &steps {
            world.apply(step);
            world.collect();
            world.check();
        }
        world.finish_all();
        world.check();
        prop_assert_eq!(world.director.queued().total().requests, 0);
        let totals = world.director.demand().totals();
        prop_assert_eq!(totals.ended().requests, world.tickets.len() as u64);
        for flow in world.director.demand().flows() {
            let ended: u64 = flow.outcomes.iter().map(|ended| ended.requests).sum();
            prop_assert_eq!((flow.waiting.requests, flow.waiting.bytes, ended), (0, 0, flow.offered.requests));
        }
        prop_assert_eq!(world.director.revocations().pending(), 0);
        for endpoint in &world.endpoints {
            let load = endpoint.load.snapshot();
            prop_assert_eq!((load.in_flight, load.waiting, load.running), (0, 0, 0));
            prop_assert_eq!((load.waiting_tokens, load.resident_tokens, load.tightest_tpot_ms), (0, 0, None));
        }
    }

    /// Strict priority: whoever is dispatched, nobody of a higher band (or earlier in its own) is left waiting.
    #[test]
    fn nobody_overtakes(arrivals in prop::collection::vec((-2_i32..3, any::<bool>()), 1..40)) {
        let mut world = World::new(Config::round_robin());
        world.set_pool(1);
        let mut waiting: Vec<(i32, Ticket)> = Vec::new();
        for (priority, free) in arrivals {
            let ticket = world.director.submit(world.now, request(priority));
            waiting.push((-priority, ticket));
            if free && !world.streams.is_empty() {
                world.streams.remove(0).in_flight.finish(world.now, complete(2));
                world.director.advance(world.now);
            }
            while let Some((ticket, verdict)) = world.director.poll() {
                waiting.sort_unstable();
                if let Verdict::Dispatched(dispatch) = verdict {
                    prop_assert_eq!(waiting.first().map(|&(_, first)| first), Some(ticket));
                    world.streams.push(*dispatch);
                }
                waiting.retain(|&(_, other)| other != ticket);
            }
        }
    }
}
