//! `headroom replay`: recorded decisions under another configuration.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;

use anyhow::Context as _;
use epp_core::config::Config;
use epp_core::replay::{Replay, Report, Shift};

use crate::records;
use crate::story::Trouble;

/// Endpoints shown.
const SHOWN: usize = 10;

/// Run recorded decisions again under another configuration, and print what it would change.
///
/// Nothing is sent anywhere. Each recorded pick is weighed by itself, with the readings and predictions that were
/// recorded with it; what records cannot tell is listed at the end.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Files of decision records, as the picker's --decision-records writes them
    #[arg(value_name = "RECORDS", required = true)]
    records: Vec<PathBuf>,
    /// The configuration to try: an EndpointPickerConfig in YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Decides all ties
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read, or the configuration is wrong.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let path = args.config.display();
    let text = std::fs::read_to_string(&args.config).map_err(|error| {
        Trouble::usage(format!("cannot read --config {path}"))
            .because(error)
            .advice("give the path of an EndpointPickerConfig in YAML")
    })?;
    let config = Config::from_yaml(&text).map_err(|error| {
        Trouble::usage(format!("--config {path} cannot be used")).because(error)
    })?;
    let mut replay = Replay::new(config, args.seed);
    for path in &args.records {
        records::read(path, |line| replay.line(&line))?;
    }
    let report = replay.report();
    if report.picks == 0 {
        let what = format!(
            "no pick could be replayed: {} were refused, {} have no pool",
            report.refused_before, report.unusable
        );
        return Err(Trouble::failed(what)
            .advice("give whole files: the pools that picks refer to stand before them")
            .into());
    }
    let told = if args.json {
        serde_json::to_string_pretty(&report)? + "\n"
    } else {
        page(&report, &path.to_string())
    };
    let mut out = std::io::stdout().lock();
    out.write_all(told.as_bytes())
        .context("cannot write to standard output")
}

/// The report as a person reads it. Writing to a string cannot fail.
fn page(report: &Report, config: &str) -> String {
    let share = |count: u64| count as f64 / report.picks as f64 * 100.0;
    let mut text = format!("{} picks under {config}\n\n", report.picks);
    let rows = [
        ("to the same endpoint", report.same),
        ("to another endpoint", report.moved),
        ("refused: the objective cannot be met", report.hopeless),
        (
            "refused: no endpoint is for them, or an admitter bars them",
            report.barred,
        ),
        ("not sent at once: no endpoint has room", report.no_room),
    ];
    for (what, count) in rows.into_iter().filter(|(_, count)| *count > 0) {
        let _ = writeln!(text, "{count:>9}  {:>5.1} %  {what}", share(count));
    }
    if report.moved_by_chance > 0 {
        let _ = writeln!(
            text,
            "\nTwo runs of this configuration that differ in nothing but chance part in {:.1} % of the picks.",
            share(report.moved_by_chance)
        );
    }
    let latencies = [
        ("TTFT", &report.predicted_ttft),
        ("TPOT", &report.predicted_tpot),
    ];
    for (what, shift) in latencies {
        if let Some(shift) = shift {
            let _ = write!(text, "\n{}", latency(what, shift));
        }
    }
    endpoints(&mut text, report);
    text.push_str("\nWhat these records cannot tell\n");
    for note in &report.cannot_tell {
        let _ = writeln!(text, "- {note}");
    }
    text
}

fn latency(what: &str, shift: &Shift) -> String {
    let change = (shift.after_ms / shift.before_ms - 1.0) * 100.0;
    format!(
        "predicted {what}: {:.1} ms → {:.1} ms ({change:+.1} %), mean of the medians over {} picks; {} faster, {} slower\n",
        shift.before_ms, shift.after_ms, shift.picks, shift.faster, shift.slower
    )
}

fn endpoints(text: &mut String, report: &Report) {
    let shown = report.endpoints.iter().take(SHOWN);
    let width = shown
        .clone()
        .map(|one| one.name.chars().count())
        .max()
        .unwrap_or(0)
        .max(8);
    let _ = writeln!(
        text,
        "\n{:<width$}  {:>8}  {:>8}  change",
        "endpoint", "before", "after"
    );
    for one in shown {
        let change = one.after as i64 - one.before as i64;
        let _ = writeln!(
            text,
            "{:<width$}  {:>8}  {:>8}  {change:+}",
            one.name, one.before, one.after
        );
    }
    let more = report.endpoints.len().saturating_sub(SHOWN);
    if more > 0 {
        let _ = writeln!(text, "… and {more} more, see --json");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::replay::EndpointShift;

    #[test]
    fn the_page_is_the_golden_one() {
        let shift = |before_ms, after_ms| {
            Some(Shift {
                picks: 90,
                before_ms,
                after_ms,
                slower: 7,
                faster: 20,
            })
        };
        let endpoint = |name: &str, before, after| EndpointShift {
            name: name.into(),
            before,
            after,
        };
        let report = Report {
            schema: 1,
            picks: 100,
            same: 60,
            moved: 32,
            moved_by_chance: 3,
            hopeless: 6,
            no_room: 2,
            predicted_ttft: shift(120.0, 90.0),
            predicted_tpot: shift(20.0, 20.5),
            endpoints: vec![endpoint("llama-0", 50, 30), endpoint("llama-1", 50, 62)],
            cannot_tell: vec!["one thing".into(), "another".into()],
            ..Report::default()
        };
        let page = page(&report, "new.yaml");
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/replay.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(path, &page).unwrap();
        }
        assert_eq!(page, std::fs::read_to_string(path).unwrap());
    }
}
