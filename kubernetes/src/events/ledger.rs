//! Which remarks become Events: each once, again only as a count, and never many of one kind.

use std::collections::BTreeMap;
use std::time::Duration;

/// A remark is not repeated as an Event of its own for this long; its series goes on.
const SERIES: Duration = Duration::from_secs(30 * 60);
/// Between two writes of a series' count.
const RECOUNT: Duration = Duration::from_secs(5 * 60);
/// Between two different messages about one object for one reason.
const SPACING: Duration = Duration::from_secs(10);
/// Objects and reasons that are remembered; the longest unmentioned is forgotten first.
const MAX_REMEMBERED: usize = 1_024;

/// What to do with a remark.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Write a new Event.
    Create,
    /// Count it in the Event of that name: so many times now.
    Recount(String, i32),
    /// Write nothing.
    Silent,
}

/// What was said of one object for one reason.
#[derive(Clone, Debug)]
struct Said {
    message: String,
    event: Option<String>,
    times: i32,
    begun: Duration,
    written: Duration,
    mentioned: Duration,
}

/// Everything said lately, by object and reason.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    said: BTreeMap<(String, String), Said>,
}

impl Ledger {
    /// Somebody remarks `message` about `object` for `reason`.
    pub(super) fn remark(
        &mut self,
        now: Duration,
        object: &str,
        reason: &str,
        message: &str,
    ) -> Verdict {
        let key = (object.to_owned(), reason.to_owned());
        if let Some(said) = self.said.get_mut(&key) {
            said.mentioned = now;
            let same = said.message == message;
            if same && now < said.begun + SERIES {
                said.times = said.times.saturating_add(1);
                return match &said.event {
                    Some(event) if now >= said.written + RECOUNT => {
                        said.written = now;
                        Verdict::Recount(event.clone(), said.times)
                    }
                    _ => Verdict::Silent,
                };
            }
            if !same && now < said.written + SPACING {
                return Verdict::Silent;
            }
        }
        self.forget_oldest();
        let said = Said {
            message: message.to_owned(),
            event: None,
            times: 1,
            begun: now,
            written: now,
            mentioned: now,
        };
        self.said.insert(key, said);
        Verdict::Create
    }

    /// The Event for that remark was written under this name.
    pub(super) fn written(&mut self, object: &str, reason: &str, event: String) {
        if let Some(said) = self.said.get_mut(&(object.to_owned(), reason.to_owned())) {
            said.event = Some(event);
        }
    }

    /// The Event could not be written: the same remark may be tried again after [`SPACING`].
    pub(super) fn failed(&mut self, object: &str, reason: &str) {
        if let Some(said) = self.said.get_mut(&(object.to_owned(), reason.to_owned())) {
            said.message.clear();
        }
    }

    fn forget_oldest(&mut self) {
        if self.said.len() < MAX_REMEMBERED {
            return;
        }
        let oldest = self
            .said
            .iter()
            .min_by_key(|(_, said)| said.mentioned)
            .map(|(key, _)| key.clone());
        if let Some(oldest) = oldest {
            self.said.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_same_remark_is_one_event_that_counts() {
        let mut ledger = Ledger::default();
        let mut remark = |seconds| ledger.remark(at(seconds), "pool", "WrongValue", "x");
        assert_eq!(remark(0), Verdict::Create);
        assert_eq!(remark(400), Verdict::Silent, "its name is not known yet");
        ledger.written("pool", "WrongValue", "pool.1".into());
        let mut remark = |seconds| ledger.remark(at(seconds), "pool", "WrongValue", "x");
        assert_eq!(remark(401), Verdict::Recount("pool.1".into(), 3));
        assert_eq!(remark(500), Verdict::Silent);
        assert_eq!(remark(1_800), Verdict::Create, "a new series");
    }

    #[test]
    fn a_flood_of_different_messages_is_thinned_and_other_objects_are_not() {
        let mut ledger = Ledger::default();
        let written = (0..100)
            .filter(|second| {
                let message = format!("value {second}");
                ledger.remark(at(*second), "pool", "WrongValue", &message) == Verdict::Create
            })
            .count();
        assert_eq!(written, 10);
        assert_eq!(
            ledger.remark(at(99), "other", "WrongValue", "value 99"),
            Verdict::Create
        );
        assert_eq!(
            ledger.remark(at(99), "pool", "Other", "value 99"),
            Verdict::Create
        );
    }

    #[test]
    fn what_failed_is_tried_again_but_not_at_once() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.remark(at(0), "pool", "R", "x"), Verdict::Create);
        ledger.failed("pool", "R");
        assert_eq!(ledger.remark(at(9), "pool", "R", "x"), Verdict::Silent);
        assert_eq!(ledger.remark(at(10), "pool", "R", "x"), Verdict::Create);
    }

    #[test]
    fn memory_is_bounded() {
        let mut ledger = Ledger::default();
        for number in 0..3 * MAX_REMEMBERED as u64 {
            ledger.remark(at(number), &number.to_string(), "R", "x");
        }
        assert_eq!(ledger.said.len(), MAX_REMEMBERED);
    }
}
