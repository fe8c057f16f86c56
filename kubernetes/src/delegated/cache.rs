//! Answers that are remembered for a while, never more than so many.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Checksum of a question. Tokens and identities are not kept.
pub(super) type Key = [u8; 32];

/// Remembered answers; the oldest make room for new ones.
#[derive(Debug)]
pub(super) struct Cache<V> {
    answers: HashMap<Key, Remembered<V>>,
    /// Keys in the order of their answers; those answered again since are passed over when their turn comes.
    order: VecDeque<(Key, Duration)>,
    room: usize,
    fresh: Duration,
    grace: Duration,
}

#[derive(Debug)]
struct Remembered<V> {
    value: V,
    at: Duration,
}

/// How good a remembered answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quality {
    /// As good as asking.
    Fresh,
    /// Better than nothing, when asking fails.
    Old,
}

impl<V: Clone> Cache<V> {
    /// Room for `room` answers, each [`Quality::Fresh`] for `fresh` and [`Quality::Old`] for `grace` after that.
    pub(super) fn new(room: usize, fresh: Duration, grace: Duration) -> Self {
        Self {
            answers: HashMap::new(),
            order: VecDeque::new(),
            room,
            fresh,
            grace,
        }
    }

    /// What is remembered under `key` at `now`.
    pub(super) fn get(&self, key: &Key, now: Duration) -> Option<(V, Quality)> {
        let Remembered { value, at } = self.answers.get(key)?;
        let age = now.saturating_sub(*at);
        let quality = if age < self.fresh {
            Quality::Fresh
        } else if age < self.fresh + self.grace {
            Quality::Old
        } else {
            return None;
        };
        Some((value.clone(), quality))
    }

    /// Remembers `value`, given at `now`, which never goes back.
    pub(super) fn put(&mut self, key: Key, value: V, now: Duration) {
        self.answers.insert(key, Remembered { value, at: now });
        self.order.push_back((key, now));
        while self.answers.len() > self.room || self.order.len() > 2 * self.room {
            let Some((oldest, at)) = self.order.pop_front() else {
                return;
            };
            if self.answers.get(&oldest).is_some_and(|kept| kept.at == at) {
                self.answers.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(number: u8) -> Key {
        [number; 32]
    }

    #[test]
    fn an_answer_is_fresh_then_old_then_gone() {
        let mut cache = Cache::new(4, 10 * SECOND, 5 * SECOND);
        cache.put(key(1), "yes", SECOND);
        assert_eq!(
            cache.get(&key(1), 10 * SECOND),
            Some(("yes", Quality::Fresh))
        );
        assert_eq!(cache.get(&key(1), 11 * SECOND), Some(("yes", Quality::Old)));
        assert_eq!(cache.get(&key(1), 16 * SECOND), None);
        assert_eq!(cache.get(&key(2), SECOND), None);
    }

    #[test]
    fn the_oldest_make_room() {
        let mut cache = Cache::new(2, 10 * SECOND, SECOND);
        cache.put(key(1), 1, SECOND);
        cache.put(key(2), 2, 2 * SECOND);
        cache.put(key(1), 3, 3 * SECOND);
        cache.put(key(3), 4, 4 * SECOND);
        let kept: Vec<_> = [1, 2, 3]
            .map(|number| cache.get(&key(number), 4 * SECOND).map(|(value, _)| value))
            .into();
        assert_eq!(kept, [Some(3), None, Some(4)]);
    }

    proptest! {
        #[test]
        fn it_never_grows_beyond_its_room(puts in prop::collection::vec((0_u8..20, 0_u32..3), 0..200)) {
            let mut cache = Cache::new(5, 10 * SECOND, SECOND);
            let mut now = Duration::ZERO;
            for (number, step) in puts {
                now += SECOND * step;
                cache.put(key(number), number, now);
                prop_assert!(cache.answers.len() <= 5 && cache.order.len() <= 10);
                prop_assert_eq!(cache.get(&key(number), now), Some((number, Quality::Fresh)));
            }
        }
    }
}
