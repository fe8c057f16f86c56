//! The virtual clock: a heap of what happens next.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// What can happen at an instant, in the order in which simultaneous things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    /// An engine's step ends.
    Step { replica: usize },
    /// A launched replica answers its health check.
    Ready { replica: usize },
    /// A fitted model comes into force.
    Install { picker: usize },
    /// A director asked to be woken (a time to live ends).
    Wakeup { picker: usize },
    /// The pickers tell one another what they did.
    Exchange,
    /// Every endpoint's metrics are read.
    Scrape,
    /// A request arrives.
    Arrival { offer: usize },
    /// The controller decides.
    Tick,
    /// A sample for the report's plots is taken.
    Sample,
}

/// Events in order of time, then of kind, then of insertion: never of memory layout.
#[derive(Default)]
pub(super) struct Agenda {
    heap: BinaryHeap<Reverse<(Duration, Event, u64)>>,
    inserted: u64,
}

impl Agenda {
    pub(super) fn at(&mut self, at: Duration, event: Event) {
        self.inserted += 1;
        self.heap.push(Reverse((at, event, self.inserted)));
    }

    pub(super) fn next(&mut self) -> Option<(Duration, Event)> {
        self.heap.pop().map(|Reverse((at, event, _))| (at, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn simultaneous_events_keep_a_fixed_order() {
        let mut agenda = Agenda::default();
        let at = Duration::from_secs(1);
        agenda.at(at, Event::Tick);
        agenda.at(at, Event::Arrival { offer: 0 });
        agenda.at(at, Event::Step { replica: 3 });
        agenda.at(Duration::ZERO, Event::Sample);
        let order: Vec<_> = std::iter::from_fn(|| agenda.next())
            .map(|(_, event)| event)
            .collect();
        assert_eq!(
            order,
            [
                Event::Sample,
                Event::Step { replica: 3 },
                Event::Arrival { offer: 0 },
                Event::Tick
            ]
        );
    }
}
