//! An explanation as a page of text.

use std::fmt::Write as _;

use controller::kubernetes::explain::{ExplainedVariant, Explanation};

/// Changes that are printed.
const CHANGES: usize = 8;

/// The page, at `now_ms` unix time.
pub(super) fn render(explanation: &Explanation, now_ms: u64) -> String {
    let mut page = String::new();
    let Explanation {
        namespace,
        model,
        mode,
        source,
        at_ms,
        ..
    } = explanation;
    let pool = match &explanation.pool {
        Some(pool) => format!("pool {pool}"),
        None => "no pool".to_owned(),
    };
    let age = span(now_ms.saturating_sub(*at_ms));
    line(
        &mut page,
        format_args!("{namespace}/{model}   mode {mode}   {source}   {pool}   decided {age} ago"),
    );
    let sentences = demand(explanation).into_iter();
    let told = explanation.notes.iter().chain(&explanation.why);
    for sentence in sentences.chain(told.cloned()) {
        line(&mut page, format_args!("  {sentence}"));
    }
    line(&mut page, format_args!(""));
    table(&mut page, &explanation.variants);
    snapshots(&mut page, explanation);
    if !explanation.findings.is_empty() {
        line(&mut page, format_args!("\nfindings"));
    }
    for finding in &explanation.findings {
        let mark = if finding.note { "i" } else { "!" };
        line(
            &mut page,
            format_args!(
                "  {mark} {} ({}): {}",
                finding.reason, finding.about, finding.message
            ),
        );
    }
    if !explanation.changes.is_empty() {
        line(&mut page, format_args!("\nchanges"));
    }
    for change in explanation.changes.iter().take(CHANGES) {
        let age = span(now_ms.saturating_sub(change.at_ms));
        for why in &change.why {
            line(&mut page, format_args!("  {age:>6} ago  {why}"));
        }
    }
    page
}

/// What must change for the page to be worth printing again: counts, findings and sentences without their numbers.
pub(super) fn outline(explanation: &Explanation) -> String {
    let mut outline = String::new();
    for one in &explanation.variants {
        let counts = (one.asked, one.ready, one.starting, one.pending, one.wanted);
        let _ = writeln!(outline, "{} {counts:?}", one.name);
    }
    let sentences = explanation
        .why
        .iter()
        .chain(explanation.variants.iter().flat_map(|variant| &variant.why));
    for sentence in sentences {
        outline.extend(
            sentence
                .chars()
                .filter(|c| !c.is_ascii_digit() && *c != '.'),
        );
    }
    for finding in &explanation.findings {
        let _ = writeln!(outline, "{} {}", finding.reason, finding.about);
    }
    outline
}

fn line(page: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = writeln!(page, "{text}");
}

fn demand(explanation: &Explanation) -> Option<String> {
    let decision = explanation.decision.as_ref()?;
    let rates: Option<Vec<f64>> = decision
        .classes
        .iter()
        .map(|class| Some(class.demand?.offered.requests))
        .collect();
    let offered = match rates {
        Some(rates) => format!("{:.1} req/s offered", rates.iter().sum::<f64>()),
        None => "demand unknown".to_owned(),
    };
    let mut told = format!(
        "{offered}, {} queued, {} in flight",
        decision.queued(),
        decision.in_flight
    );
    if let Some(headroom) = decision.headroom {
        let _ = write!(told, "; headroom {headroom:+.1} req/s");
    }
    if let Some(pressure) = decision.pressure {
        let _ = write!(told, "; predicted latency {pressure:.2} of the SLO");
    }
    Some(told)
}

fn table(page: &mut String, variants: &[ExplainedVariant]) {
    let width = variants.iter().map(|one| one.name.len()).max();
    let width = width.unwrap_or(0).max("variant".len());
    line(
        page,
        format_args!(
            "{:width$}  {:>6}  {:>5}  {:>8}  {:>7}  {:>6}  {:>9}  {:>14}  {:>7}",
            "variant",
            "asked",
            "ready",
            "starting",
            "pending",
            "wanted",
            "limits",
            "per replica",
            "cost/h"
        ),
    );
    for one in variants {
        let number =
            |number: Option<u32>| number.map_or("?".to_owned(), |number| number.to_string());
        let [min, max] = one.limits;
        let capacity = match one.capacity {
            Some(capacity) => format!("{capacity:.2} req/s"),
            None => "unknown".to_owned(),
        };
        line(
            page,
            format_args!(
                "{:width$}  {:>6}  {:>5}  {:>8}  {:>7}  {:>6}  {:>9}  {capacity:>14}  {:>7.2}",
                one.name,
                number(one.asked),
                one.ready,
                one.starting,
                one.pending,
                number(one.wanted),
                format!("{min}-{max}"),
                one.cost_per_hour,
            ),
        );
        for why in &one.why {
            line(page, format_args!("    {why}"));
        }
        if let Some(autoscaler) = &one.autoscaler {
            line(page, format_args!("    {}", autoscaler.says));
        }
    }
}

