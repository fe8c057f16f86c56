//! The one bound on label values that clients choose.

use parking_lot::RwLock;
use rustc_hash::FxHashSet;
use std::sync::Arc;

/// What everything beyond the bound is called.
pub const OTHER: &str = "other";
/// Distinct values that are kept apart unless told otherwise.
pub const DISTINCT_VALUES: usize = 1000;
/// Bytes of a value that is kept; a longer one counts as [`OTHER`].
const LONGEST_VALUE: usize = 256;

/// Values of one label: the first so many that come are kept apart, for the life of the process; further ones are all
/// [`OTHER`].
#[derive(Debug)]
pub struct Capped {
    limit: usize,
    other: Arc<str>,
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    values: FxHashSet<Arc<str>>,
    /// Of those, how many came from clients.
    counted: usize,
}

impl Capped {
    /// Keeps `limit` values apart.
    pub fn new(limit: usize) -> Self {
        Self {
            limit,
            other: OTHER.into(),
            known: RwLock::default(),
        }
    }

    /// `value`, or [`OTHER`] once there are too many.
    pub fn label(&self, value: &str) -> Arc<str> {
        if let Some(known) = self.known.read().values.get(value) {
            return Arc::clone(known);
        }
        if value.len() > LONGEST_VALUE {
            return Arc::clone(&self.other);
        }
        let mut known = self.known.write();
        // Somebody may have brought it since.
        if let Some(value) = known.values.get(value) {
            return Arc::clone(value);
        }
        if known.counted >= self.limit {
            return Arc::clone(&self.other);
        }
        known.counted += 1;
        let value: Arc<str> = value.into();
        known.values.insert(Arc::clone(&value));
        value
    }

    /// [`OTHER`], as this label's value.
    pub fn other(&self) -> Arc<str> {
        Arc::clone(&self.other)
    }

    /// Names that the operator chose are always kept apart, and use up nothing.
    pub fn exempt<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        let mut known = self.known.write();
        for name in names {
            if !known.values.contains(name) {
                known.values.insert(name.into());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hundred_thousand_ids_a_thousand_are_kept() {
        let capped = Capped::new(DISTINCT_VALUES);
        let labels: FxHashSet<_> = (0..100_000)
            .map(|id| capped.label(&format!("tenant-{id}")))
            .collect();
        assert_eq!(labels.len(), DISTINCT_VALUES + 1);
        assert_eq!(
            &*capped.label("tenant-7"),
            "tenant-7",
            "those that came first stay"
        );
        assert_eq!(&*capped.label("tenant-99999"), OTHER);
        assert_eq!(capped.known.read().values.len(), DISTINCT_VALUES);
    }

    #[test]
    fn what_the_operator_named_is_exempt() {
        let capped = Capped::new(1);
        assert_eq!(&*capped.label("first"), "first");
        assert_eq!(&*capped.label("canary"), OTHER);
        capped.exempt(["canary", "first"]);
        assert_eq!(&*capped.label("canary"), "canary");
        assert_eq!(&*capped.label("first"), "first");
    }

    #[test]
    fn a_value_that_is_too_long_is_not_kept() {
        let capped = Capped::new(10);
        assert_eq!(&*capped.label(&"x".repeat(LONGEST_VALUE + 1)), OTHER);
        assert_eq!(capped.known.read().counted, 0);
    }

    #[test]
    fn a_limit_of_none_makes_all_one() {
        assert_eq!(&*Capped::new(0).label("a"), OTHER);
    }
}
