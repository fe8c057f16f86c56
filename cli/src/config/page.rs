//! Findings as text and as JSON.

use std::fmt::Write as _;

use epp_core::config::{Finding, Level};
use serde::Serialize;

use super::Checked;

const LEVELS: [Level; 8] = [
    Level::Error,
    Level::StandIn,
    Level::Deprecated,
    Level::Unreachable,
    Level::Unused,
    Level::Caution,
    Level::Differs,
    Level::Alpha,
];

/// One line for each finding, as compilers write them, with what to write instead below; then the sum of each file.
pub(super) fn text(checked: &[Checked]) -> String {
    let mut page = String::new();
    for Checked { file, findings } in checked {
        for finding in findings {
            let at = finding.position.map_or_else(String::new, |position| {
                format!(":{}:{}", position.line, position.column)
            });
            let (level, place) = (finding.level.as_str(), &finding.place);
            let _ = writeln!(page, "{file}{at}: {level}: {place}: {}", finding.message);
            if !finding.advice.is_empty() {
                let _ = writeln!(page, "    instead: {}", finding.advice);
            }
        }
    }
    for file in checked {
        let _ = writeln!(page, "{}: {}", file.file, sum(file));
    }
    page
}

fn sum(file: &Checked) -> String {
    let counts = LEVELS.map(|level| (file.count(level), level.as_str()));
    let found: Vec<_> = counts
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, level)| format!("{count} {level}"))
        .collect();
    if found.is_empty() {
        "nothing to say".to_owned()
    } else {
        found.join(", ")
    }
}

/// The JSON that is printed.
#[derive(Serialize)]
struct Report<'a> {
    schema: u32,
    errors: usize,
    files: Vec<FileReport<'a>>,
}

#[derive(Serialize)]
struct FileReport<'a> {
    file: &'a str,
    findings: Vec<Entry<'a>>,
}

#[derive(Serialize)]
struct Entry<'a> {
    line: Option<u64>,
    column: Option<u64>,
    level: Level,
    place: &'a str,
    message: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    advice: &'a str,
}

impl<'a> From<&'a Finding> for Entry<'a> {
    fn from(finding: &'a Finding) -> Self {
        Self {
            line: finding.position.map(|position| position.line),
            column: finding.position.map(|position| position.column),
            level: finding.level,
            place: &finding.place,
            message: &finding.message,
            advice: &finding.advice,
        }
    }
}

/// The same as JSON, for programs.
pub(super) fn json(checked: &[Checked]) -> serde_json::Result<String> {
    let report = Report {
        schema: 1,
        errors: checked.iter().map(|file| file.count(Level::Error)).sum(),
        files: checked
            .iter()
            .map(|file| FileReport {
                file: &file.file,
                findings: file.findings.iter().map(Entry::from).collect(),
            })
            .collect(),
    };
    serde_json::to_string_pretty(&report)
}
