//! One serving port: what is dispatched to it (counters) and what it said of itself (last scrape).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use predictor::Features;

/// Labels an endpoint must have produced before its latencies are believed: a server's first answers pay
/// for compilation, graph capture and empty caches.
pub const COLD_LABELS: u32 = 10;

/// A serving port of a replica, shared by every pool snapshot it appears in.
#[derive(Debug)]
pub struct Endpoint {
    /// Name from discovery.
    pub name: Arc<str>,
    /// `ip:port` (`[ip]:port` for IPv6), as the proxy is told.
    pub address: Arc<str>,
    /// The IP part of `address`, which subset hints are compared with.
    pub ip: Option<IpAddr>,
    /// Labels from discovery (role, engine type, …).
    pub labels: BTreeMap<String, String>,
    /// Its latency class: what it runs on, by its labels; empty = they do not tell. Endpoints of one class share
    /// one latency model.
    pub class: Arc<str>,
    /// What is dispatched there now. Streams hold this very instance, so that an endpoint that leaves and
    /// comes back starts from zero without the old streams driving its counters negative.
    pub load: Arc<Load>,
    scraped: ArcSwapOption<Scraped>,
    lora: ArcSwapOption<Lora>,
    attributes: ArcSwapOption<Attributes>,
    models: ArcSwapOption<Vec<Arc<str>>>,
}

impl Endpoint {
    /// A fresh endpoint: no load, never scraped, cold.
    pub fn new(name: &str, address: &str, labels: BTreeMap<String, String>) -> Self {
        Self::with_load(name, address, labels, Arc::default())
    }

    /// The same endpoint under other labels: load and last scrape carry over.
    #[must_use]
    pub fn relabelled(&self, labels: BTreeMap<String, String>) -> Self {
        let twin = Self::with_load(&self.name, &self.address, labels, Arc::clone(&self.load));
        twin.scraped.store(self.scraped.load_full());
        twin.lora.store(self.lora.load_full());
        twin.attributes.store(self.attributes.load_full());
        twin.models.store(self.models.load_full());
        twin
    }

    fn with_load(
        name: &str,
        address: &str,
        labels: BTreeMap<String, String>,
        load: Arc<Load>,
    ) -> Self {
        let ip = address.parse::<SocketAddr>().ok().map(|socket| socket.ip());
        Self {
            name: name.into(),
            address: address.into(),
            ip,
            class: class(&labels).into(),
            labels,
            load,
            scraped: ArcSwapOption::empty(),
            lora: ArcSwapOption::empty(),
            attributes: ArcSwapOption::empty(),
            models: ArcSwapOption::empty(),
        }
    }

    /// Stores which adapters the engine says it has loaded.
    pub fn set_lora(&self, lora: Arc<Lora>) {
        self.lora.store(Some(lora));
    }

    /// The adapters that the engine last told; `None` = it tells none.
    pub fn lora(&self) -> Option<Arc<Lora>> {
        self.lora.load_full()
    }

    /// Stores numbers told of the endpoint beside its metrics, by attribute key (custom metrics, GPU utilisation).
    pub fn set_attributes(&self, attributes: Arc<Attributes>) {
        self.attributes.store(Some(attributes));
    }

    /// The numbers last told, by attribute key.
    pub fn attributes(&self) -> Option<Arc<Attributes>> {
        self.attributes.load_full()
    }

    /// Stores one of the numbers told of the endpoint; the others stay. For one writer at a time.
    pub fn set_attribute(&self, key: &Arc<str>, value: f64) {
        let known = self.attributes();
        let known = known.as_deref().map(Vec::as_slice).unwrap_or_default();
        let named = |(other, _): &&(Arc<str>, f64)| other == key;
        if known.iter().find(named).is_some_and(|(_, old)| *old == value) {
            return;
        }
        let others = known.iter().filter(|one| !named(one)).cloned();
        let all = others.chain(std::iter::once((Arc::clone(key), value)));
        self.set_attributes(Arc::new(all.collect()));
    }

    /// Stores which models the engine says it serves, adapters included.
    pub fn set_models(&self, models: Arc<Vec<Arc<str>>>) {
        self.models.store(Some(models));
    }

    /// The models that the engine last told; `None` = it was not asked.
    pub fn models(&self) -> Option<Arc<Vec<Arc<str>>>> {
        self.models.load_full()
    }

    /// Stores what the endpoint's metrics said at `scraped.at`.
    pub fn set_scraped(&self, scraped: Scraped) {
        self.load.since_scrape.store(0, Relaxed);
        self.scraped.store(Some(Arc::new(scraped)));
    }

    /// The last scrape, however old; `None` = never scraped.
    pub fn scraped(&self) -> Option<Scraped> {
        self.scraped.load().as_deref().copied()
    }

    /// The last scrape if it is at most `max_age` old at `now`.
    pub fn fresh(&self, now: Duration, max_age: Duration) -> Option<Scraped> {
        self.scraped().filter(|scraped| scraped.age(now) <= max_age)
    }

