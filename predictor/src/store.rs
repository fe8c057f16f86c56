//! The rows that refits learn from: bounded, stratified by load and prompt size, decayed by age.

use std::collections::VecDeque;
use std::time::Duration;

use crate::Features;

/// One labelled request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) features: Features,
    pub(crate) actual_ms: f32,
    /// When the label arrived.
    pub(crate) at: Duration,
    /// Counts labels since the start, so that order survives the strata.
    pub(crate) number: u64,
}

/// Classes of requests at the endpoint, by powers of two: 0, 1, 2–3, 4–7, …
const LOADS: usize = 9;
/// Classes of uncached prompt tokens, by powers of four: below 16, 64, 256, …
const SIZES: usize = 6;

/// Rows by stratum, oldest first in each. When the store is full the fullest stratum gives up its
/// oldest row, so that rare kinds of load survive a flood of common ones; `max_age` ends them too.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    strata: Vec<VecDeque<Row>>,
    rows: usize,
    capacity: usize,
    half_life: Duration,
    max_age: Duration,
}

impl Store {
    pub(crate) fn new(capacity: usize, half_life: Duration, max_age: Duration) -> Self {
        Self {
            strata: vec![VecDeque::new(); LOADS * SIZES],
            rows: 0,
            capacity,
            half_life,
            max_age,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows
    }

    pub(crate) fn push(&mut self, row: Row) {
        if self.rows >= self.capacity {
            // The last of equals, so that the choice is a function of the contents.
            if let Some(fullest) = self.strata.iter_mut().max_by_key(|stratum| stratum.len())
                && fullest.pop_front().is_some()
            {
                self.rows -= 1;
            }
        }
        self.strata[stratum(&row.features)].push_back(row);
        self.rows += 1;
    }

    /// All rows in order of arrival; what is expired may still be among them.
    pub(crate) fn rows(&self) -> Vec<Row> {
        let mut rows: Vec<Row> = self.strata.iter().flatten().copied().collect();
        rows.sort_unstable_by_key(|row| row.number);
        rows
    }

    /// Drops rows whose label arrived before `at`.
    pub(crate) fn forget_before(&mut self, at: Duration) {
        self.rows = 0;
        for stratum in &mut self.strata {
            // Rows of a stratum are in order of arrival.
            let old = stratum.partition_point(|row| row.at < at);
            stratum.drain(..old);
            self.rows += stratum.len();
        }
    }

    /// All rows with their age weights (0 to 1), in order of arrival; expired rows are dropped first.
    pub(crate) fn weighted(&mut self, now: Duration) -> Vec<(Row, f32)> {
        if let Some(oldest) = now.checked_sub(self.max_age) {
            self.forget_before(oldest);
        }
        let half_life = self.half_life.as_secs_f32();
        let weight = |row: &Row| {
            let age = now.saturating_sub(row.at).as_secs_f32();
            // Floored: a row of an ancient age still in the store has a positive weight.
            (-age / half_life).exp2().max(1e-6)
        };
        self.rows()
            .into_iter()
            .map(|row| (row, weight(&row)))
            .collect()
    }
}

fn stratum(features: &Features) -> usize {
    // `max` turns unknown (NaN) into 0 and the casts saturate.
    let load = (features.running + features.waiting).max(0.0) as u32;
    let tokens = features.uncached_tokens().max(0.0) as u32 / 16;
    let load = (u32::BITS - load.leading_zeros()).min(LOADS as u32 - 1);
    let size = (u32::BITS - tokens.leading_zeros())
        .div_ceil(2)
        .min(SIZES as u32 - 1);
    load as usize * SIZES + size as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u64, running: f32) -> Row {
        Row {
            features: Features {
                running,
                ..Features::idle(100.0)
            },
            actual_ms: 1.0,
            at: Duration::from_secs(number),
            number,
        }
    }

    fn store(capacity: usize) -> Store {
        Store::new(
            capacity,
            Duration::from_secs(100),
            Duration::from_secs(1_000),
        )
    }

    #[test]
    fn never_holds_more_than_its_capacity_and_keeps_the_rare() {
        let mut store = store(100);
        for number in 0..10 {
            store.push(row(number, 64.0));
        }
        for number in 10..900 {
            store.push(row(number, 0.0));
            assert!(store.len() <= 100);
        }
        let rows = store.weighted(Duration::from_secs(900));
        assert_eq!(rows.len(), 100);
        let rare = rows.iter().filter(|(row, _)| row.features.running > 0.0);
        assert_eq!(rare.count(), 10);
        // Of the common ones the newest stay.
        assert_eq!(rows[10].0.number, 810);
    }

    #[test]
    fn weights_halve_with_each_half_life_and_old_rows_go() {
        let mut store = store(100);
        store.push(row(0, 0.0));
        store.push(row(900, 0.0));
        store.push(row(1_000, 64.0));
        let weights = |rows: Vec<(Row, f32)>| rows.iter().map(|of| of.1).collect::<Vec<_>>();
        let rows = weights(store.weighted(Duration::from_secs(1_000)));
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1..], [0.5, 1.0]);
        assert_eq!(
            weights(store.weighted(Duration::from_secs(1_100))),
            [0.25, 0.5]
        );
        assert_eq!(store.len(), 2);
    }

    #[test]
    fn rows_come_out_in_order_of_arrival() {
        let mut store = store(1_000);
        for number in 0..200 {
            store.push(row(number, (number * 7 % 50) as f32));
        }
        let rows = store.weighted(Duration::from_secs(200));
        assert!(rows.is_sorted_by_key(|(row, _)| row.number));
    }

    #[test]
    fn unknown_features_have_a_place() {
        let mut store = store(10);
        let mut unknown = row(1, f32::NAN);
        unknown.features.input_tokens = f32::NAN;
        store.push(unknown);
        assert_eq!(store.len(), 1);
    }
}
