//! The models in force, by class: what a picker serves.

use std::fmt::Write as _;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::frame::Frame;
use super::{Flaw, SnapshotError};
use crate::base::Base;
use crate::classes::{LONGEST_CLASS, MOST_CLASSES};
use crate::columns::COLUMNS;
use crate::model::{Fitted, TargetModel};
use crate::support::Support;
use crate::tracker::Tracker;
use crate::{ClassReport, LatencyModel, Models, State, Target};

/// Bytes of one class's model, at most: forests of the default size take about a tenth.
const MOST_BYTES: usize = 1 << 20;

const FRAME: Frame = Frame {
    magic: b"HDRMMODL",
    most: MOST_BYTES * MOST_CLASSES,
};

/// Models by class, as one picker has learned them.
#[derive(Clone, Debug, Default)]
pub struct ModelSet {
    /// At most eight, each class once.
    pub classes: Vec<ClassModel>,
}

impl ModelSet {
    /// The models in force, with what their learners report; made at wall time `unix_ms`.
    pub fn of(models: &Models, reports: &[ClassReport], unix_ms: u64) -> Self {
        let class = |of: &ClassReport| {
            let (ttft, tpot) = (&of.report.ttft, &of.report.tpot);
            let age = of
                .report
                .fitted_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
            ClassModel {
                class: Arc::clone(&of.class),
                model: models.of(&of.class).clone(),
                labels: [ttft.labels, tpot.labels],
                fresh_labels: [ttft.fresh_labels, tpot.fresh_labels],
                fitted_at_ms: age.map_or(0, |age| unix_ms.saturating_sub(age)),
            }
        };
        Self {
            classes: reports.iter().map(class).collect(),
        }
    }
}

/// The model of one class of endpoints.
#[derive(Clone, Debug)]
pub struct ClassModel {
    /// What the endpoints run on; empty = their labels do not tell.
    pub class: Arc<str>,
    /// The model.
    pub model: LatencyModel,
    /// Labels learned from, by [`Target::ALL`].
    pub labels: [u64; 2],
    /// Labels weighted by age, by [`Target::ALL`]: the larger, the better the model knows the present.
    pub fresh_labels: [f64; 2],
    /// When the newest refit came into force, unix milliseconds; 0 = none has.
    pub fitted_at_ms: u64,
}

/// One target's model, as written.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TargetBody {
    state: State,
    base: Base,
    forest: Option<gbdt::Forest>,
    support: Support,
    tracker: Tracker,
}

#[derive(Serialize, Deserialize)]
struct ClassBody {
    class: Arc<str>,
    version: u64,
    labels: [u64; 2],
    fresh_labels: [f64; 2],
    fitted_at_ms: u64,
    targets: [TargetBody; 2],
}

/// The bytes of `set`. The same models give the same bytes.
///
/// # Errors
/// [`SnapshotError::TooLarge`] when the forests are so large that no reader would take them.
pub fn encode(set: &ModelSet) -> Result<Vec<u8>, SnapshotError> {
    let classes: Vec<ClassBody> = set.classes.iter().map(ClassBody::of).collect();
    FRAME.write(&classes)
}

/// The models that `bytes` hold.
///
/// # Errors
/// [`SnapshotError`]: the bytes are cut, changed, of another format or schema, or hold what no learner writes.
pub fn decode(bytes: &[u8]) -> Result<ModelSet, SnapshotError> {
    let bodies: Vec<ClassBody> = FRAME.read(bytes)?;
    if bodies.len() > MOST_CLASSES {
        let count = bodies.len();
        return Err(SnapshotError::Malformed(format!(
            "it holds {count} classes, at most {MOST_CLASSES} are read"
        )));
    }
    let mut classes: Vec<ClassModel> = Vec::with_capacity(bodies.len());
    for body in bodies {
        if classes.iter().any(|known| known.class == body.class) {
            return Err(SnapshotError::Malformed(format!(
                "class {:?} is there twice",
                body.class
            )));
        }
        let class = body.class.to_string();
        let model = body
            .into_model()
            .map_err(|flaw| SnapshotError::Flawed { class, flaw })?;
        classes.push(model);
    }
    Ok(ModelSet { classes })
}

impl ClassModel {
    /// SHA-256 of the model as it is written, in hexadecimal: another model has another one, however old it is and
    /// however many labels it has seen.
    pub fn checksum(&self) -> String {
        let body = ClassBody::of(self);
        let bytes = postcard::to_stdvec(&(body.version, body.targets)).unwrap_or_default();
        hex(&Sha256::digest(bytes))
    }
}

/// `bytes` in hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
            text
        })
}

impl ClassBody {
    fn of(class: &ClassModel) -> Self {
        Self {
            class: Arc::clone(&class.class),
            version: class.model.version(),
            labels: class.labels,
            fresh_labels: class.fresh_labels,
            fitted_at_ms: class.fitted_at_ms,
            targets: class.model.targets().each_ref().map(TargetBody::of),
        }
    }

    fn into_model(self) -> Result<ClassModel, Flaw> {
        check_class(&self.class)?;
        for fresh in self.fresh_labels {
            if !(fresh.is_finite() && fresh >= 0.0) {
                return Err(Flaw::new("fresh labels", fresh, "finite and not negative"));
            }
        }
        let [ttft, tpot] = self.targets;
        let targets = [
            ttft.into_model(Target::Ttft)?,
            tpot.into_model(Target::Tpot)?,
        ];
        Ok(ClassModel {
            class: self.class,
            model: LatencyModel::new(targets, self.version),
            labels: self.labels,
            fresh_labels: self.fresh_labels,
            fitted_at_ms: self.fitted_at_ms,
        })
    }
}

/// Refuses a class that no endpoint can have.
pub(super) fn check_class(class: &str) -> Result<(), Flaw> {
    if class.len() <= LONGEST_CLASS {
        Ok(())
    } else {
        Err(Flaw::new(
            "length of the class's name",
            class.len() as f64,
            "at most 63 bytes",
        ))
    }
}

impl TargetBody {
    pub(crate) fn of(model: &TargetModel) -> Self {
        let Fitted {
            base,
            forest,
            support,
            ..
        } = &*model.fitted;
        Self {
            state: model.state,
            base: *base,
            forest: forest.clone(),
            support: *support,
            tracker: model.tracker,
        }
    }

    /// The model for `target`, if these numbers are one.
    pub(crate) fn into_model(self, target: Target) -> Result<TargetModel, Flaw> {
        let flaw = self
            .base
            .flaw()
            .or(self.support.flaw())
            .or(self.tracker.flaw());
        if let Some(flaw) = flaw {
            return Err(flaw);
        }
        if self.base.target() != target {
            return Err(Flaw::new(
                "place of the base",
                target.index() as f64,
                "that of its latency",
            ));
        }
        if let Some(forest) = &self.forest
            && forest.features() != COLUMNS
        {
            return Err(Flaw::new(
                "columns of the forest",
                forest.features() as f64,
                "8",
            ));
        }
        Ok(TargetModel {
            fitted: Arc::new(Fitted {
                target,
                base: self.base,
                forest: self.forest,
                support: self.support,
            }),
            tracker: self.tracker,
            state: self.state,
        })
    }
}
