//! Reports for tests.

use epp_core::demand::{BandTotals, DemandTotals, Totals};
use epp_core::report::{DemandReport, PoolName, SCHEMA};
use epp_core::{Outcome, QueueDepth, Slo};

/// A report of `ns/pool` with `offered` requests, all in one band and none ended.
pub(crate) fn report(epp: &str, incarnation: u64, uptime_ms: u64, offered: u64) -> DemandReport {
    let band = BandTotals {
        priority: 0,
        sheddable: false,
        offered: Totals {
            requests: offered,
            prompt_tokens: offered * 100,
            ..Totals::default()
        },
        outcomes: vec![Totals::default(); Outcome::ALL.len()],
        slo_offered: 0,
        slo_met: 0,
        expected_misses: 0,
    };
    DemandReport {
        schema: SCHEMA,
        epp: epp.to_owned(),
        incarnation,
        at_ms: 1_700_000_000_000 + uptime_ms,
        uptime_ms,
        ready: true,
        pool: PoolName {
            namespace: "ns".into(),
            name: "pool".into(),
        },
        totals: DemandTotals { bands: vec![band] },
        queued: QueueDepth::default(),
        in_flight: 0,
        endpoints: Vec::new(),
        mix_from: 0,
        mix: Vec::new(),
        models: Vec::new(),
        default_slo: Slo::NONE,
        model_names: Default::default(),
        flows: Vec::new(),
    }
}
