//! The real Envoy as a child process.

use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::client::Call;
use crate::until;

/// A running Envoy; killed when dropped.
#[derive(Debug)]
pub struct Envoy {
    child: Child,
    admin: SocketAddr,
    /// Holds the bootstrap and the log.
    folder: TempDir,
}

impl Envoy {
    /// Starts Envoy with `bootstrap` (YAML), whose admin interface is on loopback at `admin_port`, and waits
    /// until it is ready.
    ///
    /// # Panics
    /// When there is no Envoy, and when it ends instead of getting ready: with what it said.
    pub async fn start(bootstrap: &str, admin_port: u16) -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let file = folder.path().join("envoy.yaml");
        std::fs::write(&file, bootstrap).expect("the bootstrap can be written");
        let log = std::fs::File::create(folder.path().join("log")).expect("a log file");
        let child = Command::new(binary())
            .arg("-c")
            .arg(&file)
            .args([
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "warning",
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("Envoy can be run");
        let admin = SocketAddr::from((Ipv4Addr::LOCALHOST, admin_port));
        let mut envoy = Self {
            child,
            admin,
            folder,
        };
        until("Envoy to be ready", async || {
            envoy.ready().await.then_some(())
        })
        .await;
        envoy
    }

    async fn ready(&mut self) -> bool {
        if let Some(status) = self.child.try_wait().expect("a child to ask") {
            panic!("Envoy ended with {status}: {}", self.log());
        }
        // Not listening yet is not an error.
        if tokio::net::TcpStream::connect(self.admin).await.is_err() {
            return false;
        }
        Call::get("/ready")
            .open(self.admin)
            .await
            .is_ok_and(|reply| reply.status.is_success())
    }

    /// What Envoy logged, warnings and above.
    pub fn log(&self) -> String {
        let mut log = String::new();
        // A log that cannot be read is shown as empty: it only decorates failures.
        let _ = std::fs::File::open(self.folder.path().join("log"))
            .and_then(|mut file| file.read_to_string(&mut log));
        log
    }

    /// Addresses of a cluster's endpoints as Envoy knows them now.
    pub async fn endpoints(&self, cluster: &str) -> Vec<String> {
        let page = Call::get("/clusters").send(self.admin).await;
        let suffix = "::cx_active::";
        let lines = page
            .text()
            .lines()
            .filter_map(|line| line.strip_prefix(cluster)?.strip_prefix("::"));
        lines
            .filter_map(|line| Some(line.split_once(suffix)?.0.to_owned()))
            .collect()
    }

    /// A counter of a cluster's.
    pub async fn counter(&self, cluster: &str, name: &str) -> u64 {
        let page = Call::get(&format!("/stats?filter=^cluster.{cluster}.{name}$"))
            .send(self.admin)
            .await;
        let value = page.text().rsplit_once(": ").map(|(_, value)| value.trim());
        value.and_then(|value| value.parse().ok()).unwrap_or(0)
    }

    /// Whether every endpoint of `cluster` passes its health check; `false` without endpoints.
    pub async fn healthy(&self, cluster: &str) -> bool {
        let page = Call::get("/clusters").send(self.admin).await;
        let mark = "::health_flags::";
        let own = page
            .text()
            .lines()
            .filter(|line| line.starts_with(&format!("{cluster}::")));
        let mut flags = own
            .filter_map(|line| Some(line.split_once(mark)?.1))
            .peekable();
        flags.peek().is_some() && flags.all(|flags| flags == "healthy")
    }
}

impl Drop for Envoy {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary of the environment variable `HEADROOM_ENVOY`, else the one that `make tools` fetches.
fn binary() -> PathBuf {
    let fetched = || {
        PathBuf::from(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../.tools/envoy/envoy"
        ))
    };
    let binary = std::env::var_os("HEADROOM_ENVOY").map_or_else(fetched, PathBuf::from);
    assert!(
        binary.is_file(),
        "needs Envoy: run make tools ({} is not there)",
        binary.display()
    );
    binary
}
