//! Reads the engines' metrics, one keep-alive connection per endpoint.
//!
//! Each endpoint has a task with its own place in the interval, so that reads spread out. A failing
//! endpoint is asked less and less often; while no requests come at all, everybody is. What was read
//! stays with its age: nothing here turns an old value into a zero.

pub mod connection;
pub mod parse;

use crate::extproc::hub::Hub;
use connection::{Connection, ScrapeError};
use epp_core::{Endpoint, Pool};
use runtime::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest time between two attempts on an endpoint that fails.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Longest time between reads while no requests come.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// What is read, and how often.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Time between reads of one endpoint.
    pub interval: Duration,
    /// Path of the metrics page.
    pub path: Arc<str>,
}

/// A task that ends with its handle.
struct Reader {
    endpoint: Arc<Endpoint>,
    task: JoinHandle<()>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Reads all endpoints of the hub's pool, as it changes, until `shutdown` is stopped.
pub(crate) async fn run(hub: Arc<Hub>, schedule: Schedule, shutdown: Shutdown) {
    let mut pools = hub.watch_pool();
    let mut readers: Vec<Reader> = Vec::new();
    let mut check = tokio::time::interval(IDLE_INTERVAL);
    loop {
        let pool = Arc::clone(&pools.borrow_and_update());
        readers = follow(&pool, readers, &hub, &schedule);
        loop {
            tokio::select! {
                changed = pools.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                _ = check.tick() => hub.refresh_hashing(),
                () = shutdown.stopped() => return,
            }
        }
    }
}

/// One reader per endpoint of `pool`: those that stay go on, the others end.
fn follow(
    pool: &Pool,
    mut readers: Vec<Reader>,
    hub: &Arc<Hub>,
    schedule: &Schedule,
) -> Vec<Reader> {
    let count = pool.endpoints.len().max(1) as u32;
    let place = |index: usize| schedule.interval * (index as u32) / count;
    let reader = |(index, endpoint): (usize, &Arc<Endpoint>)| {
        if let Some(known) = readers
            .iter()
            .position(|reader| Arc::ptr_eq(&reader.endpoint, endpoint))
        {
            return readers.swap_remove(known);
        }
        let task = tokio::spawn(read(
            Arc::clone(endpoint),
            Arc::clone(hub),
            schedule.clone(),
            place(index),
        ));
        Reader {
            endpoint: Arc::clone(endpoint),
            task,
        }
    };
    pool.endpoints.iter().enumerate().map(reader).collect()
}

/// Reads one endpoint for ever.
async fn read(endpoint: Arc<Endpoint>, hub: Arc<Hub>, schedule: Schedule, place: Duration) {
    let mut connection = Connection::new(&endpoint.address, &schedule.path);
    let mut failures: u32 = 0;
    let mut due = hub.clock.now() + place;
    loop {
        tokio::time::sleep_until(hub.clock.instant(due)).await;
        let wait = match connection
            .fetch(|page| parse::parse(page, hub.clock.now()))
            .await
        {
            Ok(scraped) => {
                endpoint.set_scraped(scraped);
                failures = 0;
                schedule.interval
            }
            Err(error) => {
                failures += 1;
                complain(&endpoint, &hub, failures, &error);
                (schedule.interval * 2_u32.saturating_pow(failures.min(16)))
                    .min(LONGEST_BACKOFF)
                    .max(schedule.interval)
            }
        };
        let now = hub.clock.now();
        if hub.idle(now) && wait < IDLE_INTERVAL {
            tokio::select! {
                () = tokio::time::sleep(IDLE_INTERVAL) => {}
                () = hub.woken() => {}
            }
            due = hub.clock.now();
        } else {
            // Behind by more than one interval, reads are skipped, not made up for.
            due = (due + wait).max(now);
        }
    }
}

fn complain(endpoint: &Endpoint, hub: &Hub, failures: u32, error: &ScrapeError) {
    hub.telemetry.poll_failed("metrics-data-source");
    if failures == 1 {
        tracing::warn!(endpoint = %endpoint.name, address = %endpoint.address, %error, "metrics cannot be read; trying again less often");
    }
}
