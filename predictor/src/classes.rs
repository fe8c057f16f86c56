//! Latency classes: endpoints that run on the same thing share a model.

use std::sync::Arc;
use std::sync::LazyLock;

use crate::LatencyModel;

/// Classes with a model of their own, at most; endpoints of further ones share that of the class without a name.
pub const MOST_CLASSES: usize = 8;
/// Bytes of a class's name, at most: as a Kubernetes label value.
pub const LONGEST_CLASS: usize = 63;

/// The models in force, by class. Cheap to clone, immutable.
#[derive(Clone, Debug)]
pub struct Models {
    names: Arc<[Arc<str>]>,
    /// In the order of `names`.
    models: Arc<[LatencyModel]>,
    /// For classes that are not listed.
    other: LatencyModel,
}

static NAMELESS: LazyLock<Arc<[Arc<str>]>> = LazyLock::new(|| Arc::from([Arc::from("")]));

impl Models {
    /// The same model for every class.
    pub fn one(model: LatencyModel) -> Self {
        Self {
            names: Arc::clone(&NAMELESS),
            models: Arc::from([model.clone()]),
            other: model,
        }
    }

    /// One model per name, in the same order. While there is room for more classes, one that is not listed has
    /// learned nothing yet; after that it shares the model of the class without a name.
    pub(crate) fn new(names: Arc<[Arc<str>]>, models: Arc<[LatencyModel]>) -> Self {
        let full = names.len() >= MOST_CLASSES;
        let nameless = names.iter().position(|name| name.is_empty());
        let shared = nameless.filter(|_| full).and_then(|at| models.get(at));
        Self {
            other: shared.cloned().unwrap_or_else(LatencyModel::prior),
            names,
            models,
        }
    }

    /// The classes that have a model of their own; never empty. The same list is the same allocation, so that a
    /// reader sees by its pointer whether classes came or went.
    pub fn names(&self) -> &Arc<[Arc<str>]> {
        &self.names
    }

    /// Where the model of `class` is, for [`Models::get`]; good for as long as the names stay the same.
    pub fn index_of(&self, class: &str) -> usize {
        let own = self.names.iter().position(|name| **name == *class);
        own.unwrap_or(self.names.len())
    }

    /// The model at `index`.
    pub fn get(&self, index: usize) -> &LatencyModel {
        self.models.get(index).unwrap_or(&self.other)
    }

    /// The model that predicts for `class`.
    pub fn of(&self, class: &str) -> &LatencyModel {
        self.get(self.index_of(class))
    }

    /// Class and model of each that has its own.
    pub fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &LatencyModel)> {
        self.names.iter().zip(self.models.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{State, Target};

    fn models(count: usize, nameless: bool) -> Models {
        let mut names: Vec<Arc<str>> = (0..count).map(|at| Arc::from(format!("c{at}"))).collect();
        if nameless {
            names.push(Arc::from(""));
        }
        let models =
            (0..names.len() as u64).map(|version| LatencyModel::prior().with_version(version + 1));
        let models: Vec<_> = models.collect();
        Models::new(names.into(), models.into())
    }

    #[test]
    fn each_class_has_its_model_and_a_new_one_knows_nothing() {
        let models = models(2, true);
        assert_eq!(models.of("c1").version(), 2);
        assert_eq!(models.of("").version(), 3);
        assert_eq!(models.of("c7").version(), 0);
        assert_eq!(models.of("c7").state(Target::Ttft), State::Prior);
    }

    #[test]
    fn past_the_limit_classes_share_the_nameless_model() {
        let models = models(MOST_CLASSES - 1, true);
        assert_eq!(models.of("c99").version(), MOST_CLASSES as u64);
        assert_eq!(models.of("c0").version(), 1);
    }

    #[test]
    fn one_model_can_stand_for_all() {
        let one = Models::one(LatencyModel::prior().with_version(5));
        assert_eq!((one.of("").version(), one.of("H100").version()), (5, 5));
    }
}
