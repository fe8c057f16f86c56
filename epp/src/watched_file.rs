//! A file that may change while it is watched: rewritten in place, replaced, or behind a link that is (a mounted
//! ConfigMap).

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often the file is looked at. A look is one `stat`.
pub(crate) const LOOK: Duration = Duration::from_millis(200);

/// Bytes of a file, at most.
const MOST_BYTES: u64 = 16 << 20;

/// What tells one state of a file from another, replaced by rename or written in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
    /// Also when it is renamed into place, or its permissions change.
    changed: (i64, i64),
}

impl Fingerprint {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

/// What is known of a file. A change is read when two looks agree on it: by then nobody is writing any more, and two
/// writes within one tick of the file system's clock, which look alike, have both been made.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// It was never looked at: it is read as it is, and once more when a second look agrees.
    Nothing,
    /// This was found and not read yet; `None` = it could not be.
    Differs(Option<Fingerprint>),
    /// This was read.
    Read(Fingerprint),
}

/// Reads one file; remembers what it saw last.
#[derive(Debug)]
pub(crate) struct Watched {
    path: PathBuf,
    seen: Seen,
    /// The last complaint, so that it is made once.
    complaint: String,
}

impl Watched {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: Seen::Nothing,
            complaint: String::new(),
        }
    }

    /// Where the file is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// What `parse` makes of the file, if it may have changed; an error is returned once.
    pub(crate) fn look<T>(
        &mut self,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Result<T, String>> {
        let result = self.read()?.and_then(|text| parse(&text));
        match &result {
            Ok(_) => self.complaint.clear(),
            Err(error) if *error == self.complaint => return None,
            Err(error) => self.complaint.clone_from(error),
        }
        Some(result)
    }

    /// The file's text, if it is to be read.
    fn read(&mut self) -> Option<Result<String, String>> {
        let found = match Fingerprint::of(&self.path) {
            Ok(found) => found,
            Err(error) => {
                self.seen = Seen::Differs(None);
                return Some(Err(error.to_string()));
            }
        };
        self.seen = match self.seen {
            Seen::Nothing => Seen::Differs(Some(found)),
            Seen::Differs(Some(last)) if last == found => Seen::Read(found),
            Seen::Read(last) if last == found => return None,
            Seen::Differs(_) | Seen::Read(_) => {
                self.seen = Seen::Differs(Some(found));
                return None;
            }
        };
        if found.bytes > MOST_BYTES {
            let bytes = found.bytes;
            return Some(Err(format!(
                "the file has {bytes} bytes; 16 MiB are the most"
            )));
        }
        let text = std::fs::read_to_string(&self.path);
        if text.is_err() {
            // It is tried again.
            self.seen = Seen::Differs(None);
        }
        Some(text.map_err(|error| error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::DiscoveryFile;
    use std::fs;
    use std::os::unix::fs::symlink;

    const ONE: &str = "endpoints: [{name: a, address: 10.0.0.1, port: \"8000\"}]";
    const TWO: &str = "endpoints: [{name: a, address: 10.0.0.1, port: \"8000\"}, {name: b, address: \"::1\", port: \"8000\"}]";

    fn look(watched: &mut Watched) -> Option<Result<usize, String>> {
        watched.look(|text| {
            let file = DiscoveryFile::parse(text).map_err(|error| error.to_string())?;
            Ok(file.endpoints.len())
        })
    }

    fn endpoints(watched: &mut Watched) -> Option<usize> {
        look(watched).map(Result::unwrap)
    }

    /// After a change: nothing at the first look, which nobody else agrees with yet.
    fn settled(watched: &mut Watched) -> Option<Result<usize, String>> {
        assert!(look(watched).is_none(), "somebody may still be writing");
        look(watched)
    }

    #[test]
    fn a_file_that_is_replaced_is_read_again_and_a_quiet_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        let mut watched = Watched::new(path.clone());
        fs::write(&path, ONE).unwrap();
        assert_eq!(endpoints(&mut watched), Some(1));
        assert_eq!(
            endpoints(&mut watched),
            Some(1),
            "once more, should it have changed within the same tick"
        );
        assert_eq!(endpoints(&mut watched), None);
        let next = directory.path().join("next");
        fs::write(&next, TWO).unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(settled(&mut watched), Some(Ok(2)));
        assert_eq!(endpoints(&mut watched), None);
    }

    #[test]
    fn what_is_still_being_written_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        fs::write(&path, ONE).unwrap();
        let mut watched = Watched::new(path.clone());
        assert_eq!(endpoints(&mut watched), Some(1));
        for half in ["", "endpoints: [", "endpoints: [{name: a,"] {
            fs::write(&path, half).unwrap();
            assert_eq!(look(&mut watched), None);
        }
        fs::write(&path, TWO).unwrap();
        assert_eq!(settled(&mut watched), Some(Ok(2)));
    }

    #[test]
    fn the_same_file_is_read_again_after_it_was_gone() {
        let directory = tempfile::tempdir().unwrap();
        let (path, aside) = (directory.path().join("a"), directory.path().join("b"));
        fs::write(&path, ONE).unwrap();
        let mut watched = Watched::new(path.clone());
        assert!(look(&mut watched).is_some() && look(&mut watched).is_some());
        for _ in 0..2 {
            fs::rename(&path, &aside).unwrap();
            let said = look(&mut watched).unwrap().unwrap_err();
            assert!(said.contains("No such file"), "{said}");
            fs::rename(&aside, &path).unwrap();
            assert_eq!(settled(&mut watched), Some(Ok(1)));
        }
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_tried_again() {
        let directory = tempfile::tempdir().unwrap();
        // A directory has a state, and cannot be read.
        let path = directory.path().join("a");
        fs::create_dir(&path).unwrap();
        let mut watched = Watched::new(path);
        assert!(look(&mut watched).unwrap().is_err());
        for _ in 0..4 {
            assert_eq!(look(&mut watched), None, "it complains once");
            assert!(
                matches!(watched.seen, Seen::Differs(_)),
                "it is not given up"
            );
        }
    }

    #[test]
    fn a_bad_file_is_complained_about_once_and_recovered_from() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        let mut watched = Watched::new(path.clone());
        assert!(
            look(&mut watched)
                .unwrap()
                .unwrap_err()
                .contains("No such file")
        );
        assert!(look(&mut watched).is_none());
        fs::write(&path, "endpoints: [{name: a, adress: 10.0.0.1, port: 1}]").unwrap();
        let said = settled(&mut watched).unwrap().unwrap_err();
        assert!(said.contains("adress"), "{said}");
        assert!(look(&mut watched).is_none() && look(&mut watched).is_none());
        let next = directory.path().join("next");
        fs::write(&next, ONE).unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(settled(&mut watched), Some(Ok(1)));
    }

    #[test]
    fn a_mounted_config_map_changes_by_the_link_to_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        for (version, text) in [("v1", ONE), ("v2", TWO)] {
            fs::create_dir(at(version)).unwrap();
            fs::write(at(version).join("endpoints.yaml"), text).unwrap();
        }
        symlink("v1", at("..data")).unwrap();
        symlink("..data/endpoints.yaml", at("endpoints.yaml")).unwrap();
        let mut watched = Watched::new(at("endpoints.yaml"));
        assert_eq!(endpoints(&mut watched), Some(1));
        symlink("v2", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(settled(&mut watched), Some(Ok(2)));
    }

    #[test]
    fn a_file_that_is_far_too_large_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("large");
        let file = fs::File::create(&path).unwrap();
        file.set_len(MOST_BYTES + 1).unwrap();
        let said = look(&mut Watched::new(path)).unwrap().unwrap_err();
        assert!(said.contains("16 MiB"), "{said}");
    }
}
