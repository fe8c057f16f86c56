//! Envoy as a child process that never outlives the demo.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::Uri;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};

use super::preflight::Envoy;
use crate::controller::tied;
use crate::story::Trouble;

/// How long Envoy gets to become ready.
const START: Duration = Duration::from_secs(20);
/// How long it gets to end after SIGTERM.
const STOP: Duration = Duration::from_secs(3);
/// Between two looks at its readiness.
const LOOK: Duration = Duration::from_millis(50);
/// Lines of its log that an error shows.
const LOG_LINES: usize = 5;

/// Running Envoy; killed when dropped.
pub(super) struct Proxy {
    child: Child,
    log: PathBuf,
}

/// The words that run `command` as a child that the kernel kills when this process dies; `{headroom}` is this program.
///
/// # Errors
/// When this program does not know where it lies.
pub(super) fn tethered(command: &[String]) -> Result<Vec<String>, Trouble> {
    tied(command)
        .map_err(|error| Trouble::failed("children cannot be tied to this process").because(error))
}

impl Proxy {
    /// Starts Envoy on `bootstrap` and waits until its `admin` port says that it is ready.
    ///
    /// # Errors
    /// With the end of its log when it ends or does not become ready.
    pub(super) async fn start(
        envoy: &Envoy,
        bootstrap: &Path,
        admin: u16,
        log: PathBuf,
    ) -> Result<Self, Trouble> {
        let unstarted = |error: std::io::Error| {
            Trouble::failed(format!("{} could not be started", envoy.version)).because(error)
        };
        let output = File::create(&log).map_err(unstarted)?;
        let words = tethered(&[envoy.path.to_string_lossy().into_owned()])?;
        let (program, rest) = words
            .split_first()
            .ok_or_else(|| Trouble::failed("there is no program to start"))?;
        let child = Command::new(program)
            .args(rest)
            .arg("-c")
            .arg(bootstrap)
            // One worker carries the demo's load; more would take the cores from the servers.
            .args([
                "--concurrency",
                "1",
                "--disable-hot-restart",
                "--log-level",
                "warning",
            ])
            // Envoy asks for both before it reads endpoints from a file.
            .args([
                "--service-node",
                "headroom",
                "--service-cluster",
                "headroom",
            ])
            .stdin(Stdio::null())
            .stdout(output.try_clone().map_err(unstarted)?)
            .stderr(output)
            // Not in our process group: the terminal's Ctrl-C is for us, who then end Envoy after its clients.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(unstarted)?;
        let mut proxy = Self { child, log };
        proxy.ready(admin).await?;
        Ok(proxy)
    }

    async fn ready(&mut self, admin: u16) -> Result<(), Trouble> {
        let client: Client<HttpConnector, Empty<Bytes>> =
            Client::builder(TokioExecutor::new()).build_http();
        let uri: Uri = format!("http://127.0.0.1:{admin}/ready")
            .parse()
            .map_err(|error: http::uri::InvalidUri| Trouble::failed("no address").because(error))?;
        let ready = async {
            loop {
                if client
                    .get(uri.clone())
                    .await
                    .is_ok_and(|response| response.status() == 200)
                {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
        };
        tokio::select! {
            () = ready => Ok(()),
            ended = self.child.wait() => {
                let how = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                Err(self.trouble(format!("Envoy ended at once ({how})")))
            }
            () = tokio::time::sleep(START) => Err(self.trouble(format!("Envoy was not ready within {} s", START.as_secs()))),
        }
    }

    fn trouble(&self, what: String) -> Trouble {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n    ");
        Trouble::failed(what).because(format!("its log ends with\n    {last}"))
    }

    /// Resolves when Envoy ends by itself, which it never should.
    pub(super) async fn ended(&mut self) -> Trouble {
        let how = self
            .child
            .wait()
            .await
            .map_or_else(|error| error.to_string(), |status| status.to_string());
        self.trouble(format!("Envoy ended in the middle of the demo ({how})"))
    }

    /// Asks Envoy to end; kills it if it does not.
    pub(super) async fn stop(mut self) {
        if let Some(pid) = self.child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended meanwhile.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let _ = tokio::time::timeout(STOP, self.child.wait()).await;
        }
        let _ = self.child.kill().await;
    }
}
