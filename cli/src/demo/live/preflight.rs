//! What must be so before anything is started: Envoy is there, the ports are free.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::story::Trouble;

/// Where `make tools` puts Envoy.
const TOOLS: &str = ".tools/envoy/envoy";
/// Between the first port and the first simulated server's.
const SERVERS: u16 = 20;

/// The Envoy binary and what it calls itself.
#[derive(Clone, Debug)]
pub(crate) struct Envoy {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

impl Envoy {
    /// The binary named, else the one `make tools` fetched, else the one on the search path.
    ///
    /// # Errors
    /// When there is none, or it does not run here.
    pub(crate) fn find(named: Option<&Path>) -> Result<Self, Trouble> {
        let path = named.map_or_else(
            || {
                if Path::new(TOOLS).exists() {
                    TOOLS.into()
                } else {
                    "envoy".into()
                }
            },
            PathBuf::from,
        );
        let advice = "run `make tools`, which fetches Envoy, or name the binary with --envoy or HEADROOM_ENVOY";
        let output = Command::new(&path)
            .arg("--version")
            .output()
            .map_err(|error| {
                Trouble::failed(format!("Envoy cannot be run from {}", path.display()))
                    .because(error)
                    .advice(advice)
            })?;
        let told = String::from_utf8_lossy(&output.stdout);
        let version = release(&told);
        match version {
            Some(version) if output.status.success() => Ok(Self {
                path,
                version: format!("Envoy {version}"),
            }),
            _ => Err(Trouble::failed(format!(
                "{} is not Envoy: it does not tell its version",
                path.display()
            ))
            .advice(advice)),
        }
    }
}

/// The release in Envoy's `… version: <commit>/<release>/Clean/RELEASE/BoringSSL`.
fn release(told: &str) -> Option<&str> {
    let (_, version) = told.split_once("version: ")?;
    version.split('/').nth(1)
}

/// The ports of the live part, all on the loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    /// Envoy's listener, where clients go.
    pub(crate) proxy: u16,
    /// Metrics and decisions.
    pub(crate) admin: u16,
    /// The endpoint picker.
    pub(crate) epp: u16,
    /// The picker's gRPC health.
    pub(crate) epp_health: u16,
    /// Envoy's own admin.
    pub(crate) proxy_admin: u16,
    /// First of the simulated servers'.
    pub(crate) servers: u16,
    /// How many of those may be in use at once.
    pub(crate) server_count: u16,
}

impl Ports {
    /// Ports from `first` on, for at most `replicas` servers and as many that drain.
    pub(crate) fn from(first: u16, replicas: u32) -> Result<Self, Trouble> {
        let server_count = u16::try_from(replicas.saturating_mul(2))
            .ok()
            .filter(|count| {
                first
                    .checked_add(SERVERS)
                    .and_then(|servers| servers.checked_add(*count))
                    .is_some()
            });
        let Some(server_count) = server_count else {
            return Err(Trouble::usage(format!(
                "--port {first} leaves no ports for --max {replicas} servers"
            ))
            .advice("choose a lower --port or --max"));
        };
        Ok(Self {
            proxy: first,
            admin: first + 1,
            epp: first + 2,
            epp_health: first + 3,
            proxy_admin: first + 4,
            servers: first + SERVERS,
            server_count,
        })
    }

    /// Makes sure that nobody listens on any of them.
    ///
    /// # Errors
    /// Names the first that is taken and the flag that moves them all.
    pub(crate) fn check(&self) -> Result<(), Trouble> {
        let fixed = [
            (self.proxy, "Envoy's listener"),
            (self.admin, "metrics and decisions"),
            (self.epp, "the endpoint picker"),
            (self.epp_health, "the endpoint picker's health"),
            (self.proxy_admin, "Envoy's admin page"),
        ];
        let servers = (self.servers..self.servers + self.server_count)
            .map(|port| (port, "a simulated server"));
        for (port, purpose) in fixed.into_iter().chain(servers) {
            if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
                let what = format!("port {port}, needed for {purpose}, cannot be had");
                return Err(Trouble::failed(what)
                    .because(error)
                    .advice("stop the program that has it, or move all ports with --port"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_envoy_says_how_to_get_one() {
        let story = crate::story::tell(
            &Envoy::find(Some(Path::new("/nowhere/envoy")))
                .unwrap_err()
                .into(),
        );
        assert!(
            story.starts_with("headroom: Envoy cannot be run from /nowhere/envoy.\n")
                && story.contains("make tools"),
            "{story}"
        );
        let story = crate::story::tell(
            &Envoy::find(Some(Path::new("/bin/true")))
                .unwrap_err()
                .into(),
        );
        assert!(story.contains("/bin/true is not Envoy"), "{story}");
    }

    #[test]
    fn the_release_is_found_in_envoys_version() {
        assert_eq!(
            release("/a/b/c/envoy  version: 2e3a0b1c/1.40.0/Clean/RELEASE/BoringSSL\n"),
            Some("1.40.0")
        );
        assert_eq!(release("envoy of another kind"), None);
    }

    #[test]
    fn a_taken_port_is_named_with_the_flag_that_moves_it() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let mut ports = Ports::from(2_000, 1).unwrap();
        ports.proxy = port;
        let story = crate::story::tell(&ports.check().unwrap_err().into());
        assert!(
            story.contains(&format!("port {port}, needed for Envoy's listener"))
                && story.contains("--port"),
            "{story}"
        );
    }

    #[test]
    fn ports_that_do_not_fit_are_refused() {
        assert!(Ports::from(65_000, 1_000).is_err());
        assert_eq!(Ports::from(18_480, 10).unwrap().servers, 18_500);
    }
}
