use super::*;
use clap::Parser;
use epp::grpc::MinimumTls;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    args: Args,
}

fn parse(flags: &[&str]) -> Result<Args, clap::Error> {
    Command::try_parse_from(std::iter::once(&"epp").chain(flags)).map(|command| command.args)
}

/// What is wrong with `flags`.
fn refused(flags: &[&str]) -> String {
    let args = match parse(flags) {
        Ok(args) => args,
        Err(error) => return error.to_string(),
    };
    let found = config(&args).and_then(|(config, _)| discovery(&args, &config));
    let secured = |_| tls(&args.security, false).map(|_| ());
    found.and_then(secured).unwrap_err().to_string()
}

fn found(flags: &[&str]) -> Discovery {
    let args = parse(flags).unwrap();
    discovery(&args, &config(&args).unwrap().0).unwrap()
}

const FILE: [&str; 2] = ["--endpoints-file", "endpoints.yaml"];

#[test]
fn llmds_defaults_hold() {
    let args = parse(&FILE).unwrap();
    let (config, origin) = config(&args).unwrap();
    assert_eq!(
        flags(&args, &Discovery::File).over(config),
        Config::default()
    );
    assert_eq!(origin.file, None, "nothing to watch");
    assert_eq!(args.logs.filter(None), "info");
    let options = options(args, None, Clock::start()).unwrap();
    let ports = (
        options.grpc_port,
        options.grpc_health_port,
        options.metrics_port,
    );
    assert_eq!(ports, (9002, 9003, 9090));
    assert_eq!(options.refresh_metrics_interval, Duration::from_millis(50));
    assert_eq!(options.drain_timeout, Duration::from_secs(30));
    assert_eq!(options.grpc_max_recv_msg_size, 4 << 20);
    assert_eq!(options.pool_name, "default");
    assert!(options.tls.is_none() && options.metrics_gate.is_none());
    let admin = options.admin_port.unwrap().address;
    assert_eq!(admin, ([127, 0, 0, 1], 9443).into());
}

#[test]
fn endpoints_come_from_one_place() {
    let pool = Source::Pool {
        group: "inference.networking.k8s.io".into(),
        name: "p".into(),
    };
    assert_eq!(found(&["--pool-name", "p"]), Discovery::Cluster(pool));
    let selected = found(&[
        "--endpoint-selector",
        "app=vllm",
        "--endpoint-target-ports",
        "8000,8001",
    ]);
    let Discovery::Cluster(Source::Pods { members, .. }) = selected else {
        panic!("{selected:?}")
    };
    assert_eq!(
        (members.selector.as_str(), members.ports),
        ("app=vllm", vec![8000, 8001])
    );
    let named = [FILE.as_slice(), &["--pool-name", "p"]].concat();
    assert_eq!(
        found(&named),
        Discovery::File,
        "a name for metrics, as ever"
    );
    for (flags, said) in [
        (&[][..], "nothing names the endpoints"),
        (&["--endpoint-selector", "a=b"], "--endpoint-target-ports"),
        (&["--endpoint-target-ports", "8000"], "--endpoint-selector"),
        (
            &[
                "--endpoint-selector",
                "a=b",
                "--endpoint-target-ports",
                "80",
                "--pool-name",
                "p",
            ],
            "cannot be used with",
        ),
        (
            &[
                "--endpoint-selector",
                "a=b",
                "--endpoint-target-ports",
                "80,80",
            ],
            "`80` is wrong",
        ),
        (
            &["--endpoint-selector", " ", "--endpoint-target-ports", "80"],
            "every pod",
        ),
        (
            &["--endpoints-file", "f", "--ha-enable-leader-election"],
            "needs Kubernetes",
        ),
        (
            &["--endpoints-file", "f", "--metrics-endpoint-auth"],
            "needs Kubernetes",
        ),
    ] {
        let error = refused(flags);
        assert!(error.contains(said), "{flags:?}: {error}");
    }
}

#[test]
fn requests_wait_for_a_first_endpoint_where_there_may_soon_be_one() {
    let held = |given: &[&str]| {
        let args = parse(given).unwrap();
        let (config, _) = config(&args).unwrap();
        let discovery = discovery(&args, &config).unwrap();
        let config = flags(&args, &discovery).over(config);
        config.empty_pool_ttl.map(|ttl| ttl.as_secs())
    };
    assert_eq!(held(&FILE), None);
    assert_eq!(held(&["--pool-name", "p"]), Some(300));
    assert_eq!(
        held(&["--pool-name", "p", "--empty-pool-ttl", "0s"]),
        Some(0)
    );
    assert_eq!(
        held(&["--endpoints-file", "f", "--empty-pool-ttl=90s"]),
        Some(90)
    );
    let said = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nfeatureGates: [flowControl]\nflowControl: {noEndpointRequestTTL: 7s}";
    assert_eq!(held(&["--pool-name", "p", "--config-text", said]), Some(7));
}

