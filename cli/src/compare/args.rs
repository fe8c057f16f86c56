//! The command's flags, and the races that they ask for.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use controller_core::fleet::Slo;
use controller_core::fleet::client::{KindMix, offers};
use controller_core::fleet::comparison::{Policy, Round, Setting};
use simulator_core::Profile;
use simulator_core::trace::{MOONCAKE_BATCH, Trace, TraceStats};
use simulator_core::workload::{SharedPrefix, WorkloadSpec, generate};

use crate::story::Trouble;

/// Arguments of `headroom compare`.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Args {
    /// What is offered; both if left out. `shared-prefix`: 150 groups of prompts with a long common beginning at 3 to
    /// 60 requests/s, as in llm-d's optimized-baseline guide. `conversation`: an hour of conversations with the
    /// statistics of Mooncake's trace, or the trace of --trace.
    #[arg(long, value_enum, value_name = "NAME")]
    pub(crate) workload: Option<Workload>,
    /// A recorded trace instead of generated conversations: Mooncake's JSON lines or Azure's CSV.
    #[arg(long, value_name = "FILE")]
    pub(crate) trace: Option<PathBuf>,
    /// Seeds: as many rounds, whose medians are shown.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100))]
    pub(crate) seeds: u64,
    /// Another policy to compare with: an EndpointPickerConfig file under a name.
    #[arg(long, value_name = "NAME=FILE")]
    pub(crate) policy: Vec<String>,
    /// Leave out the policies of llm-d and round robin, and compare Headroom's default with those of --policy alone.
    #[arg(long, requires = "policy")]
    pub(crate) only: bool,
    /// Hardware profile of the replicas.
    #[arg(long, default_value = "qwen3-32b-h100-tp2", value_name = "NAME")]
    pub(crate) profile: String,
    /// Replicas.
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) replicas: u32,
    /// Time to first token that every request asks for, in milliseconds.
    #[arg(long, default_value_t = 3000.0, value_name = "MS")]
    pub(crate) slo_ttft_ms: f64,
    /// Time per output token that every request asks for, in milliseconds.
    #[arg(long, default_value_t = 100.0, value_name = "MS")]
    pub(crate) slo_tpot_ms: f64,
    /// Shared prefixes: requests that the load generator has under way at most. The published figures amount to 600
    /// (requests/s × seconds that each takes).
    #[arg(long, default_value_t = 600, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) clients: u32,
    /// Shared prefixes: only the first stages, the warm-up included.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) stages: Option<u32>,
    /// Conversations: only the first minutes.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) minutes: Option<u32>,
    /// End with exit code 1 if Headroom's default misses one of its bars.
    #[arg(long)]
    pub(crate) check: bool,
    /// Also write the results as JSON, round by round.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
}

/// What is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Workload {
    /// Groups of prompts with a long common beginning.
    SharedPrefix,
    /// Conversations.
    Conversation,
}

/// What is to be done; everything that can be checked beforehand was.
pub(crate) struct Plan {
    /// Headroom's default first.
    pub(crate) policies: Vec<Policy>,
    /// Workload by workload.
    pub(crate) courses: Vec<Course>,
}

/// One workload, ready to be run.
pub(crate) struct Course {
    /// For the report.
    pub(crate) name: String,
    /// The first round, described.
    pub(crate) stats: TraceStats,
    /// What all policies meet.
    pub(crate) setting: Setting,
    /// The requests, seed by seed.
    pub(crate) rounds: Vec<Round>,
}

impl Plan {
    /// # Errors
    /// When a file cannot be read, or a name or figure makes no sense.
    pub(crate) fn check(args: &Args) -> Result<Self, Trouble> {
        let setting = args.setting()?;
        let policies = args.policies()?;
        let asked = |workload| args.workload.is_none_or(|asked| asked == workload);
        let mut courses = Vec::new();
        if asked(Workload::SharedPrefix) {
            courses.push(args.shared_prefix(&setting));
        }
        if asked(Workload::Conversation) {
            courses.push(args.conversation(&setting)?);
        }
        Ok(Self { policies, courses })
    }
}

