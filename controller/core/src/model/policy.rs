//! What is asked for one model: its service levels, the kinds of replica that may serve it, and the limits.

use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::hpa::Tolerance;
use crate::policy::{ABOVE, Behavior, Policy, PolicyError, SloTargets, above_zero, check};

/// Most service levels of one model.
pub const MAX_CLASSES: usize = 8;
/// Most variants of one model.
pub const MAX_VARIANTS: usize = 32;

/// Names one model in a cluster: the same name may serve in two namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModelKey {
    /// Kubernetes namespace; empty where there is none.
    pub namespace: String,
    /// The model, as clients name it.
    pub model: String,
}

impl fmt::Display for ModelKey {
    /// `namespace/model`, or the model alone where there is no namespace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.model)
        } else {
            write!(f, "{}/{}", self.namespace, self.model)
        }
    }
}

/// Request priorities from `min` to `max`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Priorities {
    /// Lowest.
    pub min: i32,
    /// Highest.
    pub max: i32,
}

impl Priorities {
    /// Whether `priority` belongs.
    pub fn contains(self, priority: i32) -> bool {
        (self.min..=self.max).contains(&priority)
    }
}

/// A named service level and the requests that it is promised to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SloClass {
    /// Unique in the model.
    pub name: String,
    /// What is promised.
    pub slo: SloTargets,
    /// The priorities that belong to the class; `None`: all that no other class names.
    pub priority: Option<Priorities>,
    /// How much the class counts beside the others, above 0.
    pub weight: f64,
}

/// What the replicas of a variant do with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Role {
    /// Compute the prompt's KV cache and hand it on: sized by TTFT.
    Prefill,
    /// Generate from a KV cache computed elsewhere: sized by TPOT.
    Decode,
    /// The whole request.
    #[default]
    Both,
}

impl Role {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Both => "both",
        }
    }
}

/// From a replica's creation to its first useful answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Startup {
    /// Told.
    Fixed(Duration),
    /// Learned from [`VariantSignals::became_ready`](super::VariantSignals::became_ready).
    Auto {
        /// Counted with until three replicas were seen to start.
        fallback: Duration,
    },
}

/// One kind of replica that may serve the model.
#[derive(Clone, Debug, PartialEq)]
pub struct VariantPolicy {
    /// Unique in the model.
    pub name: String,
    /// What its replicas do with a request.
    pub role: Role,
    /// What they run on, for reports.
    pub accelerator: String,
    /// GPUs of one replica, counted against the GPU budget.
    pub gpus_per_replica: u32,
    /// Cost of one replica per hour, in any one currency, 0 or more.
    pub cost_per_hour: f64,
    /// Fewest replicas; 0 allows the variant to go to zero.
    pub min: u32,
    /// Most replicas, at least `min` and 1.
    pub max: u32,
    /// Start-up time.
    pub startup: Startup,
    /// The tolerance of the HorizontalPodAutoscaler that carries the count out: counts then move by steps that it does
    /// not ignore. `None`: every count is carried out as it is.
    pub quantise: Option<Tolerance>,
}

impl VariantPolicy {
    /// A variant for whole requests, one GPU and a cost of 1 per hour and replica.
    pub fn new(name: impl Into<String>, min: u32, max: u32, startup: Startup) -> Self {
        Self {
            name: name.into(),
            role: Role::Both,
            accelerator: String::new(),
            gpus_per_replica: 1,
            cost_per_hour: 1.0,
            min,
            max,
            startup,
            quantise: None,
        }
    }
}

/// The controller's policy for one model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelPolicy {
    /// Namespace and name of the model.
    pub key: ModelKey,
    /// Its service levels, 1 to [`MAX_CLASSES`].
    pub classes: Vec<SloClass>,
    /// The kinds of replica that may serve it, 1 to [`MAX_VARIANTS`].
    pub variants: Vec<VariantPolicy>,
    /// Most GPUs of all variants together; `None`: no limit.
    pub gpu_budget: Option<u32>,
    /// Most cost per hour of all variants together; `None`: no limit.
    pub cost_budget: Option<f64>,
    /// How careful to be.
    pub behavior: Behavior,
    /// Time without any request, queued or in flight, after which a model whose variants all have a minimum of 0 goes to
    /// zero.
    pub idle: Duration,
    /// Time for which pending replicas are waited for before what they were to serve goes to the next variant.
    pub patience: Duration,
}

impl ModelPolicy {
    /// Time without demand before zero, unless told otherwise.
    pub const IDLE: Duration = Duration::from_secs(300);
    /// Time that pending replicas are waited for, unless told otherwise.
    pub const PATIENCE: Duration = Duration::from_secs(30);

