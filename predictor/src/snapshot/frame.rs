//! The frame around a snapshot: what it is, which format, how long, and a checksum over all of it.
//!
//! `magic (8) · format (u16) · schema (u64) · body length (u32) · SHA-256 (32) · body`, little endian. The checksum
//! covers everything else, so that no bit can change unnoticed.

use std::sync::LazyLock;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::SnapshotError;
use crate::base::TERMS;
use crate::columns::NAMES;
use crate::tracker::REGIMES;

/// The format this build writes, and the only one that it reads.
const FORMAT: u16 = 1;
const MAGIC: usize = 8;
const HEAD: usize = MAGIC + 2 + 8 + 4;
const SUM: usize = 32;

/// One kind of snapshot.
#[derive(Debug)]
pub(super) struct Frame {
    /// What its bytes begin with.
    pub(super) magic: &'static [u8; MAGIC],
    /// Bytes of the body, at most.
    pub(super) most: usize,
}

/// Stands for everything that a model's numbers are about: columns, terms, regimes, quantiles. Builds in which any of
/// them differs do not read each other's models.
static SCHEMA: LazyLock<u64> = LazyLock::new(|| {
    let text = format!("{NAMES:?} {TERMS} {REGIMES} {:?}", gbdt::LEVELS);
    let sum = Sha256::digest(text);
    sum.iter()
        .take(8)
        .fold(0, |tag, &byte| tag << 8 | u64::from(byte))
});

impl Frame {
    /// `body` within the frame.
    pub(super) fn write(&self, body: &impl Serialize) -> Result<Vec<u8>, SnapshotError> {
        let mut bytes = Vec::with_capacity(HEAD + SUM);
        bytes.extend(self.magic);
        bytes.extend(FORMAT.to_le_bytes());
        bytes.extend(SCHEMA.to_le_bytes());
        bytes.extend([0; 4 + SUM]);
        let mut bytes = postcard::to_extend(body, bytes).map_err(malformed)?;
        let length = bytes.len() - HEAD - SUM;
        if length > self.most {
            return Err(SnapshotError::TooLarge {
                bytes: length,
                most: self.most,
            });
        }
        // The bound is below 4 GiB.
        bytes[HEAD - 4..HEAD].copy_from_slice(&(length as u32).to_le_bytes());
        let sum = sum(&bytes[..HEAD], &bytes[HEAD + SUM..]);
        bytes[HEAD..HEAD + SUM].copy_from_slice(&sum);
        Ok(bytes)
    }

    /// The body of `bytes`, which must be exactly one whole frame of this kind.
    pub(super) fn read<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, SnapshotError> {
        let short = || SnapshotError::Truncated {
            bytes: bytes.len(),
            whole: HEAD + SUM,
        };
        let (head, rest) = bytes.split_at_checked(HEAD).ok_or_else(short)?;
        let (told, body) = rest.split_at_checked(SUM).ok_or_else(short)?;
        if !head.starts_with(self.magic) {
            return Err(SnapshotError::NotASnapshot);
        }
        let format = u16::from_le_bytes([head[MAGIC], head[MAGIC + 1]]);
        if format != FORMAT {
            return Err(SnapshotError::Format {
                found: format,
                known: FORMAT,
            });
        }
        let length = number(&head[HEAD - 4..]) as usize;
        if length > self.most {
            return Err(SnapshotError::TooLarge {
                bytes: length,
                most: self.most,
            });
        }
        if body.len() != length {
            return Err(SnapshotError::Truncated {
                bytes: bytes.len(),
                whole: HEAD + SUM + length,
            });
        }
        if sum(head, body) != told {
            return Err(SnapshotError::Checksum);
        }
        let schema = number(&head[MAGIC + 2..HEAD - 4]);
        if schema != *SCHEMA {
            return Err(SnapshotError::Schema {
                found: schema,
                known: *SCHEMA,
            });
        }
        let (value, left) = postcard::take_from_bytes(body).map_err(malformed)?;
        if left.is_empty() {
            Ok(value)
        } else {
            Err(SnapshotError::Malformed(format!(
                "{} bytes are left over",
                left.len()
            )))
        }
    }
}

fn malformed(error: postcard::Error) -> SnapshotError {
    SnapshotError::Malformed(error.to_string())
}

/// Little endian, up to 8 bytes.
fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn sum(head: &[u8], body: &[u8]) -> [u8; SUM] {
    Sha256::new()
        .chain_update(head)
        .chain_update(body)
        .finalize()
        .into()
}
