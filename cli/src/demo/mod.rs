//! `headroom demo`: the whole loop on one machine, live behind real Envoy, then a whole hour on a virtual clock.

mod args;
mod arrivals;
mod chart;
mod command;
mod compare;
mod live;
mod outcome;
mod page;
mod rates;
mod replay;
mod source;
mod statistics;

pub(crate) use args::Args;

use std::io::Write as _;

use runtime::Shutdown;
use runtime::logging::{self, LogOptions};
use tokio::sync::oneshot;

use crate::story::Trouble;
use crate::{format, output};
use args::{LiveSettings, ReplaySettings};
use live::preflight::{Envoy, Ports};
use outcome::{Findings, Live, Replay, SCHEMA};
use source::{Part, Source};

/// Logged beside the progress lines; `HEADROOM_LOG` says otherwise.
const LOG: &str = "error";

/// Runs the demo.
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    logging::init(&LogOptions {
        filter: LOG.into(),
        ..LogOptions::default()
    })?;
    let plan = Plan::check(&args)?;
    let executor = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let result = executor.block_on(conduct(&args, plan));
    // A replay that was interrupted is not waited for.
    executor.shutdown_background();
    Ok(result?)
}

/// What will be done; everything that can be checked beforehand was.
struct Plan {
    source: Source,
    live: Option<LivePlan>,
    replay: Option<(ReplaySettings, Part)>,
}

/// The live part, ready to start.
struct LivePlan {
    settings: LiveSettings,
    part: Part,
    envoy: Envoy,
    ports: Ports,
}

impl Plan {
    fn check(args: &Args) -> Result<Self, Trouble> {
        let live = if args.replay_only {
            None
        } else {
            Some(args.live.settings()?)
        };
        let replay = if args.live_only {
            None
        } else {
            Some(args.replay.settings()?)
        };
        output::check("--report", &args.report)?;
        if let Some(json) = &args.json {
            output::check("--json", json)?;
        }
        let envoy = live
            .as_ref()
            .map(|_| Envoy::find(args.live.envoy.as_deref()))
            .transpose()?;
        let ports = live
            .as_ref()
            .map(|live| Ports::from(args.live.port, live.max))
            .transpose()?;
        if let Some(ports) = &ports {
            ports.check()?;
        }
        let source = Source::open(args.trace.as_deref(), args.seed)?;
        let live = match (live, envoy, ports) {
            (Some(settings), Some(envoy), Some(ports)) => {
                let part = source.live(&settings, args.kinds, args.seed)?;
                Some(LivePlan {
                    settings,
                    part,
                    envoy,
                    ports,
                })
            }
            _ => None,
        };
        let replay = replay.map(|settings| {
            let part = source.replay(&settings, args.kinds, args.seed);
            (settings, part)
        });
        Ok(Self {
            source,
            live,
            replay,
        })
    }
}

async fn conduct(args: &Args, plan: Plan) -> Result<(), Trouble> {
    let shutdown = Shutdown::new();
    let _signals = shutdown
        .listen_to_signals(std::time::Duration::ZERO)
        .map_err(|error| Trouble::failed("signals cannot be listened to").because(error))?;
    let mut stack = None;
    let mut live_findings = None;
    if let Some(live) = plan.live {
        let (findings, running) = live::run(live, args.seed, &shutdown).await?;
        live_findings = Some(findings);
        stack = Some(running);
        if !args.keep {
            stop(&mut stack).await;
        }
    }
    let replayed = match plan.replay {
        None => Ok(None),
        Some((settings, part)) => replay_aside(settings, part, args.seed, &shutdown)
            .await
            .map(Some),
    };
    let told = replayed.and_then(|replayed| report(args, &plan.source, live_findings, replayed));
    if told.is_ok()
        && let Some(running) = &stack
    {
        note(&running.examples());
        shutdown.draining().await;
    }
    stop(&mut stack).await;
    told
}

