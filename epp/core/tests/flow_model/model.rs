//! The queue as one would explain it: a list, searched anew for every decision.

use std::collections::BTreeMap;
use std::time::Duration;

use epp_core::Outcome;
use epp_core::config::{Fairness, Ordering};

use crate::{Fate, Rules, Step, request_of};

/// One request in the model.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) number: u64,
    band: i32,
    flow: usize,
    key: Duration,
    deadline: Duration,
    pub(crate) bytes: u64,
    prompt_tokens: u32,
    estimate: u32,
}

/// The queue as one would explain it.
pub(crate) struct Model {
    rules: Rules,
    pub(crate) waiting: Vec<Item>,
    pub(crate) running: Vec<Item>,
    submitted: u64,
    /// By band and flow: what it was served, and the turn it waits for.
    service: BTreeMap<(i32, usize), f64>,
    turns: BTreeMap<(i32, usize), u64>,
    last_turn: u64,
    /// By band: the service of the flow that was served last, before it was.
    floor: BTreeMap<i32, f64>,
}

impl Model {
    pub(crate) fn new(rules: &Rules) -> Self {
        Self {
            rules: rules.clone(),
            waiting: Vec::new(),
            running: Vec::new(),
            submitted: 0,
            service: BTreeMap::new(),
            turns: BTreeMap::new(),
            last_turn: 0,
            floor: BTreeMap::new(),
        }
    }

    pub(crate) fn apply(&mut self, now: Duration, step: &Step) -> Vec<(u64, Fate)> {
        let mut fates = Vec::new();
        self.expire(now, &mut fates);
        match step {
            Step::Submit { .. } => self.submit(now, step, &mut fates),
            Step::End(which, output) if *which < self.running.len() => {
                let item = self.running.remove(*which);
                let change = self.cost(&item, *output) - self.cost(&item, item.estimate);
                *self.service.entry((item.band, item.flow)).or_default() += change;
            }
            Step::Cancel(which) => {
                let number = *which as u64;
                if let Some(at) = self.waiting.iter().position(|item| item.number == number) {
                    self.waiting.remove(at);
                    let outcome = Outcome::EvictedContextCancelled;
                    fates.push((number, Fate::Refused(outcome)));
                }
            }
            Step::End(..) | Step::Wait(_) => {}
        }
        while self.has_room() && !self.waiting.is_empty() {
            let next = self.next();
            let item = self.waiting.remove(next);
            self.send(item, &mut fates);
        }
        fates
    }

    fn has_room(&self) -> bool {
        self.running.len() < self.rules.endpoints * self.rules.concurrency as usize
    }

    fn cost(&self, item: &Item, output: u32) -> f64 {
        let weight = if item.flow == 1 { 2.0 } else { 1.0 };
        (f64::from(item.prompt_tokens) + 2.0 * f64::from(output)) / weight
    }

    fn expire(&mut self, now: Duration, fates: &mut Vec<(u64, Fate)>) {
        let mut late: Vec<Item> = Vec::new();
        self.waiting.retain(|item| {
            let expired = item.deadline <= now;
            if expired {
                late.push(item.clone());
            }
            !expired
        });
        late.sort_by_key(|item| (item.deadline, item.number));
        let expired = Fate::Refused(Outcome::EvictedTtl);
        fates.extend(late.iter().map(|item| (item.number, expired)));
    }

