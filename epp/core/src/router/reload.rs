//! Another configuration for a router in use: what both have is kept.

use std::sync::Arc;

use super::{Router, health};
use crate::admit::Rules;
use crate::config::Config;
use crate::health::Watch;
use crate::pool::Pool;
use crate::prefix::PrefixIndex;

impl Router {
    /// Puts another configuration in force. Prefixes that are remembered stay, and so do readings, learned limits, the
    /// health of endpoints, and whatever a filter or scorer remembers that is the same in both.
    pub(crate) fn set_config(&mut self, config: Config) {
        let old = std::mem::replace(&mut self.config, config);
        let new = &self.config;
        self.rules = Rules::of(new);
        let same_health = health(&old) == health(new);
        self.watch = match (health(new), self.watch.take()) {
            (Some(_), Some(watch)) if same_health => Some(watch),
            (Some(rules), Some(watch)) => Some(Arc::new(watch.under(rules.clone()))),
            (Some(rules), None) => Some(Arc::new(Watch::new(rules.clone()))),
            (None, _) => None,
        };
        self.prefixes = new.prefix.clone().map(|parameters| {
            if let Some(mut known) = self.prefixes.take() {
                known.set_parameters(parameters);
                return known;
            }
            let mut index = PrefixIndex::new(parameters);
            index.set_pool(&Pool::default(), &self.pool);
            index
        });
        self.meter.set_config(new);
        self.names.room = new.detector.type_name().into();
        self.profile
            .set_config(&old, new, self.watch.as_ref(), &self.pool);
        self.find_prefills();
    }
}
