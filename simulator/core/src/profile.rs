//! Hardware profiles: what a step costs on a model and accelerator, and how much the engine may hold.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// A model on an accelerator, as the engine needs to know it. Written as YAML.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name by which the profile is chosen, lower case with hyphens.
    pub name: String,
    /// Model served, as its publisher names it.
    pub model: String,
    /// Accelerator and count, for people.
    pub accelerator: String,
    /// What a step costs.
    pub step: StepCost,
    /// Tokens per KV block.
    pub block_tokens: u32,
    /// KV blocks that requests can hold; absent = unbounded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_blocks: Option<u32>,
    /// Largest running batch.
    pub max_num_seqs: u32,
    /// Tokens one step may compute, decodes and prefill chunks together.
    pub max_num_batched_tokens: u32,
    /// Longest context: prompt and output.
    pub max_model_len: u32,
    /// Whether the engine schedules a step while the previous one still runs, as vLLM does by default.
    #[serde(default)]
    pub async_scheduling: bool,
    /// Seconds from launch until the server answers.
    pub startup: f64,
    /// Assumptions and sources of the figures.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Time of one step: `base + prefill·tokens + sequence·batch + kv·resident tokens`, times noise of mean 1.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepCost {
    /// Cost of any step (reading the weights), ms.
    pub base_ms: f64,
    /// Cost of each prompt token computed in the step, ms.
    pub prefill_ms_per_token: f64,
    /// Cost of each sequence in the step, ms.
    pub sequence_ms: f64,
    /// Cost of each KV token the step's sequences attend to, ms.
    pub kv_ms_per_token: f64,
    /// Relative standard deviation of the (log-normal) noise; 0 = none.
    #[serde(default)]
    pub noise: f64,
}

/// Profiles that come with the program, by name.
const BUILTIN: [(&str, &str); 3] = [
    (
        "llama-3.1-8b-rtx4090",
        include_str!("../profiles/llama-3.1-8b-rtx4090.yaml"),
    ),
    (
        "llama-3.1-8b-rtxpro6000",
        include_str!("../profiles/llama-3.1-8b-rtxpro6000.yaml"),
    ),
    (
        "qwen3-32b-h100-tp2",
        include_str!("../profiles/qwen3-32b-h100-tp2.yaml"),
    ),
];

/// Why a profile was refused.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// No profile of that name comes with the program.
    #[error("no profile is named {name:?}: did you mean {nearest:?}? there are {}", known.join(", "))]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The most similar name there is.
        nearest: &'static str,
        /// All names.
        known: Vec<&'static str>,
    },
    /// A field that profiles do not have.
    #[error("unknown field {field:?}: did you mean {nearest:?}?")]
    UnknownField {
        /// Path of the field.
        field: String,
        /// The most similar field there is.
        nearest: String,
    },
    /// A figure that makes no sense.
    #[error("{field} is {value}, must be {expected}")]
    OutOfRange {
        /// Path of the field.
        field: &'static str,
        /// What it is.
        value: String,
        /// What it should be.
        expected: &'static str,
    },
    /// Not a profile at all.
    #[error("not a profile: {0}")]
    Malformed(String),
}

impl Profile {
    /// Names of the profiles that come with the program.
    pub fn builtin_names() -> &'static [&'static str] {
        const NAMES: [&str; 3] = [BUILTIN[0].0, BUILTIN[1].0, BUILTIN[2].0];
        &NAMES
    }

    /// The profile of that name that comes with the program.
    ///
    /// # Errors
    /// If there is none; the error names the nearest.
    pub fn builtin(name: &str) -> Result<Self, ProfileError> {
        match BUILTIN.iter().find(|(known, _)| *known == name) {
            Some((_, yaml)) => Self::from_yaml(yaml),
            None => Err(ProfileError::UnknownName {
                name: name.to_owned(),
                nearest: nearest(name, Self::builtin_names()),
                known: Self::builtin_names().to_vec(),
            }),
        }
    }

    /// Reads a profile, strictly.
    ///
    /// # Errors
    /// If a field is unknown (the error names the nearest), missing, of the wrong type or out of range.
    pub fn from_yaml(yaml: &str) -> Result<Self, ProfileError> {
        let document: serde_json::Value = serde_saphyr::from_str(yaml)
            .map_err(|error| ProfileError::Malformed(error.to_string()))?;
        refuse_unknown(&document, "", FIELDS)?;
        refuse_unknown(&document["step"], "step.", STEP_FIELDS)?;
        let profile: Self = serde_json::from_value(document)
            .map_err(|error| ProfileError::Malformed(error.to_string()))?;
        profile.check()?;
        Ok(profile)
    }

    /// Time from launch until the server answers.
    pub fn startup(&self) -> Duration {
        Duration::from_secs_f64(self.startup)
    }

    fn check(&self) -> Result<(), ProfileError> {
        let counts = [
            ("block_tokens", self.block_tokens),
            ("kv_blocks", self.kv_blocks.unwrap_or(1)),
            ("max_num_seqs", self.max_num_seqs),
            ("max_num_batched_tokens", self.max_num_batched_tokens),
            ("max_model_len", self.max_model_len),
        ];
        for (field, value) in counts {
            if value == 0 {
                return Err(ProfileError::OutOfRange {
                    field,
                    value: value.to_string(),
                    expected: "at least 1",
                });
            }
        }
        let costs = [
            ("step.base_ms", self.step.base_ms),
            ("step.prefill_ms_per_token", self.step.prefill_ms_per_token),
            ("step.sequence_ms", self.step.sequence_ms),
            ("step.kv_ms_per_token", self.step.kv_ms_per_token),
            ("step.noise", self.step.noise),
            ("startup", self.startup),
        ];
        for (field, value) in costs {
            if !(0.0..1e9).contains(&value) {
                let expected = "a finite number, not negative";
                return Err(ProfileError::OutOfRange {
                    field,
                    value: value.to_string(),
                    expected,
                });
            }
        }
        Ok(())
    }
}

