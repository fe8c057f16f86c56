//! Flows as they are counted: what each offered, what became of it, what it owes. Readable without the director.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use rustc_hash::{FxHashMap, FxHashSet};
use serde::{Deserialize, Serialize};

use super::fairness::Told;
use crate::demand::{Counters, Totals, by_name};
use crate::outcome::Outcome;
use crate::request::Request;

/// The flow that takes those for which there is no place: fairness ids come from clients.
pub const OTHER_FLOW: &str = "other";
/// Flows told apart in one band.
pub const MAX_FLOWS_PER_BAND: usize = 1_000;
/// Flows told apart in all bands together.
pub const MAX_FLOWS: usize = 4_096;
/// Accounts that make way at once for those to come, so that not each of them needs a search.
const MAKE_WAY: usize = 64;
/// An account that nobody holds is forgotten after this time.
const KEEP_IDLE: Duration = Duration::from_secs(300);
/// Output tokens that are expected of a flow that none is known of.
const FIRST_OUTPUT: u32 = 128;
/// Share of each new output length in what is expected next.
const OUTPUT_SHARE: f64 = 0.125;

/// One flow of one band in figures, since it was first seen. A flow that was idle for long is forgotten and begins
/// anew; the band's totals keep what it did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowTotals {
    /// Priority of the band.
    pub priority: i32,
    /// Fairness id, or [`OTHER_FLOW`].
    pub flow: Arc<str>,
    /// Everything that arrived (prompt tokens as estimated).
    pub offered: Totals,
    /// What was queued before it was decided on.
    pub queued: Totals,
    /// What was dispatched.
    pub dispatched: Totals,
    /// What ended, by outcome; index = `Outcome as usize`. In JSON by the outcome's name, without those that are 0.
    #[serde(with = "by_name")]
    pub outcomes: Vec<Totals>,
    /// What waits now.
    pub waiting: FlowDepth,
}

/// What one flow has in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FlowDepth {
    /// Requests.
    pub requests: u64,
    /// Their prompt tokens.
    pub prompt_tokens: u64,
    /// Their body bytes.
    pub bytes: u64,
}

impl FlowTotals {
    /// What ended with `outcome`.
    pub fn outcome(&self, outcome: Outcome) -> Totals {
        let found = self.outcomes.get(outcome as usize);
        found.copied().unwrap_or_default()
    }

    /// What was refused on arrival.
    pub fn rejected(&self) -> Totals {
        self.sum(&[
            Outcome::RejectedCapacity,
            Outcome::RejectedNoEndpoints,
            Outcome::RejectedSlo,
            Outcome::RejectedOther,
        ])
    }

    /// What was queued longer than it may be.
    pub fn expired(&self) -> Totals {
        self.sum(&[Outcome::EvictedTtl, Outcome::EvictedNoEndpoints])
    }

    /// What was taken off its server.
    pub fn evicted(&self) -> Totals {
        self.outcome(Outcome::Evicted)
    }

    fn sum(&self, outcomes: &[Outcome]) -> Totals {
        let mut sum = Totals::default();
        outcomes
            .iter()
            .for_each(|&outcome| sum += self.outcome(outcome));
        sum
    }

    /// Adds what another flow did and has waiting.
    pub(crate) fn absorb(&mut self, other: &Self) {
        self.offered += other.offered;
        self.queued += other.queued;
        self.dispatched += other.dispatched;
        for (mine, theirs) in self.outcomes.iter_mut().zip(&other.outcomes) {
            *mine += *theirs;
        }
        self.waiting.requests += other.waiting.requests;
        self.waiting.prompt_tokens += other.waiting.prompt_tokens;
        self.waiting.bytes += other.waiting.bytes;
    }
}

/// Live counters of one flow. Held by each of its requests until it has ended, so that what a stream learns about
/// its tokens reaches the flow without a lock.
#[derive(Debug)]
pub(crate) struct FlowAccount {
    priority: i32,
    flow: Arc<str>,
    offered: Counters,
    queued: Counters,
    dispatched: Counters,
    outcomes: [Counters; Outcome::ALL.len()],
    waiting_requests: AtomicU64,
    waiting_tokens: AtomicU64,
    waiting_bytes: AtomicU64,
    /// Cost that its streams have told of and its band has not settled yet; below zero = was charged too much.
    owed: AtomicI64,
    /// How many fairness policies its band has had: what was charged under an earlier one is settled with none.
    policy: AtomicU32,
    /// What it was charged for output that its requests in flight have not had yet.
    unserved: AtomicI64,
    /// Expected output tokens of a request.
    output: AtomicU32,
    /// When it was last used, milliseconds.
    seen_ms: AtomicU64,
}

