//! `headroom config`: what will happen with an endpoint picker's configuration, before it runs.
//!
//! | exit code of `lint` | meaning |
//! |---|---|
//! | 0 | the picker can use it; what is printed is good to know |
//! | 1 | the picker would refuse it |
//! | 2 | a file cannot be read, or the command was asked for wrongly |

mod envoy;
mod page;
mod requests;

use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use epp_core::config::{Finding, Level, lint, schema};

use self::requests::Requests;
use crate::story::Trouble;

/// Checks an endpoint picker's configuration before it runs.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Says what will happen with a configuration, line by line.
    Lint(LintArgs),
    /// Writes an Envoy configuration that fits it.
    Envoy(envoy::EnvoyArgs),
    /// Prints the JSON schema of an EndpointPickerConfig.
    Schema,
}

/// Say what will happen with an EndpointPickerConfig: mistakes, names that are deprecated, plugins that are not built and
/// what stands in for them, what nothing uses and what can never happen, and where it differs from llm-d.
#[derive(Debug, clap::Args)]
pub(crate) struct LintArgs {
    /// The EndpointPickerConfig, in YAML
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What requests will name: an endpoints file with objectives, or manifests of InferenceObjectives and
    /// InferenceModelRewrites (`kubectl get inferenceobjectives,inferencemodelrewrites -o yaml`)
    #[arg(long, value_name = "FILE")]
    objectives: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A file and what there is to say about it.
pub(crate) struct Checked {
    file: String,
    findings: Vec<Finding>,
}

impl Checked {
    fn count(&self, level: Level) -> usize {
        let found = self.findings.iter();
        found.filter(|finding| finding.level == level).count()
    }
}

/// Runs the command.
///
/// # Errors
/// If a file cannot be read, or the picker would refuse the configuration.
pub(crate) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Envoy(args) => print(&envoy::write(&args)?),
        Command::Schema => print(&(serde_json::to_string_pretty(&schema())? + "\n")),
        Command::Lint(args) => {
            let checked = check(&args)?;
            print(&if args.json {
                page::json(&checked)? + "\n"
            } else {
                page::text(&checked)
            })?;
            match checked.iter().map(|file| file.count(Level::Error)).sum() {
                0 => Ok(()),
                errors => {
                    let lines = if errors == 1 { "line" } else { "lines" };
                    let what = format!(
                        "{} cannot be used: {errors} {lines} in error",
                        args.file.display()
                    );
                    Err(Trouble::failed(what).into())
                }
            }
        }
    }
}

fn check(args: &LintArgs) -> Result<Vec<Checked>, Trouble> {
    let text = read(&args.file, "an EndpointPickerConfig in YAML")?;
    let Some(path) = &args.objectives else {
        return Ok(vec![Checked {
            file: args.file.display().to_string(),
            findings: lint(&text, None),
        }]);
    };
    let requests =
        Requests::read(&read(path, "an endpoints file, or manifests")?).map_err(|error| {
            Trouble::usage(format!("--objectives {} cannot be used", path.display())).because(error)
        })?;
    Ok(vec![
        Checked {
            file: args.file.display().to_string(),
            findings: lint(&text, Some(&requests.objectives)),
        },
        Checked {
            file: path.display().to_string(),
            findings: requests.findings,
        },
    ])
}

fn read(path: &Path, what: &str) -> Result<String, Trouble> {
    std::fs::read_to_string(path).map_err(|error| {
        Trouble::usage(format!("cannot read {}", path.display()))
            .because(error)
            .advice(format!("give the path of {what}"))
    })
}

fn print(text: &str) -> anyhow::Result<()> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .context("cannot write to standard output")
}
