//! The hub's side of the exchange.

use super::Desk;
use crate::extproc::hub::Hub;
use epp_core::peers::{Applied, BandUse, Chain};
use std::collections::BTreeMap;

impl Desk for Hub {
    fn gather(&self) -> (Vec<BandUse>, Vec<Chain>) {
        let band = |band: epp_core::BandDepth| BandUse {
            priority: band.priority,
            requests: band.requests,
            bytes: band.bytes,
        };
        let queued = self.queued().bands.into_iter();
        let bands = queued.filter(|band| band.requests > 0).map(band).collect();
        (bands, self.take_sent())
    }

    fn learned(&self, applied: Applied) {
        self.learn_elsewhere(applied.learned);
    }

    fn queued_elsewhere(&self, bands: BTreeMap<i32, BandUse>) {
        self.set_queued_elsewhere(bands);
    }
}