impl FlowAccount {
    fn new(priority: i32, flow: Arc<str>) -> Self {
        Self {
            priority,
            flow,
            offered: Counters::default(),
            queued: Counters::default(),
            dispatched: Counters::default(),
            outcomes: Default::default(),
            waiting_requests: AtomicU64::new(0),
            waiting_tokens: AtomicU64::new(0),
            waiting_bytes: AtomicU64::new(0),
            owed: AtomicI64::new(0),
            policy: AtomicU32::new(0),
            unserved: AtomicI64::new(0),
            output: AtomicU32::new(FIRST_OUTPUT),
            seen_ms: AtomicU64::new(0),
        }
    }

    /// Fairness id, or [`OTHER_FLOW`].
    pub(crate) fn flow(&self) -> &Arc<str> {
        &self.flow
    }

    pub(crate) fn offered(&self, prompt_tokens: u32) {
        self.offered.add(one(prompt_tokens));
    }

    pub(crate) fn dispatched(&self, prompt_tokens: u32) {
        self.dispatched.add(one(prompt_tokens));
    }

    /// A request joined the queue.
    pub(crate) fn enqueued(&self, request: &Request) {
        self.queued.add(one(request.prompt_tokens));
        self.waiting_requests.fetch_add(1, Relaxed);
        self.waiting_tokens
            .fetch_add(u64::from(request.prompt_tokens), Relaxed);
        self.waiting_bytes.fetch_add(request.bytes, Relaxed);
    }

    /// It left the queue.
    pub(crate) fn dequeued(&self, request: &Request) {
        self.waiting_requests.fetch_sub(1, Relaxed);
        self.waiting_tokens
            .fetch_sub(u64::from(request.prompt_tokens), Relaxed);
        self.waiting_bytes.fetch_sub(request.bytes, Relaxed);
    }

    /// Records the one end of a request.
    pub(crate) fn ended(&self, outcome: Outcome, tokens: Totals) {
        if let Some(counters) = self.outcomes.get(outcome as usize) {
            counters.add(Totals {
                requests: 1,
                ..tokens
            });
        }
    }

    /// It was charged `cost` for output still to come.
    pub(crate) fn expects(&self, cost: i64) {
        if cost != 0 {
            self.unserved.fetch_add(cost, Relaxed);
        }
    }

    /// What it was charged for output still to come.
    pub(crate) fn unserved(&self) -> i64 {
        self.unserved.load(Relaxed)
    }

    /// A stream told of its tokens.
    pub(crate) fn told(&self, told: Told) {
        self.expects(told.served.saturating_neg());
        if told.owed != 0 && told.policy == self.policy() {
            self.owed.fetch_add(told.owed, Relaxed);
        }
    }

    /// The fairness policy that charges now, by its number.
    pub(crate) fn policy(&self) -> u32 {
        self.policy.load(Relaxed)
    }

    /// Its band has another fairness policy: what was charged under the last one is forgiven.
    pub(crate) fn begin_anew(&self) {
        self.policy.fetch_add(1, Relaxed);
        self.owed.store(0, Relaxed);
    }

    /// What is owed, which is settled with that.
    pub(crate) fn take_owed(&self) -> i64 {
        // Mostly nothing: a look costs less than an exchange.
        if self.owed.load(Relaxed) == 0 {
            return 0;
        }
        self.owed.swap(0, Relaxed)
    }

    /// An answer had `tokens`: more or fewer are expected of the next.
    pub(crate) fn learn_output(&self, tokens: u32) {
        let expected = f64::from(self.output.load(Relaxed));
        let next = expected + OUTPUT_SHARE * (f64::from(tokens) - expected);
        // Towards the new length, so that small differences are not rounded away for ever.
        let next = if f64::from(tokens) > expected {
            next.ceil()
        } else {
            next.floor()
        };
        self.output.store(next as u32, Relaxed);
    }

    /// Output tokens expected of a request.
    pub(crate) fn expected_output(&self) -> u32 {
        self.output.load(Relaxed)
    }

    /// Counts what another did as well.
    fn absorb(&self, other: &Self) {
        self.offered.add(other.offered.read());
        self.queued.add(other.queued.read());
        self.dispatched.add(other.dispatched.read());
        for (mine, theirs) in self.outcomes.iter().zip(&other.outcomes) {
            mine.add(theirs.read());
        }
    }

