//! Reading recorded runs: one JSON object per request, a CSV of the server's state, a description of its engine.

use super::replay::Replayed;
use crate::profile::{Profile, StepCost};
use serde_json::Value;

/// One request of a recorded run; times are seconds since the first arrival of the run.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recorded {
    /// Prompt length.
    pub input_tokens: u32,
    /// Tokens emitted.
    pub output_tokens: u32,
    /// When the engine queued the request: its arrival.
    pub queued: f64,
    /// What became of it.
    pub times: Replayed,
}

/// The server's state at one instant.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Seconds since the first arrival.
    pub t: f64,
    /// Requests running.
    pub running: f64,
    /// Requests waiting.
    pub waiting: f64,
}

/// What the recorded engine was configured to hold.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Model served.
    pub model: String,
    /// Accelerator, if recorded.
    pub accelerator: Option<String>,
    /// Largest running batch.
    pub max_num_seqs: u32,
    /// Tokens one step may compute.
    pub max_num_batched_tokens: u32,
    /// Longest context; absent = whatever the requests need.
    pub max_model_len: Option<u32>,
    /// Tokens per KV block.
    pub block_tokens: u32,
    /// KV blocks as the server counts them, the one it never hands out included; absent = not recorded.
    pub gpu_blocks: Option<u32>,
    /// Whether a step was scheduled while the one before it ran.
    pub async_scheduling: bool,
}

/// A recorded run of a real server.
#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// The engine's limits.
    pub limits: Limits,
    /// Requests by arrival.
    pub requests: Vec<Recorded>,
    /// State over time; empty if not recorded.
    pub series: Vec<Sample>,
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// A line is not what it should be.
    #[error("{file} line {line}: {problem}")]
    Line {
        /// Which of the files.
        file: &'static str,
        /// Line, from 1.
        line: usize,
        /// What is wrong.
        problem: String,
    },
    /// The description of the engine is not what it should be.
    #[error("meta: {0}")]
    Meta(String),
    /// There is nothing to score.
    #[error(
        "requests: there are {0} requests, at least 4 are needed to fit one half and score the other"
    )]
    TooFew(usize),
}

/// vLLM's block size where the description does not tell.
const DEFAULT_BLOCK_TOKENS: u32 = 16;

impl Recording {
    /// Reads the text of the three files: `meta` (JSON), `requests` (one JSON object per line), `timeseries` (CSV with
    /// a header). `gpu_blocks` counts where `meta` does not tell.
    ///
    /// # Errors
    /// If a file is malformed; the error names line, field and value.
    pub fn parse(
        meta: &str,
        requests: &str,
        timeseries: Option<&str>,
        gpu_blocks: Option<u32>,
    ) -> Result<Self, RecordingError> {
        let mut limits = Limits::parse(meta)?;
        limits.gpu_blocks = limits.gpu_blocks.or(gpu_blocks);
        if limits.gpu_blocks.is_some_and(|blocks| blocks < 2) {
            return Err(RecordingError::Meta(
                "the number of KV blocks must be at least 2".to_owned(),
            ));
        }
        let requests = parse_requests(requests)?;
        let series = timeseries
            .map(parse_series)
            .transpose()?
            .unwrap_or_default();
        Ok(Self {
            limits,
            requests,
            series,
        })
    }

    /// A profile with the recorded limits and the given costs.
    pub fn profile(&self, step: StepCost) -> Profile {
        let longest = self
            .requests
            .iter()
            .map(|request| request.input_tokens + request.output_tokens)
            .max();
        let limits = &self.limits;
        Profile {
            name: "recording".to_owned(),
            model: limits.model.clone(),
            accelerator: limits.accelerator.clone().unwrap_or_default(),
            step,
            block_tokens: limits.block_tokens,
            // vLLM keeps one block as a null block.
            kv_blocks: limits.gpu_blocks.map(|blocks| blocks - 1),
            max_num_seqs: limits.max_num_seqs,
            max_num_batched_tokens: limits.max_num_batched_tokens,
            max_model_len: limits.max_model_len.or(longest).unwrap_or(1),
            async_scheduling: limits.async_scheduling,
            startup: 0.0,
            notes: Vec::new(),
        }
    }
}

