//! Who leads, as a pure function of what is read, what is written, and the local clock.
//!
//! The rules are client-go's: a candidate counts from when *it* saw the lease change, so that clocks need not
//! agree; a leader counts from *before* its last successful write was sent, and steps down a while before
//! anybody else can think that it is gone.

use std::time::Duration;

/// Spans of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A lease that has not changed for this long may be taken.
    pub lease: Duration,
    /// A leader that has not renewed for this long leads no more. Shorter than `lease`.
    pub renew_deadline: Duration,
    /// Between two attempts.
    pub retry: Duration,
}

impl Default for Timing {
    /// client-go's: 15 s, 10 s, 2 s.
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// The part of a Lease that an election reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; `None` = nobody.
    pub holder: Option<String>,
    /// How long it may go unchanged, seconds.
    pub lease_seconds: u32,
    /// When the holder took it, unix milliseconds on the holder's clock; informative.
    pub acquired_ms: u64,
    /// When the holder last renewed it, unix milliseconds on the holder's clock; read only for a change.
    pub renewed_ms: u64,
    /// How often it changed hands.
    pub transitions: u32,
    /// Where the holder serves its followers.
    pub address: Option<String>,
    /// The object's resource version: it changes with every write, even by a holder whose clock stands still.
    pub version: String,
}

/// What a candidate does next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Write this record, provided that nobody wrote since it was read.
    Write(Record),
    /// Somebody else leads, for all that is known.
    Wait,
}

/// What is known of who leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// This process does.
    pub leader: bool,
    /// Who does; `None` = nobody, or unknown.
    pub holder: Option<String>,
    /// Where the holder serves its followers.
    pub address: Option<String>,
}

/// One candidate's knowledge. All times are on its own monotonic clock.
#[derive(Clone, Debug)]
pub struct Candidacy {
    identity: String,
    address: Option<String>,
    timing: Timing,
    seen: Option<Record>,
    changed_at: Duration,
    /// When the last successful write was begun, while this candidate holds the lease.
    renewed_at: Option<Duration>,
}

impl Candidacy {
    /// A candidate that knows nothing yet; `identity` must differ from every other's.
    pub fn new(identity: String, address: Option<String>, timing: Timing) -> Self {
        Self {
            identity,
            address,
            timing,
            seen: None,
            changed_at: Duration::ZERO,
            renewed_at: None,
        }
    }

    /// The lease was read at `now` as `found` (`None` = there is none). `unix_ms` goes into what is written.
    pub fn read(&mut self, now: Duration, unix_ms: u64, found: Option<Record>) -> Step {
        if found != self.seen {
            (self.seen, self.changed_at) = (found, now);
        }
        if self.renewed_at.is_some() && !self.holds() {
            // Taken by another while this one could not renew.
            self.renewed_at = None;
        }
        match &self.seen {
            Some(record) if !self.holds() && self.is_held(now, record) => Step::Wait,
            _ => Step::Write(self.claim(unix_ms)),
        }
    }

    /// Whether what is seen names this candidate.
    fn holds(&self) -> bool {
        self.seen
            .as_ref()
            .is_some_and(|record| record.holder.as_deref() == Some(&*self.identity))
    }

    /// Whether somebody's lease must still be respected.
    fn is_held(&self, now: Duration, record: &Record) -> bool {
        let lease = Duration::from_secs(record.lease_seconds.into());
        record.holder.is_some() && now < self.changed_at.saturating_add(lease)
    }

    fn claim(&self, unix_ms: u64) -> Record {
        let seen = self.seen.as_ref();
        let held = self.holds();
        Record {
            holder: Some(self.identity.clone()),
            lease_seconds: u32::try_from(self.timing.lease.as_secs())
                .unwrap_or(u32::MAX)
                .max(1),
            acquired_ms: seen
                .filter(|_| held)
                .map_or(unix_ms, |record| record.acquired_ms),
            renewed_ms: unix_ms,
            transitions: seen.map_or(0, |record| {
                record.transitions.saturating_add(u32::from(!held))
            }),
            address: self.address.clone(),
            version: String::new(),
        }
    }

    /// `record` was written; the attempt began at `began`.
    pub fn written(&mut self, began: Duration, record: Record) {
        (self.seen, self.changed_at) = (Some(record), began);
        self.renewed_at = Some(began);
    }

    /// What is known at `now`.
    pub fn leadership(&self, now: Duration) -> Leadership {
        let leader = self.leads(now);
        let current = self
            .seen
            .as_ref()
            .filter(|record| leader || (!self.holds() && self.is_held(now, record)));
        Leadership {
            leader,
            holder: current.and_then(|record| record.holder.clone()),
            address: current.and_then(|record| record.address.clone()),
        }
    }

    fn leads(&self, now: Duration) -> bool {
        self.renewed_at
            .is_some_and(|at| now < at.saturating_add(self.timing.renew_deadline))
    }

    /// When a leader that does not renew before leads no more; `None` = this one does not lead.
    pub fn expiry(&self) -> Option<Duration> {
        self.renewed_at
            .map(|at| at.saturating_add(self.timing.renew_deadline))
    }

