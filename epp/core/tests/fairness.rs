//! What flows of one band may expect of each other.

#![expect(clippy::panic, reason = "a test fails by panicking")]

mod support;

use std::collections::VecDeque;
use std::time::Duration;

use epp_core::config::{BandConfig, Fairness, FlowConfig, VirtualTokenCounter};
use epp_core::{Config, Director, Dispatch, End, Request, Ticket, Verdict};
use proptest::prelude::*;
use support::{complete, dispatched, pool, request};

proptest! {
    /// Of two flows that always have something queued, neither gets more than one request's cost ahead of the other,
    /// each by its weight, whatever their requests cost and whatever was guessed.
    #[test]
    fn backlogged_flows_stay_within_one_request_of_each_other(
        sizes in prop::collection::vec((1_u32..2_000, 0_u32..600, 0_u32..600), 120),
        weight in 0.25_f64..4.0,
    ) {
        let mut director = virtual_tokens(&[("f0", weight)], 1);
        let request = |flow: usize, (prompt_tokens, most, _): (u32, u32, u32)| Request {
            flow: format!("f{flow}").into(),
            prompt_tokens,
            max_output_tokens: Some(most),
            ..request(0)
        };
        for (number, &size) in sizes.iter().enumerate() {
            director.submit(Duration::ZERO, request(number % 2, size));
        }
        let weights = [weight, 1.0];
        let costs = sizes.iter().map(|&(prompt, most, output)| f64::from(prompt) + 2.0 * f64::from(most.max(output)));
        let most = costs.fold(0.0, f64::max) / weight.min(1.0);
        let (mut served, mut left) = ([0.0; 2], [60, 60]);
        while let Some((ticket, Verdict::Dispatched(mut dispatch))) = director.poll() {
            let number = ticket.number() as usize;
            let (prompt, _, output) = sizes[number];
            dispatch.in_flight.first_token(Duration::ZERO);
            dispatch.in_flight.emitted(output);
            dispatch.in_flight.finish(Duration::ZERO, End::UpstreamCut);
            served[number % 2] += (f64::from(prompt) + 2.0 * f64::from(output)) / weights[number % 2];
            left[number % 2] -= 1;
            if left.iter().all(|&left| left > 0) {
                prop_assert!((served[0] - served[1]).abs() <= most + 1e-6, "{served:?} {most}");
            }
            director.advance(Duration::ZERO);
        }
        prop_assert_eq!(left, [0, 0], "nobody is left out");
    }

    /// The same of what is charged, with many requests in flight at once.
    #[test]
    fn charges_of_backlogged_flows_stay_within_one_request(
        prompts in prop::collection::vec(1_u32..2_000, 200),
        concurrency in 1_u32..20,
    ) {
        let mut director = virtual_tokens(&[], concurrency);
        for (number, &prompt_tokens) in prompts.iter().enumerate() {
            let flow = if number < concurrency as usize { 9 } else { number % 4 };
            let request = Request {
                flow: format!("f{flow}").into(),
                prompt_tokens,
                max_output_tokens: Some(0),
                ..request(0)
            };
            director.submit(Duration::ZERO, request);
        }
        let most = f64::from(prompts.iter().copied().max().unwrap_or(0));
        let mut left = [0_usize; 4];
        (concurrency as usize..prompts.len()).for_each(|number| left[number % 4] += 1);
        let mut charged = [0.0_f64; 4];
        let mut running = Vec::new();
        loop {
            while let Some((ticket, Verdict::Dispatched(dispatch))) = director.poll() {
                let number = ticket.number() as usize;
                running.push(dispatch);
                if number < concurrency as usize {
                    continue;
                }
                charged[number % 4] += f64::from(prompts[number]);
                left[number % 4] -= 1;
                if left.iter().all(|&left| left > 0) {
                    let ends = charged.iter().fold((f64::MAX, 0.0_f64), |(low, high), &it| (low.min(it), high.max(it)));
                    prop_assert!(ends.1 - ends.0 <= most, "{charged:?}");
                }
            }
            if running.is_empty() {
                break;
            }
            drop(running.swap_remove(running.len() / 2));
            director.advance(Duration::ZERO);
        }
        prop_assert_eq!(left, [0; 4]);
    }

    /// Within a band every flow that has something queued goes once before any other goes twice.
    #[test]
    fn nobody_starves_under_round_robin(flows in prop::collection::vec(0_usize..6, 1..120)) {
        let mut config = Config::round_robin().with_max_concurrency(1);
        config.flow = Some(with_fairness(Fairness::RoundRobin));
        let mut director = Director::new(config, 1);
        director.set_pool(Duration::ZERO, pool(1));
        for flow in &flows {
            director.submit(Duration::ZERO, Request { flow: format!("f{flow}").into(), ..request(0) });
        }
        let mut left = [0_usize; 6];
        flows.iter().for_each(|&flow| left[flow] += 1);
        let mut since = [0_usize; 6];
        while let Some((ticket, Verdict::Dispatched(dispatch))) = director.poll() {
            let served = flows[ticket.number() as usize];
            left[served] -= 1;
            since[served] = 0;
            for flow in (0..6).filter(|&flow| flow != served && left[flow] > 0) {
                since[flow] += 1;
                prop_assert!(since[flow] <= 6, "flow {flow} waits for {} others", since[flow]);
            }
            drop(dispatch);
            director.advance(Duration::ZERO);
        }
        prop_assert_eq!(left, [0; 6]);
    }
}

