//! What a comparison found, as text.

use controller_core::fleet::comparison::{Bar, Figures};

use super::Outcome;
use crate::format::{count, share, trimmed};
use crate::table::{Better, Grid, Row, best};

/// The table of one workload, and what the first policy is held to.
pub(super) fn text(outcome: &Outcome) -> String {
    let clients = outcome.clients.map_or(String::new(), |clients| {
        format!(", at most {clients} requests under way")
    });
    let seeds = match outcome.seeds.as_slice() {
        [_] => "1 seed".to_owned(),
        seeds => format!("medians of {} seeds", seeds.len()),
    };
    let title = format!(
        "{}: {} requests{clients}; {} × {}; {seeds}",
        outcome.workload,
        count(outcome.stats.requests as u64),
        outcome.replicas,
        outcome.profile,
    );
    let bars: String = outcome.bars.iter().map(bar).collect();
    format!(
        "\n{title}\n\n{}  * best of the row\n\n{bars}",
        grid(outcome).text()
    )
}

fn grid(outcome: &Outcome) -> Grid {
    let standings = &outcome.standings;
    let row = |label: &str,
               better: Option<Better>,
               of: &dyn Fn(&Figures) -> f64,
               shown: &dyn Fn(f64) -> String| {
        let values: Vec<f64> = standings.iter().map(|it| of(&it.median)).collect();
        Row {
            label: label.into(),
            cells: values.iter().map(|value| shown(*value)).collect(),
            best: better.and_then(|better| best(&values, better)),
        }
    };
    let lower = Some(Better::Lower);
    let higher = Some(Better::Higher);
    let attainment = format!(
        "TTFT within {} ms and TPOT within {} ms",
        trimmed(outcome.slo_ttft_ms, 1),
        trimmed(outcome.slo_tpot_ms, 1)
    );
    let hits = format!(
        "prompt tokens cached (infinite cache: {})",
        share(outcome.stats.prefix_hit_share)
    );
    let whole = |value: f64| count(value.round() as u64);
    Grid {
        head: standings.iter().map(|it| it.policy.clone()).collect(),
        rows: vec![
            row("TTFT p50, ms", lower, &|it| it.ttft_ms.p50, &ms),
            row("TTFT p90, ms", lower, &|it| it.ttft_ms.p90, &ms),
            row("TTFT p99, ms", lower, &|it| it.ttft_ms.p99, &ms),
            row("TPOT p50, ms", lower, &|it| it.tpot_ms.p50, &ms),
            row("TPOT p90, ms", lower, &|it| it.tpot_ms.p90, &ms),
            row("output tokens/s", higher, &|it| it.output_rate, &whole),
            row(&attainment, higher, &|it| it.attainment, &share),
            row(&hits, None, &|it| it.hit_share, &share),
            row("refused or expired", lower, &|it| it.unserved, &whole),
        ],
    }
}

/// A latency to a tenth of a millisecond: bars are a few percent wide.
fn ms(value: f64) -> String {
    if value.is_finite() {
        format!("{value:.1}")
    } else {
        "never".into()
    }
}

fn bar(bar: &Bar) -> String {
    let verdict = if bar.met { "met" } else { "MISSED" };
    format!(
        "  {verdict:6}  {}: {} (bar {})\n",
        bar.what,
        trimmed(bar.achieved, 3),
        trimmed(bar.allowed, 3)
    )
}

#[cfg(test)]
mod tests {
    use controller_core::fleet::Percentiles;
    use controller_core::fleet::comparison::judge;
    use simulator_core::workload::SharedPrefix;

    use super::super::verdict;
    use super::*;
    use controller_core::fleet::comparison::Standing;

    fn standing(policy: &str, ttft: f64, tpot: f64) -> Standing {
        let times = |p50: f64| Percentiles {
            p50,
            p90: p50 * 2.0,
            p99: f64::INFINITY,
        };
        let median = Figures {
            ttft_ms: times(ttft),
            tpot_ms: times(tpot),
            output_rate: 11_700.4,
            attainment: 0.991,
            hit_share: 0.983,
            unserved: 3.0,
        };
        Standing {
            policy: policy.into(),
            median,
            rounds: vec![median],
        }
    }

    #[test]
    fn says_who_was_better_and_which_bars_were_missed() {
        let standings = vec![
            standing("headroom", 130.0, 50.0),
            standing("other", 120.0, 51.0),
        ];
        let outcome = Outcome {
            workload: "w".into(),
            stats: SharedPrefix::optimized_baseline()
                .first_stages(1)
                .generate(1)
                .stats(),
            profile: "p".into(),
            replicas: 8,
            clients: Some(600),
            slo_ttft_ms: 3_000.0,
            slo_tpot_ms: 100.0,
            seeds: vec![1, 2],
            bars: judge("headroom", &standings),
            standings,
        };
        let text = text(&outcome);
        for line in [
            "at most 600 requests under way; 8 × p; medians of 2 seeds",
            "TTFT p90, ms",
            "260.0     240.0*",
            "100.0*    102.0",
            "never     never",
            "11,700    11,700",
            "MISSED  TTFT p90, ms: at most 1.02 × the best (other): 260 (bar 244.8)",
            "met     policies better on both TTFT p90 and TPOT p90: none: 0 (bar 0)",
        ] {
            assert!(text.contains(line), "{line:?} is not in\n{text}");
        }
        let missed = verdict("headroom", &[outcome]).unwrap_err().to_string();
        assert!(missed.contains("headroom missed 1 bar"), "{missed}");
        assert!(verdict("headroom", &[]).is_ok());
    }
}
