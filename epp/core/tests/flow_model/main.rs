//! The queue against a plain model of it: a list that is searched anew for every decision.

mod model;
#[path = "../support/mod.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use epp_core::config::{BandConfig, Fairness, FlowConfig, Ordering, VirtualTokenCounter};
use epp_core::{Config, Director, Dispatch, End, Outcome, Request, Slo, Ticket, Verdict};
use model::Model;
use proptest::prelude::*;
use support::{pool, request};

/// What becomes of a request, as both sides tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Sent,
    Refused(Outcome),
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Submit {
        priority: i32,
        flow: usize,
        prompt_tokens: u32,
        bytes: u64,
        ttl: Option<u64>,
        ttft_ms: Option<f64>,
    },
    /// Ends one of those running, after so many output tokens.
    End(usize, u32),
    Cancel(usize),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let submit = (
        -3_i32..3,
        0_usize..4,
        1_u32..500,
        0_u64..400,
        prop::option::weighted(0.3, 0_u64..8),
        prop::option::weighted(0.5, 0.0..9_000.0),
    )
        .prop_map(
            |(priority, flow, prompt_tokens, bytes, ttl, ttft_ms)| Step::Submit {
                priority,
                flow,
                prompt_tokens,
                bytes,
                ttl,
                ttft_ms,
            },
        );
    prop_oneof![
        8 => submit,
        4 => (0_usize..8, 0_u32..200).prop_map(|(which, output)| Step::End(which, output)),
        1 => (0_usize..60).prop_map(Step::Cancel),
        2 => (0_u64..3_000).prop_map(Step::Wait),
    ]
}

/// The rules of one run.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) flow: FlowConfig,
    pub(crate) endpoints: usize,
    pub(crate) concurrency: u32,
}

fn rules() -> impl Strategy<Value = Rules> {
    let fairness = prop_oneof![
        Just(Fairness::GlobalStrict),
        Just(Fairness::RoundRobin),
        Just(Fairness::VirtualTokens(VirtualTokenCounter {
            weights: [("f1".to_owned(), 2.0)].into(),
            ..VirtualTokenCounter::default()
        })),
    ];
    let ordering = prop_oneof![
        Just(Ordering::Fcfs),
        Just(Ordering::Edf),
        Just(Ordering::SloDeadline)
    ];
    // Absent, a common budget, nothing waits.
    let negative = prop::option::of(prop_oneof![Just(0_u64), Just(3)]);
    (fairness, ordering, negative, 1_usize..3, 1_u32..3).prop_map(
        |(fairness, ordering, negative, endpoints, concurrency)| {
            let band = |max_requests| BandConfig {
                max_requests,
                max_bytes: 1_500,
                request_ttl: None,
                fairness: fairness.clone(),
                ordering,
            };
            let flow = FlowConfig {
                max_requests: Some(12),
                request_ttl: Some(Duration::from_secs(5)),
                default_band: band(6),
                negative_band: band(negative.unwrap_or(6)),
                negative_shares: negative.is_some(),
                bands: [(2, band(2))].into(),
                ..FlowConfig::default()
            };
            Rules {
                flow,
                endpoints,
                concurrency,
            }
        },
    )
}

/// The director under test.
struct Real {
    director: Director,
    tickets: Vec<Ticket>,
    running: Vec<(u64, Dispatch)>,
}

impl Real {
    fn new(rules: &Rules) -> Self {
        let config = Config {
            flow: Some(rules.flow.clone()),
            ..Config::round_robin().with_max_concurrency(rules.concurrency)
        };
        let mut director = Director::new(config, 1);
        director.set_pool(Duration::ZERO, pool(rules.endpoints));
        Self {
            director,
            tickets: Vec::new(),
            running: Vec::new(),
        }
    }

    fn apply(&mut self, now: Duration, step: &Step) -> Vec<(u64, Fate)> {
        match step {
            Step::Submit { .. } => {
                let ticket = self.director.submit(now, request_of(step));
                self.tickets.push(ticket);
            }
            Step::End(which, output) if *which < self.running.len() => {
                let (_, mut dispatch) = self.running.remove(*which);
                dispatch.in_flight.first_token(now);
                dispatch.in_flight.emitted(*output);
                dispatch.in_flight.finish(now, End::UpstreamCut);
                self.director.advance(now);
            }
            Step::Cancel(which) => {
                if let Some(&ticket) = self.tickets.get(*which) {
                    self.director.cancel(now, ticket);
                }
            }
            Step::End(..) | Step::Wait(_) => self.director.advance(now),
        }
        let mut fates = Vec::new();
        while let Some((ticket, verdict)) = self.director.poll() {
            fates.push((
                ticket.number(),
                match verdict {
                    Verdict::Dispatched(dispatch) => {
                        self.running.push((ticket.number(), *dispatch));
                        Fate::Sent
                    }
                    Verdict::Refused(refusal) => Fate::Refused(refusal.outcome),
                },
            ));
        }
        fates
    }
}

pub(crate) fn request_of(step: &Step) -> Request {
    let Step::Submit {
        priority,
        flow,
        prompt_tokens,
        bytes,
        ttl,
        ttft_ms,
    } = *step
    else {
        return request(0);
    };
    Request {
        flow: format!("f{flow}").into(),
        prompt_tokens,
        bytes,
        ttl: ttl.map(Duration::from_secs),
        slo: Slo {
            ttft_ms,
            tpot_ms: None,
        },
        max_output_tokens: Some(prompt_tokens % 50),
        ..request(priority)
    }
}