async fn stop(stack: &mut Option<live::Stack>) {
    if let Some(running) = stack.take() {
        running.stop().await;
    }
}

/// Replays on a thread of its own, so that Ctrl-C is heard meanwhile.
async fn replay_aside(
    settings: ReplaySettings,
    part: Part,
    seed: u64,
    shutdown: &Shutdown,
) -> Result<Replay, Trouble> {
    note(&format!(
        "Replaying {} requests three times on a virtual clock; a whole hour takes a minute or two.\n",
        part.offers.len()
    ));
    let (send, receive) = oneshot::channel();
    std::thread::spawn(move || {
        let progress = |text: &str| note(&format!("  … {text}\n"));
        // The receiver is gone only when the demo was interrupted.
        let _ = send.send(replay::run(&settings, &part, seed, &progress));
    });
    tokio::select! {
        replay = receive => replay.map_err(|_| Trouble::failed("the replay broke off").advice("please report this, with the command")),
        () = shutdown.draining() => Err(Trouble::interrupted()),
    }
}

fn report(
    args: &Args,
    source: &Source,
    live: Option<Live>,
    replay: Option<Replay>,
) -> Result<(), Trouble> {
    let sheddable = 100 - args.kinds.interactive - args.kinds.plain;
    let findings = Findings {
        schema: SCHEMA,
        version: env!("CARGO_PKG_VERSION"),
        command: command::reproducing(std::env::args().skip(1), args.seed),
        seed: args.seed,
        kinds_percent: [args.kinds.interactive, args.kinds.plain, sheddable],
        trace: source.facts.clone(),
        live,
        replay,
    };
    let failed = |what: &'static str| {
        move |error: Box<dyn std::error::Error + Send + Sync>| Trouble::failed(what).because(error)
    };
    let html = page::render(&findings)
        .map_err(|error| failed("the report could not be laid out")(error.into()))?;
    output::write(&args.report, &html)?;
    if let Some(json) = &args.json {
        let mut text = serde_json::to_string_pretty(&findings)
            .map_err(|error| failed("the results could not be written as JSON")(error.into()))?;
        text.push('\n');
        output::write(json, &text)?;
    }
    // Standard output may be closed; the files are written.
    let _ = std::io::stdout().write_all(summary(&findings).as_bytes());
    note(&format!("Report: {}\n", args.report.display()));
    Ok(())
}

/// The tables and the outcome, as printed.
fn summary(findings: &Findings) -> String {
    let mut text = String::new();
    if let Some(live) = &findings.live {
        let title = format!(
            "Live, behind Envoy: {}, {}",
            live.settings.profile,
            live.settings.rates.phrase()
        );
        let (replicas, hits, bound) = (
            compare::replicas(live.mean_replicas),
            format::share(live.hit_share),
            format::share(live.hit_bound),
        );
        text += &format!("\n{title}\n\n{}", compare::live(live).text());
        text += &format!(
            "\n  {replicas} on average; {hits} of prompt tokens cached (infinite cache: {bound})\n"
        );
        for scores in &live.predictor {
            let target = match scores.target {
                predictor::Target::Ttft => "TTFT",
                predictor::Target::Tpot => "TPOT",
            };
            text += &format!(
                "  {target} prediction, MAPE / median APE / under p90: {}\n",
                compare::prediction(scores)
            );
        }
        for (problem, times) in &live.problems {
            text += &format!("  failed {times} times: {problem}\n");
        }
    }
    if let Some(replay) = &findings.replay {
        let settings = &replay.settings;
        text += &format!(
            "\nReplay, on a virtual clock: {}, {} requests, start-up {} s, SLO p90 {}\n\n{}\n  * best of the row\n",
            settings.profile.name,
            format::count(replay.requests as u64),
            settings.startup.as_secs_f64(),
            outcome::slo_phrase(settings.slo),
            compare::replay(replay).text()
        );
    }
    text + &format!("\n{}\n", page::headline(findings))
}

/// Standard error may be closed; the demo goes on without it.
fn note(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
