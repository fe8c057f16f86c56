//! One decision as a person reads it.

use std::fmt::Write as _;

use epp_core::record::{CandidateRecord, Ended, PickRecord, Picked, PoolRecord, PredictionRecord};
use jiff::Timestamp;

/// Endpoints shown unless all are wanted.
const SHOWN: usize = 12;

/// The decision `pick`, made in `pool`.
pub(super) fn render(pick: &PickRecord, pool: Option<&PoolRecord>, all: bool) -> String {
    let mut text = String::new();
    head(&mut text, pick);
    match (&pick.picked, &pick.refused) {
        (Some(picked), _) => {
            sent(&mut text, picked, pool);
            table(&mut text, picked, pool, all);
            removals(&mut text, picked);
        }
        (None, Some(refused)) => {
            let (outcome, status, reason) = (&refused.outcome, refused.status, &refused.reason);
            line(
                &mut text,
                "refused",
                &format!("{outcome}: answered {status}, {reason}"),
            );
        }
        (None, None) => {}
    }
    if let Some(ended) = &pick.ended {
        line(&mut text, "ended", &end(ended));
        for against in against(pick, ended) {
            line(&mut text, "", &against);
        }
    } else if pick.picked.is_some() {
        line(&mut text, "ended", "not yet, or after this was written");
    }
    text
}

/// A line with a word before it. Writing to a string cannot fail.
fn line(text: &mut String, word: &str, what: &str) {
    let _ = writeln!(text, "{word:<10}{what}");
}

