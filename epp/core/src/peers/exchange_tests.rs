//! Pickers that exchange deltas over connections with delays, on a virtual clock.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::{BandUse, Chain, Delta, Exchange, Flight, Refused, SILENCE, TICK};
use crate::load::Share;
use crate::pool::{EndpointSpec, Pool};

/// What each request adds.
const TEN: Share = Share {
    uncached_tokens: 10,
    estimated_tokens: 0,
    tpot_target_ms: None,
    kept_tpot_ms: None,
    kept_first_token_ms: None,
};

/// One picker with a pool of its own making: the same endpoints, other instances.
struct Picker {
    exchange: Exchange,
    pool: Arc<Pool>,
}

fn pool(names: &[&str]) -> Arc<Pool> {
    let spec = |name: &&str| EndpointSpec {
        name: (*name).into(),
        address: format!("10.0.0.{}:8000", name.as_bytes()[0]),
        labels: BTreeMap::new(),
    };
    Arc::new(Pool::default().updated(names.iter().map(spec).collect()))
}

fn picker(name: &str, endpoints: &[&str]) -> Picker {
    let pool = pool(endpoints);
    let mut exchange = Exchange::new(name.into(), u64::from(name.as_bytes()[0]));
    exchange.set_pool(Arc::clone(&pool));
    Picker { exchange, pool }
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

impl Picker {
    fn tick(&mut self, now: Duration) -> Option<Delta> {
        self.exchange.tick(now, now, Vec::new(), Vec::new())
    }

    fn in_flight(&self, slot: usize) -> u32 {
        self.pool.endpoints[slot].load.snapshot().in_flight
    }

    fn own(&self) -> u32 {
        self.pool.endpoints[0].load.own().in_flight
    }

    /// Whether the first endpoint may take another request of a `limit`.
    fn room(&self, limit: u32) -> bool {
        let load = self.pool.endpoints[0].load.snapshot();
        load.in_flight + load.assumed < limit
    }

    fn dispatch(&self) {
        self.pool.endpoints[0].load.dispatched(&TEN);
    }

    fn finish(&self) {
        self.pool.endpoints[0].load.ended_waiting(&TEN);
    }
}

#[test]
fn what_one_has_in_flight_the_other_sees_and_forgets_when_it_is_silent() {
    let (mut a, mut b) = (picker("a", &["x", "y"]), picker("b", &["y", "x"]));
    a.dispatch();
    let first = a.tick(ms(100)).unwrap();
    assert!(
        first.whole.is_some(),
        "nobody was told of the endpoints yet"
    );
    b.exchange.apply(ms(100), &first).unwrap();
    assert_eq!(
        (b.in_flight(0), b.in_flight(1)),
        (0, 1),
        "by name, not by place"
    );
    assert_eq!(b.pool.endpoints[1].load.own(), Flight::default());
    assert_eq!(b.pool.endpoints[1].load.snapshot().waiting_tokens, 10);
    a.finish();
    let second = a.tick(ms(200)).unwrap();
    assert_eq!((second.whole, second.loads.len()), (None, 1));
    a.dispatch();
    let third = a.tick(ms(300)).unwrap();
    b.exchange.apply(ms(300), &third).unwrap();
    assert_eq!(
        b.in_flight(1),
        1,
        "a delta that was lost is made good by the next"
    );
    b.tick(ms(300) + SILENCE);
    assert_eq!(b.in_flight(1), 1);
    b.tick(ms(301) + SILENCE);
    assert_eq!((b.in_flight(1), b.exchange.peers().len()), (0, 0));
}

/// A's deltas are heard, B's way back is broken: B counts what A has, but shares no room with it.
#[test]
fn who_no_longer_hears_us_shares_nothing() {
    let (mut a, mut b) = (picker("a", &["x"]), picker("b", &["x"]));
    let hello = a.tick(ms(100)).unwrap();
    b.exchange.apply(ms(100), &hello).unwrap();
    let answer = b.tick(ms(100)).unwrap();
    a.exchange.apply(ms(100), &answer).unwrap();
    let heard = |picker: &Picker| picker.exchange.peers()[0].hears_us;
    assert!(heard(&a), "it answered");
    let mut now = ms(100);
    while now < ms(100) + 2 * SILENCE {
        now += TICK;
        a.tick(now);
        if let Some(delta) = b.tick(now) {
            a.exchange.apply(now, &delta).unwrap();
        }
    }
    assert!(b.exchange.peers().is_empty(), "nothing came");
    assert!(!heard(&a));
    let pickers = a.pool.endpoints[0].load.remote().map(|it| it.pickers);
    assert_eq!(pickers, Some(1));
}

#[test]
fn absurd_numbers_of_a_peer_are_not_believed() {
    let (mut a, mut b) = (picker("a", &["x"]), picker("b", &["x"]));
    a.dispatch();
    let mut delta = a.tick(ms(100)).unwrap();
    delta.loads[0].1.in_flight = u32::MAX;
    delta.loads[0].1.estimated_tokens = u64::MAX;
    b.dispatch();
    b.exchange.apply(ms(100), &delta).unwrap();
    let load = b.pool.endpoints[0].load.snapshot();
    assert_eq!(
        (load.in_flight, load.running),
        ((1 << 20) + 1, (1 << 20) - 1)
    );
    assert_eq!(load.estimated_tokens, 1 << 40);
}

#[test]
fn nothing_is_said_while_nothing_changes_but_a_sign_of_life() {
    let mut a = picker("a", &["x"]);
    let mut said = 0;
    for tick in 1..=31 {
        said += u32::from(a.tick(TICK * tick).is_some());
    }
    assert_eq!(said, 11, "one whole delta, and one of three ticks after it");
    let bands = vec![BandUse {
        priority: 1,
        requests: 2,
        bytes: 3,
    }];
    let delta = a.exchange.tick(ms(0), ms(0), bands.clone(), Vec::new());
    assert_eq!(delta.unwrap().bands, bands);
}

#[test]
fn bands_of_all_peers_add_up() {
    let mut a = picker("a", &["x"]);
    let band = |priority, requests| BandUse {
        priority,
        requests,
        bytes: 10 * requests,
    };
    for (name, bands) in [
        ("b", vec![band(0, 3), band(-1, 1)]),
        ("c", vec![band(0, 4)]),
    ] {
        let mut peer = picker(name, &["x"]);
        let delta = peer.exchange.tick(ms(0), ms(0), bands, Vec::new()).unwrap();
        a.exchange.apply(ms(0), &delta).unwrap();
    }
    let queued: Vec<BandUse> = a.exchange.queued().into_values().collect();
    assert_eq!(queued, [band(-1, 1), band(0, 7)]);
}

#[test]
fn prefixes_arrive_by_endpoint() {
    let (mut a, mut b) = (picker("a", &["x", "y"]), picker("b", &["y", "x", "z"]));
    let chain = |endpoint, blocks: &[u64]| Chain {
        endpoint,
        block_tokens: 64,
        blocks: blocks.into(),
    };
    let chains = vec![chain(0, &[1, 2]), chain(1, &[3]), chain(7, &[4])];
    let delta = a.exchange.tick(ms(0), ms(0), Vec::new(), chains).unwrap();
    let applied = b.exchange.apply(ms(0), &delta).unwrap();
    let slots: Vec<usize> = applied.learned.iter().map(|(slot, _)| *slot).collect();
    assert_eq!(slots, [1, 0], "what b does not know is left out");
}

#[test]
fn a_new_life_starts_from_nothing_and_an_old_connection_is_not_believed() {
    let mut b = picker("b", &["x"]);
    let mut a = picker("a", &["x"]);
    a.dispatch();
    let old = a.tick(ms(0)).unwrap();
    b.exchange.apply(ms(0), &old).unwrap();
    let mut reborn = Picker {
        exchange: Exchange::new("a".into(), 999),
        pool: pool(&["x"]),
    };
    reborn.exchange.set_pool(Arc::clone(&reborn.pool));
    let whole = reborn.tick(ms(50)).unwrap();
    let partial = Delta {
        whole: None,
        ..whole.clone()
    };
    let unknown = Refused::Unknown { from: "a".into() };
    assert_eq!(b.exchange.apply(ms(50), &partial), Err(unknown));
    assert_eq!(b.in_flight(0), 1);
    b.exchange.apply(ms(50), &whole).unwrap();
    assert_eq!(b.in_flight(0), 0);
    reborn.dispatch();
    let newer = reborn.tick(ms(100)).unwrap();
    b.exchange.apply(ms(100), &newer).unwrap();
    b.exchange.apply(ms(100), &whole).unwrap();
    assert_eq!(b.in_flight(0), 1);
}

#[test]
fn oneself_and_a_namesake_are_told_apart() {
    let mut a = picker("a", &["x"]);
    let own = a.tick(ms(0)).unwrap();
    let name: Arc<str> = "a".into();
    let oneself = Refused::Oneself {
        name: Arc::clone(&name),
    };
    assert_eq!(a.exchange.apply(ms(0), &own), Err(oneself));
    let twin = Delta {
        incarnation: 5,
        ..own
    };
    assert_eq!(
        a.exchange.apply(ms(0), &twin),
        Err(Refused::Namesake { name })
    );
}

#[test]
fn what_says_too_much_is_refused_whole() {
    let mut a = picker("a", &["x"]);
    let delta = Delta {
        from: "b".into(),
        whole: Some(Vec::new()),
        bands: vec![BandUse::default(); super::MOST_BANDS + 1],
        ..Delta::default()
    };
    let refused = a.exchange.apply(ms(0), &delta).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "\"b\" tells of 257 bands; at most 256 are taken in"
    );
    assert!(a.exchange.peers().is_empty());
}

