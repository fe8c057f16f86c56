//! The endpoint picker as a process of its own, so that it can be killed.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use crate::metrics::Page;
use crate::{ports, until};

/// A picker's ports on loopback, kept over its restarts.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// ext_proc.
    pub grpc: u16,
    /// gRPC health.
    pub health: u16,
    /// Metrics and the rest of the admin server.
    pub admin: u16,
}

impl Ports {
    /// Three free ones.
    pub fn free() -> Self {
        Self {
            grpc: ports::free(),
            health: ports::free(),
            admin: ports::free(),
        }
    }

    /// Where the admin server is.
    pub fn admin(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.admin).into()
    }
}

/// A running picker; killed when dropped.
#[derive(Debug)]
pub struct Picker {
    child: Child,
    ports: Ports,
    log: PathBuf,
}

impl Picker {
    /// Runs the program `binary` (this package's `picker`) with the configuration file `config`, and waits
    /// until its admin server answers. What it says goes to the file `log`.
    ///
    /// # Panics
    /// When it ends instead: with what it said.
    pub async fn start(binary: &Path, config: &Path, ports: Ports, log: &Path) -> Self {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log file");
        let child = Command::new(binary)
            .arg(config)
            .args([ports.grpc, ports.health, ports.admin].map(|port| port.to_string()))
            .stdin(Stdio::null())
            .stdout(out.try_clone().expect("a second handle of the log"))
            .stderr(out)
            .spawn()
            .expect("the picker can be run");
        let mut picker = Self {
            child,
            ports,
            log: log.to_owned(),
        };
        until("the picker's admin server to answer", async || {
            assert!(picker.is_running(), "the picker ended: {}", picker.log());
            tokio::net::TcpStream::connect(ports.admin()).await.ok()
        })
        .await;
        picker
    }

    /// Ends it at once, as `kill -9` does, and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to stop, as Kubernetes does.
    pub fn terminate(&self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().try_into().expect("a process id"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("a child to signal");
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.exit_status().is_none()
    }

    /// Whether it has ended as it should.
    pub fn succeeded(&mut self) -> bool {
        self.exit_status().is_some_and(|status| status.success())
    }

    fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child to ask")
    }

    /// Its metrics now.
    pub async fn metrics(&self) -> Page {
        Page::at(self.ports.admin(), "/metrics").await
    }

    /// What it said so far.
    pub fn log(&self) -> String {
        // A log that cannot be read is shown as empty: it only decorates failures.
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Picker {
    fn drop(&mut self) {
        self.kill();
    }
}
