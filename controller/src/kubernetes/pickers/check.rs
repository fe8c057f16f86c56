//! Whether a report can be believed. What cannot is named, counted and left out: a picker that answers nonsense is a
//! silent one.

use std::time::Duration;

use epp_core::report::{DemandReport, MIX_SAMPLES, MODEL_NAMES, SCHEMA};

/// Most bands in a report.
pub const MAX_BANDS: usize = 256;
/// Most endpoints in a report.
pub const MAX_ENDPOINTS: usize = 10_000;
/// Most classes of endpoints in a report.
pub const MAX_CLASSES: usize = 16;
/// Longest name in a report, bytes.
const MAX_NAME: usize = 256;
/// A picker's uptime may run ahead of our clock by this much between two reports: the reports' own travel times.
const AHEAD: Duration = Duration::from_secs(60);

/// What is wrong with a report.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Nonsense {
    /// Another version of the document.
    #[error(
        "schema {told} where {SCHEMA} is understood: picker and controller are of releases too far apart"
    )]
    Schema {
        /// The version told.
        told: u32,
    },
    /// Another pool than the pod's label says.
    #[error("it picks for pool {told:?} in namespace {namespace:?}, its label says {label:?}")]
    Pool {
        /// The pool told.
        told: String,
        /// The namespace told.
        namespace: String,
        /// The pool of the label.
        label: String,
    },
    /// A list or a name beyond all bounds.
    #[error("{what}: {count} where at most {most} are read")]
    TooMany {
        /// The list.
        what: &'static str,
        /// Its length.
        count: usize,
        /// The most that is read.
        most: usize,
    },
    /// An earlier start after a later one.
    #[error(
        "incarnation went back from {last} to {told}: its clock jumped, or an older process answers"
    )]
    IncarnationWentBack {
        /// The incarnation before.
        last: u64,
        /// The one told.
        told: u64,
    },
    /// The uptime went back within one start.
    #[error("uptime went back from {last} ms to {told} ms without a restart")]
    UptimeWentBack {
        /// The uptime before, ms.
        last: u64,
        /// The one told, ms.
        told: u64,
    },
    /// The uptime ran ahead of time.
    #[error("uptime grew by {told} ms within {passed} ms: its clock jumped")]
    UptimeRanAhead {
        /// By how much it grew, ms.
        told: u64,
        /// What passed here, ms.
        passed: u64,
    },
    /// A counter went back within one start.
    #[error("{what} went back from {last} to {told} without a restart")]
    CounterWentBack {
        /// The counter.
        what: &'static str,
        /// Its value before.
        last: u64,
        /// The value told.
        told: u64,
    },
}

/// What is remembered of the report before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// On our clock.
    pub at: Duration,
    /// Start that it belongs to.
    pub incarnation: u64,
    /// Milliseconds since that start.
    pub uptime_ms: u64,
    offered: u64,
    ended: u64,
}

impl Seen {
    /// Remembers `report`, received at `at`.
    pub fn of(report: &DemandReport, at: Duration) -> Self {
        Self {
            at,
            incarnation: report.incarnation,
            uptime_ms: report.uptime_ms,
            offered: report.totals.offered().requests,
            ended: report.totals.ended().requests,
        }
    }
}

