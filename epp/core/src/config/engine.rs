//! What the metrics of each engine are called, and which endpoint runs which engine.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use names::metric::engine::{dcgm, kind, lora, triton, triton_trtllm, trtllm};
use names::metric::{sglang, vllm};

use super::error::ConfigError;
use super::plugin::{CoreMetricsExtractor, EngineConfig};

/// Engines described beside those built in.
const MOST_ENGINES: usize = 32;
/// Numbers taken from an engine beside the usual ones.
const MOST_CUSTOM: usize = 32;

/// A series to look for: a metric's name and the labels that it must have, written `name{label=value,…}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetricSpec {
    /// Name.
    pub name: String,
    /// Labels and their values.
    pub labels: Vec<(String, String)>,
}

impl MetricSpec {
    fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: Vec::new(),
        }
    }

    fn labelled(name: &str, label: &str, value: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels: vec![(label.to_owned(), value.to_owned())],
        }
    }

    /// Reads `name` or `name{label=value,label="value"}`.
    ///
    /// # Errors
    /// What is wrong, as the end of a sentence that begins with the text.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WANTED: &str = "is no series; write name or name{label=value,…}";
        let text = text.trim();
        let (name, rest) = match text.split_once('{') {
            None => (text, None),
            Some((name, rest)) => (name.trim_end(), Some(rest.strip_suffix('}').ok_or(WANTED)?)),
        };
        let word = |text: &str, also: char| {
            let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == also;
            !text.is_empty() && text.chars().all(fits)
        };
        if !word(name, ':') {
            return Err(WANTED);
        }
        let pairs = rest.unwrap_or_default().split(',').map(str::trim);
        let labels = pairs.filter(|pair| !pair.is_empty()).map(|pair| {
            let (label, value) = pair.split_once('=').ok_or(WANTED)?;
            let value = value.trim();
            let unquoted = value.strip_prefix('"').and_then(|v| v.strip_suffix('"'));
            let value = unquoted.unwrap_or(value);
            let plain = word(label.trim(), '_') && !value.contains(['"', '\\']);
            plain
                .then(|| (label.trim().to_owned(), value.to_owned()))
                .ok_or(WANTED)
        });
        Ok(Self {
            name: name.to_owned(),
            labels: labels.collect::<Result<_, _>>()?,
        })
    }
}

impl fmt::Display for MetricSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)?;
        let mut before = '{';
        for (label, value) in &self.labels {
            write!(f, "{before}{label}={value}")?;
            before = ',';
        }
        if before == ',' {
            f.write_str("}")
        } else {
            Ok(())
        }
    }
}

/// Which metrics of an engine mean what. `None` = the engine has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Engine {
    /// Name, as endpoints' labels give it.
    pub name: String,
    /// Requests that wait.
    pub waiting: Option<MetricSpec>,
    /// Requests in the batch.
    pub running: Option<MetricSpec>,
    /// Share of KV blocks in use, 0 to 1: the first that the page has.
    pub kv_usage: Vec<MetricSpec>,
    /// LoRA adapters, in labels.
    pub lora: Option<MetricSpec>,
    /// The KV cache's shape, in labels.
    pub cache_info: Option<CacheInfo>,
    /// Tokens per KV block, as a number.
    pub block_tokens: Option<MetricSpec>,
    /// KV blocks, as a number.
    pub kv_blocks: Option<MetricSpec>,
    /// Further numbers, by the attribute that they become.
    pub custom: Vec<(Arc<str>, MetricSpec)>,
}

/// A series whose labels tell the shape of the KV cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheInfo {
    /// The series.
    pub series: MetricSpec,
    /// Label with the tokens per block.
    pub block_tokens: String,
    /// Label with the number of blocks.
    pub blocks: String,
}

/// All engines, and how an endpoint's is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engines {
    /// Label of endpoints that names their engine.
    pub label: String,
    default: usize,
    all: Vec<Arc<Engine>>,
}

impl Default for Engines {
    /// Those built in; vLLM where an endpoint says nothing.
    fn default() -> Self {
        Self {
            label: names::label::ENGINE_TYPE.canonical.to_owned(),
            default: 0,
            all: built_in().into_iter().map(Arc::new).collect(),
        }
    }
}

impl Engines {
    /// The engine that an endpoint with these labels runs; one that is not known here counts as the default.
    pub fn of(&self, labels: &BTreeMap<String, String>) -> &Arc<Engine> {
        let named = labels.get(&self.label);
        let known = named.and_then(|name| self.all.iter().find(|engine| engine.name == *name));
        known.unwrap_or(&self.all[self.default])
    }

    /// All of them.
    pub fn all(&self) -> &[Arc<Engine>] {
        &self.all
    }

