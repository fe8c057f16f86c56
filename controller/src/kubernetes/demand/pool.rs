//! One pool as its pickers tell it.

use std::collections::BTreeMap;
use std::time::Duration;

use controller_core::shares::Crowded;
use epp_core::report::{DemandReport, EndpointReport};

use super::PoolKey;
use super::ledger::Ledger;
use crate::kubernetes::models_from_pickers::{MAX_CLASSES, Snapshots};
use crate::kubernetes::pickers::{Seen, check, share};

/// The pickers of one pool, and what they have told.
#[derive(Debug)]
pub(super) struct Pool {
    pub(super) ledger: Ledger,
    pub(super) snapshots: Snapshots,
    /// By uid.
    pickers: BTreeMap<String, Picker>,
}

#[derive(Debug, Default)]
struct Picker {
    name: String,
    seen: Option<Seen>,
    kv_tokens: BTreeMap<String, f64>,
    trouble: Option<String>,
}

impl Pool {
    pub(super) fn new(now: Duration) -> Self {
        Self {
            ledger: Ledger::new(now),
            snapshots: Snapshots::default(),
            pickers: BTreeMap::new(),
        }
    }

    /// Goes on from what another process had counted. Pickers that are gone since leave what they counted.
    pub(super) fn restore(&mut self, now: Duration, ledger: Ledger) {
        self.ledger = ledger;
        for id in self.ledger.ids() {
            if !self.pickers.contains_key(&id) {
                self.ledger.gone(&id);
            }
        }
        for uid in self.pickers.keys() {
            // As many as were counted before.
            let _ = self.ledger.expect(now, uid);
        }
    }

    /// How many pickers there are, heard or not.
    pub(super) fn pickers(&self) -> usize {
        self.pickers.len()
    }

    pub(super) fn expect(&mut self, now: Duration, uid: &str, name: &str) -> Result<(), Crowded> {
        self.ledger.expect(now, uid)?;
        let picker = self.pickers.entry(uid.to_owned()).or_default();
        name.clone_into(&mut picker.name);
        Ok(())
    }

    /// The picker's pod is gone.
    pub(super) fn gone(&mut self, uid: &str) {
        self.ledger.gone(uid);
        self.snapshots.withdrawn(uid);
        self.pickers.remove(uid);
    }

    pub(super) fn mix_after(&self, uid: &str) -> u64 {
        self.ledger.mix_after(uid)
    }

    pub(super) fn failed(&mut self, uid: &str, reason: &str) {
        if let Some(picker) = self.pickers.get_mut(uid) {
            picker.trouble = Some(reason.to_owned());
        }
    }

    pub(super) fn heard(
        &mut self,
        now: Duration,
        uid: &str,
        key: &PoolKey,
        report: &DemandReport,
    ) -> Result<(), String> {
        let Some(picker) = self.pickers.get_mut(uid) else {
            return Ok(());
        };
        if let Err(nonsense) = check(report, &key.namespace, &key.name, now, picker.seen.as_ref()) {
            let reason = nonsense.to_string();
            picker.trouble = Some(reason.clone());
            return Err(reason);
        }
        picker.seen = Some(Seen::of(report, now));
        picker.kv_tokens = smallest(&report.endpoints);
        picker.trouble = None;
        self.snapshots.offered(uid, &picker.name, &report.models);
        self.ledger
            .accept(now, uid, share(report))
            .map_err(|crowded| crowded.to_string())
    }

    /// The smallest KV cache of each class that any picker knows of.
    pub(super) fn kv_tokens(&self) -> BTreeMap<String, f64> {
        let mut smallest: BTreeMap<String, f64> = BTreeMap::new();
        for (class, &tokens) in self.pickers.values().flat_map(|picker| &picker.kv_tokens) {
            let known = smallest.entry(class.clone()).or_insert(tokens);
            *known = known.min(tokens);
        }
        smallest
    }

    pub(super) fn troubles(&self) -> BTreeMap<String, String> {
        let named = self.pickers.values();
        named
            .filter_map(|picker| Some((picker.name.clone(), picker.trouble.clone()?)))
            .collect()
    }
}

fn smallest(endpoints: &[EndpointReport]) -> BTreeMap<String, f64> {
    let mut smallest: BTreeMap<String, f64> = BTreeMap::new();
    for endpoint in endpoints {
        let Some(tokens) = endpoint.kv_tokens.filter(|tokens| *tokens > 0) else {
            continue;
        };
        let tokens = tokens as f64;
        if let Some(known) = smallest.get_mut(&endpoint.class) {
            *known = known.min(tokens);
        } else if smallest.len() < MAX_CLASSES {
            smallest.insert(endpoint.class.clone(), tokens);
        }
    }
    smallest
}