    /// What to write so that the next candidate need not wait; `None` = nothing is held. Leadership ends here.
    pub fn release(&mut self, unix_ms: u64) -> Option<Record> {
        self.renewed_at.take()?;
        let held = self.seen.take()?;
        Some(Record {
            holder: None,
            lease_seconds: 1,
            renewed_ms: unix_ms,
            address: None,
            ..held
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn candidate(name: &str) -> Candidacy {
        Candidacy::new(name.into(), Some(format!("{name}:1")), Timing::default())
    }

    /// The server keeps `record`, under a new version.
    fn put(lease: &mut Option<Record>, record: Record) {
        let writes = lease
            .as_ref()
            .map_or(0, |lease| lease.version.parse().unwrap());
        let version = (writes + 1_u64).to_string();
        *lease = Some(Record { version, ..record });
    }

    /// One attempt of `candidate` at an API that works.
    fn attempt(candidate: &mut Candidacy, now: Duration, wall: u64, lease: &mut Option<Record>) {
        if let Step::Write(record) = candidate.read(now, wall, lease.clone()) {
            put(lease, record.clone());
            candidate.written(now, record);
        }
    }

    #[test]
    fn the_first_leads_and_the_second_follows_it() {
        let (mut a, mut b, mut lease) = (candidate("a"), candidate("b"), None);
        attempt(&mut a, seconds(0), 1_000, &mut lease);
        attempt(&mut b, seconds(1), 2_000, &mut lease);
        assert!(a.leadership(seconds(1)).leader);
        let follower = b.leadership(seconds(1));
        assert_eq!(
            (follower.leader, follower.address.as_deref()),
            (false, Some("a:1"))
        );
        attempt(&mut a, seconds(2), 3_000, &mut lease);
        let record = lease.unwrap();
        assert_eq!(
            (record.acquired_ms, record.renewed_ms, record.transitions),
            (1_000, 3_000, 0)
        );
    }

    #[test]
    fn a_leader_without_the_api_steps_down_before_another_can_step_up() {
        let (mut a, mut b, mut lease) = (candidate("a"), candidate("b"), None);
        attempt(&mut a, seconds(0), 0, &mut lease);
        attempt(&mut b, seconds(1), 0, &mut lease);
        assert!(a.leadership(seconds(9)).leader && !a.leadership(seconds(10)).leader);
        assert_eq!(a.leadership(seconds(10)).holder, None);
        attempt(&mut b, seconds(15), 0, &mut lease);
        assert!(!b.leadership(seconds(15)).leader, "it saw the lease at 1 s");
        attempt(&mut b, seconds(16), 0, &mut lease);
        assert!(b.leadership(seconds(16)).leader);
        assert_eq!(lease.as_ref().unwrap().transitions, 1);
        attempt(&mut a, seconds(17), 0, &mut lease);
        let back = a.leadership(seconds(17));
        assert_eq!((back.leader, back.holder.as_deref()), (false, Some("b")));
    }

    #[test]
    fn the_holders_clock_does_not_matter() {
        let (mut a, mut b, mut lease) = (candidate("a"), candidate("b"), None);
        // A holder whose clock stands in the far past, or jumps about, keeps the lease for as long as it renews.
        for (step, wall) in [5, 4_000_000_000_000, 3, 3, 3].into_iter().enumerate() {
            let now = seconds(10 * step as u64);
            attempt(&mut a, now, wall, &mut lease);
            attempt(&mut b, now + seconds(1), 1_700_000_000_000, &mut lease);
            assert!(!b.leadership(now + seconds(1)).leader);
        }
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let (mut a, mut b, mut lease) = (candidate("a"), candidate("b"), None);
        attempt(&mut a, seconds(0), 0, &mut lease);
        attempt(&mut b, seconds(1), 0, &mut lease);
        put(&mut lease, a.release(9).unwrap());
        assert!(!a.leadership(seconds(1)).leader && a.release(9).is_none());
        attempt(&mut b, seconds(2), 0, &mut lease);
        assert!(b.leadership(seconds(2)).leader);
        assert_eq!(lease.unwrap().transitions, 1);
    }

    proptest! {
        /// Whatever attempts fail, whatever answers are lost, two candidates never lead at once.
        #[test]
        fn never_two_leaders(steps in proptest::collection::vec((0_u8..2, 0_u8..4, 0_u64..9_000), 1..200)) {
            let mut candidates = [candidate("a"), candidate("b")];
            let (mut lease, mut now) = (None, Duration::ZERO);
            for (who, fate, after) in steps {
                now += Duration::from_millis(after);
                let one = &mut candidates[usize::from(who)];
                match fate {
                    // The server is away.
                    0 => {}
                    // It wrote, but the answer was lost.
                    1 => if let Step::Write(record) = one.read(now, after, lease.clone()) {
                        put(&mut lease, record);
                    },
                    _ => attempt(one, now, after, &mut lease),
                }
                let leaders = candidates.iter().filter(|one| one.leadership(now).leader).count();
                prop_assert!(leaders <= 1);
            }
        }
    }
}
