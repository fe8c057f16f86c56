//! `headroom epp` without the command line: the endpoint picker on loopback, as a process that tests can kill.
//!
//! Arguments: the configuration file, then the ports of ext_proc, of gRPC health and of the admin server.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use epp::Options;
use epp_core::Config;
use runtime::logging::{self, LogOptions};
use runtime::{Clock, Shutdown};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    logging::init(&LogOptions::default())?;
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [config, ports @ ..] = arguments.as_slice() else {
        anyhow::bail!("needs a configuration file")
    };
    ensure!(ports.len() == 3, "needs three ports");
    let port = |index: usize| {
        ports[index]
            .parse::<u16>()
            .with_context(|| format!("port {:?}", ports[index]))
    };

    let text =
        std::fs::read_to_string(config).with_context(|| format!("configuration file {config}"))?;
    let mut options = Options {
        grpc_port: port(0)?,
        grpc_health_port: port(1)?,
        metrics_port: port(2)?,
        ..Options::local()
    };
    // Tests want to see a trained model soon.
    options.learner.min_refit_interval = Duration::from_secs(1);

    let shutdown = Shutdown::new();
    shutdown.listen_to_signals(options.drain_timeout)?;
    let handle = epp::start(Config::from_yaml(&text)?, options, Clock::start(), shutdown).await?;
    handle.join().await;
    Ok(())
}
