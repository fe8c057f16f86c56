//! Fitting step costs to the first half of a recording.

use super::minimize::nelder_mead;
use super::recording::{Recorded, Recording};
use super::replay::{Replay, Replayed};
use super::score::tpot;
use crate::engine::SubmitError;
use crate::profile::{Profile, StepCost};

/// Edges of the simplex with which each round of the search starts, in units of a factor e. Several rounds, because a
/// simplex that has collapsed in a bend of the valley (base, sequence and KV costs can stand in for each other) does
/// not get out by itself.
const ROUNDS: [f64; 4] = [0.7, 0.2, 0.3, -0.2];
/// Replays per round.
const REPLAYS: usize = 160;

/// Weight of the relative error of the time from scheduling to first token, where that of the TPOT weighs 1: it lasts
/// two or three steps only and depends on the point of a step at which the request came.
const SERVICE_WEIGHT: f64 = 0.5;
/// Weight of the errors of the instants of first and last token, in units of the half's span: they sum up all before.
const INSTANT_WEIGHT: f64 = 2.0;

/// Step costs with which a replay of the whole run comes closest to the first half's timestamps. Reads arrivals and
/// lengths of all requests, timestamps of the first half only, and no series.
///
/// # Errors
/// If the engine refuses a request of the recording.
pub fn fit_first_half(recording: &Recording) -> Result<StepCost, SubmitError> {
    let half = &recording.requests[..recording.requests.len() / 2];
    let start = first_guess(half, recording.limits.max_num_batched_tokens);
    let profile = recording.profile(costs(&start));
    // Refused requests are refused at any cost: find out once.
    Replay::of(&recording.requests, &profile, &[])?;
    let mut misfit = |point: &[f64; 4]| misfit(recording, half, &profile, point);
    let best = ROUNDS.iter().fold(start, |point, &edge| {
        nelder_mead(point, edge, REPLAYS, &mut misfit).0
    });
    Ok(costs(&best))
}

/// The logarithms of (base, prefill, sequence, kv) as costs; clamped, so that a stray step of the search stays a number
/// of milliseconds that clocks can add up.
fn costs(point: &[f64; 4]) -> StepCost {
    let [base_ms, prefill_ms_per_token, sequence_ms, kv_ms_per_token] =
        point.map(|log| log.clamp(-30.0, 12.0).exp());
    StepCost {
        base_ms,
        prefill_ms_per_token,
        sequence_ms,
        kv_ms_per_token,
        noise: 0.0,
    }
}

/// Orders of magnitude from the timestamps alone.
fn first_guess(half: &[Recorded], budget: u32) -> [f64; 4] {
    let mut tpots: Vec<f64> = half
        .iter()
        .filter_map(|request| tpot(request, &request.times))
        .collect();
    tpots.sort_by(f64::total_cmp);
    let typical_ms = 1e3 * tpots.get(tpots.len() / 2).copied().unwrap_or(0.02);
    let prefill = half.iter().map(|request| {
        let tokens = f64::from(request.input_tokens.min(budget));
        1e3 * (request.times.first_token - request.times.scheduled) / tokens
    });
    let fastest = prefill.fold(f64::INFINITY, f64::min).max(1e-4);
    [
        0.6 * typical_ms,
        0.7 * fastest,
        0.004 * typical_ms,
        2e-6 * typical_ms,
    ]
    .map(|cost: f64| cost.max(1e-9).ln())
}

/// Mean absolute misfit of the first half, of each request's TPOT, time from scheduling to first token, and instants
/// of first and last token. Absolute, not squared: one preemption more or less moves a few requests far. The instants
/// may all be off by the same amount, which is not a step's cost but the warming up of the recorded server.
fn misfit(recording: &Recording, half: &[Recorded], profile: &Profile, point: &[f64; 4]) -> f64 {
    let profile = Profile {
        step: costs(point),
        ..profile.clone()
    };
    let Ok(replay) = Replay::until(half.len(), &recording.requests, &profile, &[]) else {
        return f64::INFINITY;
    };
    let span = half
        .iter()
        .map(|request| request.times.last_token)
        .fold(0.0, f64::max);
    let pairs = || half.iter().zip(&replay.requests);
    let mut delays: Vec<f64> = pairs()
        .map(|(real, played)| played.first_token - real.times.first_token)
        .collect();
    delays.sort_by(f64::total_cmp);
    let delay = delays[delays.len() / 2];
    let total: f64 = pairs()
        .map(|(real, played)| request_misfit(real, played, delay, span))
        .sum();
    total / half.len() as f64
}

fn request_misfit(real: &Recorded, played: &Replayed, delay: f64, span: f64) -> f64 {
    let tempo = match (tpot(real, &real.times), tpot(real, played)) {
        (Some(real), Some(played)) => relative(played, real),
        _ => 0.0,
    };
    let service = |times: &Replayed| times.first_token - times.scheduled;
    let first = (played.first_token - delay - real.times.first_token).abs() / span;
    let last = (played.last_token - delay - real.times.last_token).abs() / span;
    tempo
        + SERVICE_WEIGHT * relative(service(played), service(&real.times))
        + INSTANT_WEIGHT * (first + last)
}

/// How many times larger or smaller, as the absolute logarithm; times below a microsecond count as one.
fn relative(played: f64, real: f64) -> f64 {
    (played.max(1e-6) / real.max(1e-6)).ln().abs()
}
