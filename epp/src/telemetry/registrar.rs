//! Families under today's names, and where asked for under the older ones as well.

use names::Name;
use names::metric::picker::twins;
use prometheus_client::registry::{Metric, Registry};

/// Registers families.
#[derive(Debug)]
pub(super) struct Registrar<'r> {
    registry: &'r mut Registry,
    twins: bool,
}

impl<'r> Registrar<'r> {
    /// `twins`: under the older names too.
    pub(super) fn new(registry: &'r mut Registry, twins: bool) -> Self {
        Self { registry, twins }
    }

    /// Registers `metric` as `name`.
    pub(super) fn add(&mut self, name: Name, help: &str, metric: &(impl Metric + Clone)) {
        for name in all(name, self.twins) {
            self.registry.register(name, help, metric.clone());
        }
    }

    /// Registers `metric` under a name of Headroom's own.
    pub(super) fn own(&mut self, name: &str, help: &str, metric: &(impl Metric + Clone)) {
        let name = format!("{}_{name}", names::metric::HEADROOM_PREFIX);
        self.registry.register(name, help, metric.clone());
    }
}

/// The names that a family is written under.
pub(super) fn all(name: Name, with_twins: bool) -> impl Iterator<Item = String> {
    let old = with_twins.then(|| twins(name)).into_iter().flatten();
    std::iter::once(name.canonical.to_owned()).chain(old)
}
