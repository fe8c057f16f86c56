use super::*;

#[test]
fn bands_are_kept_apart_and_sum_up() {
    let ledger = DemandLedger::default();
    ledger.band(-1, true).offered(10, true);
    ledger.band(1, false).offered(20, false);
    ledger.band(-1, true).ended(
        Outcome::RejectedSlo,
        Totals {
            prompt_tokens: 10,
            ..Totals::default()
        },
    );
    let totals = ledger.totals();
    assert_eq!(
        totals
            .bands
            .iter()
            .map(|band| band.priority)
            .collect::<Vec<_>>(),
        [1, -1]
    );
    assert_eq!(
        (totals.offered().requests, totals.offered().prompt_tokens),
        (2, 30)
    );
    assert_eq!(totals.outcome(Outcome::RejectedSlo).prompt_tokens, 10);
    assert_eq!(
        (totals.ended().requests, totals.bands[1].slo_offered),
        (1, 1)
    );
}

#[test]
fn the_number_of_bands_and_the_mix_are_bounded() {
    let ledger = DemandLedger::default();
    for priority in 0..1_000 {
        ledger.band(priority, false).offered(1, false);
    }
    let totals = ledger.totals();
    assert_eq!(totals.bands.len(), MAX_BANDS);
    assert_eq!(
        totals.offered().requests,
        1_000,
        "overflow is counted, not lost"
    );
    for end in 0..5_000 {
        ledger.sample(MixSample {
            at: Duration::from_secs(end),
            input_tokens: 1,
            cached_tokens: 0,
            output_tokens: 1,
            priority: 0,
            slo: Slo::NONE,
        });
    }
    let mix = ledger.mix();
    assert_eq!(
        (mix.len(), mix[0].at.as_secs()),
        (MIX_SAMPLES, 5_000 - MIX_SAMPLES as u64)
    );
    let after = |after, most| {
        let (from, mix) = ledger.mix_after(after, most);
        let number = mix.first().map(|sample| sample.at.as_secs());
        assert!(
            number.is_none_or(|number| number == from),
            "{number:?} {from}"
        );
        (from, mix.len())
    };
    assert_eq!(
        after(0, 1_000),
        (4_000, 1_000),
        "the newest, and what was missed"
    );
    assert_eq!(after(0, 9_000), (5_000 - MIX_SAMPLES as u64, MIX_SAMPLES));
    assert_eq!(after(4_990, 1_000), (4_990, 10));
    assert_eq!(after(5_000, 1_000), (5_000, 0));
    assert_eq!(after(9_999, 1_000), (5_000, 0), "of another incarnation");
}
