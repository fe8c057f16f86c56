//! Model rewrites: which model a request is sent on under, by rules of the operator.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Models to choose among by weight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// Each model with the sum of the weights up to and including its own; ascending.
    models: Vec<(u64, Arc<str>)>,
    /// Name of the object that says so.
    object: Arc<str>,
}

/// What a rule says about one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'r> {
    /// The model to send on under.
    pub model: &'r str,
    /// Name of the object with the rule; empty when it has none.
    pub object: &'r Arc<str>,
}

impl Targets {
    /// From models and their weights; `None` = there is none to choose. Without any weight all count the same,
    /// else a missing one is 1 and a model of weight 0 is never chosen.
    pub fn new<'a>(models: impl IntoIterator<Item = (&'a str, Option<u32>)>) -> Option<Self> {
        let mut sum = 0;
        let mut weighed = Vec::new();
        for (model, weight) in models {
            let weight = u64::from(weight.unwrap_or(1));
            if weight > 0 {
                sum += weight;
                weighed.push((sum, Arc::from(model)));
            }
        }
        (sum > 0).then(|| Self {
            models: weighed,
            object: Arc::from(""),
        })
    }

    /// The same, as the object `name` says it.
    #[must_use]
    pub fn of(self, name: &str) -> Self {
        Self {
            object: Arc::from(name),
            ..self
        }
    }

    fn choose(&self, draw: u64) -> Option<&str> {
        let (sum, _) = self.models.last()?;
        let at = draw % sum;
        let index = self.models.partition_point(|(upto, _)| *upto <= at);
        self.models.get(index).map(|(_, model)| &**model)
    }
}

/// All rules in force. Which of several rules for one model counts was settled when they were put in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rewrites {
    exact: BTreeMap<String, Targets>,
    generic: Option<Targets>,
}

impl Rewrites {
    /// Adds a rule for requests that name exactly `model`; an earlier one for it stays.
    pub fn exact(&mut self, model: &str, targets: &Targets) {
        self.exact
            .entry(model.to_owned())
            .or_insert_with(|| targets.clone());
    }

    /// Adds a rule for requests that no exact rule matches; an earlier one stays.
    pub fn generic(&mut self, targets: &Targets) {
        self.generic.get_or_insert_with(|| targets.clone());
    }

    /// Every model that a rule names, as the client's or as a target.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        let targets = self.exact.values().chain(&self.generic);
        let targets = targets.flat_map(|targets| targets.models.iter().map(|(_, model)| &**model));
        self.exact.keys().map(String::as_str).chain(targets)
    }

    /// What the rules say about a request for `model` (`None` = it names none, so that only a rule for all models
    /// can match); `None` = nothing. `draw` is any number that differs from request to request.
    pub fn choose(&self, model: Option<&str>, draw: u64) -> Option<Choice<'_>> {
        let exact = model.and_then(|model| self.exact.get(model));
        let targets = exact.or(self.generic.as_ref())?;
        Some(Choice {
            model: targets.choose(spread(draw))?,
            object: &targets.object,
        })
    }

    /// The model that a request for `model` is sent on under; `None` = the same.
    pub fn target(&self, model: &str, draw: u64) -> Option<&str> {
        self.choose(Some(model), draw).map(|choice| choice.model)
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.generic.is_none()
    }
}

/// Spreads consecutive numbers over the whole range (the finaliser of SplitMix64).
fn spread(number: u64) -> u64 {
    let mixed = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(rewrites: &Rewrites, model: &str) -> BTreeMap<String, u32> {
        let mut shares = BTreeMap::new();
        for draw in 0..10_000 {
            let target = rewrites.target(model, draw).unwrap_or(model);
            *shares.entry(target.to_owned()).or_default() += 1;
        }
        shares
    }

    #[test]
    fn targets_are_drawn_by_weight() {
        let targets = Targets::new([("v1", Some(90)), ("v2", Some(10)), ("v3", Some(0))]).unwrap();
        let mut rewrites = Rewrites::default();
        rewrites.exact("chat", &targets);
        let shares = shares(&rewrites, "chat");
        assert!((900..1_100).contains(&shares["v2"]), "{shares:?}");
        assert_eq!(shares["v1"] + shares["v2"], 10_000);
    }

    #[test]
    fn without_weights_all_are_equal() {
        let mut rewrites = Rewrites::default();
        rewrites.generic(&Targets::new([("a", None), ("b", None)]).unwrap());
        let shares = shares(&rewrites, "anything");
        assert!((4_700..5_300).contains(&shares["a"]), "{shares:?}");
        assert_eq!(Targets::new([]), None);
        assert_eq!(Targets::new([("a", Some(0))]), None);
    }

    #[test]
    fn exact_goes_before_generic_and_the_first_stays() {
        let to = |model| Targets::new([(model, None)]).unwrap();
        let mut rewrites = Rewrites::default();
        assert!(rewrites.is_empty() && rewrites.target("m", 0).is_none());
        rewrites.generic(&to("fallback"));
        rewrites.generic(&to("late"));
        rewrites.exact("m", &to("first"));
        rewrites.exact("m", &to("late"));
        assert_eq!(rewrites.target("m", 7), Some("first"));
        assert_eq!(rewrites.target("other", 7), Some("fallback"));
    }

    #[test]
    fn a_request_without_a_model_is_only_for_the_rule_for_all() {
        let to = |model, object| Targets::new([(model, None)]).unwrap().of(object);
        let mut rewrites = Rewrites::default();
        rewrites.exact("", &to("never", "x"));
        assert_eq!(rewrites.choose(None, 1), None);
        rewrites.generic(&to("fallback", "canary"));
        let choice = rewrites.choose(None, 1).unwrap();
        assert_eq!((choice.model, &**choice.object), ("fallback", "canary"));
    }
}