fn of_flow(flow: &str, prompt_tokens: u32) -> Request {
    Request {
        flow: flow.into(),
        prompt_tokens,
        ..request(0)
    }
}

/// Ends one after the other, with one output token each or as if their clients had left, and counts who goes before
/// the first of `newcomer`.
fn before_the_first(
    director: &mut Director,
    mut running: VecDeque<Box<Dispatch>>,
    newcomer: Ticket,
    cancelled: bool,
) -> usize {
    let mut before = 0;
    while let Some(mut dispatch) = running.pop_front() {
        if !cancelled {
            dispatch.in_flight.first_token(Duration::ZERO);
            dispatch.in_flight.emitted(1);
            dispatch.in_flight.finish(Duration::ZERO, complete(1));
        } else {
            drop(dispatch);
        }
        director.advance(Duration::ZERO);
        while let Some((ticket, Verdict::Dispatched(dispatch))) = director.poll() {
            if ticket == newcomer {
                return before;
            }
            before += 1;
            running.push_back(dispatch);
        }
    }
    panic!("it never went")
}

/// What is guessed of requests in flight and never comes is no lead over those who join meanwhile.
#[test]
fn wrong_guesses_in_flight_are_nobodys_lead() {
    for cancelled in [false, true] {
        for first in ["busy queues", "newcomer queues"] {
            let mut director = virtual_tokens(&[], 100);
            if cancelled {
                // Long answers make it expect long ones.
                for _ in 0..40 {
                    director.submit(Duration::ZERO, of_flow("busy", 1));
                    let mut dispatch = dispatched(&mut director);
                    dispatch.in_flight.first_token(Duration::ZERO);
                    dispatch.in_flight.finish(Duration::ZERO, complete(4_000));
                }
            }
            let mut running = Vec::new();
            for _ in 0..100 {
                director.submit(Duration::ZERO, of_flow("busy", 100));
                running.push(dispatched(&mut director));
            }
            let busy = |director: &mut Director| {
                for _ in 0..200 {
                    director.submit(Duration::ZERO, of_flow("busy", 100));
                }
            };
            let newcomer = if first == "busy queues" {
                busy(&mut director);
                director.submit(Duration::ZERO, of_flow("new", 100))
            } else {
                let newcomer = director.submit(Duration::ZERO, of_flow("new", 100));
                busy(&mut director);
                newcomer
            };
            let before = before_the_first(&mut director, running.into(), newcomer, cancelled);
            assert!(
                before <= 1,
                "{before} went before, {first} first, cancelled: {cancelled}"
            );
        }
    }
}

/// A flow pays for long answers while they run, not only when they have ended.
#[test]
fn output_counts_as_it_comes() {
    let mut director = virtual_tokens(&[], 20);
    let mut running = Vec::new();
    for _ in 0..20 {
        director.submit(Duration::ZERO, of_flow("long", 10));
        running.push(dispatched(&mut director));
    }
    for _ in 0..20 {
        director.submit(Duration::ZERO, of_flow("long", 10));
        director.submit(Duration::ZERO, of_flow("short", 10));
    }
    for dispatch in &mut running {
        dispatch.in_flight.first_token(Duration::ZERO);
        dispatch.in_flight.emitted(5_000);
    }
    // One answer ends; the others go on.
    for dispatch in running.drain(..5) {
        dispatch.in_flight.finish(Duration::ZERO, complete(5_000));
    }
    director.advance(Duration::ZERO);
    let next: Vec<_> = std::iter::from_fn(|| director.poll())
        .map(|(ticket, _)| ticket.number() % 2)
        .collect();
    assert_eq!(next, [1; 5], "all of the short ones");
}

fn with_fairness(fairness: Fairness) -> FlowConfig {
    FlowConfig {
        default_band: BandConfig {
            fairness,
            ..BandConfig::default()
        },
        ..FlowConfig::default()
    }
}

fn virtual_tokens(weights: &[(&str, f64)], concurrency: u32) -> Director {
    let weights = weights
        .iter()
        .map(|(flow, weight)| ((*flow).to_owned(), *weight));
    let counter = VirtualTokenCounter {
        weights: weights.collect(),
        ..VirtualTokenCounter::default()
    };
    let mut config = Config::round_robin().with_max_concurrency(concurrency);
    config.flow = Some(with_fairness(Fairness::VirtualTokens(counter)));
    let mut director = Director::new(config, 1);
    director.set_pool(Duration::ZERO, pool(1));
    director
}
