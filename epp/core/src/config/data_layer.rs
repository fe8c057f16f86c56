//! The `dataLayer` section: where endpoints come from and how their metrics are read.

use super::error::ConfigError;
use super::plugin::{Plugin, Role};
use super::registry::Registry;
use super::units::span;
use super::{CoreMetricsExtractor, FileDiscovery, MetricsDataSource, Scrape, raw};

/// Discovery and scraping, as listed or with llm-d's defaults.
pub(super) fn data_layer(
    section: Option<raw::DataLayer>,
    registry: &mut Registry,
) -> Result<(Option<FileDiscovery>, Option<Scrape>), ConfigError> {
    let Some(section) = section else {
        return Ok((None, Some(listed_scrape(registry)?)));
    };
    let not_built = [
        (
            "dataLayer.peerDiscovery",
            section.peer_discovery.map(|reference| reference.plugin_ref),
        ),
        (
            "dataLayer.crossReplicaSyncerPluginRef",
            section.cross_replica_syncer_plugin_ref,
        ),
        (
            "dataLayer.crossReplicaSyncInterval",
            section.cross_replica_sync_interval,
        ),
    ];
    for (field, value) in not_built {
        if let Some(value) = value {
            return Err(ConfigError::value(
                field,
                value,
                "cannot be honoured: replicas share no state; leave it out",
            ));
        }
    }
    let discovery = match section.discovery {
        Some(reference) => match registry.find(
            "dataLayer.discovery.pluginRef",
            &reference.plugin_ref,
            Role::Discovery,
        )? {
            Plugin::FileDiscovery(parameters) => Some(parameters),
            _ => None,
        },
        None => None,
    };
    if section.sources.len() > 1 {
        let wanted = "sources are too many: engines' metrics are read once";
        return Err(ConfigError::value(
            "dataLayer.sources",
            section.sources.len(),
            wanted,
        ));
    }
    let metrics = match section.sources.into_iter().next() {
        Some(entry) => Some(source(&entry, registry)?),
        None if section.inject_defaults.unwrap_or(true) => Some(listed_scrape(registry)?),
        None => None,
    };
    Ok((discovery, metrics))
}

fn source(entry: &raw::SourceEntry, registry: &mut Registry) -> Result<Scrape, ConfigError> {
    let found = registry.find(
        "dataLayer.sources[0].pluginRef",
        &entry.plugin_ref,
        Role::Source,
    )?;
    let Plugin::MetricsSource(source) = found else {
        return Ok(Scrape::default());
    };
    let mut extractor = CoreMetricsExtractor::default();
    for (index, reference) in entry.extractors.iter().enumerate() {
        let place = format!("dataLayer.sources[0].extractors[{index}].pluginRef");
        if let Plugin::CoreMetrics(parameters) =
            registry.find(&place, &reference.plugin_ref, Role::Extractor)?
        {
            extractor = parameters;
        }
    }
    scrape(source, extractor)
}

/// The source and extractor that `plugins` lists, else the defaults.
fn listed_scrape(registry: &mut Registry) -> Result<Scrape, ConfigError> {
    let source = registry.only(|plugin| {
        if let Plugin::MetricsSource(it) = plugin {
            Some(it.clone())
        } else {
            None
        }
    })?;
    let extractor = registry.only(|plugin| {
        if let Plugin::CoreMetrics(it) = plugin {
            Some(it.clone())
        } else {
            None
        }
    })?;
    scrape(source.unwrap_or_default(), extractor.unwrap_or_default())
}

fn scrape(
    source: MetricsDataSource,
    extractor: CoreMetricsExtractor,
) -> Result<Scrape, ConfigError> {
    let interval = source
        .interval
        .as_deref()
        .map(|text| span("metrics-data-source interval", text))
        .transpose()?;
    Ok(Scrape {
        source,
        interval,
        extractor,
    })
}
