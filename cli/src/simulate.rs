//! `headroom simulate server`: one simulated model server.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::ValueEnum;
use runtime::logging::{self, LogOptions};
use runtime::shutdown::Shutdown;
use simulator::{NullUsage, ServerOptions};
use simulator_core::Profile;

use crate::story::Trouble;

/// Arguments of `headroom simulate server`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Hardware profile: a name that comes with the program, or a YAML file.
    #[arg(
        long,
        default_value = "llama-3.1-8b-rtxpro6000",
        value_name = "NAME|FILE"
    )]
    profile: String,
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST), value_name = "ADDRESS")]
    host: IpAddr,
    /// Port to listen on; 0 takes any free one.
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Name to serve the model under, instead of the profile's.
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Seed of step noise, answer lengths and texts.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Time from launch until the server answers, instead of the profile's: seconds, or as in 500ms.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    startup: Option<Duration>,
    /// Time that running requests get to finish after SIGTERM.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_time)]
    drain: Duration,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    wire: Wire,
    /// What to log: a level, or target=level pairs.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
}

/// Engine limits, each instead of the profile's.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Engine")]
struct Limits {
    /// KV cache blocks.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    kv_blocks: Option<u32>,
    /// Largest running batch.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    max_num_seqs: Option<u32>,
    /// Tokens computed in one step, prompt chunks and decodes together.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    max_num_batched_tokens: Option<u32>,
    /// Longest context, prompt and answer.
    #[arg(long, value_name = "N", value_parser = at_least_one())]
    max_model_len: Option<u32>,
    /// Requests that may wait for the engine before further ones get 429.
    #[arg(long, default_value_t = 4096, value_name = "N")]
    max_waiting: u32,
}

/// How answers are written.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Answers")]
struct Wire {
    /// Give every answer the same id and creation time, so that answers can be compared byte for byte.
    #[arg(long)]
    fixed_identity: bool,
    /// Which chunks of a stream carry "usage":null.
    #[arg(long, value_enum, default_value_t = NullUsageArg::Never, value_name = "WHEN")]
    null_usage: NullUsageArg,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum NullUsageArg {
    /// None.
    Never,
    /// Those of streams that asked for usage.
    Requested,
    /// All.
    Always,
}

impl From<NullUsageArg> for NullUsage {
    fn from(when: NullUsageArg) -> Self {
        match when {
            NullUsageArg::Never => Self::Never,
            NullUsageArg::Requested => Self::Requested,
            NullUsageArg::Always => Self::Always,
        }
    }
}

/// Serves until SIGTERM (running requests finish first) or Ctrl-C (at once).
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    logging::init(&LogOptions {
        filter: args.log.clone(),
        ..LogOptions::default()
    })?;
    let options = options(args)?;
    // One thread: the engine is one task, and many servers may share a machine.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(serve(options))
}

async fn serve(options: ServerOptions) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    // The server keeps its own drain limit; this one is only there for a server that does not.
    shutdown
        .listen_to_signals(options.drain + Duration::from_secs(5))
        .context("cannot listen to signals")?;
    let draining = shutdown.clone();
    tokio::select! {
        biased;
        () = shutdown.stopped() => Err(Trouble::interrupted().into()),
        served = simulator::serve(options, async move { draining.draining().await }) => Ok(served?),
    }
}

fn options(args: Args) -> Result<ServerOptions, Trouble> {
    let Args {
        profile,
        host,
        port,
        model,
        seed,
        startup,
        drain,
        limits,
        wire,
        log: _,
    } = args;
    let Limits {
        kv_blocks,
        max_num_seqs,
        max_num_batched_tokens,
        max_model_len,
        max_waiting,
    } = limits;
    let mut profile = read_profile(&profile)?;
    profile.kv_blocks = kv_blocks.or(profile.kv_blocks);
    profile.max_num_seqs = max_num_seqs.unwrap_or(profile.max_num_seqs);
    profile.max_num_batched_tokens =
        max_num_batched_tokens.unwrap_or(profile.max_num_batched_tokens);
    profile.max_model_len = max_model_len.unwrap_or(profile.max_model_len);
    let defaults = ServerOptions::new(profile);
    Ok(ServerOptions {
        model: model.unwrap_or_else(|| defaults.model.clone()),
        host,
        port,
        seed,
        startup: startup.unwrap_or(defaults.startup),
        drain,
        max_waiting,
        fixed_identity: wire.fixed_identity,
        null_usage: wire.null_usage.into(),
        ..defaults
    })
}