fn head(text: &mut String, pick: &PickRecord) {
    let at = i64::try_from(pick.at_ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let at = at.map_or_else(|| pick.at_ms.to_string(), |at| at.to_string());
    line(
        text,
        "request",
        &format!("{}  at {at}  under configuration {}", pick.id, pick.config),
    );
    let asked = &pick.request;
    let model = match &asked.target_model {
        Some(target) => format!("{} as {target}", asked.model),
        None => asked.model.clone(),
    };
    let sizes = format!(
        "{model}: {} prompt tokens ({} blocks of {}), {} bytes",
        asked.prompt_tokens, asked.blocks, asked.block_tokens, asked.bytes
    );
    line(text, "asks", &sizes);
    let mut terms = vec![
        format!("priority {}", asked.priority),
        format!("flow {}", asked.flow),
    ];
    terms.extend(
        asked
            .slo
            .ttft_ms
            .map(|ms| format!("TTFT within {}", milliseconds(ms))),
    );
    terms.extend(
        asked
            .slo
            .tpot_ms
            .map(|ms| format!("TPOT within {}", milliseconds(ms))),
    );
    terms.extend(
        asked
            .max_output_tokens
            .map(|most| format!("at most {most} tokens")),
    );
    terms.extend(
        asked
            .session
            .as_ref()
            .map(|session| format!("session {session}")),
    );
    terms.extend(
        asked
            .subset
            .map(|count| format!("among {count} endpoints that the proxy named")),
    );
    if asked.sheddable {
        terms.push("may be shed".to_owned());
    }
    line(text, "", &terms.join(", "));
    line(text, "waited", &milliseconds(pick.waited_ms));
}

fn sent(text: &mut String, picked: &Picked, pool: Option<&PoolRecord>) {
    let why = if picked
        .candidates
        .iter()
        .filter(|one| one.removed_by.is_none())
        .count()
        == 1
    {
        "the only candidate"
    } else if picked.expected_miss {
        "the least bad: no endpoint was predicted to meet the objective"
    } else if picked.scorers.is_empty() {
        "the picker alone: no scorer is configured"
    } else {
        "by its weighted score"
    };
    let address = pool.and_then(|pool| pool.endpoints.get(picked.slot as usize));
    let address = address.map_or("", |endpoint| &*endpoint.address);
    line(
        text,
        "sent to",
        &format!("{} {address}, {why}", name(picked.slot, pool)),
    );
    if let Some(model) = picked.model {
        let trust = if picked.trusted {
            "trusted"
        } else {
            "not trusted"
        };
        let states = format!(
            "TTFT {}, TPOT {}; the prediction for it was {trust}",
            model.ttft.name(),
            model.tpot.name()
        );
        line(text, "model", &states);
    }
}

fn name(slot: u32, pool: Option<&PoolRecord>) -> String {
    let endpoint = pool.and_then(|pool| pool.endpoints.get(slot as usize));
    endpoint.map_or_else(
        || format!("slot {slot}"),
        |endpoint| endpoint.name.to_string(),
    )
}

fn table(text: &mut String, picked: &Picked, pool: Option<&PoolRecord>, all: bool) {
    let mut rows: Vec<&CandidateRecord> = picked.candidates.iter().collect();
    let best_first = |one: &&CandidateRecord| {
        let total = one.total.map_or(f32::MIN, |total| total);
        std::cmp::Reverse((one.slot == picked.slot, Total(total)))
    };
    rows.sort_by_key(best_first);
    let hidden = if all {
        0
    } else {
        rows.len().saturating_sub(SHOWN)
    };
    rows.truncate(rows.len() - hidden);
    let mut header = vec!["".to_owned(), "endpoint".to_owned(), "total".to_owned()];
    header.extend(
        picked
            .scorers
            .iter()
            .map(|scorer| format!("{} ×{}", scorer.name, scorer.weight)),
    );
    let readings = ["in flight", "queue", "KV", "cached", "TTFT", "TPOT"];
    header.extend(readings.map(str::to_owned));
    let mut table = vec![header];
    table.extend(rows.iter().map(|one| row(one, picked, pool)));
    let columns = table[0].len();
    let width = |column: usize| table.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<_> = (0..columns)
        .map(|column| width(column).unwrap_or(0))
        .collect();
    text.push('\n');
    for row in &table {
        let cells = row
            .iter()
            .zip(&widths)
            .enumerate()
            .map(|(at, (cell, width))| {
                // Names to the left, numbers to the right.
                if at < 2 {
                    format!("{cell:<width$}")
                } else {
                    format!("{cell:>width$}")
                }
            });
        let _ = writeln!(text, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
    }
    if hidden > 0 {
        let _ = writeln!(text, "… and {hidden} more, see --all");
    }
    text.push('\n');
}

/// Orders scores.
#[derive(PartialEq)]
struct Total(f32);

impl Eq for Total {}

impl PartialOrd for Total {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Total {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

fn row(one: &CandidateRecord, picked: &Picked, pool: Option<&PoolRecord>) -> Vec<String> {
    let mark = if one.slot == picked.slot { "→" } else { "" };
    let mut row = vec![mark.to_owned(), name(one.slot, pool)];
    match (&one.removed_by, one.total) {
        (Some(filter), _) => {
            row.push(format!("out: {filter}"));
            row.extend(picked.scorers.iter().map(|_| "–".to_owned()));
        }
        (None, total) => {
            row.push(total.map_or_else(|| "–".to_owned(), |total| format!("{total:.3}")));
            let score = |at: usize| {
                one.scores
                    .get(at)
                    .map_or_else(|| "–".to_owned(), |score| format!("{score:.3}"))
            };
            row.extend((0..picked.scorers.len()).map(score));
        }
    }
    let known = |value: Option<String>| value.unwrap_or_else(|| "?".to_owned());
    let scrape = one.scrape.as_ref();
    row.push(one.in_flight.to_string());
    row.push(known(
        scrape
            .and_then(|scrape| scrape.waiting)
            .map(|waiting| format!("{waiting:.0}")),
    ));
    let used = scrape.and_then(|scrape| scrape.kv_utilization);
    row.push(known(used.map(|used| format!("{:.0} %", used * 100.0))));
    row.push(one.cached_tokens.to_string());
    let predicted = |of: fn(&PredictionRecord) -> f32| {
        known(
            one.prediction
                .as_ref()
                .map(|prediction| milliseconds(of(prediction).into())),
        )
    };
    row.push(predicted(|prediction| prediction.ttft_ms[0]));
    row.push(predicted(|prediction| prediction.tpot_ms[0]));
    row
}

fn removals(text: &mut String, picked: &Picked) {
    for removal in &picked.removals {
        let many = if removal.count == 1 {
            "endpoint"
        } else {
            "endpoints"
        };
        line(
            text,
            "filter",
            &format!("{} took out {} {many}", removal.filter, removal.count),
        );
    }
}

fn end(ended: &Ended) -> String {
    let status = ended
        .status
        .map_or_else(String::new, |status| format!(" {status}"));
    let mut parts = vec![format!(
        "{}{status} after {}",
        ended.outcome,
        milliseconds(ended.duration_ms)
    )];
    let cached = format!(
        "{} prompt tokens, {} of them cached",
        ended.prompt_tokens, ended.cached_tokens
    );
    parts.push(cached);
    parts.extend(
        ended
            .output_tokens
            .map(|tokens| format!("{tokens} output tokens")),
    );
    parts.extend(ended.slo_met.map(|met| {
        if met {
            "objective met"
        } else {
            "objective missed"
        }
        .to_owned()
    }));
    parts.join(", ")
}

/// What was predicted for the endpoint picked, against what happened.
fn against(pick: &PickRecord, ended: &Ended) -> Vec<String> {
    let Some(picked) = &pick.picked else {
        return Vec::new();
    };
    let chosen = picked.candidates.iter().find(|one| one.slot == picked.slot);
    let prediction = chosen.and_then(|one| one.prediction);
    let compare = |what: &str, actual: Option<f64>, of: fn(&PredictionRecord) -> [f32; 3]| {
        let actual = actual?;
        let said = match &prediction {
            None => "nothing predicted it".to_owned(),
            Some(prediction) => {
                let [p50, p90, p99] = of(prediction).map(|ms| milliseconds(ms.into()));
                let ratio = actual / f64::from(of(prediction)[0]).max(1e-3);
                format!("predicted {p50} (p90 {p90}, p99 {p99}): {ratio:.2} times that")
            }
        };
        Some(format!("{what} {}, {said}", milliseconds(actual)))
    };
    let ttft = compare("TTFT", ended.ttft_ms, |prediction| prediction.ttft_ms);
    let tpot = compare("TPOT", ended.tpot_ms, |prediction| prediction.tpot_ms);
    [ttft, tpot].into_iter().flatten().collect()
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.1} s", ms / 1e3),
        ms if ms >= 100.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::record::{Line, Refused};

    fn golden() -> (PoolRecord, PickRecord) {
        let text = include_str!("../../../epp/core/tests/golden/decision_records.json");
        let lines: Vec<Line> = serde_json::from_str(text).unwrap();
        match <[Line; 2]>::try_from(lines).unwrap() {
            [Line::Pool(pool), Line::Pick(pick)] => (pool, *pick),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_page_is_the_golden_one() {
        let (pool, pick) = golden();
        let page = render(&pick, Some(&pool), false);
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/explain_pick.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(page, std::fs::read_to_string(path).unwrap());
    }

    #[test]
    fn many_endpoints_are_cut_unless_all_are_wanted() {
        let (_, mut pick) = golden();
        let picked = pick.picked.as_mut().unwrap();
        let one = picked.candidates[1].clone();
        picked
            .candidates
            .extend((3..40).map(|slot| CandidateRecord {
                slot,
                ..one.clone()
            }));
        let page = render(&pick, None, false);
        assert!(
            page.contains("… and 28 more") && page.contains("→  slot 0"),
            "{page}"
        );
        assert!(render(&pick, None, true).contains("slot 39"));
    }

    #[test]
    fn a_refusal_says_what_was_answered() {
        let (_, pick) = golden();
        let refused = PickRecord {
            picked: None,
            ended: None,
            refused: Some(Refused {
                outcome: "RejectedSLO".into(),
                status: 429,
                reason: "rejected-slo-unattainable".into(),
            }),
            ..pick
        };
        let page = render(&refused, None, false);
        assert!(
            page.contains("refused   RejectedSLO: answered 429, rejected-slo-unattainable"),
            "{page}"
        );
    }
}
