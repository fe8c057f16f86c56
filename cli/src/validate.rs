//! `headroom simulate validate`: replays a recorded run of a real server through the engine core and scores it.

use anyhow::{Context, bail};
use serde_json::json;
use simulator_core::validate::{Costs, Recording, Validation, validate};
use simulator_core::{Profile, StepCost};
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// Replay a recorded run of a real server through the engine core and score how close it comes.
///
/// The second half of the requests (by arrival) is scored; batch, token and KV limits come from --meta, step costs
/// from --profile or from a fit to the first half.
#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("costs").required(true).args(["profile", "fit"])))]
pub(crate) struct Args {
    /// Engine configuration of the recorded run (JSON)
    #[arg(long, value_name = "FILE")]
    meta: PathBuf,
    /// Requests of the recorded run (one JSON object per line: input_toks, output_toks, queued_ts, scheduled_ts,
    /// first_token_ts, last_token_ts)
    #[arg(long, value_name = "FILE")]
    requests: PathBuf,
    /// Running and waiting requests over time (CSV: t, running, waiting; t = seconds since the first queued_ts)
    #[arg(long, value_name = "FILE")]
    timeseries: Option<PathBuf>,
    /// Take the step costs from this profile: a name that comes with the program, or a YAML file
    #[arg(long, value_name = "PROFILE")]
    profile: Option<String>,
    /// Fit the step costs to the timestamps of the first half of the requests
    #[arg(long, value_enum, value_name = "PART")]
    fit: Option<FitPart>,
    /// KV blocks of the recorded server (num_gpu_blocks), where --meta does not tell; without either: unbounded
    #[arg(long, value_name = "N")]
    kv_blocks: Option<u32>,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What a fit may learn from.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum FitPart {
    /// The first half of the requests by arrival
    FirstHalf,
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read or makes no sense. Missing the limits is a result, not an error.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let meta = read(&args.meta)?;
    let requests = read(&args.requests)?;
    let timeseries = args.timeseries.as_deref().map(read).transpose()?;
    let recording = Recording::parse(&meta, &requests, timeseries.as_deref(), args.kv_blocks)?;
    let costs = match (&args.profile, args.fit) {
        (Some(profile), None) => Costs::Given(profile_costs(profile)?),
        (None, Some(FitPart::FirstHalf)) => Costs::FitFirstHalf,
        _ => bail!("give either --profile or --fit first-half"),
    };
    let validation = validate(&recording, costs).with_context(|| {
        format!(
            "{} cannot be replayed within the limits of {}",
            args.requests.display(),
            args.meta.display()
        )
    })?;
    let report = if args.json {
        json_report(&recording, &validation)?
    } else {
        table(&recording, &validation)
    };
    print(&report);
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<String> {
    read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Costs of a profile given by name or, if such a file exists, by path.
fn profile_costs(profile: &str) -> anyhow::Result<StepCost> {
    if Path::new(profile).is_file() {
        let profile = Profile::from_yaml(&read(Path::new(profile))?)
            .with_context(|| format!("profile {profile}"))?;
        return Ok(profile.step);
    }
    Ok(Profile::builtin(profile)?.step)
}

/// The scores under their names, then what they were reached with.
fn json_report(recording: &Recording, validation: &Validation) -> anyhow::Result<String> {
    let mut report = serde_json::to_value(validation.score)?;
    report["passes"] = json!(validation.score.passes());
    report["requests"] = json!(recording.requests.len());
    report["kv_blocks"] = json!(validation.profile.kv_blocks);
    report["preemptions"] = json!(validation.preemptions);
    report["step"] = serde_json::to_value(validation.profile.step)?;
    Ok(report.to_string())
}

fn table(recording: &Recording, validation: &Validation) -> String {
    let Validation {
        profile,
        score,
        preemptions,
    } = validation;
    let StepCost {
        base_ms,
        prefill_ms_per_token,
        sequence_ms,
        kv_ms_per_token,
        ..
    } = profile.step;
    let scored = recording.requests.len().div_ceil(2);
    let kv = profile
        .kv_blocks
        .map_or("unbounded KV".to_owned(), |blocks| {
            format!("{blocks} KV blocks")
        });
    let mut lines = vec![
        format!(
            "{} requests replayed, the last {scored} scored; {kv}, {preemptions} preemptions",
            recording.requests.len()
        ),
        format!(
            "step = {base_ms:.3} ms + {prefill_ms_per_token:.4} ms/prefill token + {sequence_ms:.4} ms/sequence \
             + {kv_ms_per_token:.6} ms/KV token"
        ),
        format!("{:<26}{:>9}{:>9}", "percent", "found", "limit"),
    ];
    for bar in score.bars() {
        let mark = if bar.passes() { "pass" } else { "FAIL" };
        lines.push(format!(
            "{:<26}{:>+9.2}{:>9.0}  {mark}",
            bar.name, bar.value, bar.limit
        ));
    }
    if score.running.is_none() {
        lines.push("running and waiting: not scored, needs --timeseries".to_owned());
    }
    lines.join("\n")
}

/// The report is the command's output.
#[expect(clippy::print_stdout)]
fn print(report: &str) {
    println!("{report}");
}
