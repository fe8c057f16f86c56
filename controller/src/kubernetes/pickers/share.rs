//! From a picker's report to its share of the demand.

use std::time::Duration;

use controller_core::mix::Sample;
use controller_core::shares::{Band, Report, Shape};
use controller_core::signals::{Backlog, Totals};
use epp_core::report::DemandReport;
use epp_core::{DemandTotals, QueueDepth};

/// The report as the controller counts it.
pub fn share(report: &DemandReport) -> Report {
    let counted = report.totals.bands.iter().map(|band| Band {
        priority: band.priority,
        totals: Totals::from(&DemandTotals {
            bands: vec![band.clone()],
        }),
        queued: Backlog::default(),
    });
    let queued = report.queued.bands.iter().map(|band| Band {
        priority: band.priority,
        totals: Totals::default(),
        queued: Backlog::from(&QueueDepth { bands: vec![*band] }),
    });
    Report {
        incarnation: report.incarnation,
        uptime: Duration::from_millis(report.uptime_ms),
        bands: counted.chain(queued).collect(),
        in_flight: report.in_flight,
        mix_from: report.mix_from,
        mix: report
            .mix
            .iter()
            .map(|served| Shape {
                priority: served.priority,
                sample: Sample {
                    input: served.input_tokens as f32,
                    cached: served.cached_tokens as f32,
                    output: Some(served.output_tokens as f32),
                },
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use controller_core::shares::Shares;
    use epp_core::{BandDepth, MixSample, Slo};

    use super::*;
    use crate::kubernetes::pickers::testing;

    #[test]
    fn counts_queue_and_mix_arrive_in_the_sum() {
        let mut report = testing::report("epp-0", 1, 500, 7);
        report.queued.bands.push(BandDepth {
            priority: 0,
            requests: 3,
            prompt_tokens: 30,
            ..BandDepth::default()
        });
        report.mix.push(MixSample {
            at: Duration::ZERO,
            input_tokens: 100,
            cached_tokens: 20,
            output_tokens: 5,
            priority: 0,
            slo: Slo::NONE,
        });
        let now = Duration::from_secs(1_000);
        let mut shares = Shares::new(now);
        let later = now + Duration::from_secs(1);
        shares.accept(later, "epp-0", share(&report)).unwrap();
        let demand = shares.demand(later);
        assert_eq!(demand.bands.len(), 1, "one priority is one band");
        assert_eq!(demand.bands[0].totals.offered.requests, 7);
        assert_eq!(demand.bands[0].queued.requests, 3);
        assert_eq!(demand.samples.version(), 1);
    }
}
