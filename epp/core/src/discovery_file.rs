//! The endpoints file: which servers there are, and which objectives requests may name.
//!
//! ```yaml
//! endpoints:
//!   - {name: a, address: 10.0.0.1, port: "8000", labels: {llm-d.ai/role: decode}}
//! objectives:
//!   - {name: batch, priority: -1, shed: true, sloTtftMs: 2000, sloTpotMs: 150}
//! ```
//! `endpoints` is llm-d's format, with IPv6 addresses and numeric ports besides; `objectives` is Headroom's own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use serde_saphyr::Spanned;
use thiserror::Error;

use crate::config::{ConfigError, from_yaml};
use crate::objectives::{Objective, Objectives};
use crate::pool::EndpointSpec;
use crate::slo::Slo;

/// Largest file read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// What an endpoints file says.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DiscoveryFile {
    /// Endpoints in file order, names and addresses unique.
    pub endpoints: Vec<EndpointSpec>,
    /// Objectives by name.
    pub objectives: Objectives,
}

/// Why an endpoints file was refused.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DiscoveryFileError {
    /// Too big to be one.
    #[error("endpoints file: {bytes} bytes are too many; at most {MAX_BYTES}")]
    TooBig {
        /// Its size.
        bytes: usize,
    },
    /// Not of the right shape; names the line.
    #[error(transparent)]
    Shape(#[from] ConfigError),
    /// A value that cannot be used.
    #[error("endpoints file line {line}: {field}: `{value}` {wanted}")]
    Value {
        /// Line of the entry, from 1.
        line: u64,
        /// Path of the field.
        field: String,
        /// The value given.
        value: String,
        /// What would be right.
        wanted: &'static str,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    endpoints: Vec<Spanned<EndpointEntry>>,
    #[serde(default)]
    objectives: Vec<Spanned<ObjectiveEntry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EndpointEntry {
    name: String,
    /// llm-d's files carry it; without Kubernetes it means nothing.
    #[serde(rename = "namespace")]
    _namespace: Option<String>,
    address: String,
    port: Port,
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Port {
    Number(u32),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ObjectiveEntry {
    name: String,
    #[serde(default)]
    priority: i32,
    #[serde(default)]
    shed: bool,
    slo_ttft_ms: Option<f64>,
    slo_tpot_ms: Option<f64>,
}

impl DiscoveryFile {
    /// Reads the YAML (or JSON) text of an endpoints file.
    ///
    /// # Errors
    /// A file above 1 MiB, an unknown field (with its line and the nearest known names), a repeated name or
    /// address, an address that is not an IP, a port outside 1 to 65535, a target that is not above zero.
    pub fn parse(text: &str) -> Result<Self, DiscoveryFileError> {
        if text.len() > MAX_BYTES {
            return Err(DiscoveryFileError::TooBig { bytes: text.len() });
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let document: Document = from_yaml(text, "endpoints file")?;
        let mut file = Self::default();
        let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
        for (index, entry) in document.endpoints.into_iter().enumerate() {
            let place = Place::new("endpoints", index, &entry);
            let spec = endpoint(&place, entry.value)?;
            if !names.insert(spec.name.clone()) {
                let wanted = "is given twice; each endpoint needs a name of its own";
                return Err(place.wrong("name", spec.name, wanted));
            }
            if !addresses.insert(spec.address.clone()) {
                let wanted = "is given twice; list each server once";
                return Err(place.wrong("address", spec.address, wanted));
            }
            file.endpoints.push(spec);
        }
        for (index, entry) in document.objectives.into_iter().enumerate() {
            let place = Place::new("objectives", index, &entry);
            let name = entry.value.name.clone();
            let objective = objective(&place, &entry.value)?;
            if file.objectives.insert(name.clone(), objective).is_some() {
                return Err(place.wrong("name", name, "is given twice; once is enough"));
            }
        }
        Ok(file)
    }
}

/// Where an entry stands.
struct Place {
    list: &'static str,
    index: usize,
    line: u64,
}

impl Place {
    fn new<T>(list: &'static str, index: usize, entry: &Spanned<T>) -> Self {
        Self {
            list,
            index,
            line: entry.referenced.line(),
        }
    }

    fn wrong(&self, field: &str, value: impl ToString, wanted: &'static str) -> DiscoveryFileError {
        DiscoveryFileError::Value {
            line: self.line,
            field: format!("{}[{}].{field}", self.list, self.index),
            value: value.to_string(),
            wanted,
        }
    }
}

fn endpoint(place: &Place, entry: EndpointEntry) -> Result<EndpointSpec, DiscoveryFileError> {
    if entry.name.is_empty() {
        return Err(place.wrong("name", "", "must not be empty"));
    }
    let bare = entry.address.trim_start_matches('[').trim_end_matches(']');
    let ip: IpAddr = bare
        .parse()
        .map_err(|_| place.wrong("address", &entry.address, "is not an IPv4 or IPv6 address"))?;
    let (port, shown) = match entry.port {
        Port::Number(number) => (u16::try_from(number).ok(), number.to_string()),
        Port::Text(text) => (text.parse().ok(), text),
    };
    let port = port
        .filter(|&port| port > 0)
        .ok_or_else(|| place.wrong("port", shown, "must be a port from 1 to 65535"))?;
    let address = SocketAddr::new(ip, port).to_string();
    Ok(EndpointSpec {
        name: entry.name,
        address,
        labels: entry.labels,
    })
}

fn objective(place: &Place, entry: &ObjectiveEntry) -> Result<Objective, DiscoveryFileError> {
    let check = |field: &str, target: Option<f64>| match target {
        Some(value) if !(value.is_finite() && value > 0.0) => {
            Err(place.wrong(field, value, "must be a number of milliseconds above 0"))
        }
        _ => Ok(target),
    };
    let ttft_ms = check("sloTtftMs", entry.slo_ttft_ms)?;
    let tpot_ms = check("sloTpotMs", entry.slo_tpot_ms)?;
    Ok(Objective {
        priority: entry.priority,
        shed: entry.shed,
        slo: Slo { ttft_ms, tpot_ms },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_families_and_both_kinds_of_port() {
        let text = "
endpoints:
  - {name: a, namespace: default, address: 10.0.0.1, port: \"8000\", labels: {role: decode}}
  - {name: b, address: \"fd00::1\", port: 8001}
  - {name: c, address: \"[fd00::2]\", port: 8001}
objectives:
  - {name: gold, priority: 1, sloTtftMs: 2000, sloTpotMs: 150}
  - {name: batch, priority: -1, shed: true}
";
        let file = DiscoveryFile::parse(text).unwrap();
        let addresses: Vec<_> = file
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.as_str())
            .collect();
        assert_eq!(
            addresses,
            ["10.0.0.1:8000", "[fd00::1]:8001", "[fd00::2]:8001"]
        );
        assert_eq!(
            file.objectives.resolve(Some("gold")).slo.tpot_ms,
            Some(150.0)
        );
        assert!(file.objectives.resolve(Some("batch")).shed);
        let json = r#"{"endpoints": [{"name": "a", "address": "127.0.0.1", "port": "80"}]}"#;
        assert_eq!(DiscoveryFile::parse(json).unwrap().endpoints.len(), 1);
        assert_eq!(DiscoveryFile::parse("").unwrap(), DiscoveryFile::default());
    }

    #[test]
    fn refuses_with_the_field_and_its_value() {
        let error = |text: &str| DiscoveryFile::parse(text).unwrap_err().to_string();
        let message = error("endpoints:\n  - {name: a, adress: 10.0.0.1, port: 80}\n");
        assert!(
            message.contains("line 2") && message.contains("nearest known: `address`"),
            "{message}"
        );
        for (entry, wanted) in [
            (
                "{name: a, address: localhost, port: 80}",
                "`localhost` is not an IPv4 or IPv6 address",
            ),
            (
                "{name: a, address: 10.0.0.1, port: 65536}",
                "`65536` must be a port from 1 to 65535",
            ),
            (
                "{name: a, address: 10.0.0.1, port: \"x\"}",
                "`x` must be a port",
            ),
            (
                "{name: a, address: 10.0.0.1, port: 0}",
                "`0` must be a port",
            ),
        ] {
            let message = error(&format!("endpoints: [{entry}]"));
            assert!(message.contains(wanted), "{message}");
        }
        let second_line = error("endpoints:\n  - {name: a, address: x, port: 80}");
        assert!(
            second_line.contains("line 2: endpoints[0].address"),
            "{second_line}"
        );
        let twice = "{name: a, address: 10.0.0.1, port: 80}";
        assert!(error(&format!("endpoints: [{twice}, {twice}]")).contains("given twice"));
        assert!(error("objectives: [{name: g, sloTtftMs: -1}]").contains("above 0"));
        let big = "#".repeat(MAX_BYTES + 1);
        assert!(error(&big).contains("at most"));
    }
}
