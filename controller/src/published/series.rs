//! One series per variant, with its labels and its value of every metric; and what several variants are worth together.

use std::collections::{BTreeSet, HashMap};

use names::kubernetes::{
    DESIRED_RATIO, DESIRED_REPLICAS, OFFERED_TOKENS, QUEUE_SECONDS, SLO_PRESSURE,
};
use names::{Name, series};

use super::{Labels, Published, PublishedModel, PublishedVariant, label_value};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Metric {
    /// Replicas wanted of one variant.
    DesiredReplicas,
    /// Replicas wanted over replicas there; replicas wanted when there are none.
    DesiredRatio,
    /// Predicted latency over the SLO.
    SloPressure,
    /// Offered prompt and output tokens per second.
    OfferedTokens,
    /// Seconds of work that wait.
    QueueSeconds,
}

/// By which of its names a metric is asked for: the old ones carry the old labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// The name in force.
    Canonical,
    /// An alias.
    Alias,
}

impl Metric {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::DesiredReplicas,
        Self::DesiredRatio,
        Self::SloPressure,
        Self::OfferedTokens,
        Self::QueueSeconds,
    ];

    /// Its name with its aliases.
    pub fn name(self) -> Name {
        match self {
            Self::DesiredReplicas => DESIRED_REPLICAS,
            Self::DesiredRatio => DESIRED_RATIO,
            Self::SloPressure => SLO_PRESSURE,
            Self::OfferedTokens => OFFERED_TOKENS,
            Self::QueueSeconds => QUEUE_SECONDS,
        }
    }

    /// The metric called `name`.
    pub fn called(name: &str) -> Option<(Self, Spelling)> {
        let metric = Self::ALL
            .into_iter()
            .find(|metric| metric.name().matches(name))?;
        let spelling = if metric.name().canonical == name {
            Spelling::Canonical
        } else {
            Spelling::Alias
        };
        Some((metric, spelling))
    }

    /// Every name that is understood, aliases too.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().flat_map(|metric| {
            let Name { canonical, aliases } = metric.name();
            std::iter::once(canonical).chain(aliases.iter().copied())
        })
    }
}

/// One variant as the metrics APIs show it.
#[derive(Clone, Debug)]
pub struct Series {
    /// Its model's place in the publication.
    pub model: usize,
    /// Its place in its model.
    pub variant: usize,
    /// Labels under a metric's name in force.
    pub labels: Labels,
    /// Labels under a metric's old name.
    pub alias_labels: Labels,
    /// Share of its model's offered load that falls to it; the shares of one role add up to 1.
    pub share: f64,
}

impl Series {
    /// Its labels under a name spelt so.
    pub fn labels(&self, spelling: Spelling) -> &Labels {
        match spelling {
            Spelling::Canonical => &self.labels,
            Spelling::Alias => &self.alias_labels,
        }
    }

    /// Its model and itself in the publication that the series were made of; `None` for another publication.
    pub fn find<'a>(
        &self,
        published: &'a Published,
    ) -> Option<(&'a PublishedModel, &'a PublishedVariant)> {
        let model = published.models.get(self.model)?;
        Some((model, model.variants.get(self.variant)?))
    }

    /// Its value of `metric`; `None` while not known.
    pub fn value(&self, metric: Metric, published: &Published) -> Option<f64> {
        let (model, variant) = self.find(published)?;
        match metric {
            Metric::DesiredReplicas => Some(f64::from(variant.desired)),
            Metric::DesiredRatio => ratio(variant),
            Metric::SloPressure => model.slo_pressure,
            Metric::OfferedTokens => Some(model.offered_tokens_per_second? * self.share),
            Metric::QueueSeconds => model.queue_seconds,
        }
    }
}

/// What `series` are worth together, for an object that several variants stand behind: replicas add up, offered load
/// counts once per model, of ratios, pressure and waiting time the worst counts. `None` when one is not known.
pub fn together(metric: Metric, series: &[&Series], published: &Published) -> Option<f64> {
    if let (Metric::OfferedTokens, [_, _, ..]) = (metric, series) {
        let models: BTreeSet<usize> = series.iter().map(|one| one.model).collect();
        return models
            .into_iter()
            .map(|model| published.models.get(model)?.offered_tokens_per_second)
            .sum();
    }
    let values: Option<Vec<f64>> = series
        .iter()
        .map(|one| one.value(metric, published))
        .collect();
    match metric {
        Metric::DesiredReplicas | Metric::OfferedTokens => Some(values?.iter().sum()),
        Metric::DesiredRatio | Metric::SloPressure | Metric::QueueSeconds => {
            values?.into_iter().reduce(f64::max)
        }
    }
}

