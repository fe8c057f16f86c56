//! One band: its flows, each with its requests in order, and whose turn it is.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;

use super::account::{FlowAccount, MAX_FLOWS_PER_BAND};
use super::fairness::{Charge, Contender, Place, Standing, Turns};
use super::gauges::BandGauge;
use crate::config::Fairness;
use crate::request::Request;

/// Requests behind another that are counted one by one.
const MOST_COUNTED: usize = 4_096;

/// A band of the queue.
#[derive(Debug)]
pub(crate) struct Band {
    pub(crate) gauge: Arc<BandGauge>,
    /// Kept however long it is empty.
    pub(crate) pinned: bool,
    /// Slots; a slot that is free is used again.
    flows: Vec<Option<Flow>>,
    by_id: FxHashMap<Arc<str>, u32>,
    /// Flows that have something queued.
    active: Vec<u32>,
    turns: Turns,
    /// How often its order has changed.
    era: u32,
    next_sweep: Duration,
    /// When it last held or passed on a request.
    used: Duration,
}

#[derive(Debug)]
struct Flow {
    account: Arc<FlowAccount>,
    order: BTreeSet<Place>,
    /// The first of `order`.
    head: Option<Place>,
    standing: Standing,
    used: Duration,
}

/// A head that a dispatch pass looks past, because only the endpoints that it may go to are full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PassedOver {
    pub(crate) band: i32,
    pub(crate) flow: u32,
    pub(crate) place: Place,
}

impl Flow {
    /// Requests behind `place`, at most [`MOST_COUNTED`]: a new arrival mostly has few.
    fn behind(&self, place: Place) -> u64 {
        let behind = (Bound::Excluded(place), Bound::Unbounded);
        self.order.range(behind).take(MOST_COUNTED).count() as u64
    }

    /// The first request after `after`.
    fn next(&self, after: Option<Place>) -> Option<Place> {
        match after {
            None => self.head,
            Some(after) => {
                let behind = (Bound::Excluded(after), Bound::Unbounded);
                self.order.range(behind).next().copied()
            }
        }
    }
}

impl Band {
    pub(crate) fn new(fairness: Fairness, gauge: Arc<BandGauge>, pinned: bool) -> Self {
        Self {
            turns: Turns::new(fairness),
            gauge,
            pinned,
            flows: Vec::new(),
            by_id: FxHashMap::default(),
            active: Vec::new(),
            era: 0,
            next_sweep: Duration::ZERO,
            used: Duration::ZERO,
        }
    }

    /// Where a request stands that comes now.
    pub(crate) fn place(&self, key: Duration, number: u64) -> Place {
        let era = self.era;
        Place { era, key, number }
    }

    /// Requests go in another order from now on: behind those that are here already, which keep theirs.
    pub(crate) fn reordered(&mut self) {
        self.era = self.era.saturating_add(1);
    }

    /// Puts another fairness in force. Where only its parameters differ, flows keep what they were served; under
    /// another policy all begin anew, in the order of their first requests.
    pub(crate) fn set_fairness(&mut self, fairness: &Fairness) {
        if self.turns.goes_by(fairness) {
            return;
        }
        let anew = self.turns.set_fairness(fairness.clone());
        for flow in self.flows.iter_mut().flatten() {
            if anew {
                flow.account.begin_anew();
                flow.standing = self.turns.newcomer(flow.account.flow());
            } else {
                self.turns.reweigh(flow.account.flow(), &mut flow.standing);
            }
        }
        if !anew {
            return;
        }
        let head = |slot: &u32| self.at(*slot).and_then(|flow| flow.head);
        let mut order = self.active.clone();
        order.sort_by_key(head);
        for slot in order {
            if let Some(Some(flow)) = self.flows.get_mut(slot as usize) {
                let unserved = flow.account.unserved();
                self.turns.joins(&mut flow.standing, unserved, None);
            }
        }
    }

    /// Whether nothing waits here.
    pub(crate) fn is_empty(&self) -> bool {
        self.active.is_empty()
    }

