//! The `headroom` command.
//!
//! Exit codes: 0 it worked, 1 it failed, 2 it was asked for wrongly, 130 it was interrupted.

mod compare;
mod config;
mod controller;
mod demo;
mod doctor;
mod epp;
mod explain;
mod format;
mod home;
mod leader;
mod output;
mod predictor;
mod records;
mod replay;
mod simulate;
mod story;
mod table;
mod tether;
mod validate;

use std::io::Write as _;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// SLO-aware autoscaling, routing and latency prediction for LLM inference.
#[derive(Debug, Parser)]
#[command(name = "headroom", version, propagate_version = true, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str =
    "Exit codes: 0 it worked, 1 it failed, 2 it was asked for wrongly, 130 it was interrupted.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Endpoint picker: Envoy's external processor that queues, predicts, sheds and picks.
    Epp(Box<epp::Args>),
    /// Autoscaling loop that decides how many replicas run, and starts and stops them.
    Controller(Box<controller::Args>),
    /// Checks an endpoint picker's configuration before it runs.
    #[command(subcommand)]
    Config(config::Command),
    /// Why a model has the replicas it has, or why a request went where it went.
    Explain(Box<explain::Args>),
    /// Recorded decisions under another configuration: what it would change.
    Replay(replay::Args),
    /// Checks the whole chain on a cluster, from endpoint picker to HorizontalPodAutoscaler.
    Doctor(doctor::Args),
    /// Latency predictor.
    #[command(subcommand)]
    Predictor(PredictorCommand),
    /// Simulated model servers.
    #[command(subcommand)]
    Simulate(SimulateCommand),
    /// Routing policies side by side: the same requests on simulated replicas, medians over seeds.
    Compare(compare::Args),
    /// The whole loop on this machine: live behind real Envoy, then an hour replayed.
    Demo(Box<demo::Args>),
    /// Runs a program that ends when this process's parent does.
    #[command(hide = true)]
    Tether(tether::Args),
}

#[derive(Debug, Subcommand)]
enum PredictorCommand {
    /// Scores the predictor on recorded requests.
    Eval(predictor::Args),
}

#[derive(Debug, Subcommand)]
enum SimulateCommand {
    /// A model server with vLLM's API and metrics.
    Server(simulate::Args),
    /// Replays a recorded run through the engine and scores it.
    Validate(validate::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Epp(args) => epp::run(*args),
        Command::Controller(args) => controller::run(*args),
        Command::Config(command) => config::run(command),
        Command::Explain(args) => explain::run(*args),
        Command::Replay(args) => replay::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Predictor(PredictorCommand::Eval(args)) => predictor::run(args),
        Command::Simulate(SimulateCommand::Server(args)) => simulate::run(args),
        Command::Simulate(SimulateCommand::Validate(args)) => validate::run(args),
        Command::Compare(args) => compare::run(args),
        Command::Demo(args) => demo::run(*args),
        Command::Tether(args) => tether::run(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error may be closed; the exit code still tells.
            let _ = write!(std::io::stderr(), "{}", story::tell(&error));
            story::exit_code(&error)
        }
    }
}
