//! Endpoints and objectives from a file, read again whenever it changes.

use crate::extproc::hub::Hub;
use crate::watched_file::{LOOK, Watched};
use epp_core::DiscoveryFile;
use runtime::Shutdown;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

fn parse(text: &str) -> Result<DiscoveryFile, String> {
    DiscoveryFile::parse(text).map_err(|error| error.to_string())
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
        match watched.look(parse) {
            Some(Ok(file)) => {
                if last.as_ref() != Some(&file) {
                    tracing::info!(endpoints = file.endpoints.len(), file = %watched.path().display(), "endpoints read");
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
                tracing::error!(file = %watched.path().display(), %error, "endpoints file cannot be used: {kept}");
            }
            None => {}
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = shutdown.stopped() => return,
        }
    }
}
