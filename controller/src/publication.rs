//! Where the replicas that serve are listed: files that readers watch, replaced whole.

use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use thiserror::Error;

/// A replica that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name, unique among those listed.
    pub name: String,
    /// Where it serves.
    pub address: SocketAddr,
}

/// Makes a document of the replicas that serve.
pub type Render = Box<dyn Fn(&[Listed]) -> String + Send + Sync>;

/// The documents that list the replicas, written together, each by atomic rename.
#[derive(Default)]
pub struct Publication {
    documents: Vec<(PathBuf, Render)>,
}

/// A document that could not be written.
#[derive(Debug, Error)]
#[error("cannot write the list of replicas to {path}: the directory must exist and be writable")]
pub struct PublishError {
    /// The document's path.
    pub path: PathBuf,
    /// What the operating system said.
    #[source]
    pub source: std::io::Error,
}

impl Publication {
    /// Lists the replicas nowhere.
    pub fn new() -> Self {
        Self::default()
    }

    /// Also lists them in the file `path`, as `render` writes them.
    #[must_use]
    pub fn document(mut self, path: impl Into<PathBuf>, render: Render) -> Self {
        self.documents.push((path.into(), render));
        self
    }

    /// Writes every document. A reader sees the old or the new one, never a part.
    ///
    /// # Errors
    /// The first document that cannot be written; those before it are.
    pub fn write(&self, listed: &[Listed]) -> Result<(), PublishError> {
        self.documents.iter().try_for_each(|(path, render)| {
            replace(path, &render(listed)).map_err(|source| PublishError {
                path: path.clone(),
                source,
            })
        })
    }
}

impl fmt::Debug for Publication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.documents.iter().map(|(path, _)| path))
            .finish()
    }
}

/// The endpoint picker's endpoints file (JSON, which is YAML too), with `objectives` carried along as given.
pub fn endpoints_document(objectives: Value) -> Render {
    Box::new(move |listed| {
        let endpoints: Vec<Value> = listed
            .iter()
            .map(|replica| {
                let (ip, port) = (
                    replica.address.ip().to_string(),
                    replica.address.port().to_string(),
                );
                json!({"name": replica.name, "address": ip, "port": port})
            })
            .collect();
        let mut document = json!({"endpoints": endpoints});
        if !objectives.is_null() {
            document["objectives"] = objectives.clone();
        }
        format!("{document:#}\n")
    })
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = path.with_file_name(name);
    let written = fs::File::create(&temporary).and_then(|mut file| file.write_all(text.as_bytes()));
    let replaced = written.and_then(|()| fs::rename(&temporary, path));
    if replaced.is_err() {
        // Nothing to be done if even that fails; the first error is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    replaced
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed() -> [Listed; 2] {
        [("a", "127.0.0.1:8101"), ("b", "[::1]:8102")].map(|(name, address)| Listed {
            name: name.into(),
            address: address.parse().unwrap(),
        })
    }

    #[test]
    fn the_endpoint_picker_reads_its_document() {
        let objectives =
            json!([{"name": "batch", "priority": -1, "shed": true, "sloTtftMs": 2000.0}]);
        let text = endpoints_document(objectives)(&listed());
        let read = epp_core::discovery_file::DiscoveryFile::parse(&text).unwrap();
        let addresses: Vec<&str> = read
            .endpoints
            .iter()
            .map(|endpoint| endpoint.address.as_str())
            .collect();
        assert_eq!(addresses, ["127.0.0.1:8101", "[::1]:8102"]);
        let empty = endpoints_document(Value::Null)(&[]);
        assert!(
            epp_core::discovery_file::DiscoveryFile::parse(&empty)
                .unwrap()
                .endpoints
                .is_empty()
        );
    }

    #[test]
    fn documents_are_replaced_whole_and_leave_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let names = |listed: &[Listed]| {
            listed
                .iter()
                .map(|replica| replica.name.as_str())
                .collect::<Vec<_>>()
                .join(",")
        };
        let publication = Publication::new()
            .document(directory.path().join("one"), Box::new(names))
            .document(
                directory.path().join("two"),
                Box::new(|listed| listed.len().to_string()),
            );
        publication.write(&listed()).unwrap();
        publication.write(&listed()[..1]).unwrap();
        let read = |name| fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!((read("one"), read("two")), ("a".to_owned(), "1".to_owned()));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn an_error_names_the_file() {
        let publication =
            Publication::new().document("/nowhere/at/all", Box::new(|_| String::new()));
        let message = publication.write(&[]).unwrap_err().to_string();
        assert!(message.contains("/nowhere/at/all"), "{message}");
    }
}
