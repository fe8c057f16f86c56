//! Counts over the last span of time, in two halves.

use std::time::Duration;

/// What happened in a span of time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Requests that ended in a way that tells something.
    pub(super) ended: u32,
    /// Of those, 5xx or cut.
    pub(super) failed: u32,
    /// Of those, without a connection: 502, 503, 504, or another endpoint served.
    pub(super) unreachable: u32,
    /// Answers that broke off, nobody knows at which end; not among those that ended.
    pub(super) broken: u32,
    /// First tokens whose prediction was believed.
    pub(super) first_tokens: u32,
    /// Of those, far too late.
    pub(super) slow: u32,
}

impl Counts {
    /// One that failed.
    pub(super) fn fail(&mut self) {
        self.ended += 1;
        self.failed += 1;
    }

    /// Failed answers and all.
    pub(super) fn failures(&self) -> (u32, u32) {
        (self.failed, self.ended)
    }

    /// Failed connections and all.
    pub(super) fn connections(&self) -> (u32, u32) {
        (self.unreachable, self.ended)
    }

    /// Answers that broke off and all.
    pub(super) fn breaks(&self) -> (u32, u32) {
        (self.broken, self.ended.saturating_add(self.broken))
    }

    /// Late first tokens and all.
    pub(super) fn lateness(&self) -> (u32, u32) {
        (self.slow, self.first_tokens)
    }

    /// What is left of these without `part`.
    pub(super) fn without(&self, part: &Self) -> Self {
        Self {
            ended: self.ended.saturating_sub(part.ended),
            failed: self.failed.saturating_sub(part.failed),
            unreachable: self.unreachable.saturating_sub(part.unreachable),
            broken: self.broken.saturating_sub(part.broken),
            first_tokens: self.first_tokens.saturating_sub(part.first_tokens),
            slow: self.slow.saturating_sub(part.slow),
        }
    }

    fn plus(&self, other: &Self) -> Self {
        Self {
            ended: self.ended.saturating_add(other.ended),
            failed: self.failed.saturating_add(other.failed),
            unreachable: self.unreachable.saturating_add(other.unreachable),
            broken: self.broken.saturating_add(other.broken),
            first_tokens: self.first_tokens.saturating_add(other.first_tokens),
            slow: self.slow.saturating_add(other.slow),
        }
    }
}

/// Counts over between half and all of the span last asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Window {
    /// Which half it is, counted from time 0.
    half: u64,
    current: Counts,
    previous: Counts,
}

impl Window {
    /// Where what happens at `now` is counted.
    pub(super) fn at(&mut self, now: Duration, span: Duration) -> &mut Counts {
        let half = number(now, span);
        // Who reports a moment late falls into the half before; a number far below comes of a longer span.
        if half > self.half || half.saturating_add(1) < self.half {
            self.previous = if half == self.half.saturating_add(1) {
                self.current
            } else {
                Counts::default()
            };
            self.current = Counts::default();
            self.half = half;
        }
        &mut self.current
    }

    /// Takes out what `part` counted, of which this is a sum with others.
    pub(super) fn forget(&mut self, part: &Self) {
        let (current, previous) = match self.half.checked_sub(part.half) {
            Some(0) => (part.current, part.previous),
            Some(1) => (Counts::default(), part.current),
            _ => return,
        };
        self.current = self.current.without(&current);
        self.previous = self.previous.without(&previous);
    }

    /// What happened in the span before `now`.
    pub(super) fn total(&self, now: Duration, span: Duration) -> Counts {
        match number(now, span).saturating_sub(self.half) {
            0 => self.current.plus(&self.previous),
            1 => self.current,
            _ => Counts::default(),
        }
    }
}

fn number(now: Duration, span: Duration) -> u64 {
    let half = (span.as_millis() / 2).max(1);
    u64::try_from(now.as_millis() / half).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_taken_out_of_the_sum_wherever_it_was_counted() {
        let span = Duration::from_secs(10);
        let at = Duration::from_secs;
        for (later, left) in [(4, 1), (9, 1), (14, 0), (29, 0)] {
            let (mut sum, mut part) = (Window::default(), Window::default());
            for window in [&mut sum, &mut part] {
                window.at(at(1), span).failed += 3;
                window.at(at(4), span).failed += 2;
            }
            sum.at(at(4), span).failed += 1;
            sum.at(at(later), span).ended += 1;
            sum.forget(&part);
            assert_eq!(sum.total(at(later), span).failed, left, "at {later} s");
        }
    }

    #[test]
    fn forgets_by_halves() {
        let span = Duration::from_secs(10);
        let at = Duration::from_secs;
        let mut window = Window::default();
        window.at(at(4), span).ended += 1;
        window.at(at(6), span).ended += 2;
        assert_eq!(window.total(at(9), span).ended, 3);
        assert_eq!(window.total(at(11), span).ended, 2);
        assert_eq!(window.total(at(15), span).ended, 0);
        window.at(at(30), span).ended += 1;
        assert_eq!(window.total(at(30), span).ended, 1);
        let longer = Duration::from_secs(40);
        window.at(at(31), longer).ended += 1;
        assert_eq!(window.total(at(31), longer).ended, 1, "another span");
        window.at(at(19), longer).ended += 1;
        assert_eq!(window.total(at(31), longer).ended, 2, "a moment late");
    }
}
