//! What a trigger asks for, read from its metadata, and the value that it gets: pure functions.

use std::collections::HashMap;
use std::time::Duration;

use tonic::{Code, Status};

use super::wire::ScaledObjectRef;
use crate::published::series::{Metric, Series};
use crate::published::{Posted, PublishedModel, PublishedVariant, Unavailable};

const NAMESPACE: &str = "namespace";
const MODEL: &str = "model";
const MODEL_SCALER: &str = "modelScaler";
const VARIANT: &str = "variant";
const METRIC: &str = "metric";
const TARGET: &str = "target";
/// Keys that are ours; every other is KEDA's own.
const KEYS: [&str; 6] = [NAMESPACE, MODEL, MODEL_SCALER, VARIANT, METRIC, TARGET];
/// Keys that KEDA itself reads.
const KEDA_KEYS: [&str; 8] = [
    "scalerAddress",
    "caCert",
    "tlsCertFile",
    "tlsClientCert",
    "tlsClientKey",
    "unsafeSsl",
    "enableTLS",
    "activationTarget",
];
/// Variants named in an error at most.
const NAMED: usize = 10;

/// One trigger of a ScaledObject.
#[derive(Clone, Debug, PartialEq)]
pub struct Trigger {
    /// Namespace that the model is scaled in.
    pub namespace: String,
    /// The model, by its name or by its name as a label value.
    pub model: Option<String>,
    /// The ModelScaler of the model.
    pub model_scaler: Option<String>,
    /// The variant; needed where more than one is left.
    pub variant: Option<String>,
    /// The metric.
    pub metric: Metric,
    /// What the HPA divides the value by.
    pub target: f64,
}

/// Why a trigger gets no value.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum TriggerError {
    /// Its metadata is wrong.
    #[error("trigger metadata {key}: {value:?} {expected}")]
    Metadata {
        /// The key.
        key: String,
        /// What it has.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// Nothing is there that it names, or more than one thing is.
    #[error("{found} in namespace {namespace:?} {matches} the trigger's model and variant{here}")]
    Selection {
        /// How many variants.
        found: String,
        /// `match` or `matches`.
        matches: &'static str,
        /// Where.
        namespace: String,
        /// What is there.
        here: String,
        /// Whether none was found.
        none: bool,
    },
    /// The value may not be acted on.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The value is not known.
    #[error(
        "{metric} of variant {variant:?} is not known yet: the model has not been seen at work"
    )]
    Unknown {
        /// The metric.
        metric: &'static str,
        /// The variant.
        variant: String,
    },
}

impl From<TriggerError> for Status {
    fn from(error: TriggerError) -> Self {
        let code = match &error {
            TriggerError::Metadata { .. } => Code::InvalidArgument,
            TriggerError::Selection { none: true, .. } => Code::NotFound,
            TriggerError::Selection { none: false, .. } => Code::FailedPrecondition,
            TriggerError::Unavailable(_) | TriggerError::Unknown { .. } => Code::Unavailable,
        };
        Self::new(code, error.to_string())
    }
}

impl Trigger {
    /// Reads a trigger's metadata. The namespace is the ScaledObject's unless it names one.
    ///
    /// # Errors
    /// [`TriggerError::Metadata`] for a value that means nothing, or a key that is nearly one of ours.
    pub fn read(object: &ScaledObjectRef) -> Result<Self, TriggerError> {
        let metadata = &object.scaler_metadata;
        check_keys(metadata)?;
        let text = |key| metadata.get(key).filter(|text| !text.is_empty()).cloned();
        let metric = match text(METRIC) {
            None => Metric::DesiredReplicas,
            Some(name) => match Metric::called(&name) {
                Some((metric, _)) => metric,
                None => {
                    let known: Vec<&str> = Metric::names().collect();
                    return Err(wrong(
                        METRIC,
                        &name,
                        format!("is none of {}", known.join(", ")),
                    ));
                }
            },
        };
        Ok(Self {
            namespace: text(NAMESPACE).unwrap_or_else(|| object.namespace.clone()),
            model: text(MODEL),
            model_scaler: text(MODEL_SCALER),
            variant: text(VARIANT),
            metric,
            target: target(metric, text(TARGET))?,
        })
    }

