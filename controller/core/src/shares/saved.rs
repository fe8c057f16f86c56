//! Shares that outlive the process.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{MAX_BANDS, MAX_PAST, MAX_PICKERS, Past, Share, Shares};
use crate::policy::Nanos;
use crate::signals::Totals;

/// What [`Shares`] remember, for the next process: what pickers count while nobody listens is then counted too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SavedShares {
    schema: u32,
    at: Nanos,
    begun: Nanos,
    sum: BTreeMap<i32, Totals>,
    live: BTreeMap<String, Share>,
    past: VecDeque<Past>,
}

/// Version of the layout.
const SCHEMA: u32 = 1;
/// Shares saved longer ago say nothing about the present.
const GOOD_FOR: Duration = Duration::from_secs(3600);

/// Saved shares that cannot be gone on from.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("saved shares: {field}: `{value}` is not {expected}")]
pub struct SharesError {
    /// The part that is wrong.
    pub field: &'static str,
    /// What it holds.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

impl Shares {
    /// What is remembered at `now`.
    pub fn save(&self, now: Duration) -> SavedShares {
        SavedShares {
            schema: SCHEMA,
            at: Nanos(now),
            begun: Nanos(self.begun),
            sum: self.sum.clone(),
            live: self.live.clone(),
            past: self.past.clone(),
        }
    }

    /// Goes on at `now` from what another process remembered, on a clock that went on from that one's. Every picker it
    /// knew is expected again: those whose pods are gone must be said so.
    ///
    /// # Errors
    /// [`SharesError`] when it makes no sense.
    pub fn restore(saved: SavedShares, now: Duration) -> Result<Self, SharesError> {
        let wrong = |field, value: &dyn ToString, expected| SharesError {
            field,
            value: value.to_string(),
            expected,
        };
        let SavedShares {
            schema,
            at: Nanos(at),
            begun: Nanos(begun),
            sum,
            live,
            past,
        } = saved;
        if schema != SCHEMA {
            return Err(wrong(
                "schema",
                &schema,
                "1, the version that this program reads",
            ));
        }
        if at > now || now - at > GOOD_FOR {
            let age = now.as_secs_f64() - at.as_secs_f64();
            return Err(wrong("age in seconds", &age, "0 to 3600"));
        }
        if live.len() > MAX_PICKERS || past.len() > MAX_PAST {
            let pickers = live.len() + past.len();
            return Err(wrong("pickers", &pickers, "as few as can be counted"));
        }
        let counted = live.values().filter_map(|share| share.current.as_ref());
        let bands = counted.map(|current| current.counted.len().max(current.queued.len()));
        let bands = bands.chain(past.iter().map(|past| past.counted.len()));
        let bands = bands.chain([sum.len()]).max().unwrap_or(0);
        if bands > MAX_BANDS {
            return Err(wrong("bands", &bands, "at most 128"));
        }
        if begun > at || live.values().any(|share| share.heard.0 > at) {
            return Err(wrong("times", &"later than the saving", "before it"));
        }
        Ok(Self {
            begun,
            sum,
            live,
            past,
            arrears: Vec::new(),
            samples: Arc::default(),
        })
    }
}
