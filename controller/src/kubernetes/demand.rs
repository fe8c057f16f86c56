//! Where a model's demand comes from: our endpoint pickers, else Prometheus, else the engines themselves.

mod gathering;
mod ledger;
mod pool;

pub use gathering::{Gathering, Handover, Known, PoolKey, Wanted};
pub use ledger::{Counted, Ledger, SavedLedger, Sum};

use std::fmt;

use serde::{Deserialize, Serialize};

/// A source of demand, best first.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    /// The reports of our own endpoint pickers: everything that arrived, whatever became of it.
    Pickers,
    /// Prometheus, which scrapes endpoint pickers of others.
    Prometheus,
    /// The engines' metrics pages: what they served and hold. What never reached an engine is not in it.
    Engines,
    /// None has spoken.
    #[default]
    None,
}

impl Source {
    /// Every source, best first.
    pub const ALL: [Self; 4] = [Self::Pickers, Self::Prometheus, Self::Engines, Self::None];

    /// As written in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pickers => "pickers",
            Self::Prometheus => "prometheus",
            Self::Engines => "engines",
            Self::None => "none",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pickers => "demand as the endpoint pickers report it",
            Self::Prometheus => {
                "demand as Prometheus tells it of endpoint pickers that are not Headroom's"
            }
            Self::Engines => {
                "demand as the engines tell it (served and waiting there; what was turned away before is not seen)"
            }
            Self::None => "nothing tells the demand: no endpoint picker, no Prometheus, no engine",
        })
    }
}

/// The best source that has something to say. A picker pod that exists counts even while it is silent: its share is
/// unknown then, and no other source knows it better.
pub fn choose(picker_pods: usize, prometheus: bool, engines: bool) -> Source {
    if picker_pods > 0 {
        Source::Pickers
    } else if prometheus {
        Source::Prometheus
    } else if engines {
        Source::Engines
    } else {
        Source::None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_source_that_exists_is_taken() {
        assert_eq!(choose(1, true, true), Source::Pickers);
        assert_eq!(choose(0, true, true), Source::Prometheus);
        assert_eq!(choose(0, false, true), Source::Engines);
        assert_eq!(choose(0, false, false), Source::None);
        assert!(Source::ALL.is_sorted());
    }
}
