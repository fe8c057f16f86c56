//! Status conditions: what an object's controller says of it.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// Longest message that is written, bytes: the API server refuses more than 32,768.
const LONGEST_MESSAGE: usize = 4_096;

/// Sets the condition of type `kind` among `conditions`; tells whether anything changed, that is, whether the
/// status is worth writing. The transition time moves only when the status (`True`, `False`, `Unknown`) does.
/// `generation` is the generation of the object that was judged, `now_ms` unix time in milliseconds.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: Status,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now_ms: u64,
) -> bool {
    let now = || Time(timestamp(now_ms));
    let message = shortened(message, LONGEST_MESSAGE);
    let Some(condition) = conditions
        .iter_mut()
        .find(|condition| condition.type_ == kind)
    else {
        conditions.push(Condition {
            last_transition_time: now(),
            message: message.to_owned(),
            observed_generation: generation,
            reason: reason.to_owned(),
            status: status.name().to_owned(),
            type_: kind.to_owned(),
        });
        return true;
    };
    let turned = condition.status != status.name();
    let changed = turned
        || condition.reason != reason
        || condition.message != message
        || condition.observed_generation != generation;
    if turned {
        condition.last_transition_time = now();
    }
    if changed {
        condition.status = status.name().to_owned();
        condition.reason = reason.to_owned();
        condition.message = message.to_owned();
        condition.observed_generation = generation;
    }
    changed
}

/// Takes the condition of type `kind` away; tells whether there was one.
pub fn clear(conditions: &mut Vec<Condition>, kind: &str) -> bool {
    let before = conditions.len();
    conditions.retain(|condition| condition.type_ != kind);
    conditions.len() != before
}

/// What a condition says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Nobody can tell.
    Unknown,
}

impl Status {
    /// As the API spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for Status {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Unix milliseconds as the API's type; what it cannot hold is its end.
pub(crate) fn timestamp(unix_ms: u64) -> Timestamp {
    i64::try_from(unix_ms)
        .ok()
        .and_then(|unix_ms| Timestamp::from_millisecond(unix_ms).ok())
        .unwrap_or(Timestamp::MAX)
}

/// `text` cut to at most `bytes`, between characters.
pub(crate) fn shortened(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_transition_time_moves_with_the_status_alone() {
        let mut conditions = Vec::new();
        let mut put = |status: bool, reason: &str, generation: i64, now_ms: u64| {
            let changed = set(
                &mut conditions,
                "Accepted",
                status.into(),
                reason,
                "",
                Some(generation),
                now_ms,
            );
            (
                changed,
                conditions[0].last_transition_time.0.as_millisecond(),
            )
        };
        assert_eq!(put(true, "Accepted", 1, 1_000), (true, 1_000));
        assert_eq!(put(true, "Accepted", 1, 2_000), (false, 1_000));
        assert_eq!(put(true, "Accepted", 2, 3_000), (true, 1_000));
        assert_eq!(put(true, "Other", 2, 4_000), (true, 1_000));
        assert_eq!(put(false, "Other", 2, 5_000), (true, 5_000));
        assert_eq!(conditions.len(), 1);
        assert!(clear(&mut conditions, "Accepted") && !clear(&mut conditions, "Accepted"));
    }

    #[test]
    fn long_messages_are_cut_between_characters_and_do_not_change_again() {
        let mut conditions = Vec::new();
        let message = "é".repeat(LONGEST_MESSAGE);
        let mut put = || {
            set(
                &mut conditions,
                "A",
                Status::Unknown,
                "R",
                &message,
                None,
                0,
            )
        };
        assert!(put() && !put());
        assert_eq!(conditions[0].message.len(), LONGEST_MESSAGE);
    }
}
