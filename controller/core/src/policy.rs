//! What the operator asks for: the objective, the bounds, and how careful to be.

use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// What is promised: `percentile` of the requests see their first token within `ttft_ms` and `percentile` of them a mean
/// time per output token of at most `tpot_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SloTargets {
    /// Share of the requests that must meet each target, 0 to 1 exclusive.
    pub percentile: f32,
    /// Target for the time to first token as the user sees it, in milliseconds.
    pub ttft_ms: f64,
    /// Target for the time per output token, in milliseconds.
    pub tpot_ms: f64,
}

/// The controller's policy for one model on one kind of replica. Durations are written in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    /// The model served, as clients name it.
    pub model: String,
    /// The objective that a replica's capacity is computed for.
    pub slo: SloTargets,
    /// Fewest replicas, at least 1.
    pub min: u32,
    /// Most replicas, at least `min`.
    pub max: u32,
    /// From the start of a replica to its first useful answer.
    #[serde(rename = "startupSeconds", with = "seconds")]
    pub startup: Duration,
    /// A lower count must have been enough for this long before replicas are removed.
    #[serde(
        rename = "scaleDownGuardSeconds",
        with = "seconds",
        default = "defaults::scale_down_guard"
    )]
    pub scale_down_guard: Duration,
    /// Utilisation that replicas are sized for when one idle replica already misses the SLO (0.8), and the share
    /// of a replica's request slots and KV memory that a plan may count on.
    #[serde(default = "defaults::utilization_fallback")]
    pub utilization_fallback: f64,
    /// Share of the computed capacity kept free, 0 to 0.9 (0.1). TTFT is a cliff: near it, a little more load
    /// multiplies the latency, so the margin is taken from the rate and not from the target.
    #[serde(default = "defaults::margin")]
    pub margin: f64,
    /// Standard errors added to the forecast when replicas are counted, 0 or more (1).
    #[serde(default = "defaults::band")]
    pub band: f64,
    /// Share of slack that the lower count must have before replicas are removed, 0 or more (0.1).
    #[serde(default = "defaults::hysteresis")]
    pub hysteresis: f64,
    /// How much of the sheddable demand replicas are bought for, 0 (none) to 1 (all of it, the default).
    #[serde(default = "defaults::sheddable_share")]
    pub sheddable_share: f64,
    /// Time in which a backlog is to be worked off; by default the start-up time, at least 10 s.
    #[serde(
        rename = "drainSeconds",
        with = "optional_seconds",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub drain: Option<Duration>,
    /// Requests that the endpoint picker keeps in flight on one replica (its concurrency detector's limit); beyond
    /// it they queue in front of the replicas. Absent: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Replicas that may always be added within one start-up time, even if that more than doubles the count (4).
    #[serde(default = "defaults::step_up")]
    pub step_up: u32,
}

impl Policy {
    /// A policy with the defaults for everything but what only the operator can know.
    pub fn new(
        model: impl Into<String>,
        slo: SloTargets,
        min: u32,
        max: u32,
        startup: Duration,
    ) -> Self {
        Self {
            model: model.into(),
            slo,
            min,
            max,
            startup,
            scale_down_guard: defaults::scale_down_guard(),
            utilization_fallback: defaults::utilization_fallback(),
            margin: defaults::margin(),
            band: defaults::band(),
            hysteresis: defaults::hysteresis(),
            sheddable_share: defaults::sheddable_share(),
            drain: None,
            max_in_flight: None,
            step_up: defaults::step_up(),
        }
    }

    /// How careful to be, apart from the objective and the bounds.
    pub fn behavior(&self) -> Behavior {
        Behavior {
            scale_down_guard: self.scale_down_guard,
            utilization_fallback: self.utilization_fallback,
            margin: self.margin,
            band: self.band,
            hysteresis: self.hysteresis,
            sheddable_share: self.sheddable_share,
            drain: self.drain,
            max_in_flight: self.max_in_flight,
            step_up: self.step_up,
        }
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of it.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let startup = self.startup.as_secs_f64();
        check(
            "model",
            &self.model,
            !self.model.is_empty(),
            "the model's name as clients send it",
        )?;
        self.slo.validate("slo.")?;
        check("min", self.min, self.min >= 1, "at least 1")?;
        check("max", self.max, self.max >= self.min, "at least min")?;
        check("startupSeconds", startup, above_zero(startup), ABOVE)?;
        self.behavior().validate()
    }
}

