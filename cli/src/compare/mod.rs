//! `headroom compare`: routing policies side by side, over the same requests, on simulated replicas and a virtual clock.

mod args;
mod page;

pub(crate) use args::Args;

use std::io::Write as _;
use std::num::NonZeroUsize;
use std::thread;

use controller_core::fleet::comparison::{Bar, Policy, Standing, compare, judge};
use serde::Serialize;
use simulator_core::trace::TraceStats;

use crate::output;
use crate::story::Trouble;
use args::{Course, Plan};

/// Name and version of the JSON file's schema. The number grows when a field changes its meaning or goes.
const SCHEMA: &str = "headroom.compare/v1";

/// Everything a comparison found.
#[derive(Clone, Debug, Serialize)]
struct Findings {
    /// [`SCHEMA`].
    schema: &'static str,
    /// Version of the program.
    version: &'static str,
    /// Workload by workload.
    workloads: Vec<Outcome>,
}

/// The policies on one workload.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    /// The workload's name.
    workload: String,
    /// Its first round, described.
    #[serde(flatten)]
    stats: TraceStats,
    /// Hardware of the replicas.
    profile: String,
    /// Replicas.
    replicas: u32,
    /// Requests under way at most.
    clients: Option<u32>,
    /// Objective for the time to first token, ms.
    slo_ttft_ms: f64,
    /// Objective for the time per output token, ms.
    slo_tpot_ms: f64,
    /// Seeds, one round each.
    seeds: Vec<u64>,
    /// Medians and rounds, policy by policy.
    standings: Vec<Standing>,
    /// What the first policy is held to.
    bars: Vec<Bar>,
}

/// Compares.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    if let Some(json) = &args.json {
        output::check("--json", json)?;
    }
    let plan = Plan::check(&args)?;
    let mut findings = Findings {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        workloads: Vec::new(),
    };
    for course in &plan.courses {
        let outcome = race(&plan.policies, course);
        // Standard output may be closed; the JSON file is still written.
        let _ = std::io::stdout().write_all(page::text(&outcome).as_bytes());
        findings.workloads.push(outcome);
    }
    if let Some(json) = &args.json {
        let mut text = serde_json::to_string_pretty(&findings)?;
        text.push('\n');
        output::write(json, &text)?;
    }
    if args.check {
        verdict(&plan.policies[0].name, &findings.workloads)?;
    }
    Ok(())
}

/// # Errors
/// When the policy called `ours` missed a bar.
fn verdict(ours: &str, outcomes: &[Outcome]) -> Result<(), Trouble> {
    let bars = outcomes.iter().flat_map(|outcome| &outcome.bars);
    let missed = bars.filter(|bar| !bar.met).count();
    if missed == 0 {
        return Ok(());
    }
    let bars = if missed == 1 { "bar" } else { "bars" };
    Err(Trouble::failed(format!("{ours} missed {missed} {bars}"))
        .advice("read the lines that begin with MISSED"))
}

fn race(policies: &[Policy], course: &Course) -> Outcome {
    let workers = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let tell = |done: usize, of: usize| {
        // Standard error may be closed; the comparison goes on without it.
        let _ = write!(std::io::stderr(), "\r{}: {done} of {of} ", course.name);
        if done == of {
            let _ = writeln!(std::io::stderr());
        }
    };
    let standings = compare(policies, &course.setting, &course.rounds, workers, &tell);
    let bars = policies
        .first()
        .map_or_else(Vec::new, |first| judge(&first.name, &standings));
    Outcome {
        workload: course.name.clone(),
        stats: course.stats,
        profile: course.setting.profile.name.clone(),
        replicas: course.setting.replicas,
        clients: course.setting.clients,
        slo_ttft_ms: course.setting.slo.ttft_ms,
        slo_tpot_ms: course.setting.slo.tpot_ms,
        seeds: course.rounds.iter().map(|round| round.seed).collect(),
        standings,
        bars,
    }
}
