//! How endpoints stand, and how many requests they were found to bear.

use super::pool::short;
use super::{Page, Row};
use crate::extproc::hub::Hub;
use epp_core::{Fault, Standing};
use std::fmt::Error;

impl Page<'_, '_> {
    /// Rows only of endpoints that there is something to be said of.
    pub(super) fn health(&mut self, hub: &Hub) -> Result<(), Error> {
        let (pool, now) = (hub.pool(), hub.clock.now());
        let (mut standings, mut ejections, mut limits) = (Vec::new(), Vec::new(), Vec::new());
        for endpoint in &pool.endpoints {
            let label = || ("endpoint_name", short(&endpoint.name).into());
            let health = endpoint.load.health.view(now);
            if let Some(standing) = word(health.standing) {
                let labels: Row<'_> = vec![label(), ("standing", standing.into())];
                standings.push((labels, 1.0));
            }
            for (fault, count) in Fault::ALL.into_iter().zip(health.ejections) {
                if count > 0 {
                    let labels: Row<'_> = vec![label(), ("fault", fault.name().into())];
                    ejections.push((labels, count));
                }
            }
            let limit = endpoint.load.snapshot().limit;
            limits.extend(limit.map(|limit| (vec![label()], f64::from(limit))));
        }
        let help = "1 for how an endpoint stands with its passive health, unless it serves";
        self.own_gauges("endpoint_standing", help, standings.into_iter())?;
        let help = "Times that an endpoint was left alone for a while, by what for";
        self.own_counters("endpoint_ejections", help, ejections.into_iter())?;
        let help = "Requests that an endpoint was found to bear at once";
        self.own_gauges("endpoint_learned_limit", help, limits.into_iter())
    }
}

fn word(standing: Standing) -> Option<&'static str> {
    match standing {
        Standing::Serving => None,
        Standing::Ejected { .. } => Some("ejected"),
        Standing::HalfOpen => Some("half-open"),
        Standing::Probing => Some("probing"),
        Standing::Ramping { .. } => Some("ramping"),
    }
}