/// Deltas on their way: when each arrives, in order per connection.
type Wire = BTreeMap<(usize, usize), VecDeque<(Duration, Delta)>>;

struct Fleet {
    pickers: Vec<Picker>,
    wire: Wire,
    rng: StdRng,
    limit: u32,
}

impl Fleet {
    fn new(count: usize, limit: u32, seed: u64) -> Self {
        let names = ["a", "b", "c", "d"];
        let pickers = names.iter().take(count).map(|name| picker(name, &["x"]));
        Self {
            pickers: pickers.collect(),
            wire: Wire::new(),
            rng: StdRng::seed_from_u64(seed),
            limit,
        }
    }

    fn total(&self) -> u32 {
        self.pickers.iter().map(Picker::own).sum()
    }

    /// One exchange: ticks at slightly different times, deltas that take up to 30 ms, and in between whatever `act`
    /// does, ten times.
    fn exchange(&mut self, at: Duration, mut act: impl FnMut(&mut Self)) {
        for step in 0..10_u64 {
            let now = at + ms(10 * step);
            for from in 0..self.pickers.len() {
                if from as u64 == step {
                    self.tick(from, now);
                }
            }
            self.deliver(now);
            act(self);
        }
    }

    fn tick(&mut self, from: usize, now: Duration) {
        let Some(delta) = self.pickers[from].tick(now) else {
            return;
        };
        for to in (0..self.pickers.len()).filter(|&to| to != from) {
            let due = now + ms(self.rng.random_range(0..30));
            let line = self.wire.entry((from, to)).or_default();
            let due = line.back().map_or(due, |(last, _)| due.max(*last));
            line.push_back((due, delta.clone()));
        }
    }