    /// The slot of the flow that `account` counts, made when first seen.
    pub(crate) fn flow(&mut self, now: Duration, account: &Arc<FlowAccount>) -> u32 {
        self.used = self.used.max(now);
        if let Some(&slot) = self.by_id.get(account.flow()) {
            if let Some(Some(flow)) = self.flows.get_mut(slot as usize)
                && !Arc::ptr_eq(&flow.account, account)
            {
                // Its account had made way for others', and it is back before its standing was forgotten.
                self.turns.settle(now, &mut flow.standing, &flow.account);
                flow.account = Arc::clone(account);
            }
            return slot;
        }
        if self.by_id.len() >= MAX_FLOWS_PER_BAND {
            // Their accounts have made way, and so do they.
            self.forget(|flow| Arc::strong_count(&flow.account) == 1);
        }
        let flow = Flow {
            account: Arc::clone(account),
            order: BTreeSet::new(),
            head: None,
            standing: self.turns.newcomer(account.flow()),
            used: now,
        };
        let free = self.flows.iter().position(Option::is_none);
        let slot = free.unwrap_or(self.flows.len());
        match self.flows.get_mut(slot) {
            Some(place) => *place = Some(flow),
            None => self.flows.push(Some(flow)),
        }
        // Accounts are bounded, and so are flows.
        let slot = slot as u32;
        self.by_id.insert(Arc::clone(account.flow()), slot);
        slot
    }

    /// A request joins the flow in `slot`.
    pub(crate) fn add(&mut self, now: Duration, slot: u32, place: Place) {
        if self.at(slot).is_some_and(|flow| flow.order.is_empty()) {
            self.lift(now, slot);
            self.active.push(slot);
        }
        if let Some(flow) = self.at_mut(slot) {
            flow.order.insert(place);
            flow.head = flow.order.first().copied();
            flow.used = now;
        }
    }

    /// The flow in `slot` has, or passes on, something after it had nothing.
    fn lift(&mut self, now: Duration, slot: u32) {
        let (turns, flows) = (&mut self.turns, &mut self.flows);
        let mut least = None;
        if turns.counts_tokens() {
            for &active in &self.active {
                if let Some(Some(flow)) = flows.get_mut(active as usize) {
                    turns.settle(now, &mut flow.standing, &flow.account);
                    let served = Turns::served_so_far(&flow.standing, flow.account.unserved());
                    least = Some(least.map_or(served, |least: i128| least.min(served)));
                }
            }
        }
        if let Some(Some(flow)) = flows.get_mut(slot as usize) {
            turns.settle(now, &mut flow.standing, &flow.account);
            turns.joins(&mut flow.standing, flow.account.unserved(), least);
        }
    }

    /// A request leaves the flow in `slot`, for whatever reason.
    pub(crate) fn take(&mut self, now: Duration, slot: u32, place: Place) {
        self.used = self.used.max(now);
        let Some(flow) = self.at_mut(slot) else {
            return;
        };
        flow.order.remove(&place);
        flow.head = flow.order.first().copied();
        flow.used = now;
        if flow.head.is_none() {
            self.active.retain(|&active| active != slot);
        }
    }

    /// Whose turn it is, and which of its requests; those that `passed` names are looked past. `arrived` tells when a
    /// request arrived, by its number.
    pub(crate) fn next(
        &mut self,
        now: Duration,
        band: i32,
        passed: &[PassedOver],
        arrived: impl Fn(u64) -> Duration + Copy,
    ) -> Option<(u32, Place)> {
        if self.turns.counts_tokens() {
            let (turns, flows) = (&self.turns, &mut self.flows);
            for &slot in &self.active {
                if let Some(Some(flow)) = flows.get_mut(slot as usize) {
                    turns.settle(now, &mut flow.standing, &flow.account);
                }
            }
        }
        let contenders = self.active.iter().filter_map(|&slot| {
            let flow = self.at(slot)?;
            let mut over = passed.iter().rev();
            let after = over.find(|over| over.band == band && over.flow == slot);
            let head = flow.next(after.map(|over| over.place))?;
            let arrived = if self.turns.counts_waits() {
                arrived(head.number)
            } else {
                Duration::ZERO
            };
            Some(Contender {
                slot,
                head,
                arrived,
                standing: &flow.standing,
            })
        });
        let best = self.turns.best(now, contenders)?;
        Some((best.slot, best.head))
    }

