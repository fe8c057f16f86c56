//! Shares whose sum goes on in the next process.
//!
//! What decisions remember is measured on cumulative counts. A process that begins to listen begins with a sum of zero,
//! or of whatever it has heard: the same demand on another scale, which would look like a burst or like a new world. So
//! the counts are handed over with the decisions: the sum, and what each reporter had counted when it was taken. What
//! came since is then known exactly, and is spread over the time in between.

use std::collections::BTreeMap;
use std::time::Duration;

use controller_core::shares::{Band, Crowded, MergedDemand, Report, Shares};
use controller_core::signals::{Backlog, Totals};
use serde::{Deserialize, Serialize};

/// [`Shares`] on top of what another process had counted.
#[derive(Clone, Debug)]
pub struct Ledger {
    shares: Shares,
    base: BTreeMap<i32, Totals>,
    counted: BTreeMap<String, Counted>,
}

/// What a reporter had counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// Its start.
    pub incarnation: u64,
    /// By priority.
    pub bands: Vec<Sum>,
}

/// Counts of one priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sum {
    /// The priority.
    pub priority: i32,
    /// The counts.
    pub totals: Totals,
}

/// A ledger as it is handed over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SavedLedger {
    /// When it was taken, milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The sum then, by priority.
    pub sum: Vec<Sum>,
    /// What went into it, by reporter.
    pub counted: BTreeMap<String, Counted>,
}

impl Ledger {
    /// Nobody heard yet; listening begins `now`.
    pub fn new(now: Duration) -> Self {
        Self {
            shares: Shares::new(now),
            base: BTreeMap::new(),
            counted: BTreeMap::new(),
        }
    }

    /// Goes on from `saved`.
    pub fn restored(saved: &SavedLedger) -> Self {
        let at = Duration::from_millis(saved.at_ms);
        let mut ledger = Self::new(at);
        ledger.base = saved
            .sum
            .iter()
            .map(|sum| (sum.priority, sum.totals))
            .collect();
        for (id, counted) in &saved.counted {
            // A reporter that was there before us begins with what it has counted: that is in the sum already.
            let report = Report {
                incarnation: counted.incarnation,
                uptime: Duration::MAX,
                bands: counted.bands.iter().map(Sum::band).collect(),
                ..Report::default()
            };
            // The one who saved it counted no more than can be counted.
            let _ = ledger.accept(at, id, report);
        }
        ledger
    }

    /// The ledger as it is, given the demand last told.
    pub fn save(&self, at: Duration, told: &MergedDemand) -> SavedLedger {
        SavedLedger {
            at_ms: u64::try_from(at.as_millis()).unwrap_or(u64::MAX),
            sum: told.bands.iter().map(Sum::of).collect(),
            counted: self.counted.clone(),
        }
    }

    /// See [`Shares::expect`].
    ///
    /// # Errors
    /// [`Crowded`].
    pub fn expect(&mut self, now: Duration, id: &str) -> Result<(), Crowded> {
        self.shares.expect(now, id)
    }

    /// See [`Shares::accept`].
    ///
    /// # Errors
    /// [`Crowded`].
    pub fn accept(&mut self, now: Duration, id: &str, report: Report) -> Result<(), Crowded> {
        let counted = Counted {
            incarnation: report.incarnation,
            bands: report
                .bands
                .iter()
                .filter(|band| band.totals != Totals::default())
                .map(Sum::of)
                .collect(),
        };
        self.shares.accept(now, id, report)?;
        self.counted.insert(id.to_owned(), counted);
        Ok(())
    }

    /// See [`Shares::gone`].
    pub fn gone(&mut self, id: &str) {
        self.shares.gone(id);
        self.counted.remove(id);
    }

    /// Everyone who is counted on.
    pub fn ids(&self) -> Vec<String> {
        self.shares.ids().map(str::to_owned).collect()
    }

    /// The number of the first request shape not yet known of `id`.
    pub fn mix_after(&self, id: &str) -> u64 {
        self.shares.mix_after(id).map_or(0, |(_, number)| number)
    }