    fn submit(&mut self, now: Duration, step: &Step, fates: &mut Vec<(u64, Fate)>) {
        let request = request_of(step);
        let Step::Submit { flow, .. } = *step else {
            return;
        };
        let ttl = [self.rules.flow.request_ttl, request.ttl];
        let ttl = ttl.into_iter().flatten().min().unwrap_or(Duration::MAX);
        let limits = self.rules.flow.band(request.priority).clone();
        let target = request.slo.ttft_ms;
        let item = Item {
            number: self.submitted,
            band: request.priority,
            flow,
            key: match limits.ordering {
                Ordering::Fcfs => Duration::ZERO,
                Ordering::Edf => now + ttl,
                Ordering::SloDeadline => target.map_or(Duration::MAX, |target| {
                    now + Duration::from_millis(target as u64)
                }),
            },
            deadline: now + ttl,
            bytes: request.bytes,
            prompt_tokens: request.prompt_tokens,
            estimate: request.max_output_tokens.unwrap_or(0),
        };
        self.submitted += 1;
        if self.has_room() {
            self.lift(&item);
            return self.send(item, fates);
        }
        let shares = self.rules.flow.negative_shares && item.band < 0;
        let same = |other: &&Item| {
            if shares {
                other.band < 0
            } else {
                other.band == item.band
            }
        };
        let held = self.waiting.iter().filter(same);
        let (count, bytes) = held.fold((1, item.bytes), |(count, bytes), other| {
            (count + 1, bytes + other.bytes)
        });
        let full = limits.max_requests == 0
            || count > limits.max_requests
            || bytes > limits.max_bytes
            || self.waiting.len() as u64 >= 12;
        if full {
            fates.push((item.number, Fate::Refused(Outcome::RejectedCapacity)));
            return;
        }
        self.lift(&item);
        self.last_turn += 1;
        let turn = self.last_turn;
        let first = !self.waiting.iter().any(|other| same_flow(other, &item));
        if first {
            self.turns.insert((item.band, item.flow), turn);
        }
        self.waiting.push(item);
        self.expire(now, fates);
    }

    /// A flow that has nothing waiting begins where the least served of those that have stands.
    fn lift(&mut self, item: &Item) {
        if self.waiting.iter().any(|other| same_flow(other, item)) {
            return;
        }
        let of_band = self.waiting.iter().filter(|other| other.band == item.band);
        let services =
            of_band.map(|other| self.service[&(other.band, other.flow)] - self.unserved(other));
        let floor = self.floor.get(&item.band).copied().unwrap_or(0.0);
        let least = services.reduce(f64::min).unwrap_or(floor) + self.unserved(item);
        let service = self.service.entry((item.band, item.flow)).or_default();
        *service = service.max(least);
    }

    /// What the flow of `item` was charged for output that its requests in flight have not had yet.
    fn unserved(&self, item: &Item) -> f64 {
        let running = self.running.iter().filter(|other| same_flow(other, item));
        running
            .map(|other| self.cost(other, other.estimate) - self.cost(other, 0))
            .sum()
    }

    /// Place in the list of who goes next.
    fn next(&self) -> usize {
        let band = self.waiting.iter().map(|item| item.band).max().unwrap_or(0);
        let rank = |item: &Item| match &self.rules.flow.band(band).fairness {
            Fairness::RoundRobin => self.turns[&(band, item.flow)] as f64,
            Fairness::VirtualTokens(_) => self.service[&(band, item.flow)],
            _ => 0.0,
        };
        // Among flows of equal rank the head that stands first; within a flow the same.
        let of_band = self.waiting.iter().enumerate();
        let best = of_band
            .filter(|(_, item)| item.band == band)
            .min_by(|(_, a), (_, b)| {
                let place = |item: &Item| (item.key, item.number);
                rank(a).total_cmp(&rank(b)).then(place(a).cmp(&place(b)))
            });
        best.map_or(0, |(at, _)| at)
    }

    fn send(&mut self, item: Item, fates: &mut Vec<(u64, Fate)>) {
        let (cost, unserved) = (self.cost(&item, item.estimate), self.unserved(&item));
        let service = self.service.entry((item.band, item.flow)).or_default();
        let floor = self.floor.entry(item.band).or_default();
        *floor = floor.max(*service - unserved);
        *service += cost;
        self.last_turn += 1;
        self.turns.insert((item.band, item.flow), self.last_turn);
        fates.push((item.number, Fate::Sent));
        self.running.push(item);
    }
}

fn same_flow(one: &Item, other: &Item) -> bool {
    (one.band, one.flow) == (other.band, other.flow)
}
