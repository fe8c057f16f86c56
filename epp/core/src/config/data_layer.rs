//! The `dataLayer` section: where endpoints come from and which of their pages are read.

use std::time::Duration;

use super::engine::Engines;
use super::error::ConfigError;
use super::finding::{Finding, Level};
use super::page_source::PageSource;
use super::plugin::{MetricsDataSource, Plugin, Role};
use super::registry::Registry;
use super::units::duration;
use super::{CoreMetricsExtractor, FileDiscovery, Scrape, raw};

/// Longest time for which requests wait for fresh readings.
const LONGEST_HOLD: Duration = Duration::from_secs(1);

/// What the section says, or llm-d's defaults.
#[derive(Default)]
pub(super) struct DataLayer {
    pub(super) discovery: Option<FileDiscovery>,
    /// Engines' metrics.
    pub(super) metrics: Option<Scrape>,
    /// Engines' lists of models.
    pub(super) models: Option<PageSource>,
    /// The GPUs' metrics.
    pub(super) gpu: Option<PageSource>,
}

/// Discovery and scraping, as listed or with llm-d's defaults.
pub(super) fn data_layer(
    section: Option<raw::DataLayer>,
    registry: &mut Registry,
) -> Result<DataLayer, ConfigError> {
    let mut found = DataLayer::default();
    let section = section.unwrap_or_default();
    refuse_peers(&section)?;
    if let Some(reference) = section.discovery {
        let place = "dataLayer.discovery.pluginRef";
        let plugin = registry.find(place, &reference.plugin_ref, Role::Discovery)?;
        if let Plugin::FileDiscovery(parameters) = plugin {
            found.discovery = Some(parameters);
        }
    }
    for (index, entry) in section.sources.into_iter().enumerate() {
        found.source(&format!("dataLayer.sources[{index}]"), &entry, registry)?;
    }
    if section.inject_defaults.unwrap_or(true) {
        found.inject(registry)?;
    }
    let pages = [
        found.metrics.as_ref().map(|metrics| &metrics.source),
        found.models.as_ref(),
        found.gpu.as_ref(),
    ];
    for (message, advice) in pages.into_iter().flatten().filter_map(PageSource::warning) {
        let place = "dataLayer.sources";
        registry.note(Finding::new(Level::Insecure, place, message, advice));
    }
    Ok(found)
}

/// What llm-d has interfaces for and nothing behind them.
fn refuse_peers(section: &raw::DataLayer) -> Result<(), ConfigError> {
    let peers = section.peer_discovery.as_ref();
    let not_built = [
        (
            "dataLayer.peerDiscovery",
            peers.map(|reference| &reference.plugin_ref),
        ),
        (
            "dataLayer.crossReplicaSyncerPluginRef",
            section.cross_replica_syncer_plugin_ref.as_ref(),
        ),
        (
            "dataLayer.crossReplicaSyncInterval",
            section.cross_replica_sync_interval.as_ref(),
        ),
    ];
    for (field, value) in not_built {
        if let Some(value) = value {
            let wanted = "is not read: replicas find each other by --peer-service or --peers, and exchange what they do \
                          every 100 ms; leave it out";
            return Err(ConfigError::value(field, value, wanted));
        }
    }
    Ok(())
}

impl DataLayer {
    /// One entry of `sources` with its extractors.
    fn source(
        &mut self,
        place: &str,
        entry: &raw::SourceEntry,
        registry: &mut Registry,
    ) -> Result<(), ConfigError> {
        let name = &entry.plugin_ref;
        let source = registry.find(&format!("{place}.pluginRef"), name, Role::Source)?;
        let mut core = None;
        for (index, reference) in entry.extractors.iter().enumerate() {
            let place = format!("{place}.extractors[{index}].pluginRef");
            let extractor = registry.find(&place, &reference.plugin_ref, Role::Extractor)?;
            if !fits(&source, &extractor) {
                let wanted = format!("cannot read what `{name}` ({}) brings", source.type_name());
                return Err(ConfigError::value(place, &reference.plugin_ref, wanted));
            }
            if let Plugin::CoreMetrics(parameters) = extractor {
                core = Some(parameters);
            }
        }
        let twice = match source {
            Plugin::MetricsSource(source) => {
                let scrape = scrape(&source, &core.unwrap_or_default())?;
                self.metrics.replace(scrape).is_some()
            }
            Plugin::ModelsSource(source) => {
                self.models.replace(PageSource::models(&source)?).is_some()
            }
            Plugin::DcgmSource(source) => self.gpu.replace(PageSource::gpu(&source)?).is_some(),
            _ => false,
        };
        if twice {
            let wanted = "is a second source of its kind; every endpoint has one such page";
            return Err(ConfigError::value(
                format!("{place}.pluginRef"),
                name,
                wanted,
            ));
        }
        Ok(())
    }

    /// The sources that `plugins` lists without a word in `sources`; for engines' metrics also without being listed.
    fn inject(&mut self, registry: &mut Registry) -> Result<(), ConfigError> {
        if self.metrics.is_none() {
            let source = registry.only(|plugin| match plugin {
                Plugin::MetricsSource(source) => Some(source.clone()),
                _ => None,
            })?;
            let extractor = registry.only(|plugin| match plugin {
                Plugin::CoreMetrics(parameters) => Some(parameters.clone()),
                _ => None,
            })?;
            let (source, extractor) = (source.unwrap_or_default(), extractor.unwrap_or_default());
            self.metrics = Some(scrape(&source, &extractor)?);
        }
        if self.models.is_none() {
            let source = registry.only(|plugin| match plugin {
                Plugin::ModelsSource(source) => Some(source.clone()),
                _ => None,
            })?;
            registry.only(|plugin| matches!(plugin, Plugin::ModelsExtractor(_)).then_some(()))?;
            self.models = source
                .map(|source| PageSource::models(&source))
                .transpose()?;
        }
        if self.gpu.is_none() {
            let source = registry.only(|plugin| match plugin {
                Plugin::DcgmSource(source) => Some(source.clone()),
                _ => None,
            })?;
            registry.only(|plugin| matches!(plugin, Plugin::DcgmExtractor(_)).then_some(()))?;
            self.gpu = source.map(|source| PageSource::gpu(&source)).transpose()?;
        }
        Ok(())
    }
}

/// Whether an extractor reads what a source brings. The topology is in labels, which come with the endpoints
/// themselves: it may stand under any source.
fn fits(source: &Plugin, extractor: &Plugin) -> bool {
    matches!(
        (source, extractor),
        (Plugin::MetricsSource(_), Plugin::CoreMetrics(_))
            | (Plugin::ModelsSource(_), Plugin::ModelsExtractor(_))
            | (Plugin::DcgmSource(_), Plugin::DcgmExtractor(_))
            | (_, Plugin::TopologyExtractor(_))
    )
}

fn scrape(
    source: &MetricsDataSource,
    extractor: &CoreMetricsExtractor,
) -> Result<Scrape, ConfigError> {
    let hold = duration(&source.hold_after_idle).filter(|&hold| hold <= LONGEST_HOLD);
    Ok(Scrape {
        source: PageSource::metrics(source)?,
        engines: Engines::configured(extractor, "core-metrics-extractor")?,
        hold: hold.ok_or_else(|| {
            let wanted =
                "must be a duration up to 1s, for example 100ms; 0s = requests are not held";
            let field = "metrics-data-source holdAfterIdle";
            ConfigError::value(field, &source.hold_after_idle, wanted)
        })?,
    })
}
