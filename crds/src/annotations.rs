//! Model annotations on what people already have: HorizontalPodAutoscaler, Deployment, LeaderWorkerSet, InferencePool.
//!
//! [`read`] is total: whatever an object carries, it answers with the facts that it understood and a [`Problem`] for
//! each annotation that it did not. A wrong value is no fact; [`Read::keeping`] leaves the last good one in force.

pub(crate) mod value;

use std::collections::BTreeMap;

use names::{Name, annotation, kubernetes::GROUP};

use crate::model_scaler::{Mode, Role, Startup};

/// Most problems told of one object.
pub const MAX_PROBLEMS: usize = 16;

/// What annotations say about a model; `None` where they say nothing, or nothing that can be understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ModelAnnotations {
    /// The model served, as clients name it.
    pub model: Option<String>,
    /// Time to first token asked for, milliseconds, above 0.
    pub slo_ttft_ms: Option<f64>,
    /// Time per output token asked for, milliseconds, above 0.
    pub slo_tpot_ms: Option<f64>,
    /// Share of the requests that must meet both, per cent, at least 1 and below 100.
    pub slo_percentile: Option<f64>,
    /// What one replica costs per hour, 0 or more.
    pub cost_per_hour: Option<f64>,
    /// What the replicas run on.
    pub accelerator: Option<String>,
    /// What the replicas do with a request.
    pub role: Option<Role>,
    /// What is done with a decision.
    pub mode: Option<Mode>,
    /// From a replica's creation to its first useful answer.
    pub startup: Option<Startup>,
    /// The InferencePool whose endpoint pickers see the demand.
    pub pool: Option<String>,
    /// Fewest replicas; never above `max_replicas` where both are there.
    pub min_replicas: Option<u32>,
    /// Most replicas, at least 1.
    pub max_replicas: Option<u32>,
}

/// What was read, and what could not be.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Read {
    /// What was understood.
    pub facts: ModelAnnotations,
    /// What was not: the first [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// Canonical names of the facts that are there but wrong.
    wrong: Vec<&'static str>,
}

/// An annotation that could not be understood.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, thiserror::Error)]
#[error("annotation {annotation}: `{value}` is wrong, expected {expected}")]
pub struct Problem {
    /// The annotation as the object spells it, cut to 320 bytes.
    pub annotation: String,
    /// What it held, cut to 64 bytes.
    pub value: String,
    /// What would be right.
    pub expected: String,
}

/// Reads the model annotations of an object.
///
/// A `headroom.dev/` name goes before its llm-d alias, even where its value is wrong. Aliases count only beside
/// `llm-d.ai/managed: "true"`. Space around a value is ignored.
pub fn read(annotations: &BTreeMap<String, String>) -> Read {
    let mut reader = Reader {
        annotations,
        managed: false,
        problems: Vec::new(),
        wrong: Vec::new(),
    };
    reader.managed = reader.managed();
    let mut facts = ModelAnnotations {
        model: reader.fact(annotation::MODEL, value::model),
        slo_ttft_ms: reader.fact(annotation::SLO_TTFT_MS, value::milliseconds),
        slo_tpot_ms: reader.fact(annotation::SLO_TPOT_MS, value::milliseconds),
        slo_percentile: reader.fact(annotation::SLO_PERCENTILE, value::percentile),
        cost_per_hour: reader.fact(annotation::COST_PER_HOUR, value::cost),
        accelerator: reader.fact(annotation::ACCELERATOR, value::accelerator),
        role: reader.fact(annotation::ROLE, value::role),
        mode: reader.fact(annotation::MODE, value::mode),
        startup: reader.fact(annotation::STARTUP_SECONDS, value::startup),
        pool: reader.fact(annotation::POOL, value::object_name),
        min_replicas: reader.fact(annotation::MIN_REPLICAS, value::min_replicas),
        max_replicas: reader.fact(annotation::MAX_REPLICAS, value::max_replicas),
    };
    reader.order_limits(&mut facts);
    reader.unknown_names();
    Read {
        facts,
        problems: reader.problems,
        wrong: reader.wrong,
    }
}