    /// Those built in, with what the configuration says on top.
    pub(super) fn configured(
        parameters: &CoreMetricsExtractor,
        place: &str,
    ) -> Result<Self, ConfigError> {
        let configs = &parameters.engine_configs;
        if configs.len() > MOST_ENGINES {
            let wanted = format!("engines are too many; {MOST_ENGINES} can be described");
            let field = format!("{place} engineConfigs");
            return Err(ConfigError::value(field, configs.len(), wanted));
        }
        let mut all = built_in();
        for config in configs {
            let place = format!("{place} engineConfigs `{}`", config.name);
            let known = all.iter().position(|engine| engine.name == config.name);
            let base = known.map(|at| all[at].clone()).unwrap_or_default();
            let engine = described(base, config, &place)?;
            match known {
                Some(at) => all[at] = engine,
                None => all.push(engine),
            }
        }
        let wanted = &parameters.default_engine;
        let default = all.iter().position(|engine| engine.name == *wanted);
        let default = default.ok_or_else(|| {
            let known = all.iter().map(|engine| engine.name.as_str());
            ConfigError::unknown(format!("{place} defaultEngine"), "engine", wanted, known)
        })?;
        Ok(Self {
            label: parameters.engine_label_key.clone(),
            default,
            all: all.into_iter().map(Arc::new).collect(),
        })
    }
}

/// `engine` with what `config` says in place of its own.
fn described(
    mut engine: Engine,
    config: &EngineConfig,
    place: &str,
) -> Result<Engine, ConfigError> {
    if config.name.is_empty() {
        return Err(ConfigError::value(
            format!("{place} name"),
            "",
            "must name the engine",
        ));
    }
    let read = |parameter: &str, text: &str| {
        MetricSpec::parse(text)
            .map_err(|wanted| ConfigError::value(format!("{place} {parameter}"), text, wanted))
    };
    // Said to be empty: the engine has none. Not said: as it was.
    let put = |at: &mut Option<MetricSpec>, parameter: &str, said: &Option<String>| {
        if let Some(text) = said {
            *at = match text.trim() {
                "" => None,
                text => Some(read(parameter, text)?),
            };
        }
        Ok(())
    };
    engine.name.clone_from(&config.name);
    put(
        &mut engine.waiting,
        "queuedRequestsSpec",
        &config.queued_requests_spec,
    )?;
    put(
        &mut engine.running,
        "runningRequestsSpec",
        &config.running_requests_spec,
    )?;
    put(&mut engine.lora, "loraSpec", &config.lora_spec)?;
    put(
        &mut engine.block_tokens,
        "cacheBlockSizeSpec",
        &config.cache_block_size_spec,
    )?;
    put(
        &mut engine.kv_blocks,
        "cacheNumBlocksSpec",
        &config.cache_num_blocks_spec,
    )?;
    let mut usage = None;
    put(&mut usage, "kvUsageSpec", &config.kv_usage_spec)?;
    if config.kv_usage_spec.is_some() {
        engine.kv_usage = usage.into_iter().collect();
    }
    let mut info = engine.cache_info.as_ref().map(|info| info.series.clone());
    put(&mut info, "cacheInfoSpec", &config.cache_info_spec)?;
    let before = engine.cache_info.take();
    engine.cache_info = info.map(|series| {
        let label = |said: &Option<String>, before: Option<String>, usual: &str| {
            said.clone().or(before).unwrap_or_else(|| usual.to_owned())
        };
        let (tokens, blocks) = before.map(|info| (info.block_tokens, info.blocks)).unzip();
        CacheInfo {
            series,
            block_tokens: label(&config.cache_block_size_label_name, tokens, "block_size"),
            blocks: label(
                &config.cache_num_blocks_label_name,
                blocks,
                "num_gpu_blocks",
            ),
        }
    });
    if config.custom_metrics.len() > MOST_CUSTOM {
        let wanted = format!("are too many; {MOST_CUSTOM} can be taken");
        let field = format!("{place} customMetrics");
        return Err(ConfigError::value(
            field,
            config.custom_metrics.len(),
            wanted,
        ));
    }
    for custom in &config.custom_metrics {
        if custom.attribute_key.is_empty() {
            let field = format!("{place} customMetrics attributeKey");
            return Err(ConfigError::value(field, "", "must name the attribute"));
        }
        let spec = read("customMetrics metricSpec", &custom.metric_spec)?;
        engine
            .custom
            .push((custom.attribute_key.as_str().into(), spec));
    }
    Ok(engine)
}