fn snapshots(page: &mut String, explanation: &Explanation) {
    for snapshot in &explanation.snapshots {
        let on = match snapshot.accelerator.as_str() {
            "" => "any accelerator",
            accelerator => accelerator,
        };
        line(
            page,
            format_args!(
                "latency model for {on}: {} ({} labels, version {} of {})",
                snapshot.state, snapshot.labels, snapshot.version, snapshot.from
            ),
        );
    }
}

/// Milliseconds as a person says them.
fn span(ms: u64) -> String {
    match ms / 1_000 {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use controller::kubernetes::explain::{Change, ExplainedAutoscaler, ExplainedFinding, SCHEMA};
    use controller::published::ObjectRef;

    use super::*;

    fn explanation() -> Explanation {
        let hpa = ObjectRef::new("autoscaling/v2", "HorizontalPodAutoscaler", "h");
        Explanation {
            schema: SCHEMA,
            namespace: "chat".into(),
            model: "llama".into(),
            mode: "publish".into(),
            source: "ModelScaler llama".into(),
            pool: Some("pool".into()),
            at_ms: 10_000,
            notes: Vec::new(),
            why: vec!["not to be acted upon: cold".into()],
            variants: vec![ExplainedVariant {
                name: "h100".into(),
                target: ObjectRef::new("apps/v1", "Deployment", "llama"),
                accelerator: "H100".into(),
                limits: [1, 8],
                asked: Some(2),
                ready: 2,
                starting: 0,
                pending: 0,
                wanted: Some(3),
                range: Some([2, 4]),
                capacity: Some(4.704),
                cost_per_hour: 4.0,
                why: vec!["forecast 21.4 req/s".into()],
                autoscaler: Some(ExplainedAutoscaler {
                    object: hpa,
                    limits: [1, 8],
                    tolerance: [0.1, 0.1],
                    makes: Some(3),
                    says: "HorizontalPodAutoscaler h is told 3 and makes it 3".into(),
                }),
            }],
            snapshots: Vec::new(),
            findings: vec![ExplainedFinding {
                reason: "DeadBand".into(),
                about: "HorizontalPodAutoscaler h".into(),
                message: "ignores".into(),
                note: true,
            }],
            decision: None,
            changes: vec![Change {
                at_ms: 1_000,
                why: vec!["h100 1 → 2: more".into()],
            }],
        }
    }

    #[test]
    fn the_page_reads_from_the_decision_to_its_history() {
        assert_eq!(
            render(&explanation(), 12_000),
            "\
chat/llama   mode publish   ModelScaler llama   pool pool   decided 2 s ago
  not to be acted upon: cold

variant   asked  ready  starting  pending  wanted     limits     per replica   cost/h
h100          2      2         0        0       3        1-8      4.70 req/s     4.00
    forecast 21.4 req/s
    HorizontalPodAutoscaler h is told 3 and makes it 3

findings
  i DeadBand (HorizontalPodAutoscaler h): ignores

changes
    11 s ago  h100 1 → 2: more
"
        );
    }

    #[test]
    fn numbers_alone_are_no_news() {
        let (before, mut after) = (explanation(), explanation());
        after.at_ms += 1_000;
        after.variants[0].why = vec!["forecast 22.8 req/s".into()];
        assert_eq!(outline(&before), outline(&after));
        after.variants[0].wanted = Some(4);
        assert_ne!(outline(&before), outline(&after));
    }

    #[test]
    fn spans_are_short() {
        assert_eq!(
            [900, 119_000, 120_000, 7_200_000].map(span),
            ["0 s", "119 s", "2 min", "2 h"]
        );
    }
}
