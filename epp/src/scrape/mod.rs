//! Reads engines' metrics and what stands beside them: a keep-alive connection per endpoint and page.
//!
//! All of it happens on one thread of its own: reads come in batches, so that one wake-up serves many,
//! and no read wakes another thread. A failing endpoint is asked less and less often; while no requests
//! come at all, everybody is, until the next one comes: then all are read at once. What was read stays with its age: nothing here turns an old value into a
//! zero.

mod beside;
pub mod connection;
mod engine;
mod exposition;
mod plan;
pub mod schedule;

pub use engine::read_page;
pub(crate) use plan::Plan;

use crate::extproc::hub::Hub;
use crate::extproc::idle::Rest;
use connection::{Buffers, Connection, ScrapeError};
use epp_core::{Endpoint, Pool};
use plan::Source;
use runtime::Shutdown;
use rustc_hash::FxHashMap;
use schedule::{IDLE_INTERVAL, Place};
use std::sync::Arc;
use tokio::task::JoinHandle;

/// Endpoints read at the same instant. Batches are spread over the interval.
const BATCH: usize = 32;

/// A task that ends with its handle.
struct Reader {
    /// Kept, so that no other endpoint can come to stand at its address.
    _endpoint: Arc<Endpoint>,
    task: JoinHandle<()>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Readers by their endpoint's address in memory and their source's place in the plan.
type Readers = FxHashMap<(usize, usize), Reader>;

/// Reads on a thread of its own, until `shutdown` is stopped.
pub(crate) async fn run(hub: Arc<Hub>, plan: Plan, shutdown: Shutdown) {
    let reading = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(read_all(hub, plan, shutdown));
        Ok::<_, std::io::Error>(())
    });
    if let Ok(Err(error)) = reading.await {
        tracing::error!(%error, "metrics are not read: no event loop for them");
    }
}

/// Reads all endpoints of the hub's pool, as it changes.
async fn read_all(hub: Arc<Hub>, plan: Plan, shutdown: Shutdown) {
    let mut pools = hub.watch_pool();
    let (mut readers, buffers) = (Readers::default(), Buffers::default());
    let mut check = tokio::time::interval(IDLE_INTERVAL);
    loop {
        let pool = Arc::clone(&pools.borrow_and_update());
        plan.endpoints(pool.endpoints.len());
        readers = follow(&pool, readers, &hub, &plan, &buffers);
        loop {
            tokio::select! {
                changed = pools.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                _ = check.tick() => {
                    plan.heed(&hub.config());
                    hub.refresh_hashing();
                }
                () = shutdown.stopped() => return,
            }
        }
    }
}

/// One reader per endpoint of `pool` and source: those that stay go on, the others end.
fn follow(
    pool: &Pool,
    mut known: Readers,
    hub: &Arc<Hub>,
    plan: &Plan,
    buffers: &Buffers,
) -> Readers {
    let batches = pool.endpoints.len().div_ceil(BATCH).max(1) as u32;
    let mut readers = Readers::default();
    for (index, endpoint) in pool.endpoints.iter().enumerate() {
        for (at, source) in plan.sources.iter().enumerate() {
            let key = (Arc::as_ptr(endpoint) as usize, at);
            let reader = known.remove(&key).or_else(|| {
                let place = Place {
                    batch: (index / BATCH) as u32,
                    batches,
                };
                let address = source.address(endpoint)?;
                let tls = source.tls.clone();
                let connection = Connection::new(&address, &source.page.path, tls, buffers.clone());
                let reading = read(
                    Arc::clone(endpoint),
                    Arc::clone(hub),
                    Arc::clone(source),
                    connection,
                    place,
                );
                Some(Reader {
                    _endpoint: Arc::clone(endpoint),
                    task: tokio::spawn(reading),
                })
            });
            readers.extend(reader.map(|reader| (key, reader)));
        }
    }
    readers
}

/// Reads one page of one endpoint for ever, at `place` within every period.
async fn read(
    endpoint: Arc<Endpoint>,
    hub: Arc<Hub>,
    source: Arc<Source>,
    mut connection: Connection,
    place: Place,
) {
    let mut reading = source.reading(&endpoint);
    let mut failures: u32 = 0;
    let mut read_at = None;
    loop {
        let woken = hub.woken();
        let now = hub.clock.now();
        let ours = || endpoint.load.snapshot().in_flight > 0 || endpoint.load.unseen() > 0;
        let idle = failures == 0 && read_at.is_some() && hub.idle(now) && !ours();
        let rest = (idle && source.is_waited_for()).then(|| hub.rest());
        let period = source.schedule.period(failures, idle);
        let look = hub.clock.instant(place.next(now, period));
        let early = tokio::select! {
            biased;
            // A request came just before it lay down.
            () = std::future::ready(()), if idle && !hub.idle(now) => true,
            () = woken, if idle => true,
            () = tokio::time::sleep_until(look) => false,
        };
        let due = rest.and_then(Rest::rise);
        let now = hub.clock.now();
        let worth = |at| source.schedule.worth_reading(ours(), now - at);
        if !early && due.is_none() && read_at.is_some_and(|at| !worth(at)) {
            continue;
        }
        // What is dispatched from here on may not be on the page.
        let dispatches = endpoint.load.dispatches();
        let taken = connection
            .fetch(|page| reading.take(page, &endpoint, dispatches, hub.clock.now()))
            .await;
        match taken {
            Ok(()) => {
                read_at = Some(hub.clock.now());
                hub.scraped();
                failures = 0;
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                match &error {
                    ScrapeError::Foreign => hub
                        .telemetry
                        .extract_failed(source.page.kind, reading.extractor()),
                    _ => hub.telemetry.poll_failed(source.page.kind),
                }
                if failures == 1 {
                    complain(&endpoint, &source, &error);
                }
            }
        }
        drop(due);
    }
}

fn complain(endpoint: &Endpoint, source: &Source, error: &ScrapeError) {
    let (name, address, page) = (&endpoint.name, &endpoint.address, source.page.kind);
    tracing::warn!(endpoint = %name, %address, page, %error, "a page cannot be read; trying again less often");
}
