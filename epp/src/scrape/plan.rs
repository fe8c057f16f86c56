//! Which pages are read of every endpoint, how often, and what becomes of them.

use super::beside;
use super::engine::Wanted;
use super::schedule::Schedule;
use epp_core::config::{Detector, Engine, Engines, PageSource, PageTls};
use epp_core::{Config, Endpoint};
use names::label;
use names::metric::engine::dcgm;
use runtime::Clock;
use runtime::tls::{ClientFiles, ClientTls, TlsError, Trusted};
use rustc_hash::FxHasher;
use std::hash::Hasher;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// Everything that is read.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(super) sources: Vec<Arc<Source>>,
    endpoints: Arc<AtomicUsize>,
    /// Age from which a reading counts for nothing, milliseconds.
    staleness: Arc<AtomicU64>,
}

/// One kind of page.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) page: PageSource,
    pub(super) schedule: Schedule,
    pub(super) tls: Option<Arc<ClientTls>>,
    takes: Takes,
}

#[derive(Debug)]
enum Takes {
    Engine {
        engines: Engines,
        wanted: Vec<(Arc<Engine>, Arc<Wanted>)>,
    },
    Models,
    Gpu {
        attribute: Arc<str>,
    },
}

/// What one endpoint's pages of one kind are read for.
#[derive(Debug)]
pub(super) enum Reading {
    Engine {
        wanted: Arc<Wanted>,
        /// Hash of what was last said of adapters.
        adapters: u64,
    },
    Models,
    Gpu {
        attribute: Arc<str>,
    },
}

impl Plan {
    /// What `config` asks for; `interval` is the flag's, for sources that do not say. `None` = nothing.
    ///
    /// # Errors
    /// [`TlsError`]: a certificate or key that cannot be read.
    pub(crate) fn new(
        config: &Config,
        interval: Duration,
        clock: Clock,
    ) -> Result<Option<Self>, TlsError> {
        let (endpoints, staleness) = (Arc::default(), Arc::new(AtomicU64::new(stale(config))));
        let mut sources = Vec::new();
        // A configuration that reads no metrics does not cause any to be asked for.
        if let Some(metrics) = config.metrics.as_ref().filter(|_| config.reads_metrics()) {
            let pace = metrics.source.interval.unwrap_or(interval);
            let all = metrics.engines.all().iter();
            let takes = Takes::Engine {
                wanted: all
                    .map(|engine| (Arc::clone(engine), Arc::new(Wanted::of(engine))))
                    .collect(),
                engines: metrics.engines.clone(),
            };
            let schedule = Schedule::paced(pace, Arc::clone(&staleness), Arc::clone(&endpoints));
            sources.push(Source::new(&metrics.source, schedule, takes, clock)?);
        }
        let steady = |page: &PageSource| Schedule::steady(page.interval.unwrap_or(interval));
        if let Some(page) = &config.models {
            sources.push(Source::new(page, steady(page), Takes::Models, clock)?);
        }
        if let Some(page) = &config.gpu {
            let attribute = dcgm::ATTRIBUTE.into();
            let takes = Takes::Gpu { attribute };
            sources.push(Source::new(page, steady(page), takes, clock)?);
        }
        Ok((!sources.is_empty()).then_some(Self {
            sources,
            endpoints,
            staleness,
        }))
    }

    /// Another configuration may be in force: readings may count for longer, or not as long.
    pub(super) fn heed(&self, config: &Config) {
        self.staleness.store(stale(config), Ordering::Relaxed);
    }

    /// There are so many endpoints now.
    pub(super) fn endpoints(&self, count: usize) {
        self.endpoints.store(count, Ordering::Relaxed);
    }
}

/// Age from which a reading counts for nothing, milliseconds.
fn stale(config: &Config) -> u64 {
    let staleness = match &config.detector {
        Detector::Utilization { staleness, .. } => config.metrics_staleness.min(*staleness),
        _ => config.metrics_staleness,
    };
    u64::try_from(staleness.as_millis()).unwrap_or(u64::MAX)
}

impl Source {
    fn new(
        page: &PageSource,
        schedule: Schedule,
        takes: Takes,
        clock: Clock,
    ) -> Result<Arc<Self>, TlsError> {
        let tls = page
            .tls
            .as_ref()
            .map(|tls| client(tls, clock))
            .transpose()?;
        Ok(Arc::new(Self {
            page: page.clone(),
            schedule,
            tls: tls.map(Arc::new),
            takes,
        }))
    }

