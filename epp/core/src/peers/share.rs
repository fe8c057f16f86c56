//! How much of an endpoint's room is ours while peers fill it too.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::Flight;

/// What peers have in flight at one endpoint, and how the room that is left is shared with them.
///
/// All pickers share the room that was free when they last heard of each other evenly: whoever takes `k` slots
/// assumes that each of the others takes `k` as well ([`Remote::assumed`]). As long as nobody hears anything new,
/// they cannot take more than there is, without asking each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// What the peers said, summed up.
    pub flight: Flight,
    /// The fewest requests of ours in flight here that a peer may believe in: the least of what we told since all of
    /// them answered.
    pub base: u32,
    /// Pickers that share the room, this one included; 0 = no other is known, 1 = none that knows of us.
    pub pickers: u32,
    /// This picker's turn, from 0 and below `pickers`, at the slots that are left over by an even share.
    pub turn: u32,
}

impl Remote {
    /// Requests that peers are assumed to have dispatched here since they last told, where `own` of ours are in
    /// flight. `own + flight.in_flight + assumed < limit` holds as long as ours stay within
    /// `base + ⌈(limit − base − flight.in_flight − turn)/pickers⌉`, and those bounds of all pickers add up to `limit`.
    pub fn assumed(&self, own: u32) -> u32 {
        let others = i64::from(self.pickers.saturating_sub(1));
        if others == 0 {
            return 0;
        }
        let grown = i64::from(own) - i64::from(self.base);
        let assumed = others * grown + i64::from(self.turn);
        u32::try_from(assumed.max(0)).unwrap_or(u32::MAX)
    }
}

/// [`Remote`] as the request path reads it, without a lock. Readers may straddle an update; what they see is then
/// partly of the one tick and partly of the next.
#[derive(Debug, Default)]
pub(crate) struct RemoteCell {
    in_flight: AtomicU32,
    waiting: AtomicU32,
    waiting_tokens: AtomicU64,
    resident_tokens: AtomicU64,
    estimated_tokens: AtomicU64,
    base: AtomicU32,
    pickers: AtomicU32,
    turn: AtomicU32,
}

impl RemoteCell {
    pub(crate) fn store(&self, remote: Remote) {
        let Remote {
            flight,
            base,
            pickers,
            turn,
        } = remote;
        self.in_flight.store(flight.in_flight, Relaxed);
        self.waiting.store(flight.waiting, Relaxed);
        self.waiting_tokens.store(flight.waiting_tokens, Relaxed);
        self.resident_tokens.store(flight.resident_tokens, Relaxed);
        self.estimated_tokens
            .store(flight.estimated_tokens, Relaxed);
        self.base.store(base, Relaxed);
        self.turn.store(turn, Relaxed);
        self.pickers.store(pickers, Relaxed);
    }

    /// `None` = this picker is alone: nothing else needs to be read.
    pub(crate) fn load(&self) -> Option<Remote> {
        let pickers = self.pickers.load(Relaxed);
        (pickers > 0).then(|| Remote {
            flight: Flight {
                in_flight: self.in_flight.load(Relaxed),
                waiting: self.waiting.load(Relaxed),
                waiting_tokens: self.waiting_tokens.load(Relaxed),
                resident_tokens: self.resident_tokens.load(Relaxed),
                estimated_tokens: self.estimated_tokens.load(Relaxed),
            },
            base: self.base.load(Relaxed),
            pickers,
            turn: self.turn.load(Relaxed),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn remote(in_flight: u32, base: u32, pickers: u32, turn: u32) -> Remote {
        Remote {
            flight: Flight {
                in_flight,
                ..Flight::default()
            },
            base,
            pickers,
            turn,
        }
    }

    fn room(remote: &Remote, own: u32, limit: u32) -> bool {
        own + remote.flight.in_flight + remote.assumed(own) < limit
    }

    #[test]
    fn alone_nothing_is_assumed() {
        assert_eq!(Remote::default().assumed(50), 0);
        assert_eq!(remote(0, 0, 1, 0).assumed(50), 0);
    }

    #[test]
    fn a_slot_that_we_gave_back_is_ours_to_fill() {
        let full = remote(6, 4, 2, 1);
        assert!(!room(&full, 4, 10));
        assert!(room(&full, 3, 10));
    }

    proptest! {
        /// Pickers that know of each other what is true fill an endpoint together exactly to its limit.
        #[test]
        fn shares_add_up_to_the_limit(
            told in prop::collection::vec(0_u32..40, 1..6),
            spare in 0_u32..50,
        ) {
            let pickers = told.len() as u32;
            let sum: u32 = told.iter().sum();
            let limit = sum + spare;
            let mut total = 0;
            for (turn, &base) in told.iter().enumerate() {
                let view = remote(sum - base, base, pickers, turn as u32);
                let mut own = base;
                while room(&view, own, limit) {
                    own += 1;
                }
                total += own;
            }
            prop_assert_eq!(total, limit);
        }
    }
}
