//! A JSON object read field by field, so that an error can name the field.

use crate::error::ApiError;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// The fields of a request body, not yet looked into; of a repeated field the last counts.
pub(crate) struct Fields<'a>(BTreeMap<String, &'a RawValue>);

impl<'a> Fields<'a> {
    pub(crate) fn of_body(body: &'a [u8]) -> Result<Self, ApiError> {
        serde_json::from_slice(body).map(Self).map_err(|error| {
            ApiError::bad_request(
                None,
                format!("The body should be one JSON object: {error}."),
            )
        })
    }

    /// The text of a field; `None` when it is absent or null.
    pub(crate) fn raw(&self, field: &str) -> Option<&'a str> {
        self.0
            .get(field)
            .map(|value| value.get())
            .filter(|text| *text != "null")
    }

    /// The value of a field; `None` when it is absent or null. `expected` ends the error.
    pub(crate) fn get<T: Deserialize<'a>>(
        &self,
        field: &'static str,
        expected: &str,
    ) -> Result<Option<T>, ApiError> {
        self.raw(field)
            .map(|text| serde_json::from_str(text).map_err(|_| wrong(field, text, expected)))
            .transpose()
    }
}

/// The error for a field whose value is not `expected`.
pub(crate) fn wrong(field: &'static str, value: &str, expected: &str) -> ApiError {
    const LONGEST: usize = 60;
    let cut: String = value.chars().take(LONGEST).collect();
    let dots = if cut.len() < value.len() { "…" } else { "" };
    ApiError::bad_request(
        Some(field),
        format!("{field} is {cut}{dots}, but should be {expected}."),
    )
}