    /// Whether requests after an idle time wait for what it brings.
    pub(super) fn is_waited_for(&self) -> bool {
        matches!(self.takes, Takes::Engine { .. })
    }

    /// Where `endpoint`'s page is; `None` = it is not known.
    pub(super) fn address(&self, endpoint: &Endpoint) -> Option<String> {
        let ip: Option<IpAddr> = if self.page.on_node {
            endpoint.labels.get(label::NODE_ADDRESS)?.parse().ok()
        } else {
            endpoint.ip
        };
        match self.page.port {
            None => Some(endpoint.address.to_string()),
            Some(port) => Some(SocketAddr::new(ip?, port).to_string()),
        }
    }

    /// What `endpoint`'s pages are read for.
    pub(super) fn reading(&self, endpoint: &Endpoint) -> Reading {
        match &self.takes {
            Takes::Models => Reading::Models,
            Takes::Gpu { attribute } => Reading::Gpu {
                attribute: Arc::clone(attribute),
            },
            Takes::Engine { engines, wanted } => {
                let engine = engines.of(&endpoint.labels);
                let known = wanted.iter().find(|(known, _)| Arc::ptr_eq(known, engine));
                let wanted = known.map(|(_, wanted)| Arc::clone(wanted));
                Reading::Engine {
                    wanted: wanted.unwrap_or_else(|| Arc::new(Wanted::of(engine))),
                    adapters: 0,
                }
            }
        }
    }
}

fn client(tls: &PageTls, clock: Clock) -> Result<ClientTls, TlsError> {
    let trusted = match (tls.verify, &tls.ca) {
        (false, _) => Trusted::Anyone,
        (true, Some(path)) => Trusted::File(path.into()),
        (true, None) => Trusted::System,
    };
    let identity = tls.identity.as_ref();
    let files = ClientFiles {
        trusted,
        identity: identity.map(|(certificate, key)| (certificate.into(), key.into())),
    };
    ClientTls::new(files, &["http/1.1"], clock)
}