const OPEN_SHARE: &str = "a share above 0 and below 1, such as 0.9";
const SHARE: &str = "a share from 0 to 1";
pub(crate) const ABOVE: &str = "above 0";

fn inside(value: f64) -> bool {
    value > 0.0 && value < 1.0
}

pub(crate) fn above_zero(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

impl SloTargets {
    /// Checks every field against its range; `path` is put before the field's name in the error.
    pub(crate) fn validate(&self, path: &str) -> Result<(), PolicyError> {
        let percentile = f64::from(self.percentile);
        let field = |name: &str| format!("{path}{name}");
        check(
            field("percentile"),
            percentile,
            inside(percentile),
            OPEN_SHARE,
        )?;
        check(
            field("ttftMs"),
            self.ttft_ms,
            above_zero(self.ttft_ms),
            ABOVE,
        )?;
        check(
            field("tpotMs"),
            self.tpot_ms,
            above_zero(self.tpot_ms),
            ABOVE,
        )
    }
}

/// How careful to be, whatever the model: see the fields of the same names in [`Policy`].
#[derive(Clone, Debug, PartialEq)]
pub struct Behavior {
    /// A lower count must have been enough for this long before replicas are removed.
    pub scale_down_guard: Duration,
    /// Utilisation sized for when one idle replica already misses the SLO, above 0 and below 1.
    pub utilization_fallback: f64,
    /// Share of the computed capacity kept free, 0 to 0.9.
    pub margin: f64,
    /// Standard errors added to the forecast, 0 to 10.
    pub band: f64,
    /// Share of slack that a lower count must have, 0 to 1.
    pub hysteresis: f64,
    /// How much of the sheddable demand replicas are bought for, 0 to 1.
    pub sheddable_share: f64,
    /// Time in which a backlog is to be worked off; `None`: the start-up time, at least 10 s.
    pub drain: Option<Duration>,
    /// Requests that the endpoint picker keeps in flight on one replica; `None`: no such limit.
    pub max_in_flight: Option<u32>,
    /// Replicas that may always be added within one start-up time, at least 1.
    pub step_up: u32,
}

impl Default for Behavior {
    fn default() -> Self {
        Self {
            scale_down_guard: defaults::scale_down_guard(),
            utilization_fallback: defaults::utilization_fallback(),
            margin: defaults::margin(),
            band: defaults::band(),
            hysteresis: defaults::hysteresis(),
            sheddable_share: defaults::sheddable_share(),
            drain: None,
            max_in_flight: None,
            step_up: defaults::step_up(),
        }
    }
}

impl Behavior {
    /// Time in which a backlog is to be worked off by replicas that take `startup` to start.
    pub fn drain(&self, startup: Duration) -> Duration {
        self.drain
            .unwrap_or_else(|| startup.max(Duration::from_secs(10)))
    }

    /// Checks every field against its range.
    ///
    /// # Errors
    /// The first field that is out of it, as a file spells it.
    pub fn validate(&self) -> Result<(), PolicyError> {
        let share = |value: f64| (0.0..=1.0).contains(&value);
        let fallback = self.utilization_fallback;
        let margin = (0.0..=0.9).contains(&self.margin);
        let band = (0.0..=10.0).contains(&self.band);
        let drain = self.drain.map_or(1.0, |drain| drain.as_secs_f64());
        let slots = self.max_in_flight.unwrap_or(1);
        check(
            "utilizationFallback",
            fallback,
            inside(fallback),
            OPEN_SHARE,
        )?;
        check("margin", self.margin, margin, "a share from 0 to 0.9")?;
        check("band", self.band, band, "between 0 and 10 standard errors")?;
        check("hysteresis", self.hysteresis, share(self.hysteresis), SHARE)?;
        check(
            "sheddableShare",
            self.sheddable_share,
            share(self.sheddable_share),
            SHARE,
        )?;
        check("drainSeconds", drain, above_zero(drain), ABOVE)?;
        check(
            "maxInFlight",
            slots,
            slots >= 1,
            "at least 1, or absent for no limit",
        )?;
        check("stepUp", self.step_up, self.step_up >= 1, "at least 1")
    }
}

/// The windows that demand is measured over, given the time a replica takes to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Windows {
    /// The shortest: half the start-up time, 3 s to 15 s. A change that a replica could not answer any sooner need not
    /// be seen any sooner.
    pub fast: Duration,
    /// The longest: sixteen fast windows, 48 s to 240 s.
    pub slow: Duration,
}