    /// A policy without budgets and with the default behaviour.
    pub fn new(key: ModelKey, classes: Vec<SloClass>, variants: Vec<VariantPolicy>) -> Self {
        Self {
            key,
            classes,
            variants,
            gpu_budget: None,
            cost_budget: None,
            behavior: Behavior::default(),
            idle: Self::IDLE,
            patience: Self::PATIENCE,
        }
    }

    /// The class that requests of `priority` belong to, as an index into `classes`: the first whose range holds it;
    /// else the class without a range; else, since every request belongs somewhere, the class of the greatest weight
    /// (the first of several).
    pub fn class_of(&self, priority: i32) -> usize {
        let holds = |class: &SloClass| class.priority.is_some_and(|range| range.contains(priority));
        let named = self.classes.iter().position(holds);
        let rest = || {
            self.classes
                .iter()
                .position(|class| class.priority.is_none())
        };
        let weightiest = || {
            let weights = self.classes.iter().map(|class| class.weight).enumerate();
            weights
                .reduce(|best, next| if next.1 > best.1 { next } else { best })
                .map(|(index, _)| index)
        };
        named.or_else(rest).or_else(weightiest).unwrap_or(0)
    }

    /// Whether prompts are computed and answers generated by different replicas.
    pub fn disaggregated(&self) -> bool {
        self.variants
            .iter()
            .any(|variant| variant.role != Role::Both)
    }

    /// Whether the model may have no replica at all.
    pub fn may_be_zero(&self) -> bool {
        self.variants.iter().all(|variant| variant.min == 0)
    }

    /// Checks every field against its range, and the fields against each other.
    ///
    /// # Errors
    /// The first that is wrong.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let model = &self.key.model;
        check(
            "model",
            model,
            !model.is_empty(),
            "the model's name as clients send it",
        )?;
        self.validate_classes()?;
        self.validate_variants()?;
        self.behavior.validate()?;
        let idle = self.idle.as_secs_f64();
        check("idleSeconds", idle, above_zero(idle), ABOVE)?;
        self.validate_budgets()
    }

    fn validate_classes(&self) -> Result<(), PolicyError> {
        let count = self.classes.len();
        check(
            "sloClasses",
            count,
            (1..=MAX_CLASSES).contains(&count),
            "1 to 8 classes",
        )?;
        let mut names = BTreeSet::new();
        for class in &self.classes {
            let path = format!("sloClasses[{}].", class.name);
            let unique = !class.name.is_empty() && names.insert(&class.name);
            check("sloClasses.name", &class.name, unique, "a name of its own")?;
            class.slo.validate(&path)?;
            let weight = class.weight;
            check(format!("{path}weight"), weight, above_zero(weight), ABOVE)?;
            if let Some(range) = class.priority {
                let (told, expected) = (format!("{} to {}", range.min, range.max), "min to max");
                check(
                    format!("{path}priority"),
                    told,
                    range.min <= range.max,
                    expected,
                )?;
            }
        }
        Ok(())
    }

    fn validate_variants(&self) -> Result<(), PolicyError> {
        let count = self.variants.len();
        check(
            "variants",
            count,
            (1..=MAX_VARIANTS).contains(&count),
            "1 to 32 variants",
        )?;
        let mut names = BTreeSet::new();
        for variant in &self.variants {
            let field = |name: &str| format!("variants[{}].{name}", variant.name);
            let unique = !variant.name.is_empty() && names.insert(&variant.name);
            check("variants.name", &variant.name, unique, "a name of its own")?;
            let most = variant.min.max(1);
            check(
                field("maxReplicas"),
                variant.max,
                variant.max >= most,
                "at least minReplicas and 1",
            )?;
            let cost = variant.cost_per_hour;
            let free = cost.is_finite() && cost >= 0.0;
            check(field("costPerHour"), cost, free, "0 or more")?;
            let (Startup::Fixed(startup) | Startup::Auto { fallback: startup }) = variant.startup;
            let startup = startup.as_secs_f64();
            check(field("startupSeconds"), startup, above_zero(startup), ABOVE)?;
        }
        let has = |role| self.variants.iter().any(|variant| variant.role == role);
        let roles: Vec<&str> = self.variants.iter().map(|v| v.role.as_str()).collect();
        let whole = has(Role::Both) && !has(Role::Prefill) && !has(Role::Decode);
        let split = !has(Role::Both) && has(Role::Prefill) && has(Role::Decode);
        let expected = "either all `both`, or `prefill` and `decode` with at least one of each";
        check("variants.role", roles.join(", "), whole || split, expected)
    }

    fn validate_budgets(&self) -> Result<(), PolicyError> {
        let least = |of: fn(&VariantPolicy) -> f64| {
            let each = self
                .variants
                .iter()
                .map(|variant| f64::from(variant.min) * of(variant));
            each.sum::<f64>()
        };
        let expected = "enough for every variant's minReplicas";
        if let Some(gpus) = self.gpu_budget {
            let needed = least(|variant| f64::from(variant.gpus_per_replica));
            check("budgets.gpus", gpus, f64::from(gpus) >= needed, expected)?;
        }
        if let Some(cost) = self.cost_budget {
            let enough = above_zero(cost) && cost >= least(|variant| variant.cost_per_hour);
            check("budgets.costPerHour", cost, enough, expected)?;
        }
        Ok(())
    }
}

