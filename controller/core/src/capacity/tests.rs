//! Capacity of replicas whose latencies are known in closed form.

use proptest::prelude::*;

use super::*;
use crate::closed_form::{ENGINE, Engine};
use crate::mix::Sample;
use crate::policy::{Behavior, SloTargets};

fn mix(input: f32, output: f32) -> Mix {
    Mix::from_samples((0..40).map(|_| Sample {
        input,
        cached: 0.0,
        output: Some(output),
    }))
}

fn terms(ttft_ms: f64, tpot_ms: f64) -> Terms {
    let slo = SloTargets {
        percentile: 0.9,
        ttft_ms,
        tpot_ms,
    };
    Terms {
        margin: 0.0,
        ..Terms::new(slo, &Behavior::default())
    }
}

fn of(engine: &Engine, mix: &Mix, terms: &Terms) -> Capacity {
    capacity(engine, mix, terms, None).unwrap()
}

#[test]
fn the_operating_point_is_the_fixed_point_in_closed_form() {
    // TPOT = 20 + 0.5·r and r = λ·n·TPOT give r = λ·n·20 / (1 − 0.5·λ·n).
    let engine = Engine {
        kv: 0.0,
        spread: 1.0,
        ..ENGINE
    };
    let mix = mix(100.0, 101.0);
    let limits = Limits {
        kv_tokens: Some(1e6),
        max_in_flight: None,
        shared: 0.8,
        engine: 0.9,
    };
    let mut replica = Replica::new(&engine, &mix, limits);
    let idle = replica.idle().unwrap();
    let operating = replica.settle(10.0, &idle).unwrap().operating;
    let load = 0.01 * 100.0;
    let running = load * 20.0 / (1.0 - 0.5 * load);
    assert!(
        (operating.decoding / running - 1.0).abs() < 0.01,
        "{} {running}",
        operating.decoding
    );
    assert!((operating.resident_tokens / (running * 150.5) - 1.0).abs() < 0.01);
    // Service of 100 (less the empty prompt's one) tokens at 0.1 ms: ρ = 0.1; one size: W = ρ·S/2(1 − ρ).
    assert!(
        (operating.service_ms - 10.0).abs() < 0.2,
        "{}",
        operating.service_ms
    );
    assert!(
        (operating.wait_ms - 0.1 * 10.0 / 1.8).abs() < 0.05,
        "{}",
        operating.wait_ms
    );
    assert!((operating.utilization - (1.0 - 20.0 / (20.0 + 0.5 * running))).abs() < 0.01);
    assert!((operating.kv_utilization.unwrap() - operating.resident_tokens / 1e6).abs() < 1e-3);
}

#[test]
fn what_binds_is_named() {
    // Long prompts, few tokens out: the first token binds. p90 is far beyond what 0.9 utilisation leaves.
    let found = of(&ENGINE, &mix(5000.0, 10.0), &terms(1000.0, 500.0));
    assert_eq!((found.binding, found.infeasible), (Binding::Ttft, false));
    assert!(
        found.requests_per_second < 2.0 && found.ttft_ms <= 1000.0 * 1.05,
        "{found:?}"
    );
    // Short prompts, many tokens out: the batch slows the tokens.
    let found = of(&ENGINE, &mix(50.0, 500.0), &terms(5000.0, 40.0));
    assert_eq!(found.binding, Binding::Tpot);
    assert!((found.tpot_ms - 40.0).abs() < 1.5, "{found:?}");
    // The same without an SLO that matters: the engine's time.
    let found = of(&ENGINE, &mix(50.0, 500.0), &terms(1e6, 1e6));
    assert_eq!(found.binding, Binding::Utilization);
    assert!(found.operating.utilization <= 0.9);
}

#[test]
fn slots_and_memory_bind_at_the_share_a_plan_may_use() {
    let mut few_slots = terms(1e6, 1e6);
    few_slots.max_in_flight = Some(10);
    let found = of(&ENGINE, &mix(50.0, 500.0), &few_slots);
    assert_eq!(found.binding, Binding::InFlight);
    assert!(
        (found.operating.decoding + found.operating.waiting - 8.0).abs() < 0.2,
        "{found:?}"
    );
    let found = capacity(
        &ENGINE,
        &mix(1000.0, 500.0),
        &terms(1e6, 1e6),
        Some(20_000.0),
    )
    .unwrap();
    assert_eq!(found.binding, Binding::KvCache);
    assert!((found.operating.kv_utilization.unwrap() - 0.8).abs() < 0.02);
}

#[test]
fn an_slo_that_an_idle_replica_misses_is_infeasible_and_sized_by_utilisation() {
    let found = of(&ENGINE, &mix(5000.0, 10.0), &terms(400.0, 500.0));
    assert!(found.infeasible && found.reachable.ttft < 0.1, "{found:?}");
    assert_eq!(found.binding, Binding::Utilization);
    assert!((found.operating.utilization - 0.8).abs() < 0.02);
    assert!(
        (found.requests_per_second - 1.6).abs() < 0.1,
        "0.8 of 1 / 0.5 s: {found:?}"
    );
}

