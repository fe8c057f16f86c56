//! The demo's flags as typed, and what they amount to once checked.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use controller_core::fleet::Slo;
use controller_core::fleet::client::KindMix;
use serde::Serialize;
use simulator_core::Profile;

use super::rates::{Rates, parse_duration, seconds};
use crate::story::Trouble;

/// Arguments of `headroom demo`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// Trace to replay: Mooncake's JSON lines or Azure's CSV. Without it one is generated from the seed, with the
    /// published statistics of Mooncake's conversation trace.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Seed of everything random: the generated trace, arrival gaps, kinds of client, noise of the engines.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) seed: u64,
    /// How requests divide into interactive, plain and sheddable clients, percent.
    #[arg(long, default_value = "50/30/20", value_name = "I/P/S", value_parser = parse_kinds)]
    pub(crate) kinds: KindMix,
    /// Only the live part.
    #[arg(long, conflicts_with = "replay_only")]
    pub(crate) live_only: bool,
    /// Only the replay; its output is the same to the byte for the same trace, seed and flags.
    #[arg(long, conflicts_with = "keep")]
    pub(crate) replay_only: bool,
    /// Where the HTML report goes.
    #[arg(long, default_value = "out/demo.html", value_name = "FILE")]
    pub(crate) report: PathBuf,
    /// Also write the results as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Live: after the report leave everything running, print curl examples, and end on Ctrl-C.
    #[arg(long)]
    pub(crate) keep: bool,
    #[command(flatten)]
    pub(crate) live: LiveArgs,
    #[command(flatten)]
    pub(crate) replay: ReplayArgs,
}

/// Flags of the live part.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Live part")]
pub(crate) struct LiveArgs {
    /// The Envoy binary.
    #[arg(long, env = "HEADROOM_ENVOY", value_name = "PATH")]
    pub(crate) envoy: Option<PathBuf>,
    /// First of the ports used: Envoy's listener; the next four are admin and metrics, the endpoint picker, its
    /// health, and Envoy's admin; the simulated servers begin twenty further.
    #[arg(long, default_value_t = 18480, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1024..=65000))]
    pub(crate) port: u16,
    /// Hardware profile of the simulated servers.
    #[arg(long, default_value = "llama-3.1-8b-rtxpro6000", value_name = "NAME")]
    pub(crate) profile: String,
    /// Requests per second and for how long, phase by phase.
    #[arg(long, default_value = "8:25s,24:30s,8:35s", value_name = "RATE:TIME,…")]
    pub(crate) rates: Rates,
    /// Prompts and answers are this many times shorter than the trace's.
    #[arg(long, default_value = "8", value_name = "N")]
    pub(crate) shorten: NonZeroU32,
    /// Fewest replicas; also how many run at first.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) min: u32,
    /// Most replicas.
    #[arg(long, default_value_t = 10, value_name = "N")]
    pub(crate) max: u32,
    /// From the launch of a server until it answers.
    #[arg(long, default_value = "6s", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) startup: Duration,
    /// A lower count must have been enough for this long before a server is stopped.
    #[arg(long, default_value = "10s", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) scale_down_guard: Duration,
    /// Requests in flight on one server before the next ones queue.
    #[arg(long, default_value_t = 16, value_name = "N")]
    pub(crate) concurrency: u32,
    /// Time to first token that interactive and sheddable clients ask for, in milliseconds.
    #[arg(long, default_value_t = 2000.0, value_name = "MS")]
    pub(crate) slo_ttft_ms: f64,
    /// Time per output token that they ask for, in milliseconds.
    #[arg(long, default_value_t = 150.0, value_name = "MS")]
    pub(crate) slo_tpot_ms: f64,
}

/// Flags of the replay.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Replay")]
pub(crate) struct ReplayArgs {
    /// Hardware profile of the replayed fleets.
    #[arg(long, default_value = "qwen3-32b-h100-tp2", value_name = "NAME")]
    pub(crate) replay_profile: String,
    /// From the launch of a replica until it answers.
    #[arg(long, default_value = "100s", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) replay_startup: Duration,
    /// 90th percentile of the time to first token that is asked for, in milliseconds.
    #[arg(long, default_value_t = 5000.0, value_name = "MS")]
    pub(crate) replay_slo_ttft_ms: f64,
    /// Time per output token that is asked for, in milliseconds.
    #[arg(long, default_value_t = 150.0, value_name = "MS")]
    pub(crate) replay_slo_tpot_ms: f64,
    /// Fewest replicas of the autoscaled fleet.
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(crate) replay_min: u32,
    /// Most replicas of the autoscaled fleet.
    #[arg(long, default_value_t = 24, value_name = "N")]
    pub(crate) replay_max: u32,
    /// Replicas of the autoscaled fleet that are ready when the replay starts.
    #[arg(long, default_value_t = 6, value_name = "N")]
    pub(crate) replay_initial: u32,
    /// Requests in flight on one replica before the next ones queue.
    #[arg(long, default_value_t = 32, value_name = "N")]
    pub(crate) replay_concurrency: u32,
    /// A lower count must have been enough for this long before a replica is removed.
    #[arg(long, default_value = "300s", value_name = "TIME", value_parser = parse_duration)]
    pub(crate) replay_scale_down_guard: Duration,
    /// Replay only the first minutes of the trace.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replay_minutes: Option<u32>,
}