impl Read {
    /// The facts, with `last`'s in the place of those that are there but wrong now.
    pub fn keeping(self, last: &ModelAnnotations) -> ModelAnnotations {
        fn keep<T: Clone>(wrong: bool, now: &mut Option<T>, last: &Option<T>) {
            if wrong {
                now.clone_from(last);
            }
        }
        let wrong = |name: Name| self.wrong.contains(&name.canonical);
        let mut facts = self.facts;
        let now = &mut facts;
        keep(wrong(annotation::MODEL), &mut now.model, &last.model);
        keep(
            wrong(annotation::SLO_TTFT_MS),
            &mut now.slo_ttft_ms,
            &last.slo_ttft_ms,
        );
        keep(
            wrong(annotation::SLO_TPOT_MS),
            &mut now.slo_tpot_ms,
            &last.slo_tpot_ms,
        );
        keep(
            wrong(annotation::SLO_PERCENTILE),
            &mut now.slo_percentile,
            &last.slo_percentile,
        );
        keep(
            wrong(annotation::COST_PER_HOUR),
            &mut now.cost_per_hour,
            &last.cost_per_hour,
        );
        keep(
            wrong(annotation::ACCELERATOR),
            &mut now.accelerator,
            &last.accelerator,
        );
        keep(wrong(annotation::ROLE), &mut now.role, &last.role);
        keep(wrong(annotation::MODE), &mut now.mode, &last.mode);
        keep(
            wrong(annotation::STARTUP_SECONDS),
            &mut now.startup,
            &last.startup,
        );
        keep(wrong(annotation::POOL), &mut now.pool, &last.pool);
        keep(
            wrong(annotation::MIN_REPLICAS),
            &mut now.min_replicas,
            &last.min_replicas,
        );
        keep(
            wrong(annotation::MAX_REPLICAS),
            &mut now.max_replicas,
            &last.max_replicas,
        );
        facts
    }
}

struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    /// Whether llm-d's aliases count.
    managed: bool,
    problems: Vec<Problem>,
    wrong: Vec<&'static str>,
}

impl<'a> Reader<'a> {
    fn managed(&mut self) -> bool {
        match self.annotations.get(annotation::MANAGED).map(|v| v.trim()) {
            None | Some("false") => false,
            Some("true") => true,
            Some(value) => {
                self.problem(annotation::MANAGED, value, "true or false");
                false
            }
        }
    }

    /// The annotation in force for `name`, with its value.
    fn find(&self, name: Name) -> Option<(&'static str, &'a str)> {
        name.all()
            .filter(|spelling| self.managed || *spelling == name.canonical)
            .find_map(|spelling| Some((spelling, self.annotations.get(spelling)?.trim())))
    }

    fn fact<T>(&mut self, name: Name, parse: value::Parse<T>) -> Option<T> {
        let (spelling, text) = self.find(name)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.problem(spelling, text, expected);
                self.wrong.push(name.canonical);
                None
            }
        }
    }

    /// Drops both limits where they contradict each other.
    fn order_limits(&mut self, facts: &mut ModelAnnotations) {
        let (min, max) = (annotation::MIN_REPLICAS, annotation::MAX_REPLICAS);
        if let (Some(fewest), Some(most)) = (facts.min_replicas, facts.max_replicas)
            && fewest > most
        {
            let expected = format!("at least {fewest}, the value of {}", min.canonical);
            self.problem(max.canonical, &most.to_string(), expected);
            self.wrong.extend([min.canonical, max.canonical]);
            (facts.min_replicas, facts.max_replicas) = (None, None);
        }
    }

    fn unknown_names(&mut self) {
        let ours = self
            .annotations
            .iter()
            .filter_map(|(name, value)| Some((name, own_name(name)?, value)));
        for (name, own, value) in ours {
            if name != annotation::LEADER_ADDRESS
                && !annotation::MODEL_ANNOTATIONS
                    .iter()
                    .any(|known| known.canonical == name)
            {
                self.problem(name, value, nearest(own));
            }
        }
    }

    fn problem(&mut self, annotation: &str, value: &str, expected: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                annotation: cut(annotation, 320),
                value: cut(value, 64),
                expected: expected.into(),
            });
        }
    }
}

/// The part of `name` after our prefix, if it has it.
fn own_name(name: &str) -> Option<&str> {
    name.strip_prefix(GROUP)?.strip_prefix('/')
}

/// What someone who wrote `headroom.dev/<own>` may have meant.
fn nearest(own: &str) -> String {
    // Kubernetes allows 63 bytes after the prefix; longer ones are compared by their beginning.
    let own: String = own.chars().take(63).collect::<String>().to_lowercase();
    let known = annotation::MODEL_ANNOTATIONS
        .iter()
        .filter_map(|name| own_name(name.canonical));
    // Edits find typing errors, pairs of letters find the right words in the wrong order: 0 to 1 each.
    let likeness = |known: &str| {
        strsim::normalized_damerau_levenshtein(&own, known) + strsim::sorensen_dice(&own, known)
    };
    let best = known
        .clone()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
        .filter(|best| likeness(best) >= 0.8);
    match best {
        Some(best) => format!("the name {GROUP}/{best}"),
        None => format!(
            "a name that is known: {GROUP}/ and one of {}",
            known.collect::<Vec<_>>().join(", ")
        ),
    }
}

/// `text` cut to at most `bytes` bytes, at a character.
fn cut(text: &str, bytes: usize) -> String {
    text[..text.floor_char_boundary(bytes)].to_owned()
}

#[cfg(test)]
mod tests;
