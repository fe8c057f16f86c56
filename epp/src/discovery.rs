//! Endpoints and objectives from a file, read again whenever it changes.

use crate::extproc::hub::Hub;
use epp_core::DiscoveryFile;
use runtime::Shutdown;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// How often the file is looked at. A look is one `stat`.
const LOOK: Duration = Duration::from_millis(200);

/// What tells one state of a file from another, replaced by rename or written in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Fingerprint {
    fn of(path: &Path) -> std::io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        })
    }
}

/// Reads one file; remembers what it saw last.
#[derive(Debug)]
struct Watched {
    path: PathBuf,
    seen: Option<Fingerprint>,
    /// Two writes within one tick of the file system's clock look alike: after a change it is read once more.
    settled: bool,
    /// The last complaint, so that it is made once.
    complaint: String,
}

impl Watched {
    fn new(path: PathBuf) -> Self {
        Self {
            path,
            seen: None,
            settled: false,
            complaint: String::new(),
        }
    }

    /// What the file says, if it may have changed; an error is returned once.
    fn look(&mut self) -> Option<Result<DiscoveryFile, String>> {
        let read = Fingerprint::of(&self.path)
            .map_err(|error| error.to_string())
            .and_then(|found| {
                let changed = self.seen != Some(found);
                if !changed && self.settled {
                    return Ok(None);
                }
                (self.seen, self.settled) = (Some(found), !changed);
                let text =
                    std::fs::read_to_string(&self.path).map_err(|error| error.to_string())?;
                DiscoveryFile::parse(&text)
                    .map(Some)
                    .map_err(|error| error.to_string())
            });
        match read {
            Ok(None) => None,
            Ok(Some(file)) => {
                self.complaint.clear();
                Some(Ok(file))
            }
            Err(error) if error == self.complaint => None,
            Err(error) => {
                self.complaint.clone_from(&error);
                Some(Err(error))
            }
        }
    }
}

/// Keeps the hub's endpoints as the file at `path` says, until `shutdown` is stopped. Whatever goes wrong is
/// logged and counted, and the last good state stays. Without `watch` the file is read until it was good once.
pub(crate) async fn follow(
    path: PathBuf,
    watch: bool,
    hub: Arc<Hub>,
    ready: watch::Sender<bool>,
    shutdown: Shutdown,
) {
    let mut watched = Watched::new(path);
    let mut last = None;
    loop {
        match watched.look() {
            Some(Ok(file)) => {
                if last.as_ref() != Some(&file) {
                    tracing::info!(endpoints = file.endpoints.len(), file = %watched.path.display(), "endpoints read");
                    hub.set_endpoints(file.endpoints.clone(), file.objectives.clone());
                    last = Some(file);
                }
                ready.send_replace(true);
                if !watch {
                    return;
                }
            }
            Some(Err(error)) => {
                hub.telemetry.poll_failed("file-discovery");
                let kept = if last.is_some() {
                    "the endpoints known so far stay"
                } else {
                    "there are no endpoints yet"
                };
                tracing::error!(file = %watched.path.display(), %error, "endpoints file cannot be used: {kept}");
            }
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.stopped() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const ONE: &str = "endpoints: [{name: a, address: 10.0.0.1, port: \"8000\"}]";
    const TWO: &str = "endpoints: [{name: a, address: 10.0.0.1, port: \"8000\"}, {name: b, address: \"::1\", port: \"8000\"}]";

    fn endpoints(looked: Option<Result<DiscoveryFile, String>>) -> Option<usize> {
        looked.map(|file| file.unwrap().endpoints.len())
    }

    #[test]
    fn a_file_that_is_replaced_is_read_again_and_a_quiet_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        let mut watched = Watched::new(path.clone());
        fs::write(&path, ONE).unwrap();
        assert_eq!(endpoints(watched.look()), Some(1));
        assert_eq!(
            endpoints(watched.look()),
            Some(1),
            "once more, should it have changed within the same tick"
        );
        assert_eq!(endpoints(watched.look()), None);
        let next = directory.path().join("next");
        fs::write(&next, TWO).unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(endpoints(watched.look()), Some(2));
    }

    #[test]
    fn a_bad_file_is_complained_about_once_and_recovered_from() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("endpoints.yaml");
        let mut watched = Watched::new(path.clone());
        assert!(
            watched
                .look()
                .unwrap()
                .unwrap_err()
                .contains("No such file")
        );
        assert!(watched.look().is_none());
        fs::write(&path, "endpoints: [{name: a, adress: 10.0.0.1, port: 1}]").unwrap();
        assert!(watched.look().unwrap().unwrap_err().contains("adress"));
        assert!(watched.look().is_none() && watched.look().is_none());
        let next = directory.path().join("next");
        fs::write(&next, ONE).unwrap();
        fs::rename(&next, &path).unwrap();
        assert_eq!(endpoints(watched.look()), Some(1));
    }
}