impl Reading {
    /// Plugin type of the extractor, as metrics name it.
    pub(super) fn extractor(&self) -> &'static str {
        match self {
            Self::Engine { .. } => "core-metrics-extractor",
            Self::Models => "models-data-extractor",
            Self::Gpu { .. } => "dcgm-extractor",
        }
    }

    /// Reads a page that came at `now`, asked for when `dispatches` had been made, and tells `endpoint`; `None` = there
    /// is nothing of it on the page.
    pub(super) fn take(
        &mut self,
        page: &[u8],
        endpoint: &Endpoint,
        dispatches: u32,
        now: Duration,
    ) -> Option<()> {
        match self {
            Self::Models => {
                let models = beside::models(page)?;
                if endpoint.models().is_none_or(|known| *known != models) {
                    endpoint.set_models(Arc::new(models));
                }
            }
            Self::Gpu { attribute } => endpoint.set_attribute(attribute, beside::gpu(page)?),
            Self::Engine { wanted, adapters } => {
                let told = wanted.read(page, now)?;
                endpoint.set_scraped_as_of(dispatches, told.scraped);
                for (key, value) in wanted.attributes().iter().zip(told.custom) {
                    if let Some(value) = value {
                        endpoint.set_attribute(key, value);
                    }
                }
                if let Some(lora) = told.lora {
                    let mut hasher = FxHasher::default();
                    hasher.write(lora.text());
                    // Adapters change seldom, and their names are read only then.
                    if hasher.finish() != *adapters {
                        *adapters = hasher.finish();
                        endpoint.set_lora(Arc::new(lora.read()));
                    }
                }
            }
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn endpoint(labels: &[(&str, &str)]) -> Endpoint {
        let labels = labels
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Endpoint::new("a", "10.0.0.7:8000", labels.collect::<BTreeMap<_, _>>())
    }

    fn plan(yaml: &str) -> Plan {
        let head = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";
        let config = Config::from_yaml(&format!("{head}{yaml}")).unwrap();
        let tick = Duration::from_millis(50);
        Plan::new(&config, tick, Clock::start()).unwrap().unwrap()
    }

    const EVERYTHING: &str = "
plugins:
  - {type: metrics-data-source, parameters: {interval: 100ms}}
  - type: core-metrics-extractor
    parameters: {engineConfigs: [{name: vllm, customMetrics: [{attributeKey: Power, metricSpec: 'watts{kind=now}'}]}]}
  - {type: models-data-source}
  - {type: models-data-extractor}
  - {type: dcgm-data-source, parameters: {useNodeAddress: true}}
  - {type: dcgm-extractor}
  - {type: topology-extractor, parameters: {hostnameLabel: rack}}
dataLayer:
  sources:
    - {pluginRef: metrics-data-source, extractors: [{pluginRef: core-metrics-extractor}, {pluginRef: topology-extractor}]}
    - {pluginRef: models-data-source, extractors: [{pluginRef: models-data-extractor}]}
    - {pluginRef: dcgm-data-source, extractors: [{pluginRef: dcgm-extractor}]}
";

    #[test]
    fn each_source_has_its_own_page_pace_and_place() {
        let plan = plan(EVERYTHING);
        let rows: Vec<_> = plan
            .sources
            .iter()
            .map(|source| (source.page.kind, source.schedule.interval().as_millis()))
            .collect();
        let wanted = [
            ("metrics-data-source", 100),
            ("models-data-source", 10_000),
            ("dcgm-data-source", 1_000),
        ];
        assert_eq!(rows, wanted);
        let [metrics, _, gpu] = plan.sources.as_slice() else {
            panic!("three sources");
        };
        let on_node = endpoint(&[("headroom.dev/node-address", "fd00::1")]);
        assert_eq!(gpu.address(&on_node).as_deref(), Some("[fd00::1]:9400"));
        assert_eq!(gpu.address(&endpoint(&[])), None, "its node is not known");
        assert_eq!(metrics.address(&on_node).as_deref(), Some("10.0.0.7:8000"));
    }

    #[test]
    fn pages_tell_load_adapters_models_and_numbers() {
        let plan = plan(EVERYTHING);
        let endpoint = endpoint(&[]);
        let mut readings: Vec<_> = plan.sources.iter().map(|s| s.reading(&endpoint)).collect();
        let page = |running: &str| {
            format!(
                "vllm:num_requests_running 4\nwatts{{kind=\"now\"}} 310\nvllm:lora_requests_info{{max_lora=\"2\",running_lora_adapters=\"{running}\",waiting_lora_adapters=\"\"}} 1\n"
            )
        };
        let now = Duration::from_secs(3);
        readings[0]
            .take(page("sql").as_bytes(), &endpoint, 0, now)
            .unwrap();
        readings[1]
            .take(br#"{"data":[{"id":"llama"}]}"#, &endpoint, 0, now)
            .unwrap();
        readings[2]
            .take(b"DCGM_FI_DEV_GPU_UTIL 40\n", &endpoint, 0, now)
            .unwrap();
        assert_eq!(endpoint.scraped().unwrap().running, 4.0);
        assert_eq!(endpoint.lora().unwrap().running, [Arc::from("sql")]);
        assert_eq!(*endpoint.models().unwrap(), [Arc::from("llama")]);
        let attributes = endpoint.attributes().unwrap();
        let wanted = [
            (Arc::from("Power"), 310.0),
            (Arc::from("GPUUtilization"), 0.4),
        ];
        assert_eq!(*attributes, wanted);

        let before = endpoint.lora().unwrap();
        readings[0]
            .take(page("sql").as_bytes(), &endpoint, 0, now)
            .unwrap();
        assert!(
            Arc::ptr_eq(&before, &endpoint.lora().unwrap()),
            "nothing new was said"
        );
        assert!(Arc::ptr_eq(&attributes, &endpoint.attributes().unwrap()));
        readings[0]
            .take(page("").as_bytes(), &endpoint, 0, now)
            .unwrap();
        assert!(endpoint.lora().unwrap().running.is_empty());
        assert_eq!(
            readings[0].take(b"go_goroutines 7\n", &endpoint, 0, now),
            None
        );
    }

    #[test]
    fn nothing_is_read_for_nobody() {
        let config = Config {
            metrics: None,
            ..Config::default()
        };
        let plan = Plan::new(&config, Duration::from_millis(50), Clock::start()).unwrap();
        assert!(plan.is_none());
    }
}
