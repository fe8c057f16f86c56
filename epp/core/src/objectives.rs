//! Named objectives: what an operator says of a class of requests.

use std::collections::BTreeMap;

use crate::request::Request;
use crate::slo::Slo;

/// Priority, sheddability and default targets of one class of requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Objective {
    /// Band: higher goes first.
    pub priority: i32,
    /// Its requests may be refused for their SLO whatever the priority.
    pub shed: bool,
    /// Targets for requests that bring none of their own.
    pub slo: Slo,
}

/// All objectives by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objectives {
    by_name: BTreeMap<String, Objective>,
}

impl Objectives {
    /// The objective of that name; an unknown or missing name is the default: priority 0, not shed, no SLO.
    pub fn resolve(&self, name: Option<&str>) -> Objective {
        name.and_then(|name| self.by_name.get(name))
            .copied()
            .unwrap_or_default()
    }

    /// Gives `request` the priority, sheddability and default targets of the named objective. Targets the
    /// request already has (from headers) win over the objective's, each on its own.
    pub fn apply(&self, name: Option<&str>, request: &mut Request) {
        let objective = self.resolve(name);
        request.priority = objective.priority;
        request.shed = objective.shed;
        request.slo = request.slo.or(objective.slo);
    }

    /// Adds an objective, or replaces and returns the one of that name.
    pub fn insert(&mut self, name: String, objective: Objective) -> Option<Objective> {
        self.by_name.insert(name, objective)
    }

    /// All, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Objective)> {
        self.by_name
            .iter()
            .map(|(name, objective)| (name.as_str(), objective))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_win_over_the_objective_target_by_target() {
        let mut objectives = Objectives::default();
        let slo = Slo {
            ttft_ms: Some(2_000.0),
            tpot_ms: Some(100.0),
        };
        objectives.insert(
            "gold".into(),
            Objective {
                priority: 5,
                shed: true,
                slo,
            },
        );
        let mut request = Request {
            slo: Slo {
                ttft_ms: Some(500.0),
                tpot_ms: None,
            },
            ..Request::default()
        };
        objectives.apply(Some("gold"), &mut request);
        assert_eq!((request.priority, request.shed), (5, true));
        assert_eq!(
            request.slo,
            Slo {
                ttft_ms: Some(500.0),
                tpot_ms: Some(100.0)
            }
        );
        objectives.apply(Some("unknown"), &mut request);
        assert_eq!((request.priority, request.shed), (0, false));
    }
}
