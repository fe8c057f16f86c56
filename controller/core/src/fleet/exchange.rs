//! What pickers tell one another, and when they cannot.

use std::sync::Arc;
use std::time::Duration;

use epp_core::BandDepth;
use epp_core::peers::{self, BandUse, Delta};

use super::picker::Picker;

/// The pickers of a fleet. Requests reach them at random, each as often as the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pickers {
    /// How many, at least 1.
    pub count: usize,
    /// How they tell one another what they do; `None` = they do not.
    pub exchange: Option<Exchanging>,
}

/// An exchange of deltas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchanging {
    /// Between two deltas of a picker.
    pub every: Duration,
    /// When pickers are cut off.
    pub partitions: Vec<Partition>,
}

/// A time in which one picker hears nobody and nobody hears it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// The picker that is cut off.
    pub picker: usize,
    /// From when on.
    pub from: Duration,
    /// Until when.
    pub until: Duration,
}

impl Pickers {
    /// One picker, which sees everything.
    pub const ONE: Self = Self {
        count: 1,
        exchange: None,
    };

    /// Several that know nothing of each other but what they see at the engines.
    pub fn blind(count: usize) -> Self {
        Self {
            count: count.max(1),
            exchange: None,
        }
    }

    /// Several that tell each other what they do, as often as pickers in production.
    pub fn exchanging(count: usize) -> Self {
        Self {
            count: count.max(1),
            exchange: Some(Exchanging {
                every: peers::TICK,
                partitions: Vec::new(),
            }),
        }
    }
}

impl Exchanging {
    /// Whether what `from` says at `now` reaches `to`.
    pub fn reaches(&self, now: Duration, from: usize, to: usize) -> bool {
        let cut_off = |partition: &Partition| {
            (partition.picker == from || partition.picker == to)
                && (partition.from..partition.until).contains(&now)
        };
        from != to && !self.partitions.iter().any(cut_off)
    }
}

/// Carries each picker's delta of `now` to all others that it reaches; who finds that it missed something is told
/// all.
pub(super) fn exchange(now: Duration, exchanging: &Exchanging, pickers: &mut [Picker]) {
    let deltas: Vec<Option<Delta>> = pickers.iter_mut().map(|it| it.tell(now)).collect();
    for (from, delta) in deltas.iter().enumerate() {
        let Some(delta) = delta else { continue };
        for to in 0..pickers.len() {
            if !exchanging.reaches(now, from, to) || pickers[to].hear(now, delta) {
                continue;
            }
            if let Some(whole) = pickers[from].say_all() {
                pickers[to].hear(now, &whole);
            }
        }
    }
}

impl Picker {
    /// What it has to tell its peers.
    fn tell(&mut self, now: Duration) -> Option<Delta> {
        let peers = self.peers.as_mut()?;
        let used = |band: BandDepth| BandUse {
            priority: band.priority,
            requests: band.requests,
            bytes: band.bytes,
        };
        let queued = self.director.queued().bands.into_iter();
        let bands = queued.filter(|band| band.requests > 0).map(used).collect();
        let delta = peers.tick(now, now, bands, self.director.take_sent());
        self.director.set_queued_elsewhere(peers.queued());
        delta
    }

    fn say_all(&self) -> Option<Delta> {
        self.peers.as_ref().map(peers::Exchange::whole)
    }

    /// Takes in what a peer says; false = it refers to what was never heard.
    fn hear(&mut self, now: Duration, delta: &Delta) -> bool {
        let Some(peers) = &mut self.peers else {
            return true;
        };
        let Ok(applied) = peers.apply(now, delta) else {
            return false;
        };
        self.director.learn_elsewhere(now, &applied.learned);
        true
    }
}

/// A picker's end of the exchange.
pub(super) fn end(index: usize) -> peers::Exchange {
    let name: Arc<str> = format!("picker-{index}").into();
    peers::Exchange::new(name, index as u64 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_cuts_one_picker_off_both_ways_while_it_lasts() {
        let second = Duration::from_secs;
        let exchanging = Exchanging {
            every: Duration::from_millis(100),
            partitions: vec![Partition {
                picker: 1,
                from: second(10),
                until: second(20),
            }],
        };
        assert!(exchanging.reaches(second(9), 0, 1));
        assert!(!exchanging.reaches(second(10), 0, 1));
        assert!(!exchanging.reaches(second(19), 1, 2));
        assert!(exchanging.reaches(second(15), 0, 2));
        assert!(exchanging.reaches(second(20), 1, 0));
        assert!(!exchanging.reaches(second(20), 1, 1));
    }
}