    fn deliver(&mut self, now: Duration) {
        for (&(_, to), line) in &mut self.wire {
            while line.front().is_some_and(|(due, _)| *due <= now) {
                if let Some((_, delta)) = line.pop_front() {
                    self.pickers[to].exchange.apply(now, &delta).unwrap();
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Once they know of each other, pickers never exceed an endpoint's limit together, however requests come and
    /// go, and when all want more than there is, they fill it.
    #[test]
    fn the_limit_holds_for_all_together(count in 2_usize..=4, limit in 1_u32..60, seed in any::<u64>(), busy in 0.2_f64..0.9) {
        let mut fleet = Fleet::new(count, limit, seed);
        for round in 0..6_u32 {
            fleet.exchange(TICK * round, |_| {});
        }
        for round in 6..30_u32 {
            fleet.exchange(TICK * round, |fleet| {
                for at in 0..fleet.pickers.len() {
                    for _ in 0..fleet.rng.random_range(0..8) {
                        let arrives = fleet.rng.random_bool(busy);
                        let picker = &fleet.pickers[at];
                        if arrives && picker.room(fleet.limit) {
                            picker.dispatch();
                        } else if !arrives && picker.own() > 0 {
                            picker.finish();
                        }
                    }
                }
                assert!(fleet.total() <= fleet.limit, "{} of {}", fleet.total(), fleet.limit);
            });
        }
        // One that alone has work gets what is free, within a round of turns.
        for round in 30..90_u32 {
            fleet.exchange(TICK * round, |fleet| {
                let picker = &fleet.pickers[0];
                while picker.room(fleet.limit) {
                    picker.dispatch();
                }
                assert!(fleet.total() <= fleet.limit, "{} of {}", fleet.total(), fleet.limit);
            });
        }
        prop_assert_eq!(fleet.total(), limit);
    }
}

#[test]
fn a_partition_ends_in_separate_books_and_heals() {
    let mut fleet = Fleet::new(2, 20, 1);
    for round in 0..6_u32 {
        fleet.exchange(TICK * round, |_| {});
    }
    (0..7).for_each(|_| fleet.pickers[0].dispatch());
    fleet.exchange(TICK * 6, |_| {});
    assert_eq!(fleet.pickers[1].in_flight(0), 7);
    for round in 7..20_u32 {
        fleet.exchange(TICK * round, |fleet| fleet.wire.clear());
    }
    assert_eq!(fleet.pickers[1].in_flight(0), 0, "silent for a second");
    // Connections open anew, with all there is to say.
    let now = TICK * 20;
    for (from, to) in [(0, 1), (1, 0)] {
        let whole = fleet.pickers[from].exchange.whole();
        fleet.pickers[to].exchange.apply(now, &whole).unwrap();
    }
    assert_eq!(fleet.pickers[1].in_flight(0), 7);
    for round in 21..24_u32 {
        fleet.exchange(TICK * round, |_| {});
    }
    let alone = fleet.pickers[1].pool.endpoints[0].load.remote();
    assert_eq!(alone.map(|remote| remote.pickers), Some(2));
}
