//! The live part: the whole loop behind real Envoy, on this machine, in real time.

mod client;
pub(crate) mod preflight;
mod progress;
mod proxy;
mod record;
mod sse;
mod stack;

pub(crate) use stack::Stack;

use std::sync::Arc;
use std::time::Duration;

use predictor::{State, Target};
use runtime::Shutdown;

use self::client::{Load, drive};
use self::progress::Progress;
use self::record::{Record, Summary};
use super::LivePlan;
use super::args::LiveSettings;
use super::outcome::{Live, LiveSample, Scaling, Scores, predictor_scores};
use crate::story::Trouble;

/// Between two samples and lines.
const SECOND: Duration = Duration::from_secs(1);

/// Starts everything, sends the load, and tells what was seen. Everything is left running.
///
/// # Errors
/// What did not start or ended in the middle; an interruption. Nothing is left running then.
pub(crate) async fn run(
    plan: LivePlan,
    seed: u64,
    shutdown: &Shutdown,
) -> Result<(Live, Stack), Trouble> {
    let LivePlan {
        settings,
        part,
        envoy,
        ports,
    } = plan;
    let progress = Progress::new(settings.slo);
    progress.note(&format!(
        "Live, about {} s: {} behind {}, ports from {} on; {} to {} replicas, {}",
        settings.rates.span().as_secs(),
        settings.profile,
        envoy.version,
        ports.proxy,
        settings.min,
        settings.max,
        settings.rates.phrase()
    ));
    let started = tokio::select! {
        started = Stack::start(&settings, &envoy, ports, seed) => started,
        () = shutdown.draining() => Err(Trouble::interrupted()),
    };
    let mut stack = started?;
    let uri = stack
        .completions()
        .parse()
        .map_err(|error: http::uri::InvalidUri| {
            Trouble::failed("the proxy has no address").because(error)
        })?;
    let load = Load {
        uri,
        model: settings.model.clone(),
        slo: settings.slo,
        trace: part.trace,
        offers: part.offers,
    };
    let watched = watch(&mut stack, load, &settings, progress, shutdown).await;
    let watched = match watched {
        Ok(watched) => watched,
        Err(trouble) => {
            stack.stop().await;
            return Err(trouble);
        }
    };
    let Watched {
        summary,
        timeline,
        scalings,
    } = watched;
    let live = Live {
        envoy: envoy.version,
        kinds: summary
            .kinds
            .into_iter()
            .map(|(kind, score)| (kind, Scores::from(score)))
            .collect(),
        hit_share: summary.hit_share,
        hit_bound: part.hit_bound,
        trained_at_s: timeline
            .iter()
            .find(|sample| sample.model == State::Trained)
            .map(|sample| sample.at),
        mean_replicas: mean_replicas(&timeline),
        client_lateness_ms: summary.lateness.as_secs_f64() * 1e3,
        problems: summary.problems,
        predictor: predictor_scores(&stack.picker.trainer().report()),
        scalings,
        timeline,
        settings,
    };
    Ok((live, stack))
}

/// What was seen while the load was on.
struct Watched {
    summary: Summary,
    timeline: Vec<LiveSample>,
    scalings: Vec<Scaling>,
}

async fn watch(
    stack: &mut Stack,
    load: Load,
    settings: &LiveSettings,
    mut progress: Progress,
    shutdown: &Shutdown,
) -> Result<Watched, Trouble> {
    let record = Arc::new(Record::new(settings.slo));
    let start = stack.clock.now();
    let driven = drive(load, stack.clock, start, Arc::clone(&record));
    tokio::pin!(driven);
    let (mut timeline, mut scalings) = (Vec::new(), Vec::new());
    let mut ticks = tokio::time::interval_at(stack.clock.instant(start + SECOND), SECOND);
    loop {
        tokio::select! {
            () = &mut driven => break,
            _ = ticks.tick() => {
                let sample = sample(stack, &record, start);
                for scaling in new_scalings(stack, start, scalings.len()) {
                    progress.scaling(&scaling);
                    scalings.push(scaling);
                }
                progress.sample(&sample);
                timeline.push(sample);
            }
            trouble = stack.proxy.ended() => return Err(trouble),
            () = shutdown.draining() => return Err(Trouble::interrupted()),
        }
    }
    Ok(Watched {
        summary: record.summary(),
        timeline,
        scalings,
    })
}

/// Changes of the count since the start, beyond the first `told`; oldest first.
fn new_scalings(stack: &Stack, start: Duration, told: usize) -> Vec<Scaling> {
    let mut changes = stack.fleet.journal.newest(usize::MAX, true);
    changes.reverse();
    let since = changes.into_iter().filter(|decision| decision.at >= start);
    since
        .skip(told)
        .map(|decision| Scaling::of(&decision, start))
        .collect()
}

fn sample(stack: &Stack, record: &Record, start: Duration) -> LiveSample {
    let now = stack.clock.now().saturating_sub(start);
    let (glance, report) = (record.glance(now), stack.picker.trainer().report());
    let replicas = stack.fleet.actuator.view().replicas;
    let error = |target| {
        Some(f64::from(report.target(target).median_ape)).filter(|error| error.is_finite())
    };
    LiveSample {
        at: now.as_secs_f64(),
        offered: glance.offered,
        ttft_p50: glance.ttft_p50,
        ttft_p90: glance.ttft_p90,
        tpot_p50: glance.tpot_p50,
        tpot_p90: glance.tpot_p90,
        hit_share: glance.hit_share,
        ttft_error: error(Target::Ttft),
        tpot_error: error(Target::Tpot),
        model: less_trusted(report.ttft.state, report.tpot.state),
        queued: stack.picker.queued().total().requests,
        shed: glance.shed,
        dropped: glance.dropped,
        failed: glance.failed,
        ready: replicas.ready,
        starting: replicas.starting,
        draining: replicas.draining,
    }
}

fn less_trusted(a: State, b: State) -> State {
    let trust = |state| match state {
        State::Prior => 0,
        State::Warming => 1,
        State::Stale => 2,
        State::Trained => 3,
    };
    if trust(a) <= trust(b) { a } else { b }
}

fn mean_replicas(timeline: &[LiveSample]) -> f64 {
    let paid: u32 = timeline
        .iter()
        .map(|sample| sample.ready + sample.starting + sample.draining)
        .sum();
    f64::from(paid) / (timeline.len() as f64).max(1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_as_trusted_as_its_lesser_half() {
        assert_eq!(less_trusted(State::Trained, State::Warming), State::Warming);
        assert_eq!(less_trusted(State::Stale, State::Trained), State::Stale);
        assert_eq!(less_trusted(State::Trained, State::Trained), State::Trained);
    }
}