    fn totals(&self) -> FlowTotals {
        FlowTotals {
            priority: self.priority,
            flow: Arc::clone(&self.flow),
            offered: self.offered.read(),
            queued: self.queued.read(),
            dispatched: self.dispatched.read(),
            outcomes: self.outcomes.iter().map(Counters::read).collect(),
            waiting: FlowDepth {
                requests: self.waiting_requests.load(Relaxed),
                prompt_tokens: self.waiting_tokens.load(Relaxed),
                bytes: self.waiting_bytes.load(Relaxed),
            },
        }
    }
}

fn one(prompt_tokens: u32) -> Totals {
    Totals {
        requests: 1,
        prompt_tokens: u64::from(prompt_tokens),
        ..Totals::default()
    }
}

/// All accounts by band and flow, bounded.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    bands: FxHashMap<i32, FxHashMap<Arc<str>, Arc<FlowAccount>>>,
    count: usize,
    /// Flows that have a place however many there are.
    kept: FxHashSet<Arc<str>>,
}

impl Accounts {
    /// These flows, which the configuration names, have a place however many others there are.
    pub(crate) fn keep(&mut self, flows: impl IntoIterator<Item = Arc<str>>) {
        self.kept = flows.into_iter().collect();
    }

    /// The account of a flow, if it has one.
    pub(crate) fn find(
        &self,
        priority: i32,
        flow: &str,
        now: Duration,
    ) -> Option<Arc<FlowAccount>> {
        let account = self.bands.get(&priority)?.get(flow)?;
        account.seen_ms.store(milliseconds(now), Relaxed);
        Some(Arc::clone(account))
    }

    /// The account of a flow, opened now. Where there is no place for it, those make way that are idle longest; if all
    /// have something queued or in flight, it is that of [`OTHER_FLOW`].
    pub(crate) fn open(
        &mut self,
        priority: i32,
        flow: &Arc<str>,
        now: Duration,
    ) -> Arc<FlowAccount> {
        if !self.kept.contains(flow) && self.crowded(priority) {
            self.make_way(priority);
            if self.crowded(priority) {
                return self.place(priority, &OTHER_FLOW.into(), now);
            }
        }
        self.place(priority, flow, now)
    }

    fn crowded(&self, priority: i32) -> bool {
        let band = self.bands.get(&priority);
        self.count >= MAX_FLOWS || band.is_some_and(|band| band.len() >= MAX_FLOWS_PER_BAND)
    }

    fn place(&mut self, priority: i32, flow: &Arc<str>, now: Duration) -> Arc<FlowAccount> {
        let (band, count) = (self.bands.entry(priority).or_default(), &mut self.count);
        let account = band.entry(Arc::clone(flow)).or_insert_with(|| {
            *count += 1;
            Arc::new(FlowAccount::new(priority, Arc::clone(flow)))
        });
        account.seen_ms.store(milliseconds(now), Relaxed);
        Arc::clone(account)
    }

    /// Takes out the accounts that are idle longest, of the band if that is full, else of all; what they did is
    /// counted under [`OTHER_FLOW`].
    fn make_way(&mut self, priority: i32) {
        let full = |band: &FxHashMap<_, _>| band.len() >= MAX_FLOWS_PER_BAND;
        let only = self
            .bands
            .get(&priority)
            .is_some_and(full)
            .then_some(priority);
        let bands = self.bands.iter();
        let bands = bands.filter(|(band, _)| only.is_none_or(|only| only == **band));
        // The ledger holds them, and their band; whoever else does is queued or in flight.
        let idle = |account: &&Arc<FlowAccount>| {
            Arc::strong_count(account) <= 2 && &**account.flow() != OTHER_FLOW
        };
        let accounts = bands.flat_map(|(_, band)| band.values()).filter(idle);
        let mut idle: Vec<_> = accounts
            .map(|account| (account.seen_ms.load(Relaxed), Arc::clone(account)))
            .collect();
        if idle.len() > MAKE_WAY {
            idle.select_nth_unstable_by_key(MAKE_WAY, |&(seen, _)| seen);
            idle.truncate(MAKE_WAY);
        }
        for (seen, account) in idle {
            let other = self.place(account.priority, &OTHER_FLOW.into(), Duration::ZERO);
            other.seen_ms.fetch_max(seen, Relaxed);
            other.absorb(&account);
            let band = self.bands.get_mut(&account.priority);
            let gone = band.and_then(|band| band.remove(account.flow()));
            self.count -= usize::from(gone.is_some());
        }
    }

    /// Forgets accounts that nobody holds and that were not used for long.
    pub(crate) fn forget_idle(&mut self, now: Duration) {
        let oldest = milliseconds(now.saturating_sub(KEEP_IDLE));
        for band in self.bands.values_mut() {
            band.retain(|_, account| {
                Arc::strong_count(account) > 1 || account.seen_ms.load(Relaxed) >= oldest
            });
        }
        self.bands.retain(|_, band| !band.is_empty());
        self.count = self.bands.values().map(FxHashMap::len).sum();
    }

