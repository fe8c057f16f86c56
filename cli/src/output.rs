//! Files that a command writes: checked before anything is started, written whole at the end.

use std::fs;
use std::path::{Path, PathBuf};

use crate::story::Trouble;

/// Makes sure that `path` can be written, creating its folder.
///
/// # Errors
/// Names the flag that sets the path.
pub(crate) fn check(flag: &str, path: &Path) -> Result<(), Trouble> {
    let refused = |error: std::io::Error| {
        Trouble::failed(format!("{flag} {} cannot be written", path.display()))
            .because(error)
            .advice(format!(
                "choose another file with {flag}, in a folder that you may write to"
            ))
    };
    if path.is_dir() || path.file_name().is_none() {
        return Err(refused(std::io::ErrorKind::IsADirectory.into()));
    }
    if let Some(folder) = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        fs::create_dir_all(folder).map_err(refused)?;
    }
    let part = part(path);
    fs::write(&part, b"")
        .and_then(|()| fs::remove_file(&part))
        .map_err(refused)
}

/// Writes `text` to `path`, which never holds half of it.
///
/// # Errors
/// When the disk is full or the folder has gone since it was checked.
pub(crate) fn write(path: &Path, text: &str) -> Result<(), Trouble> {
    let part = part(path);
    fs::write(&part, text)
        .and_then(|()| fs::rename(&part, path))
        .map_err(|error| {
            Trouble::failed(format!("{} could not be written", path.display())).because(error)
        })
}

/// Where the file is written before it takes its name.
fn part(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_and_nothing_is_left_by_the_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/report.html");
        check("--report", &path).unwrap();
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        write(&path, "whole").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_path_that_cannot_be_written_names_its_flag() {
        let folder = tempfile::tempdir().unwrap();
        let error = check("--report", folder.path()).unwrap_err();
        assert!(crate::story::tell(&error.into()).contains("choose another file with --report"));
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(check("--json", &file.join("below.json")).is_err());
    }
}