/// The one class and the one variant of a [`Policy`] are named so.
const ONLY: &str = "default";

impl From<&Policy> for ModelPolicy {
    /// One class that every request belongs to, and one variant.
    fn from(policy: &Policy) -> Self {
        let class = SloClass {
            name: ONLY.to_owned(),
            slo: policy.slo,
            priority: None,
            weight: 1.0,
        };
        let variant =
            VariantPolicy::new(ONLY, policy.min, policy.max, Startup::Fixed(policy.startup));
        let key = ModelKey {
            namespace: String::new(),
            model: policy.model.clone(),
        };
        Self {
            behavior: policy.behavior(),
            ..Self::new(key, vec![class], vec![variant])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLO: SloTargets = SloTargets {
        percentile: 0.9,
        ttft_ms: 500.0,
        tpot_ms: 50.0,
    };

    fn class(name: &str, priority: Option<(i32, i32)>, weight: f64) -> SloClass {
        SloClass {
            name: name.into(),
            slo: SLO,
            priority: priority.map(|(min, max)| Priorities { min, max }),
            weight,
        }
    }

    fn variant(name: &str, role: Role) -> VariantPolicy {
        let startup = Startup::Fixed(Duration::from_secs(6));
        VariantPolicy {
            role,
            ..VariantPolicy::new(name, 1, 4, startup)
        }
    }

    fn policy() -> ModelPolicy {
        let key = ModelKey {
            namespace: "chat".into(),
            model: "llama".into(),
        };
        let classes = vec![class("a", Some((1, 9)), 1.0), class("b", None, 2.0)];
        ModelPolicy::new(key, classes, vec![variant("l40s", Role::Both)])
    }

    #[test]
    fn every_priority_belongs_to_exactly_one_class() {
        let mut policy = policy();
        assert_eq!(
            [-5, 0, 1, 9, 10].map(|p| policy.class_of(p)),
            [1, 1, 0, 0, 1]
        );
        // Without a class for the rest, the weightiest takes it; the first of equals.
        policy.classes = vec![
            class("a", Some((1, 9)), 1.0),
            class("b", Some((-9, -1)), 2.0),
            class("c", Some((20, 30)), 2.0),
        ];
        assert_eq!([5, -5, 0, 100].map(|p| policy.class_of(p)), [0, 1, 1, 1]);
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        let wrong = |change: &dyn Fn(&mut ModelPolicy)| {
            let mut policy = policy();
            change(&mut policy);
            policy.validate().unwrap_err().to_string()
        };
        assert_eq!(policy().validate(), Ok(()));
        assert_eq!(
            wrong(&|policy| policy.variants[0].max = 0),
            "variants[l40s].maxReplicas: `0` is not at least minReplicas and 1"
        );
        assert_eq!(
            wrong(&|policy| policy.variants[0].role = Role::Prefill),
            "variants.role: `prefill` is not either all `both`, or `prefill` and `decode` with at least one of each"
        );
        assert_eq!(
            wrong(&|policy| policy.variants.push(variant("l40s", Role::Both))),
            "variants.name: `l40s` is not a name of its own"
        );
        assert_eq!(
            wrong(&|policy| policy.gpu_budget = Some(0)),
            "budgets.gpus: `0` is not enough for every variant's minReplicas"
        );
        assert_eq!(
            wrong(&|policy| policy.classes[1].slo.ttft_ms = f64::NAN),
            "sloClasses[b].ttftMs: `NaN` is not above 0"
        );
        assert_eq!(
            wrong(&|policy| policy.classes.clear()),
            "sloClasses: `0` is not 1 to 8 classes"
        );
    }
}
