//! What pickers tell one another, and when they cannot.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use epp_core::Director;

/// Carries what the pickers of a fleet know to one another.
pub trait Exchange: fmt::Debug + Send + Sync {
    /// Takes what each picker has to tell since the last time and gives it to every other that `reachable(from, to)`
    /// lets it reach.
    fn exchange(
        &self,
        now: Duration,
        pickers: &mut [&mut Director],
        reachable: &dyn Fn(usize, usize) -> bool,
    );
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

/// The pickers of a fleet. Requests reach them at random, each as often as the others.
#[derive(Clone, Debug)]
pub struct Pickers {
    /// How many, at least 1.
    pub count: usize,
    /// How they tell one another what they do; `None` = they do not.
    pub exchange: Option<Exchanging>,
}

/// An exchange and its rhythm.
#[derive(Clone, Debug)]
pub struct Exchanging {
    /// Between two exchanges.
    pub every: Duration,
    /// What is exchanged.
    pub with: Arc<dyn Exchange>,
    /// When pickers are cut off.
    pub partitions: Vec<Partition>,
}

impl Pickers {
    /// One picker, which sees everything.
    pub const ONE: Self = Self {
        count: 1,
        exchange: None,
    };

    /// Several pickers that know nothing of each other but what they see at the engines.
    pub fn blind(count: usize) -> Self {
        Self {
            count: count.max(1),
            exchange: None,
        }
    }
}

impl Exchanging {
    /// Whether what `from` tells at `now` reaches `to`.
    pub fn reachable(&self, now: Duration, from: usize, to: usize) -> bool {
        let cut_off = |partition: &Partition| {
            (partition.picker == from || partition.picker == to)
                && (partition.from..partition.until).contains(&now)
        };
        !self.partitions.iter().any(cut_off)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Silence;

    impl Exchange for Silence {
        fn exchange(&self, _: Duration, _: &mut [&mut Director], _: &dyn Fn(usize, usize) -> bool) {
        }
    }

    #[test]
    fn a_partition_cuts_one_picker_off_both_ways_while_it_lasts() {
        let second = Duration::from_secs;
        let exchanging = Exchanging {
            every: Duration::from_millis(100),
            with: Arc::new(Silence),
            partitions: vec![Partition {
                picker: 1,
                from: second(10),
                until: second(20),
            }],
        };
        assert!(exchanging.reachable(second(9), 0, 1));
        assert!(!exchanging.reachable(second(10), 0, 1));
        assert!(!exchanging.reachable(second(19), 1, 2));
        assert!(exchanging.reachable(second(15), 0, 2));
        assert!(exchanging.reachable(second(20), 1, 0));
    }
}
