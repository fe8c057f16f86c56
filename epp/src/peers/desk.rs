//! The hub's side of the exchange.

use super::Desk;
use crate::extproc::hub::Hub;
use epp_core::BandDepth;
use epp_core::peers::{Applied, BandUse, Chain};
use std::collections::BTreeMap;

impl Desk for Hub {
    fn gather(&self) -> (Vec<BandUse>, Vec<Chain>) {
        let band = |band: BandDepth| BandUse {
            priority: band.priority,
            requests: band.requests,
            bytes: band.bytes,
        };
        let queued = self.queued().bands.into_iter();
        let bands = queued.filter(|band| band.requests > 0).map(band).collect();
        let mut sent = Vec::new();
        self.with_director(|director, _| sent = director.take_sent());
        (bands, sent)
    }

    fn learned(&self, applied: Applied) {
        self.with_director(|director, now| director.learn_elsewhere(now, &applied.learned));
    }

    fn queued_elsewhere(&self, bands: BTreeMap<i32, BandUse>) {
        self.with_director(|director, _| director.set_queued_elsewhere(bands));
    }
}
