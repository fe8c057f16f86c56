//! Numbers by endpoint and something that clients name: bounded by what is alive, not by what ever was.

use epp_core::{Endpoint, Pool};
use parking_lot::RwLock;
use prometheus_client::metrics::gauge::Gauge;
use rustc_hash::{FxHashMap, FxHashSet};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed};

/// Cells of one table at most; what comes on top shares a cell per endpoint.
const MOST_CELLS: usize = 16_384;

/// One combination.
#[derive(Debug)]
pub struct Cell<V> {
    /// The endpoint's name.
    pub endpoint: Arc<str>,
    /// `ip:port`.
    pub address: Arc<str>,
    /// A label whose values are capped already.
    pub label: Arc<str>,
    /// Band.
    pub priority: i32,
    /// What is counted.
    pub value: V,
}

/// What is on an endpoint now.
#[derive(Debug, Default)]
pub struct OnEndpoint {
    /// Requests dispatched and not ended.
    pub requests: AtomicI64,
    /// Their uncached prompt tokens, until their first token.
    pub tokens: AtomicI64,
}

/// Decisions for an endpoint.
pub type Attempts = AtomicU64;

/// All combinations that are alive.
#[derive(Debug)]
pub struct PerEndpoint<V> {
    hasher: RandomState,
    cells: RwLock<FxHashMap<u64, Arc<Cell<V>>>>,
    other: Arc<str>,
}

impl<V: Default> Default for PerEndpoint<V> {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            cells: RwLock::default(),
            other: super::capped::OTHER.into(),
        }
    }
}

impl<V: Default> PerEndpoint<V> {
    /// The cell of `endpoint` with `label` and `priority`.
    pub fn cell(&self, endpoint: &Endpoint, label: &Arc<str>, priority: i32) -> Arc<Cell<V>> {
        let key = |label: &str, priority: i32| {
            self.hasher
                .hash_one((&*endpoint.name, &*endpoint.address, label, priority))
        };
        if let Some(cell) = self.cells.read().get(&key(label, priority)) {
            return Arc::clone(cell);
        }
        let mut cells = self.cells.write();
        let (label, priority) = if cells.len() < MOST_CELLS {
            (label, priority)
        } else {
            (&self.other, 0)
        };
        let cell = cells.entry(key(label, priority)).or_insert_with(|| {
            Arc::new(Cell {
                endpoint: Arc::clone(&endpoint.name),
                address: Arc::clone(&endpoint.address),
                label: Arc::clone(label),
                priority,
                value: V::default(),
            })
        });
        Arc::clone(cell)
    }

    /// All of them.
    pub fn cells(&self) -> Vec<Arc<Cell<V>>> {
        self.cells.read().values().map(Arc::clone).collect()
    }

    /// Forgets endpoints that are not in `pool`.
    pub fn retain(&self, pool: &Pool) {
        let there: FxHashSet<(&str, &str)> = pool
            .endpoints
            .iter()
            .map(|endpoint| (&*endpoint.name, &*endpoint.address))
            .collect();
        let stays = |cell: &Cell<V>| there.contains(&(&*cell.endpoint, &*cell.address));
        self.cells.write().retain(|_, cell| stays(cell));
    }
}

impl PerEndpoint<OnEndpoint> {
    /// Forgets what holds nothing and is held by nobody.
    pub fn forget_idle(&self) {
        self.cells
            .write()
            .retain(|_, cell| Arc::strong_count(cell) > 1 || cell.value.requests.load(Relaxed) > 0);
    }
}

/// One request on an endpoint, counted as long as this lives.
#[derive(Debug)]
pub struct Held {
    cell: Arc<Cell<OnEndpoint>>,
    tokens: i64,
    /// Requests of the same kind on all endpoints.
    running: Gauge,
}

impl Held {
    /// Counts a request with so many uncached prompt tokens.
    pub fn new(cell: Arc<Cell<OnEndpoint>>, tokens: u32, running: Gauge) -> Self {
        let tokens = i64::from(tokens);
        cell.value.requests.fetch_add(1, Relaxed);
        cell.value.tokens.fetch_add(tokens, Relaxed);
        running.inc();
        Self {
            cell,
            tokens,
            running,
        }
    }

    /// Its prompt is processed.
    pub fn started(&mut self) {
        self.cell
            .value
            .tokens
            .fetch_sub(std::mem::take(&mut self.tokens), Relaxed);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.started();
        self.cell.value.requests.fetch_sub(1, Relaxed);
        self.running.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::EndpointSpec;

    fn pool(names: &[&str]) -> Pool {
        let spec = |name: &&str| EndpointSpec {
            name: (*name).to_owned(),
            address: "10.0.0.1:80".into(),
            labels: Default::default(),
        };
        Pool::default().updated(names.iter().map(spec).collect())
    }

    #[test]
    fn a_request_is_counted_as_long_as_it_is_there() {
        let table = PerEndpoint::<OnEndpoint>::default();
        let pool = pool(&["a"]);
        let cell = || table.cell(&pool.endpoints[0], &"tenant".into(), 1);
        let mut held = Held::new(cell(), 300, Gauge::default());
        let other = Held::new(cell(), 5, Gauge::default());
        let read = || {
            let OnEndpoint { requests, tokens } = &cell().value;
            (requests.load(Relaxed), tokens.load(Relaxed))
        };
        assert_eq!(read(), (2, 305));
        held.started();
        assert_eq!(read(), (2, 5));
        drop((held, other));
        assert_eq!(read(), (0, 0));
        table.forget_idle();
        assert!(table.cells().is_empty());
    }

    #[test]
    fn a_hundred_thousand_ids_share_what_cells_there_are() {
        let table = PerEndpoint::<OnEndpoint>::default();
        let pool = pool(&["a"]);
        let held: Vec<_> = (0..100_000)
            .map(|id| {
                let cell = table.cell(&pool.endpoints[0], &format!("t{id}").into(), id);
                Held::new(cell, 1, Gauge::default())
            })
            .collect();
        let cells = table.cells();
        assert_eq!(cells.len(), MOST_CELLS + 1);
        let sum: i64 = cells
            .iter()
            .map(|cell| cell.value.requests.load(Relaxed))
            .sum();
        assert_eq!(sum, 100_000, "none is lost");
        drop((cells, held));
        table.forget_idle();
        assert!(table.cells().is_empty());
    }

    #[test]
    fn endpoints_that_left_are_forgotten() {
        let table = PerEndpoint::<Attempts>::default();
        let (before, after) = (pool(&["a", "b"]), pool(&["b"]));
        for endpoint in &before.endpoints {
            table
                .cell(endpoint, &"m".into(), 0)
                .value
                .fetch_add(1, Relaxed);
        }
        table.retain(&after);
        let left: Vec<_> = table
            .cells()
            .iter()
            .map(|cell| cell.endpoint.to_string())
            .collect();
        assert_eq!(left, ["b"]);
    }
}
