//! What is asked for each model, made of the objects of the cluster.
//!
//! Two kinds of object ask: a `ModelScaler`, and annotations on what people already have. [`annotated`](super::annotated)
//! and [`scalers`](super::scalers) read them, [`assemble`](super::assemble) joins the two. Here is what comes out.

use std::fmt;
use std::sync::Arc;

use controller_core::model::{ModelKey, ModelPolicy};
use k8s_openapi::api::core::v1::ObjectReference;
use tokio::sync::watch;

use super::hpas::Hpa;
use crate::published::{Mode, ObjectRef};

/// An object of the cluster, as Events and findings name it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Source {
    /// Group and version, such as `apps/v1`.
    pub api_version: Box<str>,
    /// Kind.
    pub kind: Box<str>,
    /// Namespace.
    pub namespace: Box<str>,
    /// Name.
    pub name: Box<str>,
    /// The uid that Kubernetes gave it.
    pub uid: Box<str>,
    /// The generation of its spec that was read; `None` for kinds that have none.
    pub generation: Option<i64>,
}

impl Source {
    /// As Events refer to it.
    pub fn reference(&self) -> ObjectReference {
        let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ObjectReference {
            api_version: text(&self.api_version),
            kind: text(&self.kind),
            namespace: text(&self.namespace),
            name: text(&self.name),
            uid: text(&self.uid),
            ..ObjectReference::default()
        }
    }

    /// As published decisions refer to it.
    pub fn object(&self) -> ObjectRef {
        ObjectRef::new(&*self.api_version, &*self.kind, &*self.name)
    }

    /// Whether both are the same object, of whichever generation.
    pub fn same(&self, other: &Self) -> bool {
        (&self.kind, &self.namespace, &self.name) == (&other.kind, &other.namespace, &other.name)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One model that is asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelSpec {
    /// Namespace and name of the model.
    pub key: ModelKey,
    /// What to decide by; valid.
    pub policy: ModelPolicy,
    /// The InferencePool of the same namespace whose endpoint pickers see the demand.
    pub pool: Option<String>,
    /// How far decisions go.
    pub mode: Mode,
    /// Its variants, in the policy's order.
    pub variants: Vec<VariantSpec>,
    /// The object that asks: the ModelScaler, or the first of the annotated objects.
    pub source: Source,
    /// What is wrong with what was asked for, and what was done instead.
    pub findings: Vec<Finding>,
}

impl ModelSpec {
    /// Whether a ModelScaler asks, whose status can be written.
    pub fn has_status(&self) -> bool {
        &*self.source.kind == super::scalers::KIND
    }
}

/// A mode as it is written.
pub fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Advise => "advise",
        Mode::Publish => "publish",
        Mode::Direct => "direct",
    }
}

/// One variant's place in the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantSpec {
    /// Its name, as in the policy.
    pub name: String,
    /// What is scaled, in the model's namespace.
    pub target: ObjectRef,
    /// The HorizontalPodAutoscaler that scales it, or the ScaledObject behind that.
    pub scaler: Option<ObjectRef>,
    /// The HorizontalPodAutoscaler itself.
    pub hpa: Option<Arc<Hpa>>,
    /// Another variant was there first: the target is not written to for this one.
    pub contested: bool,
    /// The object that asks for it: the ModelScaler, or the annotated object.
    pub source: Source,
}

/// What a finding is about; each is a condition of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// What was asked for cannot be understood or followed.
    Spec,
    /// Somebody else asks for the same, or the opposite.
    Conflict,
    /// An HPA would not do what is decided.
    Autoscaler,
    /// A scale target is missing or cannot be scaled.
    Target,
    /// Replicas that were asked for do not come.
    Capacity,
}

/// Something that a person should know or change. None stops anything else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Finding {
    /// What it is about.
    pub topic: Topic,
    /// Why, one CamelCase word: the reason of its condition and Event.
    pub reason: &'static str,
    /// The object that should be changed, and gets the Event.
    pub about: Source,
    /// What is wrong, and what to do.
    pub message: String,
    /// Good to know: the condition of its topic stays true.
    pub note: bool,
}

impl Finding {
    /// Something that is wrong.
    pub fn new(
        topic: Topic,
        reason: &'static str,
        about: &Source,
        message: impl Into<String>,
    ) -> Self {
        Self {
            topic,
            reason,
            about: about.clone(),
            message: message.into(),
            note: false,
        }
    }

    /// The same, but only good to know: what is decided takes effect all the same.
    #[must_use]
    pub fn noted(self) -> Self {
        Self { note: true, ..self }
    }
}

/// Everything asked for at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Snapshot {
    /// Whether every object that could ask has been seen once. Nothing may be decided before: a model could look as if
    /// nobody asked for it any more.
    pub synced: bool,
    /// The models, by key.
    pub models: Vec<Arc<ModelSpec>>,
    /// What is wrong with objects that belong to no model.
    pub findings: Vec<Finding>,
}

impl Snapshot {
    /// One model.
    pub fn get(&self, key: &ModelKey) -> Option<&Arc<ModelSpec>> {
        self.models
            .binary_search_by(|spec| spec.key.cmp(key))
            .ok()
            .and_then(|place| self.models.get(place))
    }
}

/// Shared reader of what is asked for; kept by [`objects`](super::objects).
#[derive(Clone, Debug)]
pub struct Models {
    snapshot: watch::Sender<Arc<Snapshot>>,
}

impl Default for Models {
    fn default() -> Self {
        Self {
            snapshot: watch::Sender::new(Arc::default()),
        }
    }
}

impl Models {
    /// A reader of exactly this snapshot, until another is put in its place.
    pub fn fixed(snapshot: Snapshot) -> Self {
        Self {
            snapshot: watch::Sender::new(Arc::new(snapshot)),
        }
    }

    /// Everything asked for now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.snapshot.borrow())
    }

    /// Follows the snapshot: told whenever it changed.
    pub fn changes(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshot.subscribe()
    }

    /// Puts another snapshot in force; readers are told only if it differs. Models that did not change stay the same
    /// `Arc`.
    pub(super) fn replace(&self, mut next: Snapshot) {
        self.snapshot.send_if_modified(|held| {
            for spec in &mut next.models {
                if let Some(known) = held.get(&spec.key).filter(|known| *known == spec) {
                    *spec = Arc::clone(known);
                }
            }
            let changed = **held != next;
            if changed {
                *held = Arc::new(next);
            }
            changed
        });
    }
}