    /// The demand `now`, with what was counted before.
    pub fn demand(&mut self, now: Duration) -> MergedDemand {
        let mut demand = self.shares.demand(now);
        for (&priority, totals) in &self.base {
            match demand
                .bands
                .iter_mut()
                .find(|band| band.priority == priority)
            {
                Some(band) => band.totals += *totals,
                None => demand.bands.push(Band {
                    priority,
                    totals: *totals,
                    queued: Backlog::default(),
                }),
            }
        }
        demand
            .bands
            .sort_by_key(|band| std::cmp::Reverse(band.priority));
        demand
    }
}

impl Sum {
    fn of(band: &Band) -> Self {
        Self {
            priority: band.priority,
            totals: band.totals,
        }
    }

    fn band(&self) -> Band {
        Band {
            priority: self.priority,
            totals: self.totals,
            queued: Backlog::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use controller_core::signals::Volume;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(1_700_000_000 + seconds)
    }

    fn report(incarnation: u64, uptime: u64, offered: u64) -> Report {
        let totals = Totals {
            offered: Volume {
                requests: offered,
                prompt_tokens: 10 * offered,
            },
            ..Totals::default()
        };
        Report {
            incarnation,
            uptime: Duration::from_secs(uptime),
            bands: vec![Band {
                priority: 0,
                totals,
                queued: Backlog::default(),
            }],
            ..Report::default()
        }
    }

    fn offered(demand: &MergedDemand) -> u64 {
        let bands = demand.bands.iter();
        bands.map(|band| band.totals.offered.requests).sum()
    }

    #[test]
    fn the_next_process_counts_on_and_knows_what_came_in_between() {
        let mut first = Ledger::new(at(0));
        first.accept(at(1), "a", report(1, 1, 10)).unwrap();
        let told = first.demand(at(1));
        let saved = first.save(at(1), &told);
        let text = serde_json::to_string(&saved).unwrap();
        let mut next = Ledger::restored(&serde_json::from_str(&text).unwrap());
        assert_eq!(offered(&next.demand(at(1))), 10);
        next.accept(at(9), "a", report(1, 9, 34)).unwrap();
        let demand = next.demand(at(9));
        assert_eq!(offered(&demand), 34);
        assert_eq!(
            demand.arrears[0].since,
            at(1),
            "spread over the time in between"
        );
        next.accept(at(9), "b", report(1, 2, 5)).unwrap();
        assert_eq!(
            offered(&next.demand(at(9))),
            39,
            "one that started meanwhile"
        );
    }

    #[test]
    fn a_picker_that_restarted_in_between_counts_from_its_start() {
        let mut first = Ledger::new(at(0));
        first.accept(at(1), "a", report(1, 1, 10)).unwrap();
        let told = first.demand(at(1));
        let mut next = Ledger::restored(&first.save(at(1), &told));
        next.accept(at(9), "a", report(2, 3, 4)).unwrap();
        assert_eq!(offered(&next.demand(at(9))), 14);
    }

    proptest! {
        /// Wherever the hand-overs are, the sum is what one process would have counted.
        #[test]
        fn hand_overs_do_not_show(steps in proptest::collection::vec((0_u64..20, any::<bool>()), 1..30)) {
            let (mut whole, mut ledger) = (Ledger::new(at(0)), Ledger::new(at(0)));
            let mut sum = 0;
            for (second, (growth, handed_over)) in steps.into_iter().enumerate() {
                let second = second as u64 + 1;
                sum += growth;
                whole.accept(at(second), "a", report(1, second, sum)).unwrap();
                ledger.accept(at(second), "a", report(1, second, sum)).unwrap();
                let (expected, told) = (whole.demand(at(second)), ledger.demand(at(second)));
                prop_assert_eq!(offered(&told), offered(&expected));
                if handed_over {
                    ledger = Ledger::restored(&ledger.save(at(second), &told));
                }
            }
        }
    }
}
