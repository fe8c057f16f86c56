//! Files of decision records, line by line.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::Path;

use epp_core::record::{Line, RecordError};

use crate::story::Trouble;

/// Hands every line of `path` to `each`. Lines behind the first that were cut off, by the end of the process or of the
/// disk, are left out and counted in the log.
///
/// # Errors
/// A file that cannot be read, or that has something else in it.
pub(crate) fn read(path: &Path, mut each: impl FnMut(Line)) -> Result<(), Trouble> {
    let unreadable = |error: std::io::Error| {
        Trouble::failed(format!(
            "cannot read the decision records in {}",
            path.display()
        ))
        .because(error)
        .advice("give the file that the picker's --decision-records names")
    };
    let lines = BufReader::new(File::open(path).map_err(unreadable)?).split(b'\n');
    let mut torn = 0_u64;
    for (number, text) in (1_u64..).zip(lines) {
        let text = text.map_err(unreadable)?;
        // A cut may fall inside a character.
        let text = String::from_utf8_lossy(&text);
        match Line::parse(&text) {
            Ok(line) => each(line),
            Err(RecordError::Shape(_)) if number > 1 => torn += 1,
            Err(error) => {
                let place = format!("line {number} of {}", path.display());
                let later = matches!(error, RecordError::Later(_));
                let advice = if later {
                    "use the version of headroom that wrote it, or a later one"
                } else {
                    "give a file that a picker's --decision-records wrote"
                };
                return Err(Trouble::failed(format!("{place} {error}")).advice(advice));
            }
        }
    }
    if torn > 0 {
        let path = path.display();
        tracing::warn!(%path, lines = torn, "lines that were cut off are left out");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const POOL: &str = r#"{"kind":"pool","schema":1,"pool":1,"endpoints":[]}"#;

    fn count(text: &str) -> Result<usize, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records");
        std::fs::write(&path, text).unwrap();
        let mut count = 0;
        let read = read(&path, |_| count += 1);
        read.map(|()| count).map_err(|trouble| trouble.to_string())
    }

    #[test]
    fn lines_that_were_cut_off_are_left_out() {
        assert_eq!(count(&format!("{POOL}\n{POOL}\n")), Ok(2));
        assert_eq!(count(&format!("{POOL}\n{{\"kind\":\"pi")), Ok(1));
        let torn = format!("{POOL}\n{{\"kind\n{POOL}\n{{\"kin{POOL}\n{POOL}\n");
        assert_eq!(count(&torn), Ok(3));
        assert!(
            count("{\"kind\":\"pool\",\"schema\":9}\n")
                .unwrap_err()
                .contains("schema 9")
        );
        assert!(count("not records").is_err());
    }
}