/// What the live part does.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LiveSettings {
    /// Hardware of the simulated servers.
    pub(crate) profile: String,
    /// The model they serve.
    pub(crate) model: String,
    /// Offered load.
    pub(crate) rates: Rates,
    /// Divisor of the trace's lengths.
    pub(crate) shorten: NonZeroU32,
    /// Fewest replicas.
    pub(crate) min: u32,
    /// Most replicas.
    pub(crate) max: u32,
    /// Launch to first answer.
    #[serde(rename = "startup_s", serialize_with = "seconds")]
    pub(crate) startup: Duration,
    /// Patience before scaling down.
    #[serde(rename = "scale_down_guard_s", serialize_with = "seconds")]
    pub(crate) scale_down_guard: Duration,
    /// In flight per server.
    pub(crate) concurrency: u32,
    /// What interactive and sheddable clients ask for.
    pub(crate) slo: Slo,
}

/// What the replay does.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ReplaySettings {
    /// Hardware of the replicas, whole: engine and costs.
    #[serde(serialize_with = "profile_name")]
    pub(crate) profile: Profile,
    /// Launch to first answer.
    #[serde(rename = "startup_s", serialize_with = "seconds")]
    pub(crate) startup: Duration,
    /// What interactive and sheddable clients ask for, and what fleets are scored against.
    pub(crate) slo: Slo,
    /// Fewest replicas.
    pub(crate) min: u32,
    /// Most replicas.
    pub(crate) max: u32,
    /// Replicas at the start.
    pub(crate) initial: u32,
    /// In flight per replica.
    pub(crate) concurrency: u32,
    /// Patience before scaling down.
    #[serde(rename = "scale_down_guard_s", serialize_with = "seconds")]
    pub(crate) scale_down_guard: Duration,
    /// How much of the trace; absent = all of it.
    pub(crate) minutes: Option<u32>,
}

impl LiveArgs {
    /// The settings, if they can be.
    ///
    /// # Errors
    /// Names the flag, its value and what would be right.
    pub(crate) fn settings(&self) -> Result<LiveSettings, Trouble> {
        let profile = profile("--profile", &self.profile)?;
        check_bounds("--min", self.min, "--max", self.max)?;
        check_positive("--concurrency", f64::from(self.concurrency))?;
        check_positive("--startup", self.startup.as_secs_f64())?;
        Ok(LiveSettings {
            profile: profile.name,
            model: profile.model,
            rates: self.rates.clone(),
            shorten: self.shorten,
            min: self.min,
            max: self.max,
            startup: self.startup,
            scale_down_guard: self.scale_down_guard,
            concurrency: self.concurrency,
            slo: slo(
                "--slo-ttft-ms",
                self.slo_ttft_ms,
                "--slo-tpot-ms",
                self.slo_tpot_ms,
            )?,
        })
    }
}

impl ReplayArgs {
    /// The settings, if they can be.
    ///
    /// # Errors
    /// Names the flag, its value and what would be right.
    pub(crate) fn settings(&self) -> Result<ReplaySettings, Trouble> {
        check_bounds(
            "--replay-min",
            self.replay_min,
            "--replay-max",
            self.replay_max,
        )?;
        check_bounds(
            "--replay-min",
            self.replay_min,
            "--replay-initial",
            self.replay_initial,
        )?;
        check_bounds(
            "--replay-initial",
            self.replay_initial,
            "--replay-max",
            self.replay_max,
        )?;
        check_positive("--replay-concurrency", f64::from(self.replay_concurrency))?;
        check_positive("--replay-startup", self.replay_startup.as_secs_f64())?;
        let (ttft, tpot) = (self.replay_slo_ttft_ms, self.replay_slo_tpot_ms);
        Ok(ReplaySettings {
            profile: profile("--replay-profile", &self.replay_profile)?,
            startup: self.replay_startup,
            slo: slo("--replay-slo-ttft-ms", ttft, "--replay-slo-tpot-ms", tpot)?,
            min: self.replay_min,
            max: self.replay_max,
            initial: self.replay_initial,
            concurrency: self.replay_concurrency,
            scale_down_guard: self.replay_scale_down_guard,
            minutes: self.replay_minutes,
        })
    }
}

