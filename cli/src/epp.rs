//! `headroom epp`: the endpoint picker alone, under llm-d's flags.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use epp::Options;
use epp::api::head::duration;
use epp_core::Config;
use runtime::logging::{self, LogOptions};
use runtime::{Clock, Shutdown};

use crate::story::Trouble;

/// Arguments of `headroom epp`, named as llm-d's endpoint picker names them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Configuration: an EndpointPickerConfig in YAML. Without one, llm-d's defaults.
    #[arg(long, value_name = "FILE", conflicts_with = "config_text")]
    config_file: Option<PathBuf>,
    /// The configuration itself.
    #[arg(long, value_name = "YAML")]
    config_text: Option<String>,
    /// Endpoints file; wins over the one the configuration names, and is always watched.
    #[arg(long, value_name = "FILE")]
    endpoints_file: Option<PathBuf>,
    /// Name of the pool, for metrics.
    #[arg(long, default_value = "default", value_name = "NAME")]
    pool_name: String,
    #[command(flatten)]
    ports: Ports,
    #[command(flatten)]
    limits: Limits,
    #[command(flatten)]
    behaviour: Behaviour,
    /// What to log: a level, or target=level pairs.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    log: String,
    /// Log JSON, one object a line.
    #[arg(long)]
    log_json: bool,
}

/// Where it listens.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Ports (0 takes any free one)")]
struct Ports {
    /// Address to listen on.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED), value_name = "ADDRESS")]
    host: IpAddr,
    /// ext_proc.
    #[arg(long, default_value_t = 9002)]
    grpc_port: u16,
    /// gRPC health checks.
    #[arg(long, default_value_t = 9003)]
    grpc_health_port: u16,
    /// Metrics and admin pages.
    #[arg(long, default_value_t = 9090)]
    metrics_port: u16,
    /// Serve with TLS. Only `false` is built: plaintext is what exists, for a proxy on the same machine.
    #[arg(long, default_value_t = false, num_args = 0..=1, default_missing_value = "true", action = clap::ArgAction::Set)]
    secure_serving: bool,
}

/// Times and sizes.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct Limits {
    /// Time between reads of an engine's metrics, unless the configuration says otherwise.
    #[arg(long, default_value = "50ms", value_name = "TIME", value_parser = parse_interval)]
    refresh_metrics_interval: Duration,
    /// Age from which an engine's metrics no longer count.
    #[arg(long, default_value = "2s", value_name = "TIME", value_parser = parse_time)]
    metrics_staleness_threshold: Duration,
    /// Time that is served on after SIGTERM.
    #[arg(long, default_value = "30s", value_name = "TIME", value_parser = parse_time)]
    drain_timeout: Duration,
    /// Largest request body, bytes.
    #[arg(long, default_value_t = 64 << 20, value_name = "BYTES")]
    max_request_bytes: usize,
    /// Largest gRPC message, bytes.
    #[arg(long, default_value_t = 4 << 20, value_name = "BYTES")]
    grpc_max_recv_msg_size: usize,
}

/// What it does beyond picking.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Behaviour")]
struct Behaviour {
    /// Do not ask for usage where the client did not; such streams then teach no time per token.
    #[arg(long)]
    disable_usage_injection: bool,
    /// Tell the proxy every candidate's score.
    #[arg(long)]
    emit_endpoint_scores: bool,
    /// Ignore the proxy's choice of endpoints.
    #[arg(long)]
    disable_endpoint_subset_filter: bool,
    /// Decides all ties.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Share of one core that training may take.
    #[arg(long, default_value_t = 0.25, value_name = "SHARE", value_parser = parse_share)]
    trainer_cpu_share: f32,
    /// Threads that serve; 0 = one per core.
    #[arg(long, default_value_t = 0, value_name = "N")]
    threads: usize,
}