/// A profile by name, or from a file: what exists, or looks like a path, is a file.
fn read_profile(name: &str) -> Result<Profile, Trouble> {
    let path = Path::new(name);
    let known = Profile::builtin_names().contains(&name);
    let is_file = !known
        && (path.exists()
            || name.contains('/')
            || name.ends_with(".yaml")
            || name.ends_with(".yml"));
    if !is_file {
        return Profile::builtin(name).map_err(|error| {
            Trouble::usage(format!("--profile {name} is not known"))
                .because(error)
                .advice("give the name of a profile, or the path of a YAML file")
        });
    }
    let refuse = || Trouble::usage(format!("--profile {name} cannot be read"));
    let yaml = std::fs::read_to_string(path).map_err(|error| {
        refuse()
            .because(error)
            .advice("check the path, or give the name of a profile")
    })?;
    Profile::from_yaml(&yaml).map_err(|error| refuse().because(error))
}

fn at_least_one() -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(1..)
}

/// Seconds (`6`, `0.5`, `6s`) or milliseconds (`500ms`).
fn parse_time(text: &str) -> Result<Duration, String> {
    let (number, scale) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(millis), _) => (millis, 1e-3),
        (None, Some(seconds)) => (seconds, 1.0),
        (None, None) => (text, 1.0),
    };
    number
        .parse::<f64>()
        .ok()
        .and_then(|number| Duration::try_from_secs_f64(number * scale).ok())
        .ok_or_else(|| {
            "should be seconds, as in 6, 0.5 or 6s, or milliseconds, as in 500ms".to_owned()
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<ServerOptions, String> {
        let command = Command::try_parse_from(["server"].iter().chain(flags))
            .map_err(|error| error.to_string())?;
        options(command.args).map_err(|trouble| crate::story::tell(&trouble.into()))
    }

    #[test]
    fn flags_override_the_profile() {
        let defaults = parse(&["--profile", "qwen3-32b-h100-tp2"]).unwrap();
        assert_eq!(defaults.startup, defaults.profile.startup());
        let changed = parse(&[
            "--profile=qwen3-32b-h100-tp2",
            "--startup=500ms",
            "--model=mine",
            "--kv-blocks=70",
            "--max-num-seqs=3",
            "--max-model-len=999",
            "--null-usage=always",
            "--host=::1",
            "--port=0",
        ])
        .unwrap();
        let Profile {
            kv_blocks,
            max_num_seqs,
            max_model_len,
            ..
        } = changed.profile;
        assert_eq!((kv_blocks, max_num_seqs, max_model_len), (Some(70), 3, 999));
        assert_eq!(
            (changed.model.as_str(), changed.startup),
            ("mine", Duration::from_millis(500))
        );
        assert_eq!(
            (changed.null_usage, changed.address().to_string().as_str()),
            (NullUsage::Always, "[::1]:0")
        );
    }

    #[test]
    fn an_unknown_profile_names_the_nearest() {
        let story = parse(&["--profile", "qwen3-32b-h100"]).unwrap_err();
        assert!(
            story.contains("did you mean \"qwen3-32b-h100-tp2\"") && story.contains("what to do"),
            "{story}"
        );
        let story = parse(&["--profile", "nowhere/p.yaml"]).unwrap_err();
        assert!(
            story.contains("nowhere/p.yaml cannot be read") && story.contains("check the path"),
            "{story}"
        );
    }

    #[test]
    fn values_that_cannot_be_are_refused() {
        for flag in [
            "--kv-blocks=0",
            "--max-num-seqs=-1",
            "--startup=soon",
            "--startup=-1",
            "--port=70000",
            "--null-usage=x",
        ] {
            let error = parse(&[flag]).unwrap_err();
            assert!(error.contains(flag.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn times_are_seconds_or_milliseconds() {
        let millis = |text| parse_time(text).map(|time| time.as_millis());
        assert_eq!(
            (millis("6"), millis("0.5"), millis("6s"), millis("250ms")),
            (Ok(6000), Ok(500), Ok(6000), Ok(250))
        );
    }
}
