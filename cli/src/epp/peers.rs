//! The flags with which pickers of one pool find each other.

use std::net::IpAddr;
use std::path::PathBuf;

use epp::kubernetes::Cluster;
use epp::peers::{Members, PeerOptions, PeerTls, listed};

use crate::story::Trouble;

/// The other pickers of the pool.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Other pickers of the pool")]
pub(super) struct Peers {
    /// The other pickers, host:port each; this one may be among them. They tell each other what they have in flight and
    /// queued, and which prefixes they sent where.
    #[arg(
        long,
        value_name = "ADDRESSES",
        value_delimiter = ',',
        requires = "peer_cert_path",
        conflicts_with = "peer_service"
    )]
    peers: Vec<String>,
    /// The Service behind which the pickers are, in the pool's namespace; in place of --peers on Kubernetes.
    #[arg(long, value_name = "NAME", requires = "peer_cert_path")]
    peer_service: Option<String>,
    /// Port on which pickers listen to each other.
    #[arg(long, default_value_t = 9004)]
    peer_port: u16,
    /// Directory with tls.crt, tls.key and ca.crt: a certificate for the name headroom-peers, for serving and asking,
    /// from an authority that all pickers of the pool share. New ones are taken up as they come.
    #[arg(long, value_name = "DIRECTORY")]
    peer_cert_path: Option<PathBuf>,
    /// What this picker is called among its peers; each needs a name of its own. Without it: the pod's, else the
    /// host's.
    #[arg(long, value_name = "NAME")]
    pub(super) picker_name: Option<String>,
}

impl Peers {
    /// How this picker takes part; `None` = it is alone.
    pub(super) fn options(
        &self,
        host: IpAddr,
        cluster: Option<&Cluster>,
    ) -> Result<Option<PeerOptions>, Trouble> {
        let Some(directory) = self.peer_cert_path.clone() else {
            return Ok(None);
        };
        let members = match (&self.peer_service, cluster) {
            (Some(service), Some(cluster)) => Members::Service {
                client: cluster.client.clone(),
                namespace: cluster.namespace.clone(),
                name: service.clone(),
                port: self.peer_port,
            },
            (Some(service), None) => {
                return Err(Trouble::usage(format!(
                    "--peer-service {service} needs Kubernetes, and endpoints come from a file"
                ))
                .advice("list the other pickers: --peers HOST:PORT,HOST:PORT"));
            }
            (None, _) if self.peers.is_empty() => {
                return Err(Trouble::usage(format!(
                    "--peer-cert-path {} has no use: nothing names the other pickers",
                    directory.display()
                ))
                .advice("add --peers HOST:PORT,HOST:PORT, or on Kubernetes --peer-service NAME"));
            }
            (None, _) => listed(&self.peers)
                .map_err(|wrong| Trouble::usage(format!("--peers cannot be used: {wrong}")))?,
        };
        Ok(Some(PeerOptions {
            address: (host, self.peer_port).into(),
            members,
            tls: PeerTls { directory },
        }))
    }
}