impl Windows {
    /// The windows for replicas that take `startup` to start.
    pub fn of(startup: Duration) -> Self {
        let fast = (startup / 2).clamp(Duration::from_secs(3), Duration::from_secs(15));
        Self {
            fast,
            slow: fast * 16,
        }
    }
}

/// `Err` unless `ok`, naming the field, its value and what would be right.
pub(crate) fn check(
    field: impl Into<String>,
    value: impl ToString,
    ok: bool,
    expected: &'static str,
) -> Result<(), PolicyError> {
    if ok {
        return Ok(());
    }
    Err(PolicyError {
        field: field.into(),
        value: value.to_string(),
        expected,
    })
}

/// A policy that cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{field}: `{value}` is not {expected}")]
pub struct PolicyError {
    /// The field as the file spells it.
    pub field: String,
    /// What it held.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

mod defaults {
    use std::time::Duration;

    pub(super) fn scale_down_guard() -> Duration {
        Duration::from_secs(60)
    }
    pub(super) fn utilization_fallback() -> f64 {
        0.8
    }
    pub(super) fn margin() -> f64 {
        0.1
    }
    pub(super) fn band() -> f64 {
        1.0
    }
    pub(super) fn hysteresis() -> f64 {
        0.1
    }
    pub(super) fn sheddable_share() -> f64 {
        1.0
    }
    pub(super) fn step_up() -> u32 {
        4
    }
}

/// A duration that is written as whole nanoseconds, so that it reads back as it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(pub(crate) Duration);

impl Nanos {
    /// Whole nanoseconds; 584 years at most.
    pub(crate) fn of(duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Serialize for Nanos {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::of(self.0))
    }
}

impl<'de> Deserialize<'de> for Nanos {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        u64::deserialize(deserializer).map(|nanos| Self(Duration::from_nanos(nanos)))
    }
}

/// Durations as seconds in files and reports.
pub mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes seconds.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    /// Reads seconds, 0 or more.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        Duration::try_from_secs_f64(seconds).map_err(|_| {
            D::Error::custom(format!("{seconds} is not a number of seconds, 0 or more"))
        })
    }
}

mod optional_seconds {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        duration: &Option<Duration>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match duration {
            Some(duration) => super::seconds::serialize(duration, serializer),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Duration>, D::Error> {
        super::seconds::deserialize(deserializer).map(Some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy() -> Policy {
        Policy::new(
            "m",
            SloTargets {
                percentile: 0.9,
                ttft_ms: 2000.0,
                tpot_ms: 150.0,
            },
            1,
            10,
            Duration::from_secs(6),
        )
    }

    #[test]
    fn defaults_are_valid_and_windows_follow_the_start_up_time() {
        let mut policy = policy();
        assert_eq!(policy.validate(), Ok(()));
        let windows = |startup| {
            let Windows { fast, slow } = Windows::of(startup);
            (fast.as_secs(), slow.as_secs())
        };
        assert_eq!(windows(policy.startup), (3, 48));
        policy.startup = Duration::from_secs(100);
        assert_eq!(windows(policy.startup), (15, 240));
        let behavior = policy.behavior();
        assert_eq!(behavior.drain(policy.startup).as_secs(), 100);
        assert_eq!(behavior.drain(Duration::from_secs(4)).as_secs(), 10);
        assert_eq!(behavior, Behavior::default());
    }

    #[test]
    fn an_error_names_the_field_the_value_and_what_would_be_right() {
        let mut wrong = policy();
        wrong.slo.percentile = 90.0;
        let message = wrong.validate().unwrap_err().to_string();
        assert_eq!(
            message,
            "slo.percentile: `90` is not a share above 0 and below 1, such as 0.9"
        );
        let mut wrong = policy();
        wrong.max = 0;
        assert_eq!(wrong.validate().unwrap_err().field, "max");
        let mut wrong = policy();
        wrong.slo.ttft_ms = f64::NAN;
        assert_eq!(wrong.validate().unwrap_err().field, "slo.ttftMs");
    }
}