fn profile(flag: &str, name: &str) -> Result<Profile, Trouble> {
    Profile::builtin(name)
        .map_err(|error| Trouble::usage(format!("{flag} {name} cannot be used")).because(error))
}

fn slo(ttft_flag: &str, ttft_ms: f64, tpot_flag: &str, tpot_ms: f64) -> Result<Slo, Trouble> {
    check_positive(ttft_flag, ttft_ms)?;
    check_positive(tpot_flag, tpot_ms)?;
    Ok(Slo { ttft_ms, tpot_ms })
}

fn check_positive(flag: &str, value: f64) -> Result<(), Trouble> {
    if value.is_finite() && value > 0.0 {
        return Ok(());
    }
    Err(Trouble::usage(format!(
        "{flag} is {value}, it must be above 0"
    )))
}

fn check_bounds(low_flag: &str, low: u32, high_flag: &str, high: u32) -> Result<(), Trouble> {
    if low == 0 {
        return Err(Trouble::usage(format!(
            "{low_flag} is 0, it must be at least 1"
        )));
    }
    if low > high {
        return Err(Trouble::usage(format!(
            "{high_flag} is {high}, it must be at least {low_flag}, which is {low}"
        )));
    }
    Ok(())
}

fn parse_kinds(text: &str) -> Result<KindMix, String> {
    let shares: Option<Vec<u32>> = text
        .split('/')
        .map(|share| share.trim().parse().ok())
        .collect();
    match shares.as_deref() {
        Some(&[interactive, plain, sheddable])
            if [interactive, plain, sheddable]
                .iter()
                .map(|share| u64::from(*share))
                .sum::<u64>()
                == 100 =>
        {
            Ok(KindMix { interactive, plain })
        }
        _ => Err(format!(
            "{text:?} is not three percentages that sum to 100, such as 50/30/20"
        )),
    }
}

fn profile_name<S: serde::Serializer>(profile: &Profile, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&profile.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Cli::try_parse_from([&["demo"], flags].concat()).map(|cli| cli.args)
    }

    #[test]
    fn defaults_are_the_published_scenario() {
        let args = parse(&[]).unwrap();
        let live = args.live.settings().unwrap();
        assert_eq!(live.rates.to_string(), "8:25s,24:30s,8:35s");
        assert_eq!(
            live.rates.phrase(),
            "8/s for 25 s, then 24/s for 30 s, then 8/s for 35 s"
        );
        assert_eq!(
            (
                live.rates.span().as_secs(),
                live.shorten.get(),
                live.min,
                live.max
            ),
            (90, 8, 1, 10)
        );
        assert_eq!(
            (
                live.startup.as_secs(),
                live.scale_down_guard.as_secs(),
                live.concurrency
            ),
            (6, 10, 16)
        );
        assert_eq!(
            live.slo,
            Slo {
                ttft_ms: 2000.0,
                tpot_ms: 150.0
            }
        );
        assert_eq!(
            args.kinds,
            KindMix {
                interactive: 50,
                plain: 30
            }
        );
        let replay = args.replay.settings().unwrap();
        assert_eq!(
            (
                replay.startup.as_secs(),
                replay.slo.ttft_ms,
                replay.slo.tpot_ms
            ),
            (100, 5000.0, 150.0)
        );
        assert_eq!(replay.profile.name, "qwen3-32b-h100-tp2");
    }

    #[test]
    fn wrong_rates_and_kinds_say_what_would_be_right() {
        for (flags, says) in [
            (["--rates", "8"], "8:25s"),
            (["--rates", "0:5s"], "above 0"),
            (["--rates", "8:0s"], "8:25s"),
            (["--kinds", "50/30"], "50/30/20"),
            (["--kinds", "50/30/30"], "sum to 100"),
            (["--shorten", "0"], "shorten"),
        ] {
            let error = parse(&flags).unwrap_err().to_string();
            assert!(error.contains(says), "{flags:?}: {error}");
        }
    }

    #[test]
    fn what_cannot_be_together_is_refused() {
        assert!(parse(&["--live-only", "--replay-only"]).is_err());
        assert!(parse(&["--keep", "--replay-only"]).is_err());
        let inverted = parse(&["--min", "4", "--max", "3"]).unwrap();
        assert_eq!(
            inverted.live.settings().unwrap_err().to_string(),
            "--max is 3, it must be at least --min, which is 4"
        );
        let unknown = parse(&["--profile", "llama"]).unwrap();
        assert!(
            unknown
                .live
                .settings()
                .unwrap_err()
                .to_string()
                .contains("--profile llama")
        );
        let timeless = parse(&["--slo-ttft-ms", "nan"]).unwrap();
        assert!(
            timeless
                .live
                .settings()
                .unwrap_err()
                .to_string()
                .contains("--slo-ttft-ms")
        );
    }
}