/// What an HPA with a `Value` target has to be told to arrive at the wanted count. It multiplies the ready pods by the
/// ratio and rounds up, and reads three decimals: hence the ready pods, and the greatest such number that is not too many.
/// `None` while none of the replicas is ready: whatever is said, the HPA would remove all but one.
fn ratio(variant: &PublishedVariant) -> Option<f64> {
    let PublishedVariant {
        desired, current, ..
    } = *variant;
    if desired == current {
        return Some(1.0);
    }
    if current == 0 {
        return Some(f64::from(desired));
    }
    let ready = variant.ready.filter(|&ready| ready > 0)?;
    let (desired, ready) = (f64::from(desired), f64::from(ready));
    let thousandths = (1000.0 * desired / ready).floor();
    let over = (thousandths / 1000.0 * ready).ceil() > desired;
    Some((thousandths - f64::from(u8::from(over))) / 1000.0)
}

/// The series of one publication, by namespace.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    by_namespace: HashMap<String, Vec<Series>>,
    resources: BTreeSet<String>,
}

impl Catalog {
    /// The series of `published`, in the order of its models and variants.
    pub fn of(published: &Published) -> Self {
        let mut catalog = Self::default();
        for (index, model) in published.models.iter().enumerate() {
            let series = catalog
                .by_namespace
                .entry(model.namespace.clone())
                .or_default();
            series.extend(
                model
                    .variants
                    .iter()
                    .enumerate()
                    .map(|(place, variant)| Series {
                        model: index,
                        variant: place,
                        labels: labels(model, variant),
                        alias_labels: alias_labels(model, variant),
                        share: share(model, variant),
                    }),
            );
            let targets = model.variants.iter().map(|variant| &variant.target);
            catalog
                .resources
                .extend(targets.chain(&model.source).map(super::ObjectRef::resource));
        }
        catalog
    }

    /// The series of one namespace.
    pub fn in_namespace(&self, namespace: &str) -> &[Series] {
        self.by_namespace.get(namespace).map_or(&[], Vec::as_slice)
    }

    /// The resources of all objects that series belong to, as metric requests spell them.
    pub fn resources(&self) -> &BTreeSet<String> {
        &self.resources
    }
}

fn labels(model: &PublishedModel, variant: &PublishedVariant) -> Labels {
    let mut labels = Labels::from([
        (series::VARIANT.into(), label_value(&variant.name)),
        (series::MODEL.into(), model.slug.clone()),
        (series::ROLE.into(), variant.role.as_str().into()),
        (series::NAMESPACE.into(), model.namespace.clone()),
    ]);
    if let Some(pool) = &model.pool {
        labels.insert(series::POOL.into(), label_value(pool));
    }
    if !variant.accelerator.is_empty() {
        labels.insert(
            series::ACCELERATOR.into(),
            label_value(&variant.accelerator),
        );
    }
    labels
}

fn alias_labels(model: &PublishedModel, variant: &PublishedVariant) -> Labels {
    Labels::from([
        (series::alias::VARIANT.into(), label_value(&variant.name)),
        (series::alias::NAMESPACE.into(), model.namespace.clone()),
        (
            series::alias::ACCELERATOR.into(),
            label_value(&variant.accelerator),
        ),
    ])
}

/// Load falls to the variants of one role as capacity is planned for them: wanted replicas times what each holds,
/// or wanted replicas alone where a capacity is missing, or evenly where none is wanted.
fn share(model: &PublishedModel, variant: &PublishedVariant) -> f64 {
    let peers: Vec<&PublishedVariant> = model
        .variants
        .iter()
        .filter(|peer| peer.role == variant.role)
        .collect();
    let known = peers.iter().all(|peer| peer.capacity.is_some());
    let planned = |peer: &PublishedVariant| {
        let each = if known {
            peer.capacity.unwrap_or(1.0)
        } else {
            1.0
        };
        f64::from(peer.desired) * each
    };
    let whole: f64 = peers.iter().map(|peer| planned(peer)).sum();
    if whole > 0.0 {
        planned(variant) / whole
    } else {
        1.0 / peers.len().max(1) as f64
    }
}

#[cfg(test)]
mod tests;