    /// All of them, by descending priority and by name.
    pub(crate) fn totals(&self) -> Vec<FlowTotals> {
        let accounts = self.bands.values().flat_map(FxHashMap::values);
        let mut totals: Vec<_> = accounts.map(|account| account.totals()).collect();
        totals.sort_by(|a, b| (b.priority, &a.flow).cmp(&(a.priority, &b.flow)));
        totals
    }
}

fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expected_output_follows_what_is_seen_and_reaches_it() {
        let account = FlowAccount::new(0, "a".into());
        for _ in 0..200 {
            account.learn_output(1_000);
        }
        assert_eq!(account.expected_output(), 1_000);
        for _ in 0..200 {
            account.learn_output(3);
        }
        assert_eq!(account.expected_output(), 3);
    }

    #[test]
    fn what_is_held_is_not_forgotten() {
        let mut accounts = Accounts::default();
        let held = accounts.open(0, &"held".into(), Duration::ZERO);
        accounts.open(0, &"idle".into(), Duration::ZERO);
        accounts.forget_idle(KEEP_IDLE);
        assert_eq!(accounts.totals().len(), 2, "not yet");
        accounts.forget_idle(KEEP_IDLE + Duration::from_millis(1));
        assert_eq!(accounts.totals().len(), 1);
        drop(held);
        accounts.forget_idle(KEEP_IDLE * 2);
        assert_eq!((accounts.totals().len(), accounts.count), (0, 0));
    }

    /// Whoever comes again and again keeps its account, whatever others invent.
    #[test]
    fn the_flows_that_are_idle_longest_make_way() {
        let mut accounts = Accounts::default();
        let account = |accounts: &mut Accounts, flow: &str, now: u64| {
            let (flow, now) = (Arc::<str>::from(flow), Duration::from_millis(now));
            let known = accounts.find(0, &flow, now);
            known.unwrap_or_else(|| accounts.open(0, &flow, now))
        };
        let held = account(&mut accounts, "held", 0);
        let _in_flight = Arc::clone(&held);
        account(&mut accounts, "tenant", 0).offered(7);
        for number in 0..20_000 {
            let invented = account(&mut accounts, &number.to_string(), number);
            assert_ne!(
                &**invented.flow(),
                OTHER_FLOW,
                "there is nobody to wait for"
            );
            if number % 500 == 0 {
                account(&mut accounts, "tenant", number);
            }
        }
        let totals = accounts.totals();
        let named = |name: &str| totals.iter().find(|flow| &*flow.flow == name);
        assert_eq!(named("tenant").map(|flow| flow.offered.requests), Some(1));
        assert!(Arc::ptr_eq(&held, &account(&mut accounts, "held", 20_000)));
        assert!(totals.len() <= MAX_FLOWS_PER_BAND);
    }

    #[test]
    fn flows_that_the_configuration_names_have_a_place_though_all_are_taken() {
        let mut accounts = Accounts::default();
        accounts.keep(["gold".into()]);
        let now = Duration::ZERO;
        // In flight: held by the ledger, its band and a request.
        let _held: Vec<_> = (0..MAX_FLOWS_PER_BAND + 5)
            .map(|number| accounts.open(0, &number.to_string().into(), now))
            .flat_map(|account| [Arc::clone(&account), account])
            .collect();
        assert_eq!(&**accounts.open(0, &"late".into(), now).flow(), OTHER_FLOW);
        assert_eq!(&**accounts.open(0, &"gold".into(), now).flow(), "gold");
    }

    /// §11.4, 9: fairness ids are the client's to invent.
    #[test]
    fn pitfall_09_flows_are_bounded_and_the_rest_is_counted_together() {
        let mut accounts = Accounts::default();
        for number in 0..100_000_u32 {
            let flow: Arc<str> = number.to_string().into();
            let account = accounts
                .find(0, &flow, Duration::ZERO)
                .unwrap_or_else(|| accounts.open(0, &flow, Duration::ZERO));
            account.offered(1);
        }
        let totals = accounts.totals();
        assert!(totals.len() <= MAX_FLOWS_PER_BAND + 1);
        let offered: u64 = totals.iter().map(|flow| flow.offered.requests).sum();
        assert_eq!(offered, 100_000, "overflow is counted, not lost");
        for priority in 1..200 {
            for number in 0..100_u32 {
                accounts.open(priority, &number.to_string().into(), Duration::ZERO);
            }
        }
        assert!(
            accounts.count <= MAX_FLOWS + 200,
            "one more per band at most"
        );
    }
}