impl Args {
    fn setting(&self) -> Result<Setting, Trouble> {
        let profile = Profile::builtin(&self.profile).map_err(|error| {
            Trouble::usage(format!("--profile {} cannot be used", self.profile)).because(error)
        })?;
        for (flag, value) in [
            ("--slo-ttft-ms", self.slo_ttft_ms),
            ("--slo-tpot-ms", self.slo_tpot_ms),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                let what = format!("{flag} is {value}, it must be a number above 0");
                return Err(Trouble::usage(what));
            }
        }
        Ok(Setting {
            profile,
            replicas: self.replicas,
            slo: Slo {
                ttft_ms: self.slo_ttft_ms,
                tpot_ms: self.slo_tpot_ms,
            },
            clients: None,
        })
    }

    fn policies(&self) -> Result<Vec<Policy>, Trouble> {
        let built_in = Policy::built_in()
            .map_err(|error| Trouble::failed("a built-in policy does not load").because(error))?;
        let kept = if self.only { 1 } else { built_in.len() };
        let own = self.policy.iter().map(|given| policy(given));
        built_in.into_iter().take(kept).map(Ok).chain(own).collect()
    }

    fn shared_prefix(&self, setting: &Setting) -> Course {
        let stages = self.stages.map_or(usize::MAX, |stages| stages as usize);
        let spec = SharedPrefix::optimized_baseline().first_stages(stages);
        let rounds = self.rounds(|seed| spec.generate(seed));
        Course {
            name: spec.name.clone(),
            stats: spec.generate(1).stats(),
            setting: Setting {
                clients: Some(self.clients),
                ..setting.clone()
            },
            rounds,
        }
    }

    fn conversation(&self, setting: &Setting) -> Result<Course, Trouble> {
        let recorded = self.trace.as_deref().map(|file| {
            Trace::read(file).map_err(|error| {
                Trouble::failed(format!("{} cannot be replayed", file.display()))
                    .because(error)
                    .advice("give --trace a Mooncake (JSON lines) or Azure (CSV) trace, or leave it out to have one generated")
            })
        });
        let recorded = recorded.transpose()?;
        let made = |seed| generate(&WorkloadSpec::mooncake_conversation(), seed);
        let cut = |trace: Trace| {
            let spread = trace.spread_batches(MOONCAKE_BATCH);
            match self.minutes {
                Some(minutes) => spread.slice(Duration::from_secs(60) * minutes),
                None => spread,
            }
        };
        let trace = |seed| cut(recorded.clone().unwrap_or_else(|| made(seed)));
        // The folder is this machine's affair.
        let name = match self.trace.as_deref() {
            Some(file) => file.file_name().unwrap_or(file.as_os_str()),
            None => "".as_ref(),
        };
        let first = trace(1);
        Ok(Course {
            name: if name.is_empty() {
                first.name.clone()
            } else {
                format!("recorded ({})", name.to_string_lossy())
            },
            stats: first.stats(),
            setting: setting.clone(),
            rounds: self.rounds(trace),
        })
    }

    /// Every request comes from a client that waits: with both objectives, never shed.
    fn rounds(&self, trace: impl Fn(u64) -> Trace) -> Vec<Round> {
        let everybody = KindMix {
            interactive: 100,
            plain: 0,
        };
        let round = |seed| Round {
            seed,
            offers: offers(&trace(seed), everybody, seed),
        };
        (1..=self.seeds).map(round).collect()
    }
}

/// A policy given as `NAME=FILE`.
fn policy(given: &str) -> Result<Policy, Trouble> {
    let Some((name, file)) = given.split_once('=').filter(|(name, _)| !name.is_empty()) else {
        let what = format!("--policy is {given:?}, it must be NAME=FILE");
        return Err(Trouble::usage(what));
    };
    let document = fs::read_to_string(file).map_err(|error| {
        Trouble::failed(format!("--policy {name}: {file} cannot be read")).because(error)
    })?;
    Policy::from_yaml(name, &document).map_err(|error| {
        Trouble::failed(format!("--policy {name}: {file} is no configuration"))
            .because(error)
            .advice("`headroom config lint FILE` tells what is wrong with it")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Args {
        let flags = ["compare"].iter().chain(flags);
        <Command as clap::Parser>::try_parse_from(flags)
            .unwrap()
            .args
    }

    #[test]
    fn by_default_four_policies_meet_both_workloads() {
        let plan =
            Plan::check(&parse(&["--seeds", "2", "--stages", "1", "--minutes", "1"])).unwrap();
        assert_eq!((plan.policies.len(), plan.courses.len()), (4, 2));
        assert_eq!(plan.courses[0].setting.clients, Some(600));
        assert_eq!(plan.courses[1].setting.clients, None);
        for course in &plan.courses {
            assert_eq!(course.rounds.len(), 2);
            assert_ne!(course.rounds[0].offers.len(), 0);
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (flags, says) in [
            (&["--policy", "mine"][..], "NAME=FILE"),
            (&["--policy", "mine=/nowhere/x.yaml"], "/nowhere/x.yaml"),
            (&["--profile", "h100"], "--profile h100"),
            (&["--slo-ttft-ms", "nan"], "--slo-ttft-ms"),
            (&["--trace", "/nowhere/t.jsonl"], "/nowhere/t.jsonl"),
        ] {
            let error = Plan::check(&parse(flags)).err().unwrap().to_string();
            assert!(error.contains(says), "{flags:?}: {error}");
        }
    }
}