/// Serves until SIGTERM (after a drain) or Ctrl-C (at once).
pub(crate) fn run(args: Args) -> anyhow::Result<()> {
    logging::init(&LogOptions {
        filter: args.log.clone(),
        json: args.log_json,
    })?;
    if args.ports.secure_serving {
        return Err(Trouble::usage("--secure-serving=true cannot be had: this picker serves plaintext only")
            .advice("leave the flag out and keep the picker on the proxy's machine or pod, or behind a sidecar that ends TLS")
            .into());
    }
    let config = config(&args)?;
    if args.endpoints_file.is_none() && config.discovery.is_none() {
        return Err(Trouble::usage("nothing names the endpoints to pick from")
            .advice("give --endpoints-file FILE, or a configuration whose dataLayer.discovery refers to a file-discovery plugin")
            .into());
    }
    let threads = match args.behaviour.threads {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("cannot start the asynchronous runtime")?;
    runtime.block_on(serve(config, options(args)))
}

async fn serve(config: Config, options: Options) -> anyhow::Result<()> {
    let shutdown = Shutdown::new();
    // The picker ends its drain itself; this one is only there should it not.
    shutdown
        .listen_to_signals(options.drain_timeout + Duration::from_secs(5))
        .context("cannot listen to signals")?;
    let picker = epp::start(config, options, Clock::start(), shutdown.clone()).await?;
    tracing::info!(ext_proc = %picker.grpc, health = %picker.grpc_health, admin = %picker.admin, "endpoint picker serves");
    picker.join().await;
    Ok(())
}

fn config(args: &Args) -> Result<Config, Trouble> {
    let (text, name) = match (&args.config_file, &args.config_text) {
        (Some(path), _) => (read(path)?, format!("--config-file {}", path.display())),
        (None, Some(text)) => (text.clone(), "--config-text".to_owned()),
        (None, None) => return Ok(with_staleness(Config::default(), args)),
    };
    let config = Config::from_yaml(&text)
        .map_err(|error| Trouble::usage(format!("{name} cannot be used")).because(error))?;
    Ok(with_staleness(config, args))
}

fn with_staleness(config: Config, args: &Args) -> Config {
    Config {
        metrics_staleness: args.limits.metrics_staleness_threshold,
        ..config
    }
}

fn read(path: &Path) -> Result<String, Trouble> {
    std::fs::read_to_string(path).map_err(|error| {
        Trouble::usage(format!("cannot read --config-file {}", path.display()))
            .because(error)
            .advice("give the path of an EndpointPickerConfig in YAML, or leave the flag out for llm-d's defaults")
    })
}

fn options(args: Args) -> Options {
    let Args {
        ports,
        limits,
        behaviour,
        endpoints_file,
        pool_name,
        ..
    } = args;
    Options {
        ip: ports.host,
        grpc_port: ports.grpc_port,
        grpc_health_port: ports.grpc_health_port,
        metrics_port: ports.metrics_port,
        pool_name,
        endpoints_file,
        refresh_metrics_interval: limits.refresh_metrics_interval,
        drain_timeout: limits.drain_timeout,
        max_request_bytes: limits.max_request_bytes,
        grpc_max_recv_msg_size: limits.grpc_max_recv_msg_size,
        inject_usage: !behaviour.disable_usage_injection,
        emit_endpoint_scores: behaviour.emit_endpoint_scores,
        disable_endpoint_subset_filter: behaviour.disable_endpoint_subset_filter,
        trainer_cpu_share: behaviour.trainer_cpu_share,
        seed: behaviour.seed,
        ..Options::default()
    }
}

fn parse_time(text: &str) -> Result<Duration, String> {
    duration(text).ok_or_else(|| "give a time such as 500ms, 30s or 1m30s".to_owned())
}

fn parse_interval(text: &str) -> Result<Duration, String> {
    parse_time(text).and_then(|time| {
        if time.is_zero() {
            Err("give a time above zero, such as 50ms".to_owned())
        } else {
            Ok(time)
        }
    })
}

fn parse_share(text: &str) -> Result<f32, String> {
    let share = text
        .parse()
        .ok()
        .filter(|share: &f32| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "give a share of one core above 0 and at most 1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
        Command::try_parse_from(std::iter::once(&"epp").chain(flags)).map(|command| command.args)
    }

    #[test]
    fn llmds_defaults_hold() {
        let args = parse(&[]).unwrap();
        assert_eq!(config(&args).unwrap(), Config::default());
        let options = options(args);
        assert_eq!(
            (
                options.grpc_port,
                options.grpc_health_port,
                options.metrics_port
            ),
            (9002, 9003, 9090)
        );
        assert_eq!(options.refresh_metrics_interval, Duration::from_millis(50));
        assert_eq!(options.drain_timeout, Duration::from_secs(30));
    }

    #[test]
    fn what_cannot_be_is_refused_with_what_can() {
        let secure = run(parse(&["--secure-serving"]).unwrap()).unwrap_err();
        assert!(secure.to_string().contains("plaintext"), "{secure}");
        assert!(parse(&["--secure-serving=false"]).is_ok());
        let error = parse(&["--refresh-metrics-interval", "0s"])
            .unwrap_err()
            .to_string();
        assert!(error.contains("above zero"), "{error}");
        let missing = config(&parse(&["--config-file", "/nonexistent.yaml"]).unwrap()).unwrap_err();
        assert!(missing.to_string().contains("/nonexistent.yaml"));
    }

    #[test]
    fn a_wrong_configuration_names_the_nearest_plugin() {
        let text = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-score}]";
        let error = config(&parse(&["--config-text", text]).unwrap()).unwrap_err();
        assert!(format!("{:#}", anyhow::Error::from(error)).contains("queue-scorer"));
    }
}