fn built_in() -> Vec<Engine> {
    let named = |name: &str| Some(MetricSpec::named(name));
    let info = |name: &str, block_tokens: &str, blocks: &str| {
        Some(CacheInfo {
            series: MetricSpec::named(name),
            block_tokens: block_tokens.to_owned(),
            blocks: blocks.to_owned(),
        })
    };
    let requests = |kind| MetricSpec::labelled(triton_trtllm::REQUESTS, "request_type", kind);
    let blocks = |kind| MetricSpec::labelled(triton_trtllm::KV_BLOCKS, "kv_cache_block_type", kind);
    vec![
        Engine {
            name: kind::VLLM.to_owned(),
            waiting: named(vllm::WAITING),
            running: named(vllm::RUNNING),
            kv_usage: vec![
                MetricSpec::named(vllm::KV_USAGE),
                MetricSpec::named(vllm::OLD_KV_USAGE),
            ],
            lora: named(lora::INFO),
            cache_info: info(vllm::CACHE_CONFIG, "block_size", "num_gpu_blocks"),
            ..Engine::default()
        },
        Engine {
            name: kind::SGLANG.to_owned(),
            waiting: named(sglang::WAITING),
            running: named(sglang::RUNNING),
            kv_usage: vec![MetricSpec::named(sglang::KV_USAGE)],
            cache_info: info(sglang::CACHE_CONFIG, "page_size", "num_pages"),
            ..Engine::default()
        },
        Engine {
            name: kind::TRTLLM_SERVE.to_owned(),
            waiting: named(trtllm::WAITING),
            running: named(trtllm::RUNNING),
            kv_usage: vec![MetricSpec::named(trtllm::KV_USAGE)],
            block_tokens: named(trtllm::BLOCK_TOKENS),
            kv_blocks: named(trtllm::BLOCKS),
            ..Engine::default()
        },
        Engine {
            name: kind::TRITON_TENSORRT_LLM.to_owned(),
            waiting: Some(requests("waiting")),
            running: Some(requests("scheduled")),
            kv_usage: vec![blocks("fraction")],
            block_tokens: Some(blocks("tokens_per")),
            kv_blocks: Some(blocks("max")),
            ..Engine::default()
        },
        Engine {
            name: kind::TRITON.to_owned(),
            waiting: named(triton::WAITING),
            running: named(triton::RUNNING),
            ..Engine::default()
        },
    ]
}

/// What `dcgm-extractor` looks for.
pub fn gpu_utilization() -> MetricSpec {
    MetricSpec::named(dcgm::UTILIZATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labelled(engine: &str) -> BTreeMap<String, String> {
        BTreeMap::from([("llm-d.ai/engine-type".to_owned(), engine.to_owned())])
    }

    #[test]
    fn a_series_is_a_name_and_labels() {
        let spec = MetricSpec::parse(r#" a:b { x = y , z="w v" } "#).unwrap();
        assert_eq!(spec.name, "a:b");
        let labels = [("x", "y"), ("z", "w v")].map(|(l, v)| (l.to_owned(), v.to_owned()));
        assert_eq!(spec.labels, labels);
        assert_eq!(spec.to_string(), "a:b{x=y,z=w v}");
        assert_eq!(MetricSpec::parse("plain").unwrap().to_string(), "plain");
        for wrong in ["", "a b", "a{x=y", "a{x}", "a{x y=z}", "{x=y}", "a{x=\"y}"] {
            assert!(MetricSpec::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn endpoints_run_what_their_label_says() {
        let engines = Engines::default();
        assert_eq!(engines.of(&labelled("sglang")).name, "sglang");
        assert_eq!(engines.of(&labelled("ollama")).name, "vllm");
        assert_eq!(engines.of(&BTreeMap::new()).name, "vllm");
    }

    #[test]
    fn a_description_changes_only_what_it_says() {
        let config = EngineConfig {
            name: "vllm".into(),
            queued_requests_spec: Some("my:waiting".into()),
            lora_spec: Some(String::new()),
            cache_info_spec: Some("my:cache".into()),
            cache_block_size_label_name: Some("tokens".into()),
            ..EngineConfig::default()
        };
        let parameters = CoreMetricsExtractor {
            engine_configs: vec![config],
            ..CoreMetricsExtractor::default()
        };
        let engines = Engines::configured(&parameters, "p").unwrap();
        let vllm = engines.of(&BTreeMap::new());
        assert_eq!(vllm.waiting, Some(MetricSpec::named("my:waiting")));
        assert_eq!(vllm.lora, None);
        assert_eq!(vllm.running, Some(MetricSpec::named(vllm::RUNNING)));
        let cache = vllm.cache_info.as_ref().unwrap();
        assert_eq!(
            (cache.block_tokens.as_str(), cache.blocks.as_str()),
            ("tokens", "num_gpu_blocks")
        );
    }

    #[test]
    fn an_unknown_default_is_refused_with_the_nearest() {
        let parameters = CoreMetricsExtractor {
            default_engine: "sglan".into(),
            ..CoreMetricsExtractor::default()
        };
        let error = Engines::configured(&parameters, "plugin `x`").unwrap_err();
        assert!(error.to_string().contains("`sglang`"), "{error}");
    }
}
