//! The models that the admin port offers: encoded when they changed, not when they are asked for.
//!
//! The quantile offsets move with every label; a reader that computes capacities from a model does not need each of
//! their steps. A refit and a change of state are offered within a second, the offsets' steps every ten.

use crate::extproc::hub::Hub;
use arc_swap::ArcSwap;
use bytes::Bytes;
use predictor::State;
use predictor::snapshot::{ModelSet, encode};
use runtime::Shutdown;
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Time after which labels alone are reason enough.
const SETTLED: Duration = Duration::from_secs(10);

/// The models on offer.
#[derive(Debug)]
pub(super) struct Offered {
    current: ArcSwap<Encoded>,
}

/// One set of models as bytes.
#[derive(Debug)]
pub(super) struct Encoded {
    /// What [`predictor::snapshot::decode`] reads.
    pub(super) bytes: Bytes,
    /// Entity tag, quotes included.
    pub(super) tag: String,
    /// Class and checksum of each model.
    checksums: Vec<(Arc<str>, String)>,
    /// What would make other bytes worth their while.
    traits: Vec<Traits>,
    at: Duration,
}

#[derive(Debug, PartialEq)]
struct Traits {
    class: Arc<str>,
    version: u64,
    states: [State; 2],
    labels: [u64; 2],
}

impl Encoded {
    /// The models of `hub` as they are.
    fn of(hub: &Hub, traits: Vec<Traits>) -> Self {
        let set = hub.trainer.model_set(hub.clock.unix_ms());
        let checksums = set
            .classes
            .iter()
            .map(|of| (Arc::clone(&of.class), of.checksum()));
        let checksums = checksums.collect();
        let bytes = encode(&set).or_else(|error| {
            tracing::error!(%error, "the models are not offered to controllers");
            encode(&ModelSet::default())
        });
        let bytes = Bytes::from(bytes.unwrap_or_default());
        Self {
            tag: tag(&bytes),
            bytes,
            checksums,
            traits,
            at: hub.clock.now(),
        }
    }

    /// Whether `known` is its entity tag, or stands for any.
    pub(super) fn is(&self, known: &str) -> bool {
        known == "*" || known.trim_start_matches("W/") == self.tag
    }

    /// The checksum of the model of `class`; empty = it is not among them.
    pub(super) fn checksum(&self, class: &str) -> String {
        let found = self.checksums.iter().find(|(of, _)| **of == *class);
        found
            .map(|(_, checksum)| checksum.clone())
            .unwrap_or_default()
    }
}

impl Offered {
    pub(super) fn new(hub: &Hub) -> Self {
        Self {
            current: ArcSwap::from_pointee(Encoded::of(hub, traits(hub))),
        }
    }

    pub(super) fn load(&self) -> Arc<Encoded> {
        self.current.load_full()
    }

    /// Keeps the offer current until `shutdown` is stopped.
    pub(super) async fn follow(&self, hub: &Hub, shutdown: Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK) => self.refresh(hub),
                () = shutdown.stopped() => return,
            }
        }
    }

    fn refresh(&self, hub: &Hub) {
        let (current, traits) = (self.current.load(), traits(hub));
        let settled = hub.clock.now() >= current.at + SETTLED;
        if is_news(&current.traits, &traits, settled) {
            self.current.store(Arc::new(Encoded::of(hub, traits)));
        }
    }
}

/// Whether models with the traits `new` are to take the place of those with `old`.
fn is_news(old: &[Traits], new: &[Traits], settled: bool) -> bool {
    let same = |(old, new): (&Traits, &Traits)| {
        (&old.class, old.version, old.states) == (&new.class, new.version, new.states)
    };
    let refitted = old.len() != new.len() || !old.iter().zip(new).all(same);
    refitted || (settled && old != new)
}

fn traits(hub: &Hub) -> Vec<Traits> {
    let reports = hub.trainer.reports();
    let traits = reports.iter().map(|of| Traits {
        class: Arc::clone(&of.class),
        version: of.report.version,
        states: [of.report.ttft.state, of.report.tpot.state],
        labels: [of.report.ttft.labels, of.report.tpot.labels],
    });
    traits.collect()
}

fn tag(bytes: &[u8]) -> String {
    let mut tag = String::from("\"");
    for byte in Sha256::digest(bytes) {
        // Writing to a string cannot fail.
        let _ = write!(tag, "{byte:02x}");
    }
    tag.push('"');
    tag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refits_and_states_are_news_at_once_and_labels_after_a_while() {
        let traits = |version, state, labels| {
            vec![Traits {
                class: Arc::from(""),
                version,
                states: [state; 2],
                labels: [labels; 2],
            }]
        };
        let old = traits(1, State::Warming, 50);
        assert!(is_news(&old, &traits(2, State::Warming, 50), false));
        assert!(is_news(&old, &traits(1, State::Trained, 50), false));
        assert!(is_news(&old, &[], false));
        assert!(!is_news(&old, &traits(1, State::Warming, 51), false));
        assert!(is_news(&old, &traits(1, State::Warming, 51), true));
        assert!(!is_news(&old, &traits(1, State::Warming, 50), true));
    }
}
