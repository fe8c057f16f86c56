//! Inputs that are kept: a folder per target, a file per input, each file named after its content.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::mutate::Random;

/// The inputs that come with the sources, target by target.
pub fn committed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// The inputs of `target` below `folder`, by file, in the order of their names; none if there is no such folder.
///
/// # Errors
/// When a file cannot be read.
pub fn read(folder: &Path, target: &str) -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let entries = match fs::read_dir(folder.join(target)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
        entries => entries?,
    };
    entries
        .map(|entry| {
            let path = entry?.path();
            let input = fs::read(&path)?;
            Ok((path, input))
        })
        .collect()
}

/// Writes `input` below `folder/target` and returns where.
///
/// # Errors
/// When it cannot be written.
pub fn keep(folder: &Path, target: &str, input: &[u8]) -> io::Result<PathBuf> {
    let folder = folder.join(target);
    fs::create_dir_all(&folder)?;
    let path = folder.join(name(input));
    fs::write(&path, input)?;
    Ok(path)
}

/// A name that equal inputs share.
fn name(input: &[u8]) -> String {
    let fold = |hash, byte: &u8| Random::new(hash ^ u64::from(*byte)).number();
    format!("{:016x}", input.iter().fold(input.len() as u64, fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_inputs_have_one_name() {
        assert_eq!(name(b"abc"), name(b"abc"));
        assert_ne!(name(b"abc"), name(b"acb"));
        assert_ne!(name(b""), name(b"\0"));
    }
}
