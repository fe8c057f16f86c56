//! What is queued, readable at any time without the director.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use super::{BandDepth, QueueDepth};
use crate::request::Request;

/// The queue in figures. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct QueueGauges {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    /// Highest priority first.
    bands: RwLock<Vec<Arc<BandGauge>>>,
    requests: AtomicU64,
    /// Limits over all bands; 0 = none.
    max_requests: AtomicU64,
    max_bytes: AtomicU64,
}

/// One band in figures.
#[derive(Debug, Default)]
pub(crate) struct BandGauge {
    priority: i32,
    max_requests: AtomicU64,
    max_bytes: AtomicU64,
    requests: AtomicU64,
    sheddable: AtomicU64,
    prompt_tokens: AtomicU64,
    bytes: AtomicU64,
}

/// How much of its room a band, or the whole queue, has in use.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct CapacityUse {
    /// Requests ÷ most requests; `None` = there is no limit.
    pub requests: Option<f64>,
    /// Bytes ÷ most bytes; `None` = there is no limit.
    pub bytes: Option<f64>,
}

impl CapacityUse {
    fn of(depth: &BandDepth, max_requests: u64, max_bytes: u64) -> Self {
        let share = |used: u64, most: u64| (most > 0).then(|| used as f64 / most as f64);
        Self {
            requests: share(depth.requests, max_requests),
            bytes: share(depth.bytes, max_bytes),
        }
    }
}

impl QueueGauges {
    pub(crate) fn new(max_requests: Option<u64>, max_bytes: Option<u64>) -> Self {
        let gauges = Self::default();
        gauges.set_limits(max_requests, max_bytes);
        gauges
    }

    /// Limits over all bands; `None` = there is none.
    pub(crate) fn set_limits(&self, max_requests: Option<u64>, max_bytes: Option<u64>) {
        let (requests, bytes) = (&self.shared.max_requests, &self.shared.max_bytes);
        requests.store(max_requests.unwrap_or(0), Relaxed);
        bytes.store(max_bytes.unwrap_or(0), Relaxed);
    }

    /// Whether nothing waits; costs one look.
    pub fn is_empty(&self) -> bool {
        self.shared.requests.load(Relaxed) == 0
    }

    /// What waits, by band.
    pub fn depth(&self) -> QueueDepth {
        let bands = self.shared.bands.read();
        let bands = bands.unwrap_or_else(PoisonError::into_inner);
        QueueDepth {
            bands: bands.iter().map(|band| band.depth()).collect(),
        }
    }

    /// How much of its room each band has in use, highest priority first.
    pub fn capacity(&self) -> Vec<(i32, CapacityUse)> {
        let bands = self.shared.bands.read();
        let bands = bands.unwrap_or_else(PoisonError::into_inner);
        let used = |band: &Arc<BandGauge>| {
            let (requests, bytes) = (&band.max_requests, &band.max_bytes);
            let used = CapacityUse::of(&band.depth(), requests.load(Relaxed), bytes.load(Relaxed));
            (band.priority, used)
        };
        bands.iter().map(used).collect()
    }

    /// How much of the room over all bands is in use.
    pub fn total_capacity(&self) -> CapacityUse {
        let shared = &self.shared;
        CapacityUse::of(
            &self.depth().total(),
            shared.max_requests.load(Relaxed),
            shared.max_bytes.load(Relaxed),
        )
    }

    /// A band exists from now on.
    pub(crate) fn add(&self, priority: i32, max_requests: u64, max_bytes: u64) -> Arc<BandGauge> {
        let gauge = Arc::new(BandGauge {
            priority,
            max_requests: max_requests.into(),
            max_bytes: max_bytes.into(),
            ..BandGauge::default()
        });
        let bands = self.shared.bands.write();
        let mut bands = bands.unwrap_or_else(PoisonError::into_inner);
        let place = bands.partition_point(|band| band.priority > priority);
        bands.insert(place, Arc::clone(&gauge));
        gauge
    }

    /// A band exists no longer.
    pub(crate) fn remove(&self, priority: i32) {
        let bands = self.shared.bands.write();
        let mut bands = bands.unwrap_or_else(PoisonError::into_inner);
        bands.retain(|band| band.priority != priority);
    }

    pub(crate) fn joined(&self, band: &BandGauge, request: &Request) {
        self.shared.requests.fetch_add(1, Relaxed);
        band.requests.fetch_add(1, Relaxed);
        band.sheddable
            .fetch_add(u64::from(request.sheddable()), Relaxed);
        band.prompt_tokens
            .fetch_add(u64::from(request.prompt_tokens), Relaxed);
        band.bytes.fetch_add(request.bytes, Relaxed);
    }

    pub(crate) fn left(&self, band: &BandGauge, request: &Request) {
        self.shared.requests.fetch_sub(1, Relaxed);
        band.requests.fetch_sub(1, Relaxed);
        band.sheddable
            .fetch_sub(u64::from(request.sheddable()), Relaxed);
        band.prompt_tokens
            .fetch_sub(u64::from(request.prompt_tokens), Relaxed);
        band.bytes.fetch_sub(request.bytes, Relaxed);
    }
}

impl BandGauge {
    /// The band holds so much at most from now on.
    pub(crate) fn set_limits(&self, max_requests: u64, max_bytes: u64) {
        self.max_requests.store(max_requests, Relaxed);
        self.max_bytes.store(max_bytes, Relaxed);
    }

    pub(crate) fn depth(&self) -> BandDepth {
        BandDepth {
            priority: self.priority,
            requests: self.requests.load(Relaxed),
            sheddable: self.sheddable.load(Relaxed),
            prompt_tokens: self.prompt_tokens.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
        }
    }

    /// Requests held; only the queue that owns the band moves it.
    pub(crate) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_in_use_is_told_against_the_limit_there_is() {
        let gauges = QueueGauges::new(Some(100), None);
        let (low, high) = (gauges.add(-1, 10, 1_000), gauges.add(5, 20, 1_000));
        let request = Request {
            bytes: 250,
            ..Request::default()
        };
        for _ in 0..5 {
            gauges.joined(&low, &request);
        }
        gauges.joined(&high, &request);
        gauges.left(&high, &request);
        let used = |requests, bytes| CapacityUse {
            requests: Some(requests),
            bytes: Some(bytes),
        };
        assert_eq!(
            gauges.capacity(),
            [(5, used(0.0, 0.0)), (-1, used(0.5, 1.25))]
        );
        let total = gauges.total_capacity();
        assert_eq!((total.requests, total.bytes), (Some(0.05), None));
        assert_eq!(gauges.depth().total().bytes, 1_250);
        assert!(!gauges.is_empty());
        gauges.remove(-1);
        assert_eq!(gauges.depth().bands.len(), 1);
    }
}
