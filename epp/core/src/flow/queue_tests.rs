use super::*;
use crate::config::{Fairness, Ordering, UsageLimit};
use crate::demand::DemandLedger;

const SECOND: Duration = Duration::from_secs(1);

struct Bench {
    queue: Queue,
    ledger: DemandLedger,
    next: u64,
}

impl Bench {
    fn new(config: FlowConfig) -> Self {
        let mut queue = Queue::new(config, Limits::new(UsageLimit::default()));
        queue.set_starved(Duration::ZERO, false);
        Self {
            queue,
            ledger: DemandLedger::default(),
            next: 0,
        }
    }

    fn waiting(&self, band: i32, flow: &str, at: Duration, request: Request) -> Box<Waiting> {
        Box::new(Waiting {
            request,
            counters: self.ledger.band(band, false),
            account: self.ledger.flow(band, &flow.into(), at),
            subset: None,
            arrived: at,
            charge: Charge::default(),
        })
    }

    fn push(&mut self, band: i32, flow: &str, at: Duration, request: Request) -> Result<u64, Full> {
        let ticket = self.ticket(band);
        let waiting = self.waiting(ticket.band, flow, at, request);
        match self.queue.push(ticket, waiting) {
            Ok(()) => Ok(ticket.number),
            Err((_, full)) => Err(full),
        }
    }

    fn ticket(&mut self, priority: i32) -> Ticket {
        self.next += 1;
        Ticket {
            number: self.next - 1,
            band: self.queue.band(priority),
        }
    }

    fn bytes(&mut self, band: i32, bytes: u64) -> Result<u64, Full> {
        let request = Request {
            bytes,
            ..Request::default()
        };
        self.push(band, "a", Duration::ZERO, request)
    }

    /// Numbers in the order in which they would be dispatched, at no cost.
    fn drained(&mut self, now: Duration) -> Vec<u64> {
        let mut order = Vec::new();
        while let Some(ticket) = self.queue.first(now) {
            let waiting = self.queue.remove(now, ticket).unwrap();
            let charge = self.queue.price(now, ticket.band, &waiting);
            self.queue
                .served(now, ticket.band, &waiting.account, charge, false);
            order.push(ticket.number);
        }
        order
    }
}

fn of_bands(config: FlowConfig, bands: &[i32]) -> Bench {
    let mut bench = Bench::new(config);
    for &band in bands {
        bench.bytes(band, 10).unwrap();
    }
    bench
}

fn banded(fairness: Fairness, ordering: Ordering) -> Bench {
    Bench::new(FlowConfig {
        default_band: BandConfig {
            fairness,
            ordering,
            ..BandConfig::default()
        },
        ..FlowConfig::default()
    })
}

#[test]
fn higher_bands_first_then_arrival() {
    let mut bench = of_bands(FlowConfig::default(), &[0, -1, 5, 0, 5]);
    let ahead = |number, band| bench.queue.ahead_of(Ticket { number, band });
    assert_eq!((ahead(3, 0), ahead(1, -1)), (3, 4));
    assert_eq!(bench.drained(SECOND), [2, 4, 0, 3, 1]);
    assert!(bench.queue.is_empty() && bench.queue.gauges().is_empty());
}

#[test]
fn caps_hold_for_the_band_and_for_all() {
    let tight = BandConfig {
        max_requests: 2,
        max_bytes: 25,
        ..BandConfig::default()
    };
    let config = FlowConfig {
        max_requests: Some(3),
        default_band: tight,
        ..FlowConfig::default()
    };
    let mut bench = of_bands(config, &[0, 0]);
    assert_eq!(bench.bytes(0, 1), Err(Full::Requests(2)));
    let first = Ticket { number: 0, band: 0 };
    bench.queue.remove(SECOND, first).unwrap();
    assert_eq!(bench.bytes(0, 16), Err(Full::Bytes(25)));
    assert_eq!(bench.queue.room(0), 1);
    bench.bytes(0, 15).unwrap();
    bench.bytes(-1, 0).unwrap();
    assert_eq!(bench.bytes(7, 0), Err(Full::Requests(3)));
    let total = bench.queue.gauges().depth().total();
    assert_eq!((total.requests, total.bytes), (3, 25));
    assert_eq!(bench.queue.room(7), 0);
}

