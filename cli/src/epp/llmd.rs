//! Flags of llm-d's picker that change nothing here, or cannot be honoured: the first are taken, the second refused
//! with the reason, so that nobody believes in what is not there.

/// Flags that are known and hidden.
#[derive(Debug, clap::Args)]
pub(super) struct Flags {
    #[command(flatten)]
    zap: Zap,
    #[command(flatten)]
    without_effect: WithoutEffect,
    #[command(flatten)]
    refused: Refused,
}

/// How llm-d's picker logs.
#[derive(Debug, clap::Args)]
struct Zap {
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    zap_devel: Option<bool>,
    #[arg(long, hide = true, value_parser = ["json", "console"])]
    zap_encoder: Option<String>,
    #[arg(long, hide = true, value_parser = parse_zap_level)]
    zap_log_level: Option<&'static str>,
    #[arg(long, hide = true)]
    zap_stacktrace_level: Option<String>,
    #[arg(long, hide = true)]
    zap_time_encoding: Option<String>,
}

/// What is taken and changes nothing.
#[derive(Debug, clap::Args)]
struct WithoutEffect {
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    enable_pprof: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    enable_grpc_stream_metrics: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, default_missing_value = "true")]
    allow_experimental_plugins: Option<bool>,
    #[arg(long, hide = true)]
    refresh_prometheus_metrics_interval: Option<String>,
    #[arg(long, hide = true, value_parser = parse_size)]
    grpc_max_send_msg_size: Option<usize>,
}

/// What cannot be had.
#[derive(Debug, clap::Args)]
struct Refused {
    #[arg(long, hide = true, value_parser = metric_name)]
    total_queued_requests_metric: Option<String>,
    #[arg(long, hide = true, value_parser = metric_name)]
    total_running_requests_metric: Option<String>,
    #[arg(long, hide = true, value_parser = metric_name)]
    kv_cache_usage_percentage_metric: Option<String>,
    #[arg(long, hide = true, value_parser = metric_name)]
    lora_info_metric: Option<String>,
    #[arg(long, hide = true, value_parser = metric_name)]
    cache_info_metric: Option<String>,
    #[arg(long, hide = true, value_parser = cipher_suites)]
    tls_cipher_suites: Option<String>,
    #[arg(long, hide = true, value_parser = metrics_tls)]
    metrics_client_ca_file: Option<String>,
    #[arg(long, hide = true, value_parser = metrics_tls)]
    metrics_cert_dir: Option<String>,
}

impl Flags {
    /// The log level that zap's flag names.
    pub(super) fn level(&self) -> Option<&'static str> {
        let devel = self.zap.zap_devel.filter(|devel| *devel).map(|_| "debug");
        self.zap.zap_log_level.or(devel)
    }

    /// Whether zap's encoder writes JSON.
    pub(super) fn json(&self) -> bool {
        self.zap.zap_encoder.as_deref() == Some("json")
    }

    /// What was asked for and will not happen, in words.
    pub(super) fn warnings(&self) -> Vec<&'static str> {
        let WithoutEffect {
            enable_pprof,
            enable_grpc_stream_metrics,
            allow_experimental_plugins,
            ..
        } = self.without_effect;
        let asked = [
            (
                enable_pprof,
                "--enable-pprof: there is no Go profile to serve",
            ),
            (
                enable_grpc_stream_metrics,
                "--enable-grpc-stream-metrics: streams are always counted",
            ),
            (
                allow_experimental_plugins,
                "--allow-experimental-plugins: every plugin that is built may be used",
            ),
        ];
        let asked = asked.into_iter().filter(|(asked, _)| *asked == Some(true));
        asked.map(|(_, warning)| warning).collect()
    }
}

/// llm-d's levels by name, or zap's verbosity as a number.
fn parse_zap_level(text: &str) -> Result<&'static str, String> {
    match text {
        "debug" | "info" | "error" => Ok(match text {
            "debug" => "debug",
            "error" => "error",
            _ => "info",
        }),
        "panic" => Ok("error"),
        number => match number.parse::<u8>() {
            Ok(1..=3) => Ok("info"),
            Ok(4) => Ok("debug"),
            Ok(5..) => Ok("trace"),
            _ => Err("give debug, info, error, panic or a number from 1".to_owned()),
        },
    }
}

/// Bytes, or a size such as `25MiB`.
pub(super) fn parse_size(text: &str) -> Result<usize, String> {
    let digits = text.find(|character: char| !character.is_ascii_digit());
    let (number, unit) = text.split_at(digits.unwrap_or(text.len()));
    let factor = match unit.trim() {
        "" | "B" => Some(1),
        "k" | "K" | "kB" | "KB" => Some(1_000),
        "M" | "MB" => Some(1_000_000),
        "G" | "GB" => Some(1_000_000_000),
        "Ki" | "KiB" => Some(1 << 10),
        "Mi" | "MiB" => Some(1 << 20),
        "Gi" | "GiB" => Some(1 << 30),
        _ => None,
    };
    let number: Option<usize> = number.parse().ok();
    number
        .zip(factor)
        .and_then(|(number, factor)| number.checked_mul(factor))
        .filter(|size| *size > 0)
        .ok_or_else(|| "give a number of bytes above 0, or a size such as 25MiB".to_owned())
}

fn metric_name(_: &str) -> Result<String, String> {
    Err("this flag is gone in llm-d as well: name an engine's metrics in the configuration, under the parameters of core-metrics-extractor".to_owned())
}

fn cipher_suites(_: &str) -> Result<String, String> {
    Err("the suites cannot be chosen: only TLS 1.3's and the forward secret AEAD suites of TLS 1.2 are spoken; leave the flag out".to_owned())
}

fn metrics_tls(_: &str) -> Result<String, String> {
    Err(
        "metrics are served in the clear, protected by --metrics-endpoint-auth; leave the flag out"
            .to_owned(),
    )
}
