//! The demand report of this picker.

use super::models::Encoded;
use crate::extproc::hub::Hub;
use epp_core::report::{
    ClassReport, DemandReport, EndpointReport, FLOWS, MIX_SAMPLES, MODEL_NAMES, PoolName, SCHEMA,
};
use predictor::Report;
use std::sync::Arc;

/// Who this picker is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picker {
    /// Its name among its peers.
    pub name: String,
    /// The pool it picks from.
    pub pool: PoolName,
    /// Another for each start, larger for a later one.
    pub incarnation: u64,
}

impl Picker {
    /// The report at this moment: the mix since the first `mix_after` samples, the models as offered in `models`.
    pub(super) fn report(
        &self,
        hub: &Hub,
        models: &Encoded,
        ready: bool,
        mix_after: u64,
    ) -> DemandReport {
        let now = hub.clock.now();
        let demand = hub.demand();
        let (mix_from, mix) = demand.mix_after(mix_after, MIX_SAMPLES);
        // The ledger before the queue: what moves on between the two looks is then counted as in flight, as it is.
        let totals = demand.totals();
        let queued = hub.queued();
        let present = totals
            .offered()
            .requests
            .saturating_sub(totals.ended().requests);
        DemandReport {
            schema: SCHEMA,
            epp: self.name.clone(),
            incarnation: self.incarnation,
            at_ms: hub.clock.unix_ms(),
            uptime_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            ready,
            pool: self.pool.clone(),
            in_flight: present.saturating_sub(queued.total().requests),
            totals,
            queued,
            endpoints: EndpointReport::all(&hub.pool(), now),
            mix_from,
            mix,
            models: classes(hub, models),
            default_slo: hub.default_slo(),
            model_names: hub.telemetry.requests.models(MODEL_NAMES),
            flows: demand.top_flows(FLOWS),
        }
    }
}

fn classes(hub: &Hub, models: &Encoded) -> Vec<ClassReport> {
    if !hub.learns() {
        return Vec::new();
    }
    let reports = hub.trainer.reports();
    let class = |class: &Arc<str>, report: &Report| ClassReport {
        class: class.to_string(),
        version: report.version,
        checksum: models.checksum(class),
        ttft: (&report.ttft).into(),
        tpot: (&report.tpot).into(),
    };
    reports
        .iter()
        .map(|of| class(&of.class, &of.report))
        .collect()
}