/// What becomes of everything in `steps`, by the director.
fn replay(rules: &Rules, steps: &[Step]) -> Vec<Vec<(u64, Fate)>> {
    let mut real = Real::new(rules);
    let mut now = Duration::ZERO;
    let mut fates = Vec::new();
    for step in steps {
        if let Step::Wait(millis) = step {
            now += Duration::from_millis(*millis);
        }
        fates.push(real.apply(now, step));
    }
    fates
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_queue_does_what_the_model_does(rules in rules(), steps in prop::collection::vec(step(), 1..80)) {
        let (mut real, mut model) = (Real::new(&rules), Model::new(&rules));
        let mut now = Duration::ZERO;
        for step in &steps {
            if let Step::Wait(millis) = step {
                now += Duration::from_millis(*millis);
            }
            prop_assert_eq!(real.apply(now, step), model.apply(now, step), "{:?}", step);
            let depth = real.director.queued();
            prop_assert_eq!(depth.total().requests as usize, model.waiting.len());
            prop_assert_eq!(depth.total().bytes, model.waiting.iter().map(|item| item.bytes).sum::<u64>());
            prop_assert_eq!(
                real.running.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
                model.running.iter().map(|item| item.number).collect::<Vec<_>>()
            );
        }
        // Whatever is left ends, and every budget is given back.
        while !real.running.is_empty() {
            real.apply(now, &Step::End(0, 1));
        }
        real.apply(now + Duration::from_secs(60), &Step::Wait(0));
        while !real.running.is_empty() {
            real.apply(now, &Step::End(0, 1));
        }
        let depth = real.director.queued().total();
        prop_assert_eq!((depth.requests, depth.bytes, depth.prompt_tokens), (0, 0, 0));
        let totals = real.director.demand().totals();
        prop_assert_eq!(totals.offered().requests, totals.ended().requests);
        let flows = real.director.demand().flows();
        let waiting = flows.iter().map(|flow| flow.waiting.requests).sum::<u64>();
        let offered = flows.iter().map(|flow| flow.offered.requests).sum::<u64>();
        let sent = flows.iter().map(|flow| flow.dispatched.requests).sum::<u64>();
        let cut = totals.outcome(Outcome::UpstreamCut).requests;
        prop_assert_eq!((waiting, offered, sent), (0, totals.offered().requests, cut));
    }

    /// Without `defaultNegativePriorityBand` the sign of a priority means nothing to the queue: the same script gives
    /// the same with negative bands written out like the others, and with all priorities lifted above zero.
    #[test]
    fn without_the_negative_band_all_is_as_before_it_existed(
        rules in rules(),
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut absent = rules;
        absent.flow.negative_shares = false;
        absent.flow.negative_band = absent.flow.default_band.clone();
        let mut written = absent.clone();
        let like_others = |priority| (priority, absent.flow.default_band.clone());
        written.flow.bands.extend((-3..0).map(like_others));
        let mut lifted = absent.clone();
        lifted.flow.bands = absent.flow.bands.iter().map(|(priority, band)| (priority + 10, band.clone())).collect();
        let higher: Vec<Step> = steps.iter().cloned().map(|step| match step {
            Step::Submit { priority, flow, prompt_tokens, bytes, ttl, ttft_ms } => {
                Step::Submit { priority: priority + 10, flow, prompt_tokens, bytes, ttl, ttft_ms }
            }
            other => other,
        }).collect();
        let before = replay(&absent, &steps);
        prop_assert_eq!(&before, &replay(&written, &steps));
        prop_assert_eq!(&before, &replay(&lifted, &higher));
    }
}

#[test]
fn a_common_budget_of_zero_sends_what_has_room_and_refuses_the_rest_at_once() {
    let mut config = Config::round_robin().with_max_concurrency(1);
    let nothing_waits = BandConfig {
        max_requests: 0,
        ..BandConfig::default()
    };
    config.flow = Some(FlowConfig {
        negative_band: nothing_waits,
        negative_shares: true,
        ..FlowConfig::default()
    });
    let mut director = Director::new(config, 1);
    let pool = pool(2);
    director.submit(Duration::ZERO, request(-1));
    assert_eq!(support::refused(&mut director).status, 503, "no endpoint");
    director.set_pool(Duration::ZERO, Arc::clone(&pool));
    director.submit(Duration::ZERO, request(-1));
    let _first = support::dispatched(&mut director);
    // Somebody of a higher band waits, but only for an endpoint that is full.
    let subset = |address: &str| Request {
        subset: Some(vec![address.to_owned()]),
        ..request(5)
    };
    director.submit(Duration::ZERO, subset("10.0.0.1:8000"));
    assert!(director.poll().is_none());
    director.submit(Duration::ZERO, request(-1));
    let second = support::dispatched(&mut director);
    assert_eq!(&*second.endpoint.name, "e1");
    director.submit(Duration::ZERO, request(-1));
    let refusal = support::refused(&mut director);
    assert_eq!(
        (refusal.status, refusal.outcome),
        (429, Outcome::RejectedCapacity)
    );
    assert_eq!(
        director.queued().total().requests,
        1,
        "only who may wait does"
    );
}