const FIELDS: &[&str] = &[
    "name",
    "model",
    "accelerator",
    "step",
    "block_tokens",
    "kv_blocks",
    "max_num_seqs",
    "max_num_batched_tokens",
    "max_model_len",
    "async_scheduling",
    "startup",
    "notes",
];
const STEP_FIELDS: &[&str] = &[
    "base_ms",
    "prefill_ms_per_token",
    "sequence_ms",
    "kv_ms_per_token",
    "noise",
];

fn refuse_unknown(
    value: &serde_json::Value,
    path: &str,
    known: &[&'static str],
) -> Result<(), ProfileError> {
    for field in value
        .as_object()
        .into_iter()
        .flat_map(|fields| fields.keys())
    {
        if !known.contains(&field.as_str()) {
            let nearest = format!("{path}{}", nearest(field, known));
            return Err(ProfileError::UnknownField {
                field: format!("{path}{field}"),
                nearest,
            });
        }
    }
    Ok(())
}

fn nearest(name: &str, known: &[&'static str]) -> &'static str {
    known
        .iter()
        .copied()
        .min_by_key(|candidate| strsim::damerau_levenshtein(name, candidate))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{Profile, ProfileError};

    fn yaml_with(line: &str) -> String {
        let lines = include_str!("../profiles/llama-3.1-8b-rtx4090.yaml").lines();
        let field = line.split(':').next().unwrap_or_default();
        let kept: Vec<&str> = lines
            .filter(|kept| kept.split(':').next() != Some(field))
            .collect();
        format!("{line}\n{}", kept.join("\n"))
    }

    #[test]
    fn every_builtin_profile_is_valid_and_bears_its_name() {
        for name in Profile::builtin_names() {
            let profile = Profile::builtin(name).unwrap();
            assert_eq!(profile.name, *name);
            assert!(!profile.notes.is_empty(), "{name} states no source");
        }
    }

    #[test]
    fn a_misspelt_name_is_answered_with_the_nearest() {
        let error = Profile::builtin("qwen3-32b-h100").unwrap_err().to_string();
        assert!(
            error.contains("did you mean \"qwen3-32b-h100-tp2\"?"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_field_is_answered_with_the_nearest() {
        let error = Profile::from_yaml(&yaml_with("max_num_seq: 4")).unwrap_err();
        assert!(
            matches!(&error, ProfileError::UnknownField { nearest, .. } if nearest == "max_num_seqs"),
            "{error}"
        );
        let nested = yaml_with("name: x").replace("base_ms", "bas_ms");
        let error = Profile::from_yaml(&nested).unwrap_err().to_string();
        assert!(
            error.contains("step.bas_ms") && error.contains("step.base_ms"),
            "{error}"
        );
    }

    #[test]
    fn figures_that_make_no_sense_are_refused_by_name() {
        for (line, field) in [
            ("block_tokens: 0", "block_tokens"),
            ("startup: -1", "startup"),
            ("startup: .nan", "startup"),
        ] {
            let error = Profile::from_yaml(&yaml_with(line))
                .unwrap_err()
                .to_string();
            assert!(error.contains(field), "{line}: {error}");
        }
        assert!(Profile::from_yaml(&yaml_with("max_num_seqs: many")).is_err());
        assert!(Profile::from_yaml("[]").is_err());
    }

    #[test]
    fn the_h100_profile_decodes_a_single_sequence_at_22_ms() {
        let profile = Profile::builtin("qwen3-32b-h100-tp2").unwrap();
        let step = profile.step;
        let single = step.base_ms + step.sequence_ms + 7_700.0 * step.kv_ms_per_token;
        assert!((single - 22.0).abs() < 0.01, "{single}");
        assert_eq!(
            profile
                .kv_blocks
                .map(|blocks| blocks * profile.block_tokens),
            Some(307_328)
        );
    }
}
