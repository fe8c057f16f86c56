//! Replays a recorded run of a real server through the engine and scores how alike the two are.
//!
//! The first half of the requests (by arrival) may be used to fit the step costs; the second half, which the fit never
//! sees, is scored.

mod fit;
mod minimize;
mod recording;
mod replay;
mod score;

pub use fit::fit_first_half;
pub use recording::{Limits, Recorded, Recording, RecordingError, Sample};
pub use replay::{Replay, Replayed};
pub use score::{Bar, Score};

use crate::engine::SubmitError;
use crate::profile::{Profile, StepCost};

/// Where the step costs come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Costs {
    /// Taken as they are.
    Given(StepCost),
    /// Fitted to the first half of the recording.
    FitFirstHalf,
}

/// What a validation found.
#[derive(Clone, Debug)]
pub struct Validation {
    /// The profile that was replayed: the recording's limits, the given or fitted costs, no noise.
    pub profile: Profile,
    /// How close it came.
    pub score: Score,
    /// Preemptions during the replay.
    pub preemptions: u64,
}

/// Replays `recording` and scores its second half.
///
/// # Errors
/// If a request of the recording cannot run within the recorded limits.
pub fn validate(recording: &Recording, costs: Costs) -> Result<Validation, SubmitError> {
    let step = match costs {
        Costs::Given(step) => StepCost { noise: 0.0, ..step },
        Costs::FitFirstHalf => fit_first_half(recording)?,
    };
    let profile = recording.profile(step);
    let ticks: Vec<f64> = recording.series.iter().map(|sample| sample.t).collect();
    let replay = Replay::of(&recording.requests, &profile, &ticks)?;
    Ok(Validation {
        score: Score::of(recording, &replay),
        preemptions: replay.preemptions,
        profile,
    })
}
