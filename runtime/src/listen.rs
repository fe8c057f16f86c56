//! Listening sockets whose errors say which flag to change.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use tokio::net::TcpListener;

/// Why a port could not be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Somebody else has the port.
    #[error(
        "port {port} for {purpose} is already in use on {ip}: stop the process that has it, or choose another with {flag} (0 takes any free port)"
    )]
    InUse {
        /// The port asked for.
        port: u16,
        /// The address asked for.
        ip: IpAddr,
        /// What it was to serve.
        purpose: &'static str,
        /// The flag that sets it.
        flag: &'static str,
    },
    /// Anything else the operating system said.
    #[error("cannot listen on {address} for {purpose} ({flag})")]
    Io {
        /// The address asked for.
        address: SocketAddr,
        /// What it was to serve.
        purpose: &'static str,
        /// The flag that sets it.
        flag: &'static str,
        /// The operating system's answer.
        #[source]
        source: std::io::Error,
    },
}

/// Listens on `address`; `purpose` and `flag` go into the error.
///
/// # Errors
/// [`ListenError`], naming the port and the flag that changes it.
pub async fn bind(
    address: SocketAddr,
    purpose: &'static str,
    flag: &'static str,
) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address)
        .await
        .map_err(|source| match source.kind() {
            ErrorKind::AddrInUse => ListenError::InUse {
                port: address.port(),
                ip: address.ip(),
                purpose,
                flag,
            },
            _ => ListenError::Io {
                address,
                purpose,
                flag,
                source,
            },
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_names_the_port_and_the_flag() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let first = bind(any, "metrics", "--metrics-port").await.unwrap();
        let taken = first.local_addr().unwrap();
        let error = bind(taken, "metrics", "--metrics-port")
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.contains(&taken.port().to_string()) && error.contains("--metrics-port"),
            "{error}"
        );
    }
}
