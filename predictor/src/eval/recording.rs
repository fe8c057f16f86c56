//! Recorded requests of one setup, from CSV.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use csv::ByteRecord;
use flate2::read::MultiGzDecoder;

use super::EvalError;
use crate::{Features, Target};

/// One successful request.
#[derive(Clone, Copy, Debug)]
pub struct Recorded {
    /// Load level: concurrent users of its run.
    pub users: u32,
    /// Submission since the start of its run, ms.
    pub start_ms: f64,
    /// Submission to first token, ms.
    pub ttft_ms: f64,
    /// Submission to last token, ms.
    pub e2e_ms: f64,
    /// Output tokens.
    pub output_tokens: f64,
    /// Time per output token after the first, ms.
    pub tpot_ms: f64,
    /// The server's state at submission; no prefix cache, KV utilisation unknown.
    pub features: Features,
}

impl Recorded {
    /// Whether the row can be scored for `target`.
    pub fn eligible(&self, target: Target) -> bool {
        match target {
            Target::Ttft => self.ttft_ms > 0.0,
            Target::Tpot => self.output_tokens >= 4.0 && self.tpot_ms > 0.0,
        }
    }

    /// The label, ms.
    pub fn actual_ms(&self, target: Target) -> f64 {
        match target {
            Target::Ttft => self.ttft_ms,
            Target::Tpot => self.tpot_ms,
        }
    }

    /// When the label is known, since the start of the run, ms: at the first token or at the end.
    pub fn label_ms(&self, target: Target) -> f64 {
        self.start_ms
            + match target {
                Target::Ttft => self.ttft_ms,
                Target::Tpot => self.e2e_ms,
            }
    }
}

/// The successful requests of one setup in file order.
#[derive(Clone, Debug)]
pub struct Recording {
    /// `model|gpu|n`.
    pub setup: String,
    /// Rows with status 200.
    pub requests: Vec<Recorded>,
}

/// The columns that are read, in the order of the indices kept for them.
const COLUMNS: [&str; 15] = [
    "model",
    "gpu",
    "n_gpus",
    "users",
    "status",
    "start_ms",
    "ttft_ms",
    "e2e_ms",
    "n_in",
    "n_out",
    "tpot_ms",
    "st_waiting",
    "st_running",
    "st_prefill_tok",
    "st_ctx_tok",
];

/// Where each of [`COLUMNS`] stands in the file.
struct Layout<'a> {
    path: &'a Path,
    at: [usize; COLUMNS.len()],
}

impl Recording {
    /// Reads the setup `model|gpu|n` from a `.csv` or `.csv.gz` file with the columns of the
    /// LLM-Pilot recordings.
    ///
    /// # Errors
    /// A file that cannot be read, a missing column, a field that is no number, or a setup that the
    /// file does not hold (with the nearest ones it does).
    pub fn read(path: &Path, setup: &str) -> Result<Self, EvalError> {
        let file = File::open(path).map_err(|source| EvalError::read(path, source))?;
        let file = BufReader::new(file);
        let input: Box<dyn Read> = if path.extension().is_some_and(|end| end == "gz") {
            Box::new(MultiGzDecoder::new(file))
        } else {
            Box::new(file)
        };
        let csv_error = |source| EvalError::Csv {
            path: path.to_owned(),
            source,
        };
        let mut reader = csv::Reader::from_reader(input);
        let layout = Layout::of(path, reader.byte_headers().map_err(csv_error)?)?;
        let mut requests = Vec::new();
        let mut setups: BTreeMap<String, u64> = BTreeMap::new();
        let mut record = ByteRecord::new();
        while reader.read_byte_record(&mut record).map_err(csv_error)? {
            let name = layout.setup(&record);
            if name == setup && layout.number(&record, "status")? == 200.0 {
                requests.push(layout.request(&record)?);
            }
            *setups.entry(name).or_default() += 1;
        }
        if !setups.contains_key(setup) {
            return Err(EvalError::Setup {
                setup: setup.to_owned(),
                hint: nearest(setup, setups.into_keys()),
            });
        }
        Ok(Self {
            setup: setup.to_owned(),
            requests,
        })
    }
}

impl<'a> Layout<'a> {
    fn of(path: &'a Path, headers: &ByteRecord) -> Result<Self, EvalError> {
        let mut at = [0; COLUMNS.len()];
        for (at, column) in at.iter_mut().zip(COLUMNS) {
            *at = headers
                .iter()
                .position(|header| header == column.as_bytes())
                .ok_or_else(|| EvalError::Column {
                    path: path.to_owned(),
                    column,
                    needed: COLUMNS.join(", "),
                    found: text(
                        headers
                            .iter()
                            .collect::<Vec<_>>()
                            .join(&b", "[..])
                            .as_slice(),
                    ),
                })?;
        }
        Ok(Self { path, at })
    }

    fn field<'r>(&self, record: &'r ByteRecord, column: &str) -> &'r [u8] {
        COLUMNS
            .iter()
            .position(|name| *name == column)
            .and_then(|index| record.get(self.at[index]))
            .unwrap_or_default()
    }

    fn setup(&self, record: &ByteRecord) -> String {
        let part = |column| text(self.field(record, column));
        format!("{}|{}|{}", part("model"), part("gpu"), part("n_gpus"))
    }

    fn number(&self, record: &ByteRecord, column: &'static str) -> Result<f64, EvalError> {
        let value = text(self.field(record, column));
        match value.trim().parse::<f64>() {
            Ok(number) if number.is_finite() => Ok(number),
            _ => Err(EvalError::Value {
                path: self.path.to_owned(),
                line: record.position().map_or(0, csv::Position::line),
                column,
                value,
                right: "a finite number",
            }),
        }
    }

    /// A number that a failed or one-token request may lack; absent counts as 0, which no target
    /// accepts.
    fn optional(&self, record: &ByteRecord, column: &'static str) -> Result<f64, EvalError> {
        if self.field(record, column).is_empty() {
            return Ok(0.0);
        }
        self.number(record, column)
    }

    fn request(&self, record: &ByteRecord) -> Result<Recorded, EvalError> {
        let number = |column| self.number(record, column);
        let feature = |column| number(column).map(|value| value as f32);
        Ok(Recorded {
            users: number("users")? as u32,
            start_ms: number("start_ms")?,
            ttft_ms: self.optional(record, "ttft_ms")?,
            e2e_ms: self.optional(record, "e2e_ms")?,
            output_tokens: self.optional(record, "n_out")?,
            tpot_ms: self.optional(record, "tpot_ms")?,
            features: Features {
                waiting: feature("st_waiting")?,
                waiting_tokens: feature("st_prefill_tok")?,
                running: feature("st_running")?,
                resident_tokens: feature("st_ctx_tok")?,
                ..Features::idle(feature("n_in")?)
            },
        })
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A hint with the three setups whose names are most alike.
fn nearest(setup: &str, setups: impl Iterator<Item = String>) -> String {
    let mut setups: Vec<(usize, String)> = setups
        .map(|name| (strsim::levenshtein(setup, &name), name))
        .collect();
    setups.sort();
    setups.truncate(3);
    if setups.is_empty() {
        return "it has none".to_owned();
    }
    let names: Vec<String> = setups
        .into_iter()
        .map(|(_, name)| format!("`{name}`"))
        .collect();
    format!("the nearest are {}", names.join(", "))
}
