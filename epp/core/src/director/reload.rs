//! Another configuration for a director in use.

use std::time::Duration;

use super::Director;
use crate::config::{Config, FlowConfig};

impl Director {
    /// Puts another configuration in force, and dispatches what has room under it.
    ///
    /// No request is lost or refused for it: who waits keeps place, order and deadline, who runs keeps its load and what
    /// it is counted and learned by. What [`Config::reloadable`] says needs a restart must be the same in both; whether
    /// requests can wait at all stays as it was.
    pub fn set_config(&mut self, now: Duration, config: Config) {
        self.tick(now);
        if let (Some(queue), Some(limits)) = (&mut self.queue, config.queue()) {
            queue.set_config(limits, config.usage_limit.clone());
        }
        let weighted = config.flow.iter().flat_map(FlowConfig::weighted_flows);
        self.ledger.keep_flows(weighted);
        self.reclaim.set_config(&config);
        self.router.set_config(config);
        // What the last pass found was found under other limits.
        (self.closed, self.stop, self.alternating) = (None, None, false);
        self.expire(now);
        self.dispatch(now);
        self.reclaim(now);
    }
}
