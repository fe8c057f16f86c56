//! One serving port: its name, its labels, and what it said of itself (last scrape).

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use predictor::Features;

use crate::scraped::ScrapedCell;

pub use crate::load::{COLD_LABELS, Load, LoadSnapshot};

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
    scraped: ScrapedCell,
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
        if let Some(scraped) = self.scraped.load() {
            twin.scraped.store(&scraped);
        }
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
            scraped: ScrapedCell::default(),
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

    /// What `read` makes of the adapters that the engine last told, without taking hold of them.
    pub(crate) fn read_lora<T>(&self, read: impl FnOnce(Option<&Lora>) -> T) -> T {
        read(self.lora.load().as_deref())
    }

    /// The number last told under `key`; `None` = none, or not a number.
    pub(crate) fn attribute(&self, key: &str) -> Option<f64> {
        let told = self.attributes.load();
        let (_, value) = told.as_ref()?.iter().find(|(known, _)| &**known == key)?;
        Some(*value).filter(|value| !value.is_nan())
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
        if known
            .iter()
            .find(named)
            .is_some_and(|(_, old)| *old == value)
        {
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

    /// Stores what the endpoint's metrics said at `scraped.at`, when it had every request that was dispatched.
    pub fn set_scraped(&self, scraped: Scraped) {
        self.set_scraped_as_of(self.load.dispatches(), scraped);
    }

    /// Stores what the endpoint's metrics said, asked for when so many requests had been dispatched
    /// ([`Load::dispatches`]): those since then count beside what is told.
    pub fn set_scraped_as_of(&self, dispatches: u32, scraped: Scraped) {
        // The page first: who reads in between counts a few requests twice, and none not at all.
        self.scraped.store(&scraped);
        self.load.scraped(dispatches);
    }

    /// The last scrape, however old; `None` = never scraped.
    pub fn scraped(&self) -> Option<Scraped> {
        self.scraped.load()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Share;

    #[test]
    fn a_scrape_has_an_age() {
        let endpoint = Endpoint::new("a", "[::1]:8000", BTreeMap::new());
        assert_eq!(endpoint.ip, Some("::1".parse().unwrap()));
        assert_eq!(endpoint.scraped(), None);
        endpoint.load.dispatched(&Share::default());
        let at = Duration::from_secs(5);
        let scraped = Scraped {
            at,
            waiting: 1.0,
            running: 2.0,
            kv_utilization: 0.5,
            block_tokens: Some(16),
            kv_blocks: Some(10),
        };
        endpoint.set_scraped_as_of(0, scraped);
        assert_eq!(endpoint.load.snapshot().since_scrape, 1);
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
