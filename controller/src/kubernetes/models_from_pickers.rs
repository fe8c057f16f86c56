//! Which of the pickers' latency models is sized by. Per class of endpoints the one with the most fresh labels; the
//! last good one stays until there is a better one, and it is shown which it is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use controller_core::Latency;
use epp_core::report::ClassReport;
use predictor::snapshot::ClassModel;
use predictor::{Features, LatencyModel, Prediction, State, Target};
use serde::Serialize;

/// Another picker's model takes over when it knows this many times as much of the present as the one in use: two
/// pickers that learn from the same traffic do not take turns. By as much the same picker's next one may know less.
const TAKES_OVER: f64 = 1.2;
/// Labels count half as much after this long, as pickers themselves count them.
const HALF_LIFE: Duration = Duration::from_secs(600);
/// A model is fetched anew at most this often: refits come every few seconds and change little.
const REST: Duration = Duration::from_secs(5);
/// Most classes of one pool.
pub const MAX_CLASSES: usize = 16;

/// One class's model in use, and where it is from.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InUse {
    /// The class of endpoints; empty = their labels do not tell.
    pub class: String,
    /// The picker it was fetched from.
    pub from: String,
    /// Its refits.
    pub version: u64,
    /// Its checksum.
    pub checksum: String,
    /// Labels it was learned from: time to first token, time per output token.
    pub labels: [u64; 2],
    /// How far each of the two is to be trusted.
    pub states: [State; 2],
    /// Labels by age, as its picker counted them when it was fetched.
    pub fresh_labels: f64,
    /// When its newest refit came into force, unix milliseconds; 0 = none has.
    pub fitted_at_ms: u64,
    /// When it was fetched.
    #[serde(skip)]
    pub fetched: Duration,
    /// The model.
    #[serde(skip)]
    model: Arc<Adopted>,
}

/// A picker's model, told from another picker's of the same version: capacities computed with one are not the other's.
#[derive(Debug)]
struct Adopted {
    model: LatencyModel,
    version: u64,
}

impl Latency for Adopted {
    fn predict(&self, rows: &[Features], out: &mut Vec<Prediction>) {
        Latency::predict(&self.model, rows, out);
    }
    fn state(&self) -> State {
        Latency::state(&self.model)
    }
    fn extrapolates(&self, row: &Features) -> bool {
        Latency::extrapolates(&self.model, row)
    }
    fn version(&self) -> u64 {
        self.version
    }
}

impl Adopted {
    fn new(from: &str, fitted_at_ms: u64, model: LatencyModel) -> Self {
        const PRIME: u64 = 0x0100_0000_01b3;
        // FNV-1a over the picker's name, from the refit on. A picker that forgot counts its refits anew, but not at
        // the same time; which it tells to some milliseconds only.
        let fitted = fitted_at_ms / 10_000;
        let seed = (model.version().wrapping_mul(PRIME) ^ fitted).wrapping_mul(PRIME);
        let version = from.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(PRIME)
        });
        Self { model, version }
    }
}

impl InUse {
    /// The model, to size by.
    pub fn latency(&self) -> Arc<dyn Latency> {
        Arc::clone(&self.model) as Arc<dyn Latency>
    }

    /// What its fresh labels are worth by now.
    fn fresh(&self, now: Duration) -> f64 {
        let lives = now.saturating_sub(self.fetched).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.fresh_labels * 0.5_f64.powf(lives)
    }
}

/// What one picker offers.
#[derive(Clone, Debug, Default)]
struct Offer {
    name: String,
    classes: Vec<ClassReport>,
    /// When it was last asked for its models.
    asked: Option<Duration>,
}

/// The models of one pool's classes.
#[derive(Clone, Debug, Default)]
pub struct Snapshots {
    offers: BTreeMap<String, Offer>,
    in_use: BTreeMap<String, InUse>,
}

fn fresh(report: &ClassReport) -> f64 {
    whole_or_none(report.ttft.fresh_labels + report.tpot.fresh_labels)
}

/// A count of labels that is none counts as no labels.
fn whole_or_none(labels: f64) -> f64 {
    if labels.is_finite() {
        labels.max(0.0)
    } else {
        0.0
    }
}

