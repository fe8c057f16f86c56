//! `headroom config envoy`: an Envoy configuration that fits a picker's.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use epp::bootstrap::{self, BootstrapOptions};
use epp_core::{Config, DiscoveryFile};

use super::read;
use crate::controller::{ENVOY, FALLBACK};
use crate::story::Trouble;

/// Write an Envoy configuration that routes through a picker with this configuration, and the list of servers that Envoy
/// falls back on while there is no picker.
#[derive(Debug, clap::Args)]
pub(crate) struct EnvoyArgs {
    /// The EndpointPickerConfig, in YAML
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The endpoints file; without it, the one that the configuration's `file-discovery` names
    #[arg(long, value_name = "FILE")]
    endpoints: Option<PathBuf>,
    /// Where `envoy.yaml` and `fallback.yaml` go
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    folder: PathBuf,
    /// Where clients connect
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// The picker's ext_proc address; its health checks are one port above, as by default
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:9002")]
    picker: SocketAddr,
}

/// Writes both files; what to do with them.
///
/// # Errors
/// If a file cannot be read, used, or written.
pub(super) fn write(args: &EnvoyArgs) -> Result<String, Trouble> {
    let unusable = |path: &Path| Trouble::failed(format!("{} cannot be used", path.display()));
    let text = read(&args.file, "an EndpointPickerConfig in YAML")?;
    let config = Config::from_yaml(&text).map_err(|error| {
        let lint = format!(
            "see all of it with: headroom config lint {}",
            args.file.display()
        );
        unusable(&args.file).because(error).advice(lint)
    })?;
    let named = config.discovery.as_ref().map(|it| PathBuf::from(&it.path));
    let endpoints = args.endpoints.clone().or(named).ok_or_else(|| {
        Trouble::usage("no servers are known: the configuration names no endpoints file")
            .advice("give one with --endpoints, or name it in a file-discovery plugin")
    })?;
    let listed = DiscoveryFile::parse(&read(&endpoints, "an endpoints file")?)
        .map_err(|error| unusable(&endpoints).because(error))?;
    let folder =
        std::path::absolute(&args.folder).map_err(|error| unusable(&args.folder).because(error))?;
    let options = BootstrapOptions {
        listener: args.listen,
        picker: args.picker,
        picker_health_port: args.picker.port().saturating_add(1),
        fallback_eds: folder.join(FALLBACK),
        ..BootstrapOptions::for_picker(&config)
    };
    for (name, text) in [
        (ENVOY, bootstrap::render(&options)),
        (FALLBACK, bootstrap::render_eds(&listed.endpoints)),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(|error| {
            Trouble::failed(format!("{} cannot be written", path.display())).because(error)
        })?;
    }
    Ok(format!(
        "written: {0}/{ENVOY}, {0}/{FALLBACK} ({1} servers)\nthen: envoy -c {0}/{ENVOY}\nand:  headroom epp --pool-name my-pool --config-file {2}\n",
        folder.display(),
        listed.endpoints.len(),
        args.file.display(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(folder: &Path, config: &str, endpoints: Option<&str>) -> EnvoyArgs {
        let file = folder.join("epp.yaml");
        let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
        std::fs::write(&file, format!("{head}{config}")).unwrap();
        let endpoints = endpoints.map(|text| {
            let path = folder.join("endpoints.yaml");
            std::fs::write(&path, text).unwrap();
            path
        });
        EnvoyArgs {
            file,
            endpoints,
            folder: folder.to_owned(),
            listen: ([127, 0, 0, 1], 8_000).into(),
            picker: ([127, 0, 0, 1], 9_102).into(),
        }
    }

    #[test]
    fn both_files_are_ready_for_envoy() {
        let folder = tempfile::tempdir().unwrap();
        let servers = "endpoints: [{name: a, address: 10.0.0.1, port: 8000}]";
        let said = write(&args(folder.path(), "", Some(servers))).unwrap();
        assert!(
            said.contains("(1 servers)") && said.contains("envoy -c"),
            "{said}"
        );
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let envoy = read(ENVOY);
        assert!(!envoy.contains("{{"), "a hole is left");
        for part in ["port_value: 8000", "port_value: 9102", "9103", FALLBACK] {
            assert!(envoy.contains(part), "{part}");
        }
        assert!(read(FALLBACK).contains("10.0.0.1"));
    }

    #[test]
    fn what_is_missing_or_wrong_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let said = write(&args(folder.path(), "", None)).unwrap_err();
        assert!(said.to_string().contains("no servers are known"), "{said}");
        let said = write(&args(folder.path(), "plugins: 3", Some(""))).unwrap_err();
        assert!(said.to_string().contains("cannot be used"), "{said}");
    }
}
