//! Whether there is room in the queue: limits against what is held here and by other pickers.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use super::Queue;
use crate::flow::held::{Full, Held};
use crate::peers::BandUse;

impl Queue {
    /// Whether a request of that band may wait at all.
    pub(crate) fn waits(&self, band: i32) -> bool {
        self.config.band(band).waits()
    }

    pub(super) fn full(&self, band: i32, bytes: u64) -> Option<Full> {
        let limits = self.config.band(band);
        let Some(held) = self.bands.get(&Reverse(band)) else {
            return Some(Full::NoWaiting);
        };
        if !limits.waits() {
            return Some(Full::NoWaiting);
        }
        let total = (self.config.max_requests, self.config.max_bytes);
        let all = self.total.with(self.elsewhere_total);
        all.full(bytes, total.0, total.1).or_else(|| {
            let elsewhere = self.elsewhere.get(&band).copied().unwrap_or_default();
            let held = if self.config.shares(band) {
                self.shared.with(self.elsewhere_shared)
            } else {
                Held {
                    requests: held.gauge.requests(),
                    bytes: held.gauge.bytes(),
                }
                .with(elsewhere)
            };
            held.full(bytes, Some(limits.max_requests), Some(limits.max_bytes))
        })
    }

    /// What other pickers hold counts against the limits as well.
    pub(crate) fn set_elsewhere(&mut self, bands: BTreeMap<i32, BandUse>) {
        let held = |band: BandUse| Held {
            requests: band.requests,
            bytes: band.bytes,
        };
        self.elsewhere = bands
            .into_iter()
            .map(|(priority, band)| (priority, held(band)))
            .collect();
        self.sum_elsewhere();
    }

    pub(super) fn sum_elsewhere(&mut self) {
        let config = &self.config;
        let sum = |wanted: &dyn Fn(i32) -> bool| {
            let bands = self.elsewhere.iter().filter(|(band, _)| wanted(**band));
            bands.fold(Held::default(), |sum, (_, &held)| sum.with(held))
        };
        let (total, shared) = (sum(&|_| true), sum(&|band| config.shares(band)));
        (self.elsewhere_total, self.elsewhere_shared) = (total, shared);
    }

    /// Requests that the band still has room for.
    pub(crate) fn room(&self, band: i32) -> u64 {
        let limits = self.config.band(band);
        let held = if self.config.shares(band) {
            self.shared.with(self.elsewhere_shared).requests
        } else {
            let here = self.bands.get(&Reverse(band));
            let elsewhere = self.elsewhere.get(&band).map_or(0, |held| held.requests);
            elsewhere.saturating_add(here.map_or(0, |band| band.gauge.requests()))
        };
        let total = self.config.max_requests.unwrap_or(u64::MAX);
        let room = limits.max_requests.saturating_sub(held);
        let all = self.total.with(self.elsewhere_total).requests;
        room.min(total.saturating_sub(all))
    }
}