impl Limits {
    fn parse(meta: &str) -> Result<Self, RecordingError> {
        let meta: Value =
            serde_json::from_str(meta).map_err(|error| RecordingError::Meta(error.to_string()))?;
        let required = |path| {
            count(&meta, path)?.ok_or_else(|| {
                RecordingError::Meta(format!("{path} is missing, must be a positive integer"))
            })
        };
        let text = |path| {
            meta.pointer(path)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let asynchronous = meta
            .pointer("/resolved_config/scheduler_config/async_scheduling")
            .and_then(Value::as_bool);
        Ok(Self {
            model: text("/model").unwrap_or_default(),
            accelerator: text("/hardware/device_name"),
            max_num_seqs: required("/engine_kwargs/max_num_seqs")?,
            max_num_batched_tokens: required("/engine_kwargs/max_num_batched_tokens")?,
            max_model_len: count(&meta, "/engine_kwargs/max_model_len")?,
            block_tokens: count(&meta, "/kv_cache/block_size")?.unwrap_or(DEFAULT_BLOCK_TOKENS),
            gpu_blocks: count(&meta, "/kv_cache/num_gpu_blocks")?,
            // vLLM's default.
            async_scheduling: asynchronous.unwrap_or(true),
        })
    }
}

/// A positive integer at a JSON pointer; absent if missing or null.
fn count(meta: &Value, path: &str) -> Result<Option<u32>, RecordingError> {
    match meta.pointer(path) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match positive(value) {
            Some(count) => Ok(Some(count)),
            None => Err(RecordingError::Meta(format!(
                "{path} is {value}, must be a positive integer"
            ))),
        },
    }
}

fn positive(value: &Value) -> Option<u32> {
    value
        .as_u64()
        .and_then(|value| u32::try_from(value).ok())
        .filter(|&value| value > 0)
}

fn parse_requests(text: &str) -> Result<Vec<Recorded>, RecordingError> {
    let mut requests = Vec::new();
    for (index, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        let problem = |problem| RecordingError::Line {
            file: "requests",
            line: index + 1,
            problem,
        };
        requests.push(parse_request(line).map_err(problem)?);
    }
    if requests.len() < 4 {
        return Err(RecordingError::TooFew(requests.len()));
    }
    requests.sort_by(|a, b| a.queued.total_cmp(&b.queued));
    let start = requests[0].queued;
    for request in &mut requests {
        let times = &mut request.times;
        for time in [
            &mut request.queued,
            &mut times.scheduled,
            &mut times.first_token,
            &mut times.last_token,
        ] {
            *time -= start;
        }
    }
    Ok(requests)
}

fn parse_request(line: &str) -> Result<Recorded, String> {
    let object: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    let field = |name: &str| object.get(name).ok_or_else(|| format!("{name} is missing"));
    let tokens = |name| {
        let value = field(name)?;
        positive(value).ok_or_else(|| format!("{name} is {value}, must be a positive integer"))
    };
    let time = |name| {
        let value = field(name)?;
        value
            .as_f64()
            .ok_or_else(|| format!("{name} is {value}, must be a number of seconds"))
    };
    let steps = [
        "queued_ts",
        "scheduled_ts",
        "first_token_ts",
        "last_token_ts",
    ];
    let mut times = [0.0; 4];
    for (index, name) in steps.iter().enumerate() {
        times[index] = time(name)?;
        if index > 0 && times[index] < times[index - 1] {
            return Err(format!(
                "{name} is {}, must not be before {} {}",
                times[index],
                steps[index - 1],
                times[index - 1]
            ));
        }
    }
    let [queued, scheduled, first_token, last_token] = times;
    Ok(Recorded {
        input_tokens: tokens("input_toks")?,
        output_tokens: tokens("output_toks")?,
        queued,
        times: Replayed {
            scheduled,
            first_token,
            last_token,
        },
    })
}

fn parse_series(text: &str) -> Result<Vec<Sample>, RecordingError> {
    let mut lines = text.lines().enumerate();
    let header: Vec<&str> = lines
        .next()
        .map(|(_, line)| line.split(',').map(str::trim).collect())
        .unwrap_or_default();
    let fail = |line, problem| RecordingError::Line {
        file: "timeseries",
        line,
        problem,
    };
    let column = |name: &str| {
        let found = header.iter().position(|column| *column == name);
        found.ok_or_else(|| {
            fail(
                1,
                format!("no column {name}, the header is {}", header.join(",")),
            )
        })
    };
    let columns = [
        ("t", column("t")?),
        ("running", column("running")?),
        ("waiting", column("waiting")?),
    ];
    let mut series: Vec<Sample> = Vec::new();
    for (index, line) in lines.filter(|(_, line)| !line.trim().is_empty()) {
        let cells: Vec<&str> = line.split(',').map(str::trim).collect();
        let mut values = [0.0; 3];
        for (value, (name, column)) in values.iter_mut().zip(columns) {
            let cell = cells.get(column).copied().unwrap_or_default();
            let number = cell
                .parse::<f64>()
                .ok()
                .filter(|number| number.is_finite() && *number >= 0.0);
            *value = number.ok_or_else(|| {
                fail(
                    index + 1,
                    format!("{name} is {cell:?}, must be a number, not negative"),
                )
            })?;
        }
        let [t, running, waiting] = values;
        if series.last().is_some_and(|last| last.t > t) {
            return Err(fail(
                index + 1,
                format!("t is {t}, must not be before the line above"),
            ));
        }
        series.push(Sample {
            t,
            running,
            waiting,
        });
    }
    Ok(series)
}
