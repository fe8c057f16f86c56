//! Mooncake's JSON lines: `timestamp` (ms), `input_length`, `output_length`, `hash_ids` (one per 512 prompt tokens).

use super::{Line, MAX_ARRIVAL, MOONCAKE_BLOCK_TOKENS, TraceError, TraceRequest};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;

/// The fields before their values are looked at, so that an error can name the one that is wrong.
#[derive(Deserialize)]
struct Row<'a> {
    #[serde(borrow)]
    timestamp: Option<&'a RawValue>,
    #[serde(borrow)]
    input_length: Option<&'a RawValue>,
    #[serde(borrow)]
    output_length: Option<&'a RawValue>,
    #[serde(borrow)]
    hash_ids: Option<&'a RawValue>,
}

pub(super) fn request(line: &Line<'_>, row: u64) -> Result<TraceRequest, TraceError> {
    let fields: Row<'_> = serde_json::from_slice(line.text)
        .map_err(|error| line.wrong("the row", line.text, format!("one JSON object ({error})")))?;
    let text = |value: Option<&RawValue>| value.map_or("missing", RawValue::get).to_owned();
    let timestamp = text(fields.timestamp);
    let arrival = timestamp
        .parse::<f64>()
        .ok()
        .and_then(|millis| Duration::try_from_secs_f64(millis / 1e3).ok())
        .filter(|arrival| *arrival <= MAX_ARRIVAL)
        .ok_or_else(|| {
            line.wrong(
                "timestamp",
                timestamp.as_bytes(),
                "milliseconds since the trace began",
            )
        })?;
    let input_tokens = line.tokens("input_length", text(fields.input_length).as_bytes())?;
    let output_tokens = line.tokens("output_length", text(fields.output_length).as_bytes())?;
    let hash_ids = text(fields.hash_ids);
    let blocks: Vec<u64> = serde_json::from_str(&hash_ids)
        .map_err(|_| line.wrong("hash_ids", hash_ids.as_bytes(), "an array of whole numbers"))?;
    let most = input_tokens.div_ceil(MOONCAKE_BLOCK_TOKENS) as usize;
    if blocks.len() > most {
        let found = format!("{} ids", blocks.len());
        let expected = format!(
            "at most {most} ids: one per {MOONCAKE_BLOCK_TOKENS} of {input_tokens} input tokens"
        );
        return Err(line.wrong("hash_ids", found.as_bytes(), expected));
    }
    Ok(TraceRequest {
        row,
        arrival,
        input_tokens,
        output_tokens,
        blocks,
    })
}
