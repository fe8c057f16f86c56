//! Every interleaving of reports, restarts, silences and departures.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::signals::Volume;

fn totals(requests: u64) -> Totals {
    Totals {
        offered: Volume {
            requests,
            prompt_tokens: 100 * requests,
        },
        served: requests,
        ..Totals::default()
    }
}

fn report(incarnation: u64, uptime: u64, requests: u64) -> Report {
    Report {
        incarnation,
        uptime: Duration::from_secs(uptime),
        bands: vec![Band {
            priority: 0,
            totals: totals(requests),
            queued: Backlog {
                requests: 1,
                ..Backlog::default()
            },
        }],
        in_flight: 2,
        ..Report::default()
    }
}

fn sum(demand: &MergedDemand) -> u64 {
    demand
        .bands
        .iter()
        .map(|band| band.totals.offered.requests)
        .sum()
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn pickers_add_up_and_what_came_before_us_is_no_arrival() {
    let mut shares = Shares::new(at(100));
    shares.accept(at(100), "a", report(1, 90, 1_000)).unwrap();
    shares.accept(at(101), "b", report(1, 1, 7)).unwrap();
    assert_eq!(sum(&shares.demand(at(101))), 7);
    shares.accept(at(102), "a", report(1, 92, 1_010)).unwrap();
    let demand = shares.demand(at(102));
    assert_eq!((sum(&demand), demand.in_flight, demand.heard), (17, 4, 2));
    assert_eq!(demand.bands[0].queued.requests, 2);
}

#[test]
fn a_restart_begins_a_new_count_and_an_overtaken_report_adds_only_what_is_new() {
    let mut shares = Shares::new(at(0));
    shares.accept(at(10), "a", report(1, 10, 50)).unwrap();
    shares.accept(at(20), "a", report(2, 3, 5)).unwrap();
    assert_eq!(sum(&shares.demand(at(20))), 55);
    shares.accept(at(21), "a", report(1, 12, 52)).unwrap();
    shares.accept(at(21), "a", report(1, 12, 52)).unwrap();
    assert_eq!(
        sum(&shares.demand(at(21))),
        57,
        "two more before it ended, once"
    );
    shares.accept(at(22), "a", report(2, 5, 9)).unwrap();
    assert_eq!(sum(&shares.demand(at(22))), 61);
}

#[test]
fn silence_is_not_zero_and_a_departure_takes_its_queue_but_not_its_count() {
    let mut shares = Shares::new(at(0));
    for id in ["a", "b"] {
        shares.accept(at(10), id, report(1, 10, 50)).unwrap();
    }
    shares.accept(at(16), "a", report(1, 16, 60)).unwrap();
    let demand = shares.demand(at(16));
    assert_eq!((sum(&demand), demand.heard), (110, 1));
    assert_eq!(
        (demand.silent[0].id.as_str(), demand.silent[0].unheard),
        ("b", at(6))
    );
    assert_eq!(
        (demand.in_flight, demand.bands[0].queued.requests),
        (4, 2),
        "as last told"
    );
    shares.gone("b");
    let demand = shares.demand(at(17));
    assert_eq!(
        (sum(&demand), demand.silent.len(), demand.in_flight),
        (110, 0, 2)
    );
}

#[test]
fn a_picker_said_to_be_gone_too_early_goes_on() {
    let mut shares = Shares::new(at(0));
    shares.accept(at(10), "a", report(1, 10, 50)).unwrap();
    shares.gone("a");
    shares.accept(at(12), "a", report(1, 12, 55)).unwrap();
    let demand = shares.demand(at(12));
    assert_eq!((sum(&demand), demand.heard, demand.in_flight), (55, 1, 2));
}

#[test]
fn a_picker_that_never_reports_is_silent_too() {
    let mut shares = Shares::new(at(0));
    shares.expect(at(0), "a").unwrap();
    let demand = shares.demand(at(5));
    assert_eq!(
        (demand.heard, demand.silent.len()),
        (0, 0),
        "it may be about to"
    );
    assert_eq!(shares.demand(at(6)).silent.len(), 1);
    assert_eq!(shares.ids().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn what_a_silent_picker_counted_is_spread_over_its_silence() {
    let mut shares = Shares::new(at(0));
    shares.accept(at(10), "a", report(1, 10, 50)).unwrap();
    shares.accept(at(11), "a", report(1, 11, 55)).unwrap();
    assert_eq!(shares.demand(at(11)).arrears.len(), 1, "its first seconds");
    shares.accept(at(41), "a", report(1, 41, 205)).unwrap();
    let demand = shares.demand(at(41));
    let late = demand.arrears[0];
    assert_eq!((late.since, late.totals.offered.requests), (at(11), 150));
    assert!(shares.demand(at(41)).arrears.is_empty(), "handed over once");
}

#[test]
fn shapes_are_taken_once_and_the_newest_are_kept() {
    let shape = |input: f32| Shape {
        priority: 3,
        sample: Sample {
            input,
            cached: 0.0,
            output: Some(1.0),
        },
    };
    let mut shares = Shares::new(at(0));
    let with = |from: u64, count: u64| Report {
        mix_from: from,
        mix: (from..from + count)
            .map(|n| shape(n as f32 + 1.0))
            .collect(),
        ..report(1, 1, 0)
    };
    shares.accept(at(1), "a", with(0, 4)).unwrap();
    shares.accept(at(2), "a", with(2, 4)).unwrap();
    let samples = shares.demand(at(2)).samples;
    assert_eq!(
        (samples.version(), shares.mix_after("a")),
        (6, Some((1, 6)))
    );
    assert_eq!(
        samples
            .mix(|priority| priority == 3)
            .mean(|s| f64::from(s.input)),
        3.5
    );
    assert!(samples.mix(|priority| priority == 4).is_empty());
    for from in 0..10 {
        shares
            .accept(at(3), "a", with(6 + from * 1000, 1000))
            .unwrap();
    }
    assert_eq!(shares.demand(at(3)).samples.shapes.len(), MAX_SAMPLES);
}

#[test]
fn memory_is_bounded_whatever_is_reported() {
    let mut shares = Shares::new(at(0));
    let flood = Report {
        bands: (0..10_000)
            .map(|priority| Band {
                priority,
                totals: totals(1),
                ..Band::default()
            })
            .collect(),
        ..report(1, 1, 0)
    };
    shares.accept(at(1), "a", flood).unwrap();
    let demand = shares.demand(at(1));
    assert_eq!(
        (demand.bands.len(), sum(&demand)),
        (MAX_BANDS, 10_000),
        "none is lost"
    );
    for picker in 1..MAX_PICKERS {
        shares
            .accept(at(1), &format!("p{picker}"), report(1, 1, 1))
            .unwrap();
    }
    let refused = shares
        .accept(at(1), "one more", report(1, 1, 1))
        .unwrap_err();
    assert!(
        refused.to_string().contains("`one more` is one too many"),
        "{refused}"
    );
    for incarnation in 2..1_000 {
        shares
            .accept(at(1), "a", report(incarnation, 1, 1))
            .unwrap();
    }
    assert_eq!(shares.past.len(), MAX_PAST);
}

#[test]
fn nonsense_is_refused() {
    let mut shares = Shares::new(at(10));
    shares.accept(at(20), "a", report(1, 5, 50)).unwrap();
    let saved = serde_json::to_value(shares.save(at(21))).unwrap();
    let refused = |field: &str, value: u64, now| {
        let mut saved = saved.clone();
        saved[field] = value.into();
        Shares::restore(serde_json::from_value(saved).unwrap(), now)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        refused("schema", 2, at(22)),
        "saved shares: schema: `2` is not 1, the version that this program reads"
    );
    let second = 1_000_000_000;
    assert_eq!(
        refused("at", 30 * second, at(20)),
        "saved shares: age in seconds: `-10` is not 0 to 3600"
    );
    assert!(refused("at", second, at(9_000)).contains("`8999`"));
    assert!(refused("begun", 40 * second, at(41)).contains("times"));
}

#[derive(Clone, Debug)]
enum Event {
    /// Picker counts so many more.
    Count(usize, u64),
    /// Its present counters are sent.
    Send(usize),
    /// One of the reports that are under way arrives, whichever.
    Arrive(usize),
    /// The same, but it stays under way: it will arrive twice.
    Repeat(usize),
    Restart(usize),
    Gone(usize),
    Wait(u64),
    /// The controller's process restarts.
    Move,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let picker = 0..3_usize;
    let event = prop_oneof![
        4 => (picker.clone(), 0..20_u64).prop_map(|(picker, count)| Event::Count(picker, count)),
        4 => picker.clone().prop_map(Event::Send),
        4 => (0..8_usize).prop_map(Event::Arrive),
        1 => (0..8_usize).prop_map(Event::Repeat),
        1 => picker.clone().prop_map(Event::Restart),
        1 => picker.prop_map(Event::Gone),
        2 => (0..9_u64).prop_map(Event::Wait),
        1 => Just(Event::Move),
    ];
    prop::collection::vec(event, 1..120)
}

proptest! {
    #[test]
    fn the_total_never_decreases_and_counts_every_request_once(events in events()) {
        let mut shares = Shares::new(at(0));
        let (mut now, mut last) = (1, 0);
        let (mut counts, mut incarnations, mut begun) = ([0_u64; 3], [1_u64; 3], [0_u64; 3]);
        let mut under_way: Vec<(usize, Report)> = Vec::new();
        // The most that each incarnation was heard to have counted: the truth as far as it can be known.
        let mut heard: BTreeMap<(usize, u64), u64> = BTreeMap::new();
        for event in events {
            let arrived = match event {
                Event::Count(picker, more) => { counts[picker] += more; None }
                Event::Send(picker) => {
                    under_way.push((picker, report(incarnations[picker], now - begun[picker], counts[picker])));
                    None
                }
                Event::Arrive(index) if index < under_way.len() => Some(under_way.remove(index)),
                Event::Repeat(index) => under_way.get(index).cloned(),
                Event::Arrive(_) => None,
                Event::Restart(picker) => {
                    (counts[picker], begun[picker]) = (0, now);
                    incarnations[picker] += 1;
                    None
                }
                Event::Gone(picker) => { shares.gone(&picker.to_string()); None }
                Event::Wait(seconds) => { now += seconds; None }
                Event::Move => {
                    let json = serde_json::to_string(&shares.save(at(now))).unwrap();
                    shares = Shares::restore(serde_json::from_str(&json).unwrap(), at(now)).unwrap();
                    None
                }
            };
            if let Some((picker, report)) = arrived {
                let counted = report.bands[0].totals.offered.requests;
                let most = heard.entry((picker, report.incarnation)).or_default();
                *most = counted.max(*most);
                shares.accept(at(now), &picker.to_string(), report).unwrap();
            }
            let demand = shares.demand(at(now));
            prop_assert!(sum(&demand) >= last, "{} after {last}", sum(&demand));
            prop_assert_eq!(sum(&demand), heard.values().sum::<u64>());
            let late: u64 = demand.arrears.iter().map(|late| late.totals.offered.requests).sum();
            prop_assert!(late <= sum(&demand) - last, "arrears are part of the growth");
            last = sum(&demand);
        }
    }
}
