//! How long a replica takes to become useful: told or measured.

use std::{borrow::Cow, fmt, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// From a replica's creation to its first useful answer: whole seconds, or `auto`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Startup {
    /// Measured from the target's pods.
    #[default]
    Auto,
    /// Told, 1 to 86400 seconds.
    Seconds(u32),
}

impl Startup {
    /// What `auto` counts with until a replica was seen to start.
    pub const UNMEASURED: Duration = Duration::from_secs(120);
    /// Longest start-up time that can be told, in seconds.
    pub const MAX_SECONDS: u32 = 86_400;

    /// Reads a start-up time as text; `None` unless it is `auto` or 1 to 86400.
    pub fn parse(text: &str) -> Option<Self> {
        if text == "auto" {
            return Some(Self::Auto);
        }
        text.parse().ok().and_then(Self::seconds)
    }

    fn seconds(seconds: u32) -> Option<Self> {
        (1..=Self::MAX_SECONDS)
            .contains(&seconds)
            .then_some(Self::Seconds(seconds))
    }

    /// The time told, if one is.
    pub fn fixed(self) -> Option<Duration> {
        match self {
            Self::Auto => None,
            Self::Seconds(seconds) => Some(Duration::from_secs(seconds.into())),
        }
    }
}

impl fmt::Display for Startup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Seconds(seconds) => write!(f, "{seconds}"),
        }
    }
}

impl Serialize for Startup {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Seconds(seconds) => serializer.serialize_u32(*seconds),
        }
    }
}

impl<'de> Deserialize<'de> for Startup {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Visitor)
    }
}

struct Visitor;

impl de::Visitor<'_> for Visitor {
    type Value = Startup;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("whole seconds from 1 to 86400, or `auto`")
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Startup, E> {
        u32::try_from(seconds)
            .ok()
            .and_then(Startup::seconds)
            .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(seconds), &self))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Startup, E> {
        u64::try_from(seconds)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(seconds), &self))
            .and_then(|seconds| self.visit_u64(seconds))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Startup, E> {
        Startup::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl JsonSchema for Startup {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Startup".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "maxLength": 5,
            "x-kubernetes-validations": [{
                "rule": "string(self) == 'auto' || string(self).matches('^[1-9][0-9]{0,4}$') && int(string(self)) <= 86400",
                "message": "startupSeconds must be whole seconds from 1 to 86400, or `auto`",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Startup;

    #[test]
    fn seconds_and_auto_are_read_and_nothing_else() {
        let read = |text: &str| serde_json::from_str::<Startup>(text);
        assert_eq!(read("90").unwrap(), Startup::Seconds(90));
        assert_eq!(read("\"90\"").unwrap(), Startup::Seconds(90));
        assert_eq!(read("\"auto\"").unwrap(), Startup::Auto);
        for wrong in [
            "0", "-1", "86401", "1.5", "\"090 \"", "\"Auto\"", "true", "null",
        ] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("from 1 to 86400, or `auto`"), "{error}");
        }
    }

    #[test]
    fn seconds_may_be_text() {
        for (text, startup) in [
            ("auto", Some(Startup::Auto)),
            ("1", Some(Startup::Seconds(1))),
            ("86400", Some(Startup::Seconds(86_400))),
            ("0", None),
            ("1.5", None),
            ("90s", None),
        ] {
            assert_eq!(Startup::parse(text), startup, "{text}");
            if let Some(startup) = startup {
                assert_eq!(startup.to_string(), text);
            }
        }
    }
}
