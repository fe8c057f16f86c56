//! Reads the engines' metrics, one keep-alive connection per endpoint.
//!
//! All of it happens on one thread of its own: reads come in batches, so that one wake-up serves many,
//! and no read wakes another thread. A failing endpoint is asked less and less often; while no requests
//! come at all, everybody is. What was read stays with its age: nothing here turns an old value into a
//! zero.

pub mod connection;
pub mod parse;

use crate::extproc::hub::Hub;
use connection::{Connection, ScrapeError};
use epp_core::{Endpoint, LoadSnapshot, Pool};
use runtime::Shutdown;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

/// Longest time between two attempts on an endpoint that fails.
const LONGEST_BACKOFF: Duration = Duration::from_secs(5);
/// Longest time between reads while no requests come.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// Endpoints read at the same instant. Batches are spread over the interval.
const BATCH: usize = 32;

/// What is read, and how often.
#[derive(Clone, Debug)]
pub struct Schedule {
    /// Time between reads of an endpoint that has requests of ours.
    pub interval: Duration,
    /// Time between reads of an endpoint that has none.
    pub quiet_interval: Duration,
    /// Path of the metrics page.
    pub path: Arc<str>,
}

impl Schedule {
    /// Reads of `path` every `interval`. What has no requests of ours is read a third as often, as long as
    /// that leaves no value older than `staleness` allows.
    pub fn new(interval: Duration, staleness: Duration, path: &str) -> Self {
        let interval = interval.max(Duration::from_millis(1));
        let quiet_interval = (interval * 3).min(staleness * 3 / 4).max(interval);
        Self {
            interval,
            quiet_interval,
            path: path.into(),
        }
    }

    /// Time between looks at an endpoint that failed `failures` times in a row.
    fn period(&self, failures: u32, idle: bool) -> Duration {
        let usual = if idle {
            self.interval.max(IDLE_INTERVAL)
        } else {
            self.interval
        };
        usual.max((self.interval * 2_u32.saturating_pow(failures.min(16))).min(LONGEST_BACKOFF))
    }

    /// Whether an endpoint that was last read `age` ago is worth reading: what has no requests of ours can wait
    /// a little.
    fn worth_reading(&self, load: &LoadSnapshot, age: Duration) -> bool {
        let ours = load.in_flight > 0 || load.since_scrape > 0;
        // Half an interval of slack, because looks are not exactly one interval apart.
        ours || age + self.interval / 2 >= self.quiet_interval
    }
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

/// Reads on a thread of its own, until `shutdown` is stopped.
pub(crate) async fn run(hub: Arc<Hub>, schedule: Schedule, shutdown: Shutdown) {
    let reading = tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(read_all(hub, schedule, shutdown));
        Ok::<_, std::io::Error>(())
    });
    if let Ok(Err(error)) = reading.await {
        tracing::error!(%error, "metrics are not read: no event loop for them");
    }
}

/// Reads all endpoints of the hub's pool, as it changes.
async fn read_all(hub: Arc<Hub>, schedule: Schedule, shutdown: Shutdown) {
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
    let batches = pool.endpoints.len().div_ceil(BATCH).max(1) as u32;
    let place = |index: usize| schedule.interval * (index / BATCH) as u32 / batches;
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

/// Reads one endpoint for ever, at `place` within every period.
async fn read(endpoint: Arc<Endpoint>, hub: Arc<Hub>, schedule: Schedule, place: Duration) {
    let mut connection = Connection::new(&endpoint.address, &schedule.path);
    let mut failures: u32 = 0;
    loop {
        let now = hub.clock.now();
        let idle = failures == 0 && endpoint.scraped().is_some() && hub.idle(now);
        let look = hub
            .clock
            .instant(next(now, place, schedule.period(failures, idle)));
        tokio::select! {
            () = tokio::time::sleep_until(look) => {}
            () = hub.woken(), if idle => {}
        }
        let age = endpoint
            .scraped()
            .map(|scraped| scraped.age(hub.clock.now()));
        if age.is_some_and(|age| !schedule.worth_reading(&endpoint.load.snapshot(), age)) {
            continue;
        }
        match connection
            .fetch(|page| parse::parse(page, hub.clock.now()))
            .await
        {
            Ok(scraped) => {
                endpoint.set_scraped(scraped);
                hub.scraped();
                failures = 0;
            }
            Err(error) => {
                failures = failures.saturating_add(1);
                complain(&endpoint, &hub, failures, &error);
            }
        }
    }
}

/// The first instant after `now` at `place` within a period. What was missed is skipped, not made up for.
fn next(now: Duration, place: Duration, period: Duration) -> Duration {
    let periods = now.saturating_sub(place).as_nanos() / period.as_nanos().max(1) + 1;
    place + period * u32::try_from(periods).unwrap_or(u32::MAX)
}

fn complain(endpoint: &Endpoint, hub: &Hub, failures: u32, error: &ScrapeError) {
    hub.telemetry.poll_failed("metrics-data-source");
    if failures == 1 {
        tracing::warn!(endpoint = %endpoint.name, address = %endpoint.address, %error, "metrics cannot be read; trying again less often");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_endpoint_is_read_less_often_but_never_too_late() {
        let ms = Duration::from_millis;
        let schedule = |interval, staleness| {
            Schedule::new(ms(interval), ms(staleness), "/metrics").quiet_interval
        };
        assert_eq!(schedule(50, 200), ms(150));
        assert_eq!(schedule(50, 100), ms(75));
        assert_eq!(schedule(50, 20), ms(50));
    }

    #[test]
    fn a_dispatch_makes_the_next_look_a_read() {
        let ms = Duration::from_millis;
        let schedule = Schedule::new(ms(50), Duration::from_secs(2), "/metrics");
        let quiet = LoadSnapshot::default();
        let dispatched = LoadSnapshot {
            since_scrape: 1,
            ..quiet
        };
        let running = LoadSnapshot {
            in_flight: 1,
            ..quiet
        };
        assert!(
            schedule.worth_reading(&dispatched, ms(50)) && schedule.worth_reading(&running, ms(50))
        );
        let ages = [50, 100, 150].map(|age| schedule.worth_reading(&quiet, ms(age)));
        assert_eq!(ages, [false, false, true]);
    }

    #[test]
    fn failures_are_met_with_patience_that_ends_at_five_seconds() {
        let schedule = Schedule::new(
            Duration::from_millis(50),
            Duration::from_secs(2),
            "/metrics",
        );
        let periods = [0, 1, 2, 40].map(|failures| schedule.period(failures, false).as_millis());
        assert_eq!(periods, [50, 100, 200, 5000]);
    }

    #[test]
    fn reads_keep_their_place_and_skip_what_was_missed() {
        let ms = Duration::from_millis;
        assert_eq!(next(ms(0), ms(10), ms(50)), ms(60));
        assert_eq!(next(ms(60), ms(10), ms(50)), ms(110));
        assert_eq!(next(ms(999), ms(10), ms(50)), ms(1010));
    }
}