/// Checks a report received at `now` from a picker labelled for `pool` in `namespace`.
///
/// # Errors
/// What is wrong first.
pub fn check(
    report: &DemandReport,
    namespace: &str,
    pool: &str,
    now: Duration,
    last: Option<&Seen>,
) -> Result<(), Nonsense> {
    if report.schema != SCHEMA {
        return Err(Nonsense::Schema {
            told: report.schema,
        });
    }
    let told = &report.pool;
    // Outside Kubernetes a picker knows no namespace; and a picker started by a selector knows no pool.
    let same = |told: &str, label: &str| told.is_empty() || told == label;
    if !same(&told.namespace, namespace) || !same(&told.name, pool) {
        return Err(Nonsense::Pool {
            told: shortened(&told.name),
            namespace: shortened(&told.namespace),
            label: pool.to_owned(),
        });
    }
    bounds(report)?;
    last.map_or(Ok(()), |last| continuous(report, now, last))
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

fn bounds(report: &DemandReport) -> Result<(), Nonsense> {
    let most = |what, count, most| {
        if count > most {
            Err(Nonsense::TooMany { what, count, most })
        } else {
            Ok(())
        }
    };
    most("bands", report.totals.bands.len(), MAX_BANDS)?;
    most("endpoints", report.endpoints.len(), MAX_ENDPOINTS)?;
    most("samples of the mix", report.mix.len(), MIX_SAMPLES)?;
    most("classes", report.models.len(), MAX_CLASSES)?;
    most("model names", report.model_names.len(), MODEL_NAMES)?;
    most("bytes in the picker's name", report.epp.len(), MAX_NAME)?;
    for class in &report.models {
        most("bytes in a class's name", class.class.len(), MAX_NAME)?;
        most("bytes in a checksum", class.checksum.len(), MAX_NAME)?;
    }
    for endpoint in &report.endpoints {
        most("bytes in an endpoint's name", endpoint.name.len(), MAX_NAME)?;
        most("bytes in a class's name", endpoint.class.len(), MAX_NAME)?;
    }
    Ok(())
}

fn continuous(report: &DemandReport, now: Duration, last: &Seen) -> Result<(), Nonsense> {
    if report.incarnation < last.incarnation {
        return Err(Nonsense::IncarnationWentBack {
            last: last.incarnation,
            told: report.incarnation,
        });
    }
    if report.incarnation > last.incarnation {
        return Ok(());
    }
    if report.uptime_ms < last.uptime_ms {
        return Err(Nonsense::UptimeWentBack {
            last: last.uptime_ms,
            told: report.uptime_ms,
        });
    }
    let passed = now.saturating_sub(last.at);
    let grown = Duration::from_millis(report.uptime_ms - last.uptime_ms);
    if grown > passed + AHEAD {
        return Err(Nonsense::UptimeRanAhead {
            told: grown.as_millis() as u64,
            passed: passed.as_millis() as u64,
        });
    }
    let seen = Seen::of(report, now);
    for (what, before, told) in [
        ("offered requests", last.offered, seen.offered),
        ("ended requests", last.ended, seen.ended),
    ] {
        if told < before {
            return Err(Nonsense::CounterWentBack {
                what,
                last: before,
                told,
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kubernetes::pickers::testing::report;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_sound_report_passes_and_so_does_its_successor() {
        let first = report("epp-0", 7, 1_000, 10);
        assert_eq!(check(&first, "ns", "pool", at(1), None), Ok(()));
        let seen = Seen::of(&first, at(1));
        let second = report("epp-0", 7, 2_000, 15);
        assert_eq!(check(&second, "ns", "pool", at(2), Some(&seen)), Ok(()));
        let restarted = report("epp-0", 8, 0, 0);
        assert_eq!(check(&restarted, "ns", "pool", at(2), Some(&seen)), Ok(()));
    }

    #[test]
    fn nonsense_is_named() {
        let first = report("epp-0", 7, 100_000, 10);
        let seen = Seen::of(&first, at(100));
        let of = |change: &dyn Fn(&mut DemandReport)| {
            let mut report = report("epp-0", 7, 101_000, 10);
            change(&mut report);
            check(&report, "ns", "pool", at(101), Some(&seen))
                .unwrap_err()
                .to_string()
        };
        assert!(of(&|report| report.schema = 9).starts_with("schema 9"));
        assert!(of(&|report| report.pool.name = "other".into()).contains("\"other\""));
        assert!(of(&|report| report.incarnation = 6).contains("from 7 to 6"));
        assert!(of(&|report| report.uptime_ms = 99_999).contains("went back"));
        assert!(of(&|report| report.uptime_ms = 200_000).contains("clock jumped"));
        assert!(of(&|report| report.totals.bands.clear()).contains("from 10 to 0"));
        let many = |report: &mut DemandReport| {
            let band = report.totals.bands[0].clone();
            report.totals.bands = vec![band; MAX_BANDS + 1];
        };
        assert!(of(&many).starts_with("bands: 257"));
    }

    #[test]
    fn a_picker_without_a_pool_object_is_taken_at_its_label() {
        let mut report = report("epp-0", 7, 1_000, 10);
        report.pool = Default::default();
        assert_eq!(check(&report, "ns", "pool", at(1), None), Ok(()));
    }
}