impl Snapshots {
    /// What picker `uid` (called `name`) says of its models.
    pub fn offered(&mut self, uid: &str, name: &str, classes: &[ClassReport]) {
        let offer = self.offers.entry(uid.to_owned()).or_default();
        name.clone_into(&mut offer.name);
        offer.classes.clear();
        offer
            .classes
            .extend(classes.iter().take(MAX_CLASSES).cloned());
    }

    /// The picker is gone or silent; what was fetched from it stays in use.
    pub fn withdrawn(&mut self, uid: &str) {
        self.offers.remove(uid);
    }

    /// Whether picker `uid` is to be asked for its models now. Saying so counts as asking.
    pub fn ask(&mut self, now: Duration, uid: &str) -> bool {
        let wanted = self.offers.get(uid).is_some_and(|offer| {
            offer
                .classes
                .iter()
                .any(|class| self.wants(now, uid, class))
        });
        match self.offers.get_mut(uid) {
            Some(offer) if wanted && offer.asked.is_none_or(|at| now >= at + REST) => {
                offer.asked = Some(now);
                true
            }
            _ => false,
        }
    }

    /// Whether `class` of picker `uid` is better than what is in use, or newer and from the same picker.
    fn wants(&self, now: Duration, uid: &str, class: &ClassReport) -> bool {
        if class.checksum.is_empty() || !self.is_best(uid, class) {
            return false;
        }
        let Some(used) = self.in_use.get(&class.class) else {
            return self.in_use.len() < MAX_CLASSES;
        };
        let same = self
            .offers
            .get(uid)
            .is_some_and(|offer| offer.name == used.from);
        if used.checksum == class.checksum {
            false
        } else if same {
            // A picker that came back without what it had learned must not take it away here.
            TAKES_OVER * fresh(class) >= used.fresh(now)
        } else {
            fresh(class) > TAKES_OVER * self.worth(now, used)
        }
    }

    /// What the model in use is worth: as its own picker counts now, if it is still heard, and what is left of it.
    fn worth(&self, now: Duration, used: &InUse) -> f64 {
        let own = self
            .offers
            .values()
            .filter(|offer| offer.name == used.from)
            .flat_map(|offer| &offer.classes)
            .find(|class| class.class == used.class)
            .map_or(0.0, fresh);
        own.max(used.fresh(now))
    }

    /// Whether no other picker offers clearly more for the class.
    fn is_best(&self, uid: &str, class: &ClassReport) -> bool {
        self.offers
            .iter()
            .filter(|(other, _)| *other != uid)
            .flat_map(|(_, offer)| &offer.classes)
            .filter(|other| other.class == class.class && !other.checksum.is_empty())
            .all(|other| fresh(other) <= TAKES_OVER * fresh(class).max(f64::MIN_POSITIVE))
    }

    /// Takes the models fetched from picker `uid`: those that were wanted.
    pub fn fetched(
        &mut self,
        now: Duration,
        uid: &str,
        models: impl IntoIterator<Item = ClassModel>,
    ) {
        for model in models {
            let Some(offer) = self.offers.get(uid) else {
                return;
            };
            let wanted = offer
                .classes
                .iter()
                .find(|class| *class.class == *model.class)
                .filter(|class| self.wants(now, uid, class));
            if wanted.is_none() {
                continue;
            }
            let [ttft, tpot] = model.fresh_labels;
            let used = InUse {
                class: model.class.to_string(),
                from: offer.name.clone(),
                version: model.model.version(),
                checksum: model.checksum(),
                labels: model.labels,
                states: Target::ALL.map(|target| model.model.state(target)),
                fresh_labels: whole_or_none(ttft + tpot),
                fitted_at_ms: model.fitted_at_ms,
                fetched: now,
                model: Arc::new(Adopted::new(&offer.name, model.fitted_at_ms, model.model)),
            };
            self.in_use.insert(used.class.clone(), used);
        }
    }

    /// The models in use, by class.
    pub fn in_use(&self) -> &BTreeMap<String, InUse> {
        &self.in_use
    }

    /// The model for a kind of replica: its own class's, or the only one there is.
    pub fn for_class(&self, class: &str) -> Option<&InUse> {
        let only = || match self.in_use.len() {
            1 => self.in_use.values().next(),
            _ => self.in_use.get(""),
        };
        self.in_use.get(class).or_else(only)
    }
}

#[cfg(test)]
mod tests;
