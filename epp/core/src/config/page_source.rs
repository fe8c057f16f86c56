//! Pages that are read from every endpoint: where they are and how they are asked for.

use std::time::Duration;

use names::metric::engine::dcgm;

use super::error::ConfigError;
use super::plugin::{DcgmDataSource, MetricsDataSource, ModelsDataSource};
use super::units::span;

/// Time between two looks at an engine's list of models.
const MODELS_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two looks at the GPUs' metrics.
const GPU_INTERVAL: Duration = Duration::from_secs(1);

/// A page that every endpoint has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageSource {
    /// Plugin type, as metrics name it.
    pub kind: &'static str,
    /// Path.
    pub path: String,
    /// Port; `None` = the endpoint's own.
    pub port: Option<u16>,
    /// Ask the endpoint's node (the label `headroom.dev/node-address`) instead of the endpoint.
    pub on_node: bool,
    /// How it is asked over TLS; `None` = in the clear.
    pub tls: Option<PageTls>,
    /// Time between reads; `None` = the `--refresh-metrics-interval` flag.
    pub interval: Option<Duration>,
}

/// How a page is asked for over TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageTls {
    /// Whether the server's certificate must be right.
    pub verify: bool,
    /// File of the authorities it is verified with; `None` = the system's.
    pub ca: Option<String>,
    /// Files of the client certificate and its key.
    pub identity: Option<(String, String)>,
}

impl Default for PageSource {
    /// `metrics-data-source` with its defaults.
    fn default() -> Self {
        Self {
            kind: "metrics-data-source",
            path: MetricsDataSource::default().path,
            port: None,
            on_node: false,
            tls: None,
            interval: None,
        }
    }
}

/// What the three kinds of sources have in common.
struct Common<'a> {
    kind: &'static str,
    scheme: &'a str,
    path: &'a str,
    skip_verify: Option<bool>,
    ca: &'a Option<String>,
    certificate: &'a Option<String>,
    key: &'a Option<String>,
    interval: &'a Option<String>,
}

impl Common<'_> {
    fn page(self) -> Result<PageSource, ConfigError> {
        let field = |parameter: &str| format!("{} {parameter}", self.kind);
        let https = match self.scheme {
            "http" => false,
            "https" => true,
            other => {
                let wanted = "must be http or https";
                return Err(ConfigError::value(field("scheme"), other, wanted));
            }
        };
        if !self.path.starts_with('/') || self.path.chars().any(|c| c.is_control() || c == ' ') {
            let wanted = "is no path; write one that begins with a slash and has no spaces";
            return Err(ConfigError::value(field("path"), self.path, wanted));
        }
        let identity = match (self.certificate, self.key) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some((certificate.clone(), key.clone())),
            (Some(only), None) | (None, Some(only)) => {
                let wanted =
                    "stands alone; a client certificate needs clientCertPath and clientKeyPath";
                return Err(ConfigError::value(field("clientCertPath"), only, wanted));
            }
        };
        let interval = self.interval.as_deref();
        let interval = interval.map(|text| span(&field("interval"), text));
        Ok(PageSource {
            kind: self.kind,
            path: self.path.to_owned(),
            port: None,
            on_node: false,
            tls: https.then(|| PageTls {
                verify: self.skip_verify.map_or(self.ca.is_some(), |skip| !skip),
                ca: self.ca.clone(),
                identity,
            }),
            interval: interval.transpose()?,
        })
    }
}

impl PageSource {
    /// Engines' metrics.
    pub(super) fn metrics(source: &MetricsDataSource) -> Result<Self, ConfigError> {
        let common = Common {
            kind: "metrics-data-source",
            scheme: &source.scheme,
            path: &source.path,
            skip_verify: source.insecure_skip_verify,
            ca: &source.ca_cert_path,
            certificate: &source.client_cert_path,
            key: &source.client_key_path,
            interval: &source.interval,
        };
        common.page()
    }

