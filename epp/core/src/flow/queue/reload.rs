//! Other limits and policies for a queue in which somebody waits.
//!
//! Who waits keeps place, order and deadline; what changes is what holds for those who come later. So a change costs
//! time in proportion to bands and flows, not to requests.

use super::Queue;
use crate::config::{FlowConfig, UsageLimit};
use crate::flow::held::Held;

impl Queue {
    /// Puts another configuration in force.
    ///
    /// A band without an entry of its own any more goes on under the limits of its template as long as somebody waits
    /// in it. Where less may be held than is, nobody is turned out: nobody joins until there is room again. Whoever comes
    /// after a change of order stands behind those of its flow who came before it.
    pub(crate) fn set_config(&mut self, config: FlowConfig, usage_limit: UsageLimit) {
        let before = std::mem::replace(&mut self.config, config);
        self.limits.set_policy(usage_limit);
        let (requests, bytes) = (self.config.max_requests, self.config.max_bytes);
        self.gauges.set_limits(requests, bytes);
        self.shared = Held::default();
        for (priority, band) in &mut self.bands {
            let (old, new) = (before.band(priority.0), self.config.band(priority.0));
            band.gauge.set_limits(new.max_requests, new.max_bytes);
            if old.ordering != new.ordering {
                band.reordered();
            }
            band.set_fairness(&new.fairness);
            if self.config.shares(priority.0) {
                self.shared = self.shared.with(Held {
                    requests: band.gauge.requests(),
                    bytes: band.gauge.bytes(),
                });
            }
        }
        self.sum_elsewhere();
        let named = std::mem::take(&mut self.named);
        self.pin(named);
        self.forget(|priority, band| {
            before.bands.contains_key(&priority) && !band.pinned && band.is_empty()
        });
    }
}