    /// What the latency model is asked about a request sent here now: `cached_tokens` of its
    /// `prompt_tokens` expected in the prefix cache, KV utilisation from a scrape at most `max_age` old.
    pub fn features(
        &self,
        prompt_tokens: u32,
        cached_tokens: u32,
        now: Duration,
        max_age: Duration,
    ) -> Features {
        features(
            &self.load.snapshot(),
            self.fresh(now, max_age).as_ref(),
            prompt_tokens,
            cached_tokens,
        )
    }
}

/// The latency class that `labels` name; a name longer than a Kubernetes label may be counts as none.
fn class(labels: &BTreeMap<String, String>) -> &str {
    names::label::ACCELERATOR
        .all()
        .find_map(|name| labels.get(name))
        .map(|class| class.trim())
        .filter(|class| class.len() <= predictor::LONGEST_CLASS)
        .unwrap_or_default()
}

/// Builds the model's features from a load already read; counts exclude the request itself.
pub(crate) fn features(
    load: &LoadSnapshot,
    scraped: Option<&Scraped>,
    prompt_tokens: u32,
    cached_tokens: u32,
) -> Features {
    Features {
        input_tokens: prompt_tokens as f32,
        cached_tokens: cached_tokens as f32,
        waiting: load.waiting as f32,
        waiting_tokens: load.waiting_tokens as f32,
        running: load.running as f32,
        resident_tokens: load.resident_tokens as f32,
        kv_utilization: scraped.map_or(f32::NAN, |scraped| scraped.kv_utilization),
    }
}

/// What an engine's metrics said at one instant. NaN = the metric was absent.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scraped {
    /// When it was read.
    pub at: Duration,
    /// Requests the engine holds back.
    pub waiting: f32,
    /// Requests in the engine's batch.
    pub running: f32,
    /// Share of KV blocks in use, 0 to 1.
    pub kv_utilization: f32,
    /// Tokens per KV block.
    pub block_tokens: Option<u32>,
    /// KV blocks the engine has.
    pub kv_blocks: Option<u32>,
}

impl Scraped {
    /// Time since the scrape.
    pub fn age(&self, now: Duration) -> Duration {
        now.saturating_sub(self.at)
    }

    /// KV cache size in tokens, if the engine told it.
    pub fn kv_tokens(&self) -> Option<u64> {
        Some(u64::from(self.block_tokens?) * u64::from(self.kv_blocks?))
    }
}

/// Numbers of an endpoint by attribute key.
pub type Attributes = Vec<(Arc<str>, f64)>;

/// LoRA adapters of an engine (`vllm:lora_requests_info`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lora {
    /// Adapters that fit into a batch at once.
    pub max: u32,
    /// Adapters with a running request.
    pub running: Vec<Arc<str>>,
    /// Adapters with a waiting request.
    pub waiting: Vec<Arc<str>>,
}

/// Live counters of one endpoint's life: moved at dispatch, first token, tokens and end of each stream.
#[derive(Debug, Default)]
pub struct Load {
    in_flight: AtomicU32,
    waiting: AtomicU32,
    waiting_tokens: AtomicU64,
    resident_tokens: AtomicU64,
    served: AtomicU32,
    since_scrape: AtomicU32,
    tpot_targets: TpotTargets,
}

/// The counters of [`Load`] read once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadSnapshot {
    /// Requests dispatched and not ended.
    pub in_flight: u32,
    /// Of those, without a first token yet.
    pub waiting: u32,
    /// Uncached prompt tokens of the waiting ones.
    pub waiting_tokens: u64,
    /// Requests past their first token.
    pub running: u32,
    /// Context tokens (prompt and emitted) of the running ones.
    pub resident_tokens: u64,
    /// Labels produced since the endpoint started; cold below [`COLD_LABELS`].
    pub served: u32,
    /// Dispatches since the last scrape, which it cannot have seen.
    pub since_scrape: u32,
    /// Tightest TPOT target among the requests in flight, in whole milliseconds.
    pub tightest_tpot_ms: Option<u32>,
}

impl LoadSnapshot {
    /// Whether the endpoint has produced too few labels for its latencies to be believed.
    pub fn cold(&self) -> bool {
        self.served < COLD_LABELS
    }
}

impl Load {
    /// Reads all counters. Each is exact; together they may straddle a concurrent update.
    pub fn snapshot(&self) -> LoadSnapshot {
        let in_flight = self.in_flight.load(Relaxed);
        let waiting = self.waiting.load(Relaxed).min(in_flight);
        LoadSnapshot {
            in_flight,
            waiting,
            waiting_tokens: self.waiting_tokens.load(Relaxed),
            running: in_flight - waiting,
            resident_tokens: self.resident_tokens.load(Relaxed),
            served: self.served.load(Relaxed),
            since_scrape: self.since_scrape.load(Relaxed),
            tightest_tpot_ms: self.tpot_targets.tightest(),
        }
    }

    /// Counts one label; returns how many the endpoint had produced before it.
    pub(crate) fn label(&self) -> u32 {
        self.served.fetch_add(1, Relaxed)
    }

