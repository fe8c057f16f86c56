//! Reading traces: Mooncake's JSON lines and Azure's CSV, told apart by their first line.

mod azure;
mod mooncake;

use super::{MOONCAKE_BLOCK_TOKENS, Trace, TraceRequest};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::Duration;

/// Longest line read: a Mooncake row of a million-token prompt needs about 20 kB.
const MAX_LINE_BYTES: usize = 1 << 20;
/// Most requests read.
const MAX_REQUESTS: usize = 4_000_000;
/// Longest prompt or answer accepted, tokens.
const MAX_TOKENS: u32 = 1 << 24;
/// Latest arrival accepted after the first: a year of recording is a mistake in the unit.
const MAX_ARRIVAL: Duration = Duration::from_secs(366 * 86_400);

/// Why a trace could not be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file could not be opened or read.
    #[error("cannot read the trace {trace}")]
    Io {
        /// The file.
        trace: String,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// A value is not what its field holds.
    #[error("{trace}:{line}: {field} is {value}, but should be {expected}")]
    Field {
        /// The file.
        trace: String,
        /// Line in the file, from 1.
        line: usize,
        /// Field or column.
        field: &'static str,
        /// What stands there, shortened.
        value: String,
        /// What would be right.
        expected: String,
    },
    /// The first line is of no known kind.
    #[error(
        "{trace}:1: {value} begins neither a Mooncake trace (JSON lines with timestamp, input_length, output_length, hash_ids) nor an Azure trace (CSV with the header TIMESTAMP,ContextTokens,GeneratedTokens)"
    )]
    UnknownFormat {
        /// The file.
        trace: String,
        /// Its first line, shortened.
        value: String,
    },
    /// There is nothing to replay.
    #[error("{trace} holds no requests: it needs at least one row")]
    Empty {
        /// The file.
        trace: String,
    },
    /// A bound was met.
    #[error(
        "{trace}:{line}: the {what} is over the limit of {limit}: cut the trace into smaller files"
    )]
    TooLarge {
        /// The file.
        trace: String,
        /// Line in the file, from 1.
        line: usize,
        /// What is too large.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// The lengths cannot be scaled without breaking blocks.
    #[error(
        "divisor is {divisor}, but should divide the trace's block of {block_tokens} tokens evenly"
    )]
    Divisor {
        /// What was asked.
        divisor: u32,
        /// The trace's block.
        block_tokens: u32,
    },
}

impl Trace {
    /// Reads a file in Mooncake's or Azure's format; which, its first line says.
    ///
    /// Rows are put in order of arrival (stably), and arrivals counted from the first.
    ///
    /// # Errors
    /// [`TraceError`], naming the file, line, field and value.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let trace = path.display().to_string();
        let file = File::open(path).map_err(|source| TraceError::Io {
            trace: trace.clone(),
            source,
        })?;
        Self::parse(&trace, BufReader::new(file))
    }

    /// As [`read`](Self::read), from anything; `name` stands for the file in errors and reports.
    ///
    /// # Errors
    /// [`TraceError`], naming the line, field and value.
    pub fn parse(name: &str, source: impl BufRead) -> Result<Self, TraceError> {
        let mut lines = Lines {
            source,
            trace: name,
            line: 0,
            buffer: Vec::new(),
        };
        let Some(first) = lines.next()? else {
            return Err(TraceError::Empty { trace: name.into() });
        };
        let mut requests = Vec::new();
        let format = if first.text.starts_with(b"{") {
            requests.push(mooncake::request(&first, 0)?);
            Format::Mooncake
        } else if let Some(columns) = azure::Columns::of_header(first.text) {
            Format::Azure(columns)
        } else {
            return Err(TraceError::UnknownFormat {
                trace: name.into(),
                value: shown(first.text),
            });
        };
        while let Some(line) = lines.next()? {
            line.check_count(requests.len())?;
            let row = requests.len() as u64;
            requests.push(match &format {
                Format::Mooncake => mooncake::request(&line, row)?,
                Format::Azure(columns) => columns.request(&line, row)?,
            });
        }
        Self::ordered(name, requests)
    }

    fn ordered(name: &str, mut requests: Vec<TraceRequest>) -> Result<Self, TraceError> {
        requests.sort_by_key(|request| request.arrival);
        let Some(begin) = requests.first().map(|first| first.arrival) else {
            return Err(TraceError::Empty { trace: name.into() });
        };
        for request in &mut requests {
            request.arrival -= begin;
        }
        Ok(Self {
            name: name.into(),
            block_tokens: MOONCAKE_BLOCK_TOKENS,
            requests,
        })
    }
}

/// What the first line told.
enum Format {
    Mooncake,
    Azure(azure::Columns),
}

/// The lines of a source that are not blank, each bounded.
struct Lines<'a, S> {
    source: S,
    trace: &'a str,
    line: usize,
    buffer: Vec<u8>,
}

impl<S: BufRead> Lines<'_, S> {
    fn next(&mut self) -> Result<Option<Line<'_>>, TraceError> {
        loop {
            self.buffer.clear();
            self.line += 1;
            let limit = MAX_LINE_BYTES as u64 + 1;
            let read = (&mut self.source)
                .take(limit)
                .read_until(b'\n', &mut self.buffer)
                .map_err(|source| TraceError::Io {
                    trace: self.trace.into(),
                    source,
                })?;
            if read == 0 {
                return Ok(None);
            }
            if read > MAX_LINE_BYTES {
                return Err(TraceError::TooLarge {
                    trace: self.trace.into(),
                    line: self.line,
                    what: "line's length in bytes",
                    limit: MAX_LINE_BYTES,
                });
            }
            if !self.buffer.trim_ascii().is_empty() {
                break;
            }
        }
        // Spreadsheets begin CSV files with a byte order mark.
        let text = self
            .buffer
            .strip_prefix(b"\xef\xbb\xbf")
            .unwrap_or(&self.buffer);
        Ok(Some(Line {
            trace: self.trace,
            number: self.line,
            text: text.trim_ascii(),
        }))
    }
}

/// One line and where it stands.
struct Line<'a> {
    trace: &'a str,
    number: usize,
    text: &'a [u8],
}

impl Line<'_> {
    fn wrong(&self, field: &'static str, value: &[u8], expected: impl Into<String>) -> TraceError {
        TraceError::Field {
            trace: self.trace.into(),
            line: self.number,
            field,
            value: shown(value),
            expected: expected.into(),
        }
    }

    fn check_count(&self, read: usize) -> Result<(), TraceError> {
        if read < MAX_REQUESTS {
            return Ok(());
        }
        Err(TraceError::TooLarge {
            trace: self.trace.into(),
            line: self.number,
            what: "number of requests",
            limit: MAX_REQUESTS,
        })
    }

    /// A token count, or the error that names `field`.
    fn tokens(&self, field: &'static str, value: &[u8]) -> Result<u32, TraceError> {
        std::str::from_utf8(value)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .filter(|tokens| (1..=MAX_TOKENS).contains(tokens))
            .ok_or_else(|| {
                self.wrong(
                    field,
                    value,
                    format!("a whole number of tokens from 1 to {MAX_TOKENS}"),
                )
            })
    }
}

/// `value` for an error: quoted, control characters escaped, at most 60 characters.
fn shown(value: &[u8]) -> String {
    const LONGEST: usize = 60;
    let head = &value[..value.len().min(4 * LONGEST)];
    let text = String::from_utf8_lossy(head);
    let cut: String = text.chars().take(LONGEST).collect();
    let dots = if cut.len() < value.len() { "…" } else { "" };
    format!("{cut:?}{dots}")
}

#[cfg(test)]
mod tests;
