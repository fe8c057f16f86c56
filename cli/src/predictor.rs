//! `headroom predictor eval`: scores the latency model on recorded requests.

use std::fs::File;
use std::io::{self, BufWriter};
use std::path::{Path, PathBuf};

use ::predictor::eval::{Evaluation, Metrics, Recording, prequential};
use ::predictor::{LearnerConfig, Target};
use anyhow::Context;

/// Score the latency model on recorded requests: every request is predicted before anything about it is known, and
/// its label arrives when it would have.
///
/// The data is CSV (.csv or .csv.gz) with the columns model, gpu, n_gpus, users, status, start_ms, ttft_ms, e2e_ms,
/// n_in, n_out, tpot_ms and the server's state at each submission: st_waiting, st_running, st_prefill_tok, st_ctx_tok.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Recorded requests with the server's state at each submission
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Which recording of the file
    #[arg(long, value_name = "MODEL|GPU|N")]
    setup: String,
    /// Which latency
    #[arg(long, value_enum)]
    target: TargetName,
    /// How learning and scoring take turns
    #[arg(long, value_enum, default_value = "prequential")]
    protocol: Protocol,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// Write every prediction as CSV: row, split, actual, p50, p90, p99 (milliseconds; row = index among the setup's
    /// eligible rows in file order)
    #[arg(long, value_name = "OUT")]
    predictions: Option<PathBuf>,
}

/// What can be predicted.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum TargetName {
    /// Time to first token
    Ttft,
    /// Time per output token after the first
    Tpot,
}

/// What can be asked of a recording.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Protocol {
    /// Load levels (users) ascending on one virtual clock; predict, then learn when the label arrives
    Prequential,
}

/// Runs the command.
///
/// # Errors
/// If the data cannot be read, lacks a column or the setup, or the predictions cannot be written.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    let target = match args.target {
        TargetName::Ttft => Target::Ttft,
        TargetName::Tpot => Target::Tpot,
    };
    let recording = Recording::read(&args.data, &args.setup)?;
    let evaluation = match args.protocol {
        Protocol::Prequential => prequential(&recording, target, LearnerConfig::default())?,
    };
    if let Some(path) = &args.predictions {
        write_predictions(&evaluation, path)
            .with_context(|| format!("cannot write the predictions to {}", path.display()))?;
    }
    if args.json {
        print(&serde_json::to_string(&evaluation)?);
    } else {
        print(&table(&evaluation));
    }
    Ok(())
}

fn write_predictions(evaluation: &Evaluation, path: &Path) -> io::Result<()> {
    evaluation.write_predictions(&mut BufWriter::new(File::create(path)?))
}

fn table(evaluation: &Evaluation) -> String {
    let mut lines = vec![
        format!(
            "{} {}, {}",
            evaluation.setup, evaluation.target, evaluation.protocol
        ),
        format!(
            "{:>6}{:>8}{:>9}{:>14}{:>9}{:>14}",
            "users", "rows", "MAPE %", "median APE %", "bias %", "p90 coverage"
        ),
    ];
    for (users, metrics) in &evaluation.by_level {
        lines.push(line(&users.to_string(), metrics));
    }
    lines.push(line("all", &evaluation.metrics));
    lines.join("\n")
}

fn line(name: &str, metrics: &Metrics) -> String {
    let Metrics {
        n,
        mape,
        median_ape,
        bias,
        p90_coverage,
    } = metrics;
    format!("{name:>6}{n:>8}{mape:>9.1}{median_ape:>14.1}{bias:>+9.1}{p90_coverage:>14.3}")
}

/// The report is the command's output.
#[expect(clippy::print_stdout)]
fn print(report: &str) {
    println!("{report}");
}
