//! What became of changes of the configuration's file.

use super::registrar::Registrar;
use names::metric::picker::config;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use serde::Serialize;

/// What became of one change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Reloaded {
    /// It is in force.
    Applied,
    /// It says the same in other words.
    Unchanged,
    /// It cannot be read or is no configuration: the one before stays.
    Invalid,
    /// It changes what is set up at the start: the one before stays.
    NeedsRestart,
}

impl Reloaded {
    const ALL: [Self; 4] = [
        Self::Applied,
        Self::Unchanged,
        Self::Invalid,
        Self::NeedsRestart,
    ];

    /// As metrics and `/debug/state` name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Invalid => "invalid",
            Self::NeedsRestart => "needs-restart",
        }
    }

    fn successful(self) -> bool {
        matches!(self, Self::Applied | Self::Unchanged)
    }
}

/// The last change, for `/debug/state`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct LastReload {
    at_ms: u64,
    result: Reloaded,
    /// Why it is not in force.
    problem: Option<String>,
}

#[derive(Clone, Copy, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResultLabel {
    result: &'static str,
}

/// Changes of the configuration's file in figures.
#[derive(Debug)]
pub(crate) struct Reloads {
    results: Family<ResultLabel, Counter>,
    successful: Gauge,
    last: Mutex<Option<LastReload>>,
}

impl Reloads {
    pub(super) fn new(to: &mut Registrar<'_>) -> Self {
        let reloads = Self {
            results: Family::default(),
            successful: Gauge::default(),
            last: Mutex::default(),
        };
        for result in Reloaded::ALL {
            let result = result.name();
            drop(reloads.results.get_or_create(&ResultLabel { result }));
        }
        reloads.successful.set(1);
        let help = "Changes of the configuration's file, by what became of them";
        to.own(config::RELOADS, help, &reloads.results);
        let help = "1 unless the configuration's file has changed and what it says is not in force";
        to.own(config::LAST_RELOAD, help, &reloads.successful);
        reloads
    }

    /// The file changed, with that result.
    pub(crate) fn went(&self, at_ms: u64, result: Reloaded, problem: Option<String>) {
        let label = ResultLabel {
            result: result.name(),
        };
        self.results.get_or_create(&label).inc();
        self.successful.set(i64::from(result.successful()));
        *self.last.lock() = Some(LastReload {
            at_ms,
            result,
            problem,
        });
    }

    /// What became of the last change; `None` = there was none.
    pub(crate) fn last(&self) -> Option<LastReload> {
        self.last.lock().clone()
    }
}