#[test]
fn negative_bands_of_the_template_share_one_budget() {
    let small = |max_requests| BandConfig {
        max_requests,
        ..BandConfig::default()
    };
    let config = |negative_shares| FlowConfig {
        negative_band: small(3),
        negative_shares,
        bands: [(-9, small(1))].into(),
        ..FlowConfig::default()
    };
    let mut apart = of_bands(config(false), &[-1, -1, -1, -2, -2, -2]);
    assert_eq!(apart.bytes(-2, 0), Err(Full::Requests(3)));
    let mut shared = of_bands(config(true), &[-1, -2, -3]);
    assert_eq!(shared.bytes(-4, 0), Err(Full::Requests(3)));
    shared.bytes(-9, 0).unwrap();
    assert_eq!(shared.bytes(-9, 0), Err(Full::Requests(1)), "its own limit");
    shared.bytes(0, 0).unwrap();
    let first = Ticket {
        number: 0,
        band: -1,
    };
    shared.queue.remove(SECOND, first).unwrap();
    shared.bytes(-4, 0).unwrap();
}

#[test]
fn where_nothing_waits_nothing_is_queued() {
    for (max_requests, max_bytes) in [(0, 1_000), (10, 0)] {
        let mut bench = Bench::new(FlowConfig {
            negative_band: BandConfig {
                max_requests,
                max_bytes,
                ..BandConfig::default()
            },
            negative_shares: true,
            ..FlowConfig::default()
        });
        assert_eq!(bench.bytes(-1, 0), Err(Full::NoWaiting));
        assert!(!bench.queue.waits(-1) && bench.queue.waits(0));
    }
}

#[test]
fn budgets_restart_when_the_pool_empties_or_fills() {
    let seconds = Duration::from_secs;
    let config = FlowConfig {
        request_ttl: Some(seconds(10)),
        no_endpoint_ttl: Some(seconds(100)),
        ..FlowConfig::default()
    };
    let mut bench = of_bands(config, &[0]);
    assert_eq!(bench.queue.next_deadline(), Some(seconds(10)));
    bench.queue.set_starved(seconds(9), true);
    assert_eq!(bench.queue.next_deadline(), Some(seconds(109)));
    bench.queue.set_starved(seconds(50), false);
    assert_eq!(bench.queue.next_deadline(), Some(seconds(60)));
    let short = Request {
        ttl: Some(seconds(2)),
        ..Request::default()
    };
    let number = bench.push(0, "a", seconds(55), short).unwrap();
    let ticket = Ticket { number, band: 0 };
    assert_eq!(bench.queue.expired(seconds(57)), Some(ticket));
    assert_eq!(bench.queue.expired(seconds(56)), None);
    bench.queue.remove(seconds(57), ticket).unwrap();
    assert_eq!(bench.queue.next_deadline(), Some(seconds(60)));
}

#[test]
fn the_number_of_bands_is_bounded_and_nobody_gains() {
    let mut queue = Queue::new(FlowConfig::default(), Limits::new(UsageLimit::default()));
    for priority in -200..200 {
        let band = queue.band(priority);
        assert!(
            band <= priority.max(0),
            "priority {priority} joined band {band}"
        );
    }
    assert_eq!(queue.gauges().depth().bands.len(), MAX_BANDS);
}

/// §11.4, 11: what an objective names stays; what only requests named goes when nobody used it for ten minutes.
#[test]
fn pitfall_11_bands_of_objectives_are_never_forgotten() {
    let config = FlowConfig {
        bands: [(9, BandConfig::default())].into(),
        ..FlowConfig::default()
    };
    let mut bench = of_bands(config, &[4, 5]);
    bench.queue.pin(BTreeSet::from([4, -7]));
    bench.drained(SECOND);
    let bands = |bench: &Bench| {
        let depth = bench.queue.gauges().depth();
        depth
            .bands
            .iter()
            .map(|band| band.priority)
            .collect::<Vec<_>>()
    };
    assert!(!bench.queue.sweep(BAND_IDLE + SECOND));
    assert_eq!(bands(&bench), [9, 5, 4, 0, -7]);
    assert!(bench.queue.sweep(BAND_IDLE + 2 * SECOND));
    assert_eq!(bands(&bench), [9, 4, 0, -7]);
    // The objective goes, and with it the reason to keep its band.
    bench.queue.pin(BTreeSet::new());
    assert!(bench.queue.sweep(3 * BAND_IDLE));
    assert_eq!(bands(&bench), [9, 0]);
}

#[test]
fn idle_flows_are_forgotten_but_not_those_with_something_in_flight() {
    let mut bench = banded(Fairness::RoundRobin, Ordering::Fcfs);
    for flow in ["a", "b"] {
        bench.push(0, flow, SECOND, Request::default()).unwrap();
    }
    let first = bench.queue.first(SECOND).unwrap();
    let in_flight = bench.queue.remove(SECOND, first).unwrap();
    bench.drained(SECOND);
    let flows = |bench: &Bench| bench.queue.bands[&Reverse(0)].flows();
    bench.queue.sweep(300 * SECOND);
    assert_eq!(flows(&bench), 2);
    bench.queue.sweep(400 * SECOND);
    assert_eq!(flows(&bench), 1, "one is in flight");
    drop(in_flight);
    bench.queue.sweep(500 * SECOND);
    bench.ledger.forget_idle_flows(500 * SECOND);
    assert_eq!((flows(&bench), bench.ledger.flows().len()), (0, 0));
}