    pub(crate) fn dispatched(&self, uncached_tokens: u64, tpot_target_ms: Option<u32>) {
        self.in_flight.fetch_add(1, Relaxed);
        self.waiting.fetch_add(1, Relaxed);
        self.waiting_tokens.fetch_add(uncached_tokens, Relaxed);
        self.since_scrape.fetch_add(1, Relaxed);
        if let Some(target) = tpot_target_ms {
            self.tpot_targets.add(target);
        }
    }

    pub(crate) fn started(&self, uncached_tokens: u64, context_tokens: u64) {
        self.waiting.fetch_sub(1, Relaxed);
        self.waiting_tokens.fetch_sub(uncached_tokens, Relaxed);
        self.resident_tokens.fetch_add(context_tokens, Relaxed);
    }

    pub(crate) fn grew(&self, tokens: u64) {
        self.resident_tokens.fetch_add(tokens, Relaxed);
    }

    pub(crate) fn ended_waiting(&self, uncached_tokens: u64, tpot_target_ms: Option<u32>) {
        self.waiting.fetch_sub(1, Relaxed);
        self.waiting_tokens.fetch_sub(uncached_tokens, Relaxed);
        self.ended(tpot_target_ms);
    }

    pub(crate) fn ended_running(&self, context_tokens: u64, tpot_target_ms: Option<u32>) {
        self.resident_tokens.fetch_sub(context_tokens, Relaxed);
        self.ended(tpot_target_ms);
    }

    fn ended(&self, tpot_target_ms: Option<u32>) {
        if let Some(target) = tpot_target_ms {
            self.tpot_targets.remove(target);
        }
        self.in_flight.fetch_sub(1, Relaxed);
    }
}

/// Multiset of the TPOT targets in flight, with its minimum readable without the lock. At most one entry
/// per request in flight.
#[derive(Debug)]
struct TpotTargets {
    counts: Mutex<BTreeMap<u32, u32>>,
    tightest: AtomicU32,
}

/// `tightest` when no request has a target.
const NO_TARGET: u32 = u32::MAX;

impl Default for TpotTargets {
    fn default() -> Self {
        Self {
            counts: Mutex::default(),
            tightest: AtomicU32::new(NO_TARGET),
        }
    }
}

impl TpotTargets {
    fn tightest(&self) -> Option<u32> {
        Some(self.tightest.load(Relaxed)).filter(|&target| target != NO_TARGET)
    }

    fn add(&self, target: u32) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(target).or_default() += 1;
        self.publish(&counts);
    }

    fn remove(&self, target: u32) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&target);
            }
        }
        self.publish(&counts);
    }

    fn publish(&self, counts: &BTreeMap<u32, u32>) {
        self.tightest
            .store(counts.keys().next().copied().unwrap_or(NO_TARGET), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_follow_one_stream() {
        let load = Load::default();
        load.dispatched(300, Some(40));
        load.dispatched(100, Some(25));
        let both = load.snapshot();
        assert_eq!(
            (both.in_flight, both.waiting, both.waiting_tokens),
            (2, 2, 400)
        );
        assert_eq!(both.tightest_tpot_ms, Some(25));
        load.started(300, 500);
        load.grew(7);
        let one_runs = load.snapshot();
        assert_eq!(
            (
                one_runs.running,
                one_runs.waiting_tokens,
                one_runs.resident_tokens
            ),
            (1, 100, 507)
        );
        load.ended_waiting(100, Some(25));
        assert_eq!(load.snapshot().tightest_tpot_ms, Some(40));
        load.ended_running(507, Some(40));
        assert_eq!(
            load.snapshot(),
            LoadSnapshot {
                since_scrape: 2,
                ..LoadSnapshot::default()
            }
        );
    }

    #[test]
    fn a_scrape_has_an_age() {
        let endpoint = Endpoint::new("a", "[::1]:8000", BTreeMap::new());
        assert_eq!(endpoint.ip, Some("::1".parse().unwrap()));
        assert_eq!(endpoint.scraped(), None);
        endpoint.load.dispatched(1, None);
        let at = Duration::from_secs(5);
        let scraped = Scraped {
            at,
            waiting: 1.0,
            running: 2.0,
            kv_utilization: 0.5,
            block_tokens: Some(16),
            kv_blocks: Some(10),
        };
        endpoint.set_scraped(scraped);
        assert_eq!(endpoint.load.snapshot().since_scrape, 0);
        assert_eq!(scraped.kv_tokens(), Some(160));
        let second = Duration::from_secs(1);
        assert!(endpoint.fresh(at + second, second).is_some());
        assert!(endpoint.fresh(at + 2 * second, second).is_none());
        let row = endpoint.features(100, 64, at + 2 * second, second);
        assert!(row.kv_utilization.is_nan(), "stale is unknown, not zero");
        assert_eq!(
            (row.input_tokens, row.cached_tokens, row.waiting),
            (100.0, 64.0, 1.0)
        );
    }
}