    /// Engines' lists of models.
    pub(super) fn models(source: &ModelsDataSource) -> Result<Self, ConfigError> {
        let common = Common {
            kind: "models-data-source",
            scheme: &source.scheme,
            path: &source.path,
            skip_verify: source.insecure_skip_verify,
            ca: &source.ca_cert_path,
            certificate: &source.client_cert_path,
            key: &source.client_key_path,
            interval: &source.interval,
        };
        let page = common.page()?;
        Ok(Self {
            interval: page.interval.or(Some(MODELS_INTERVAL)),
            ..page
        })
    }

    /// The GPUs' metrics.
    pub(super) fn gpu(source: &DcgmDataSource) -> Result<Self, ConfigError> {
        let common = Common {
            kind: "dcgm-data-source",
            scheme: &source.scheme,
            path: &source.path,
            skip_verify: source.insecure_skip_verify,
            ca: &source.ca_cert_path,
            certificate: &source.client_cert_path,
            key: &source.client_key_path,
            interval: &source.interval,
        };
        let page = common.page()?;
        let port = if source.port == 0 {
            dcgm::PORT
        } else {
            source.port
        };
        Ok(Self {
            port: Some(port),
            on_node: source.use_node_address,
            interval: page.interval.or(Some(GPU_INTERVAL)),
            ..page
        })
    }

    /// What deserves a word: certificates that nobody looks at.
    pub(super) fn warning(&self) -> Option<(String, &'static str)> {
        let tls = self.tls.as_ref().filter(|tls| !tls.verify)?;
        let unused = match &tls.ca {
            Some(path) => format!(", and caCertPath {path} is not read"),
            None => String::new(),
        };
        let message = format!(
            "{} asks over https and takes any certificate{unused}: whoever can answer for an endpoint's address can steer \
             requests",
            self.kind
        );
        Some((message, "set caCertPath and insecureSkipVerify: false"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_verified_where_there_is_something_to_verify_it_with() {
        let of = |skip, ca: Option<&str>| {
            let source = MetricsDataSource {
                scheme: "https".into(),
                insecure_skip_verify: skip,
                ca_cert_path: ca.map(str::to_owned),
                ..MetricsDataSource::default()
            };
            PageSource::metrics(&source).unwrap()
        };
        let verifies = |skip, ca| of(skip, ca).tls.unwrap().verify;
        assert!(!verifies(None, None), "llm-d's default");
        assert!(verifies(None, Some("/ca")));
        assert!(!verifies(Some(true), Some("/ca")));
        assert!(verifies(Some(false), None));
        assert!(
            of(Some(true), Some("/ca"))
                .warning()
                .unwrap()
                .0
                .contains("/ca is not read")
        );
        assert_eq!(of(Some(false), None).warning(), None);
    }

    #[test]
    fn wrong_sources_are_refused() {
        let wrong =
            |source: MetricsDataSource| PageSource::metrics(&source).unwrap_err().to_string();
        let alone = MetricsDataSource {
            client_cert_path: Some("/crt".into()),
            ..MetricsDataSource::default()
        };
        assert!(wrong(alone).contains("clientKeyPath"));
        let path = MetricsDataSource {
            path: "metrics\r\nx: y".into(),
            ..MetricsDataSource::default()
        };
        assert!(wrong(path).contains("is no path"));
    }

    #[test]
    fn each_source_has_its_own_pace() {
        let gpu = PageSource::gpu(&DcgmDataSource::default()).unwrap();
        assert_eq!((gpu.port, gpu.interval), (Some(9400), Some(GPU_INTERVAL)));
        let models = PageSource::models(&ModelsDataSource::default()).unwrap();
        assert_eq!(
            (models.port, models.interval),
            (None, Some(MODELS_INTERVAL))
        );
        assert_eq!(
            PageSource::metrics(&MetricsDataSource::default()).unwrap(),
            PageSource::default()
        );
    }
}