#[test]
fn flows_take_turns_and_keep_their_order() {
    let mut bench = banded(Fairness::RoundRobin, Ordering::Fcfs);
    for flow in ["a", "a", "a", "b", "c", "c"] {
        bench.push(0, flow, SECOND, Request::default()).unwrap();
    }
    let last = Ticket { number: 2, band: 0 };
    assert_eq!(bench.queue.ahead_of(last), 5, "two of its own, and theirs");
    let other = Ticket { number: 3, band: 0 };
    assert_eq!(bench.queue.ahead_of(other), 2, "one of each other flow");
    assert_eq!(bench.drained(SECOND), [0, 3, 4, 1, 5, 2]);
}

#[test]
fn deadlines_order_a_flow_and_flows_among_each_other() {
    let mut bench = banded(Fairness::GlobalStrict, Ordering::Edf);
    let ttl = |seconds: Option<u64>| Request {
        ttl: seconds.map(Duration::from_secs),
        ..Request::default()
    };
    for (flow, seconds) in [("a", None), ("b", Some(9)), ("a", Some(5)), ("b", Some(5))] {
        bench.push(0, flow, SECOND, ttl(seconds)).unwrap();
    }
    let late = Ticket { number: 0, band: 0 };
    assert_eq!(bench.queue.ahead_of(late), 3);
    assert_eq!(bench.drained(SECOND), [2, 3, 1, 0]);
}

#[test]
fn a_head_that_is_passed_over_lets_its_own_flow_and_the_others_by() {
    let mut bench = banded(Fairness::GlobalStrict, Ordering::Fcfs);
    for flow in ["a", "a", "b"] {
        bench.push(0, flow, SECOND, Request::default()).unwrap();
    }
    let mut passed = Vec::new();
    let mut seen = Vec::new();
    while let Head::Next { over, .. } = bench.queue.head(SECOND, Saturation::Unknown, &passed) {
        seen.push(over.ticket().number);
        passed.push(over);
    }
    assert_eq!(seen, [0, 1, 2]);
    assert!(bench.queue.leads(Ticket { number: 0, band: 0 }));
    assert!(!bench.queue.leads(Ticket { number: 1, band: 0 }));
}

#[test]
fn a_common_budget_that_comes_later_counts_who_is_here_already() {
    let mut bench = of_bands(FlowConfig::default(), &[-1, -2, 3]);
    let config = FlowConfig {
        negative_shares: true,
        negative_band: BandConfig {
            max_requests: 3,
            ..BandConfig::default()
        },
        ..FlowConfig::default()
    };
    bench
        .queue
        .set_config(config.clone(), UsageLimit::default());
    assert_eq!(bench.queue.room(-7), 1, "two of three places are taken");
    bench.bytes(-1, 10).unwrap();
    assert_eq!(bench.bytes(-2, 10), Err(Full::Requests(3)));
    // And back: each band by itself, and nothing is taken twice from what they shared.
    bench
        .queue
        .set_config(FlowConfig::default(), UsageLimit::default());
    bench.bytes(-2, 10).unwrap();
    bench.drained(SECOND);
    bench.queue.set_config(config, UsageLimit::default());
    assert_eq!(bench.queue.room(-1), 3);
}

#[test]
fn a_band_that_vanished_runs_out_under_its_template() {
    let mut config = FlowConfig::default();
    for priority in [4, 5] {
        config.bands.insert(priority, BandConfig::default());
    }
    let mut bench = of_bands(config.clone(), &[4]);
    config.bands.clear();
    config.default_band.max_requests = 1;
    bench.queue.set_config(config, UsageLimit::default());
    let gauges = bench.queue.gauges().clone();
    let priorities = |gauges: &QueueGauges| {
        let bands = gauges.depth().bands;
        bands.iter().map(|band| band.priority).collect::<Vec<_>>()
    };
    assert_eq!(priorities(&gauges), [4, 0], "nobody was in 5");
    assert_eq!(gauges.capacity()[0].1.requests, Some(1.0));
    assert_eq!(bench.bytes(4, 1), Err(Full::Requests(1)));
    assert_eq!(bench.drained(SECOND), [0]);
    assert!(bench.queue.sweep(BAND_IDLE + SECOND * 2));
    assert_eq!(priorities(&gauges), [0]);
}