#[test]
fn a_prompt_beyond_help_does_not_cost_the_others_their_capacity() {
    let sample = |input| Sample {
        input,
        cached: 0.0,
        output: Some(10.0),
    };
    // As many giants as one stratum holds.
    let others = Mix::from_samples((0..120).map(|_| sample(500.0)));
    let with_giants =
        Mix::from_samples((0..120).map(|row| sample(if row < 10 { 20_000.0 } else { 500.0 })));
    let slo = terms(1000.0, 500.0);
    let (plain, mixed) = (of(&ENGINE, &others, &slo), of(&ENGINE, &with_giants, &slo));
    assert!(
        !mixed.infeasible && (mixed.reachable.ttft - 11.0 / 12.0).abs() < 0.01,
        "{mixed:?}"
    );
    assert!(
        mixed.requests_per_second > 0.0 && mixed.requests_per_second < plain.requests_per_second
    );
}

#[test]
fn the_margin_is_taken_from_the_rate() {
    let full = of(&ENGINE, &mix(1000.0, 100.0), &terms(1000.0, 100.0));
    let mut careful = terms(1000.0, 100.0);
    careful.margin = 0.25;
    let kept = of(&ENGINE, &mix(1000.0, 100.0), &careful);
    assert!((kept.requests_per_second / full.requests_per_second - 0.75).abs() < 1e-9);
    assert_eq!(kept.operating, full.operating);
}

#[test]
fn extrapolation_is_told() {
    let seen = Engine {
        seen_running: 2.0,
        ..ENGINE
    };
    assert!(of(&seen, &mix(50.0, 500.0), &terms(5000.0, 40.0)).extrapolated);
    assert!(!of(&ENGINE, &mix(50.0, 500.0), &terms(5000.0, 40.0)).extrapolated);
}

#[test]
fn unknown_is_not_unbounded() {
    let slo = terms(1000.0, 100.0);
    assert_eq!(capacity(&ENGINE, &Mix::default(), &slo, None), None);
    let silent = Engine {
        base: f64::NAN,
        ..ENGINE
    };
    assert_eq!(capacity(&silent, &mix(100.0, 10.0), &slo, None), None);
    let free = Engine {
        base: 0.0,
        prefill: 0.0,
        slope: 0.0,
        kv: 0.0,
        ..ENGINE
    };
    assert_eq!(capacity(&free, &mix(100.0, 10.0), &slo, None), None);
}

#[test]
fn tail_of_the_wait_counts_and_not_only_its_mean() {
    // At the capacity found, the SLO's percentile of the mixture is met and one step further it is not.
    let found = of(&ENGINE, &mix(1000.0, 50.0), &terms(600.0, 1000.0));
    assert_eq!(found.binding, Binding::Ttft);
    let mean_state = 20.0 + 100.0 + 2.0 * found.operating.decoding + found.operating.wait_ms;
    assert!(
        found.ttft_ms > mean_state * 1.2,
        "p90 {} against {mean_state} at the mean",
        found.ttft_ms
    );
    assert!((found.ttft_ms - 600.0).abs() < 60.0, "{found:?}");
}

proptest! {
    #[test]
    fn capacity_grows_with_the_slo(
        ttft in 150.0..5000.0_f64, tpot in 25.0..300.0_f64, looser in 1.0..4.0_f64,
        input in 10.0..4000.0_f32, output in 1.0..600.0_f32,
    ) {
        let mix = mix(input, output);
        let tight = capacity(&ENGINE, &mix, &terms(ttft, tpot), None).unwrap();
        let loose = capacity(&ENGINE, &mix, &terms(ttft * looser, tpot * looser), None).unwrap();
        // An infeasible SLO is sized by another rule.
        prop_assume!(!tight.infeasible);
        prop_assert!(loose.requests_per_second >= tight.requests_per_second * (1.0 - TOLERANCE));
    }

    #[test]
    fn a_slower_engine_never_carries_more(
        ttft in 300.0..5000.0_f64, slower in 1.0..3.0_f64, input in 10.0..2000.0_f32, output in 1.0..600.0_f32,
    ) {
        let slow = Engine { prefill: ENGINE.prefill * slower, slope: ENGINE.slope * slower, ..ENGINE };
        let (fast, slow) = (of(&ENGINE, &mix(input, output), &terms(ttft, 100.0)), of(&slow, &mix(input, output), &terms(ttft, 100.0)));
        prop_assume!(!slow.infeasible);
        prop_assert!(slow.requests_per_second <= fast.requests_per_second * (1.0 + TOLERANCE));
    }

    #[test]
    fn any_model_and_mix_is_survived(
        base in prop_oneof![Just(f64::NAN), Just(0.0), Just(f64::INFINITY), -10.0..1e6_f64],
        prefill in prop_oneof![Just(f64::NAN), -1.0..1e3_f64],
        slope in prop_oneof![Just(f64::INFINITY), -1.0..1e4_f64],
        rows in prop::collection::vec((any::<f32>(), any::<f32>(), prop::option::of(any::<f32>())), 0..40),
        kv in prop::option::of(any::<f64>()),
        slots in prop::option::of(0..5_u32),
    ) {
        let engine = Engine { base, prefill, slope, ..ENGINE };
        let mix = Mix::from_samples(rows.into_iter().map(|(input, cached, output)| Sample { input, cached, output }));
        let mut terms = terms(1000.0, 100.0);
        terms.max_in_flight = slots;
        if let Some(found) = capacity(&engine, &mix, &terms, kv) {
            prop_assert!(found.requests_per_second.is_finite() && found.requests_per_second > 0.0, "{:?}", found);
        }
    }
}