    /// Whether the request at `place` is the first of its flow.
    pub(crate) fn leads(&self, slot: u32, place: Place) -> bool {
        self.at(slot).is_some_and(|flow| flow.head == Some(place))
    }

    /// What dispatching `request` costs its flow.
    pub(crate) fn price(&self, slot: u32, request: &Request) -> Charge {
        self.at(slot).map_or_else(Charge::default, |flow| {
            self.turns.price(&flow.standing, &flow.account, request)
        })
    }

    /// A request of the flow in `slot` was dispatched; `passing` = without having been queued.
    pub(crate) fn served(&mut self, now: Duration, slot: u32, charge: Charge, passing: bool) {
        if passing && self.at(slot).is_some_and(|flow| flow.order.is_empty()) {
            self.lift(now, slot);
        }
        let turns = &mut self.turns;
        if let Some(Some(flow)) = self.flows.get_mut(slot as usize) {
            flow.used = now;
            turns.served(&mut flow.standing, flow.account.unserved(), charge);
            flow.account.expects(charge.unserved());
        }
    }

    /// About how many of this band go before the request at `place` of the flow in `slot`. Where flows take turns:
    /// those before it in its flow, and of the others as many as go in the meantime, by the flow's share.
    pub(crate) fn ahead_of(&self, slot: u32, place: Place) -> u64 {
        let Some(flow) = self.at(slot) else { return 0 };
        let others = self.gauge.requests().saturating_sub(1);
        if !self.turns.takes_turns() {
            let flows = self.active.iter().filter_map(|&slot| self.at(slot));
            let behind: u64 = flows.map(|flow| flow.behind(place)).sum();
            return others.saturating_sub(behind);
        }
        let own = (flow.order.len() as u64).saturating_sub(1 + flow.behind(place));
        let weight = |slot: &u32| self.at(*slot).map_or(0.0, |flow| flow.standing.weight());
        let share = flow.standing.weight() / self.active.iter().map(weight).sum::<f64>();
        // The float saturates on its way to an integer.
        let turns = ((own as f64 + 1.0) / share - 1.0).round() as u64;
        turns.min(others)
    }

    /// Forgets flows that were idle for long and have nothing in flight; tells whether the band itself was idle for
    /// `idle`.
    pub(crate) fn sweep(&mut self, now: Duration, idle: Duration) -> bool {
        if now >= self.next_sweep {
            self.next_sweep = now.saturating_add(self.turns.sweep_every());
            let keep = self.turns.keep_idle();
            // The ledger holds the account, and so does this flow; whoever else does is in flight.
            self.forget(|flow| {
                now.saturating_sub(flow.used) > keep && Arc::strong_count(&flow.account) <= 2
            });
        }
        self.is_empty() && now.saturating_sub(self.used) > idle
    }

    /// Forgets the flows for which `gone` holds and that have nothing queued.
    fn forget(&mut self, gone: impl Fn(&Flow) -> bool) {
        for (slot, place) in self.flows.iter_mut().enumerate() {
            let gone = |flow: &Flow| flow.order.is_empty() && gone(flow);
            if place.as_ref().is_some_and(gone)
                && let Some(flow) = place.take()
            {
                debug_assert!(!self.active.contains(&(slot as u32)));
                self.by_id.remove(flow.account.flow());
            }
        }
    }

    /// Flows known.
    #[cfg(test)]
    pub(crate) fn flows(&self) -> usize {
        self.by_id.len()
    }

    /// Time-decayed service of each flow known, where the band's fairness counts it.
    pub(crate) fn attained(&self, now: Duration) -> impl Iterator<Item = (Arc<str>, f64)> {
        let flows = self.flows.iter().flatten();
        flows.filter_map(move |flow| {
            let attained = self.turns.attained(&flow.standing, now)?;
            Some((Arc::clone(flow.account.flow()), attained))
        })
    }

    fn at(&self, slot: u32) -> Option<&Flow> {
        self.flows.get(slot as usize)?.as_ref()
    }

    fn at_mut(&mut self, slot: u32) -> Option<&mut Flow> {
        self.flows.get_mut(slot as usize)?.as_mut()
    }
}