    /// The metric's name.
    pub fn metric_name(&self) -> &'static str {
        self.metric.name().canonical
    }

    /// The metric's value at `now`.
    ///
    /// # Errors
    /// [`TriggerError`]: no such variant or more than one, or a value that may not be acted on.
    pub fn value(&self, posted: &Posted, now: Duration) -> Result<f64, TriggerError> {
        let (series, model, variant) = self.find(posted)?;
        posted.answer(model, now)?;
        series
            .value(self.metric, posted.published())
            .filter(|value| value.is_finite())
            .ok_or_else(|| TriggerError::Unknown {
                metric: self.metric_name(),
                variant: variant.name.clone(),
            })
    }

    /// Whether the variant is to have any replica at `now`, whatever the metric.
    ///
    /// # Errors
    /// As for [`Trigger::value`].
    pub fn active(&self, posted: &Posted, now: Duration) -> Result<bool, TriggerError> {
        let (_, model, variant) = self.find(posted)?;
        posted.answer(model, now)?;
        Ok(variant.desired > 0)
    }

    fn find<'a>(
        &self,
        posted: &'a Posted,
    ) -> Result<(&'a Series, &'a PublishedModel, &'a PublishedVariant), TriggerError> {
        if !posted.any() {
            return Err(Unavailable::Nothing.into());
        }
        let here = posted.catalog().in_namespace(&self.namespace);
        let all = || {
            here.iter().filter_map(|series| {
                let (model, variant) = series.find(posted.published())?;
                Some((series, model, variant))
            })
        };
        let found: Vec<_> = all()
            .filter(|(_, model, variant)| self.names(model, variant))
            .collect();
        match found.as_slice() {
            [one] => Ok(*one),
            several => {
                let named: Vec<String> = all()
                    .take(NAMED)
                    .map(|(_, model, variant)| format!("{} of model {}", variant.name, model.model))
                    .collect();
                Err(TriggerError::Selection {
                    found: match several.len() {
                        0 => "no variant".into(),
                        count => format!("{count} variants"),
                    },
                    matches: if several.is_empty() {
                        "matches"
                    } else {
                        "match"
                    },
                    namespace: self.namespace.clone(),
                    here: if named.is_empty() {
                        ": nothing is scaled there".into()
                    } else {
                        format!(": there is {}", named.join(", "))
                    },
                    none: several.is_empty(),
                })
            }
        }
    }

    fn names(&self, model: &PublishedModel, variant: &PublishedVariant) -> bool {
        let is =
            |wanted: &Option<String>, own: &str| wanted.as_ref().is_none_or(|name| name == own);
        let source = model.source.as_ref().map(|source| source.name.as_str());
        (is(&self.model, &model.model) || is(&self.model, &model.slug))
            && is(&self.model_scaler, source.unwrap_or_default())
            && is(&self.variant, &variant.name)
    }
}

fn target(metric: Metric, text: Option<String>) -> Result<f64, TriggerError> {
    let Some(text) = text else {
        return if metric == Metric::OfferedTokens {
            let expected = "must say how many tokens per second one replica holds".into();
            Err(wrong(TARGET, "", expected))
        } else {
            Ok(1.0)
        };
    };
    text.parse()
        .ok()
        .filter(|target: &f64| target.is_finite() && *target > 0.0)
        .ok_or_else(|| wrong(TARGET, &text, "must be a number above 0".into()))
}

/// A key that is nearly one of ours is a mistake that would otherwise go unnoticed.
fn check_keys(metadata: &HashMap<String, String>) -> Result<(), TriggerError> {
    let mut unknown: Vec<&String> = metadata
        .keys()
        .filter(|key| !KEYS.contains(&key.as_str()) && !KEDA_KEYS.contains(&key.as_str()))
        .collect();
    unknown.sort();
    for key in unknown {
        let near = |own: &&&str| strsim::damerau_levenshtein(key, own) <= 2;
        if let Some(own) = KEYS.iter().find(near) {
            let value = metadata.get(key).map_or("", String::as_str);
            return Err(wrong(
                key,
                value,
                format!("is under a key that nobody reads: {own} is meant"),
            ));
        }
    }
    Ok(())
}

fn wrong(key: &str, value: &str, expected: String) -> TriggerError {
    TriggerError::Metadata {
        key: key.to_owned(),
        value: value.to_owned(),
        expected,
    }
}