#[test]
fn ext_proc_is_secured_on_a_cluster_and_where_asked_to() {
    let secured = |flags: &[&str], on_cluster| {
        tls(&parse(flags).unwrap().security, on_cluster)
            .unwrap()
            .map(|tls| (tls.certificate, tls.minimum))
    };
    let plain = Some((Certificate::SelfSigned, MinimumTls::V12));
    assert_eq!(secured(&[], false), None);
    assert_eq!(secured(&[], true), plain);
    assert_eq!(secured(&["--secure-serving=false"], true), None);
    assert_eq!(secured(&["--secure-serving"], false), plain);
    let mounted = [
        "--cert-path=/certs",
        "--enable-cert-reload",
        "--tls-min-version=VersionTLS13",
    ];
    let directory = Certificate::Directory {
        path: "/certs".into(),
        reload: true,
    };
    assert_eq!(secured(&mounted, true), Some((directory, MinimumTls::V13)));
    assert!(refused(&["--endpoints-file", "f", "--cert-path", "/certs"]).contains("in the clear"));
    assert!(refused(&["--tls-min-version", "VersionTLS11"]).contains("VersionTLS12"));
}

#[test]
fn llmds_other_flags_are_taken_or_refused_with_the_reason() {
    let taken = [
        "--v=4",
        "--zap-encoder=json",
        "--zap-log-level=error",
        "--zap-devel",
        "--zap-stacktrace-level=error",
        "--zap-time-encoding=iso8601",
        "--tracing=false",
        "--enable-pprof",
        "--refresh-prometheus-metrics-interval=5s",
        "--grpc-max-recv-msg-size=25MiB",
        "--grpc-max-send-msg-size=25MiB",
        "--health-checking",
        "--emit-endpoint-scores=true",
    ];
    let args = parse(&taken).unwrap();
    assert_eq!(
        args.logs.filter(args.llmd.level()),
        "debug",
        "-v goes before zap"
    );
    assert!(args.llmd.json());
    assert_eq!(args.llmd.warnings().len(), 1, "only what was asked for");
    assert_eq!(args.limits.grpc_max_recv_msg_size, 25 << 20);
    assert!(args.ports.health_checking && args.behaviour.emit_endpoint_scores);
    for flag in [
        "--total-queued-requests-metric",
        "--total-running-requests-metric",
        "--kv-cache-usage-percentage-metric",
        "--lora-info-metric",
        "--cache-info-metric",
    ] {
        let error = refused(&[flag, "vllm:x"]);
        assert!(error.contains("core-metrics-extractor"), "{error}");
    }
    assert!(refused(&["--tls-cipher-suites", "x"]).contains("cannot be chosen"));
    assert!(refused(&["--metrics-cert-dir", "x"]).contains("--metrics-endpoint-auth"));
    assert!(
        refused(&["--pool-nmae", "p"]).contains("--pool-name"),
        "the nearest"
    );
}

#[test]
fn verbosity_is_counted_as_llmd_counts() {
    let filter = |flags: &[&str]| {
        let args = parse(flags).unwrap();
        args.logs.filter(args.llmd.level())
    };
    for (flags, level) in [
        (&["-v", "0"][..], "warn"),
        (&["-v=2"], "info"),
        (&["--v", "4"], "debug"),
        (&["-v5"], "trace"),
        (&["--zap-log-level=debug"], "debug"),
        (&["--zap-log-level=5"], "trace"),
        (&["--log=epp=debug", "-v", "9"], "epp=debug"),
    ] {
        assert_eq!(filter(flags), level, "{flags:?}");
    }
}

#[test]
fn what_cannot_be_is_refused_with_what_can() {
    assert!(refused(&["--refresh-metrics-interval", "0s"]).contains("above zero"));
    assert!(refused(&["--grpc-max-recv-msg-size", "big"]).contains("25MiB"));
    let missing = config(&parse(&["--config-file", "/nonexistent.yaml"]).unwrap()).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent.yaml"));
}

#[test]
fn a_wrong_configuration_names_the_nearest_plugin() {
    let text =
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins: [{type: queue-score}]";
    let error = config(&parse(&["--config-text", text]).unwrap()).unwrap_err();
    assert!(format!("{:#}", anyhow::Error::from(error)).contains("queue-scorer"));
}
