//! What a model server is told to do.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;

use crate::answers::NullUsage;

/// Between two frames of an answer, so that the proxy reads most of them one by one. No test waits for it to
/// be so: read together they must give the same result.
const FRAME_PAUSE: Duration = Duration::from_millis(2);

/// How completions are answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Script {
    /// Status of the answer; anything but 200 is answered with an OpenAI-shaped error.
    pub status: StatusCode,
    /// When chunks carry `"usage":null`.
    pub null_usage: NullUsage,
    /// How a streamed answer is cut into frames.
    pub framing: Framing,
    /// How long tokens take.
    pub pace: Pace,
    /// Wait there until [`Upstream::release`](crate::upstream::Upstream::release).
    pub hold: Hold,
    /// Break the connection after that many frames of a streamed answer.
    pub die_after: Option<usize>,
}

/// How a streamed answer is cut into frames, each flushed on its own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    /// One event each.
    #[default]
    Events,
    /// One event each, the last two (usage, if asked for, and `[DONE]`) together.
    LastTwoTogether,
    /// At these byte offsets of the whole answer, in ascending order; those beyond its end do nothing.
    CutAt(Vec<usize>),
}

/// How long the frames of a streamed answer take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pace {
    /// Two milliseconds each.
    #[default]
    Steady,
    /// As long for bodies below 8,000 bytes; ten times that, and twenty to the first, for those above: a step
    /// that no straight line fits, for a model to learn.
    ByPromptSize,
}

impl Pace {
    /// Time to the first frame and between frames, for a body of that many bytes.
    pub(crate) fn pauses(self, bytes: usize) -> (Duration, Duration) {
        match self {
            Self::ByPromptSize if bytes > 8_000 => (20 * FRAME_PAUSE, 10 * FRAME_PAUSE),
            Self::Steady | Self::ByPromptSize => (FRAME_PAUSE, FRAME_PAUSE),
        }
    }
}

/// Where an answer waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hold {
    /// Nowhere.
    #[default]
    No,
    /// Before the response's headers.
    BeforeHeaders,
    /// After that many frames of a streamed answer.
    AfterFrames(usize),
}

impl Framing {
    pub(crate) fn cut(&self, events: &[String]) -> Vec<Bytes> {
        let events = events
            .iter()
            .map(|event| Bytes::copy_from_slice(event.as_bytes()));
        match self {
            Self::Events => events.collect(),
            Self::LastTwoTogether => {
                let mut frames: Vec<_> = events.collect();
                let last = frames.split_off(frames.len() - 2);
                frames.push(last.concat().into());
                frames
            }
            Self::CutAt(offsets) => {
                let whole = Bytes::from(events.collect::<Vec<_>>().concat());
                let cuts = || {
                    offsets
                        .iter()
                        .copied()
                        .filter(|&offset| offset < whole.len())
                };
                let ends = cuts().chain([whole.len()]);
                let begins = [0].into_iter().chain(cuts());
                begins
                    .zip(ends)
                    .map(|(begin, end)| whole.slice(begin..end))
                    .collect()
            }
        }
    }
}
