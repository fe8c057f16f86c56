//! Hot path: the few values wanted from an engine's metrics page, in one pass without an allocation.
//!
//! An engine's page is mostly histograms. Lines are told apart by the prefix that the wanted names share; only the
//! wanted ones are read further.

use super::exposition::{Sample, samples};
use epp_core::config::{Engine, MetricSpec};
use epp_core::{Lora, Scraped};
use names::metric::engine::lora;
use std::sync::Arc;
use std::time::Duration;

/// Adapters of one engine that are kept; a page with more is cut.
const MOST_ADAPTERS: usize = 1024;
/// Bytes of an adapter's name; a longer one is left out.
const LONGEST_ADAPTER: usize = 256;

/// What is looked for on the page of one engine.
#[derive(Debug)]
pub(super) struct Wanted {
    prefix: Vec<u8>,
    series: Vec<(MetricSpec, Meaning)>,
    custom: Vec<Arc<str>>,
}

#[derive(Clone, Debug)]
enum Meaning {
    Waiting,
    Running,
    /// The lower its rank, the more it counts.
    KvUsage(usize),
    /// Labels with the tokens per block and the number of blocks.
    CacheInfo(String, String),
    BlockTokens,
    KvBlocks,
    Lora,
    /// Index of the attribute.
    Custom(usize),
}

/// What a page said. Several series of one meaning (ranks of one server) are joined: counts add up, and of
/// cache utilisations and further numbers the largest counts.
#[derive(Debug)]
pub(super) struct Told<'p> {
    pub(super) scraped: Scraped,
    /// The newest series of adapters: its labels as they stand there.
    pub(super) lora: Option<Adapters<'p>>,
    /// Further numbers, in the order of the configuration.
    pub(super) custom: Vec<Option<f64>>,
}

/// Reads a metrics page of `engine`; `None` when it has none of the engine's metrics.
pub fn read_page(engine: &Engine, page: &[u8], at: Duration) -> Option<(Scraped, Option<Lora>)> {
    let told = Wanted::of(engine).read(page, at)?;
    Some((told.scraped, told.lora.map(|adapters| adapters.read())))
}

/// A series of adapters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Adapters<'p> {
    sample: Sample<'p>,
    at: f64,
}

#[derive(Default)]
struct Page<'p> {
    any: bool,
    waiting: Option<f64>,
    running: Option<f64>,
    kv_utilization: Option<(usize, f64)>,
    block_tokens: Option<u32>,
    kv_blocks: Option<u32>,
    lora: Option<Adapters<'p>>,
    custom: Vec<Option<f64>>,
}

impl Wanted {
    /// What `engine` has.
    pub(super) fn of(engine: &Engine) -> Self {
        let mut series = Vec::new();
        let mut add = |spec: &Option<MetricSpec>, meaning: Meaning| {
            series.extend(spec.clone().map(|spec| (spec, meaning)));
        };
        add(&engine.waiting, Meaning::Waiting);
        add(&engine.running, Meaning::Running);
        add(&engine.lora, Meaning::Lora);
        add(&engine.block_tokens, Meaning::BlockTokens);
        add(&engine.kv_blocks, Meaning::KvBlocks);
        let usages = engine.kv_usage.iter().enumerate();
        series.extend(usages.map(|(rank, spec)| (spec.clone(), Meaning::KvUsage(rank))));
        let info = engine.cache_info.iter().cloned();
        series.extend(info.map(|info| {
            let meaning = Meaning::CacheInfo(info.block_tokens, info.blocks);
            (info.series, meaning)
        }));
        let custom = engine.custom.iter().enumerate();
        series.extend(custom.map(|(at, (_, spec))| (spec.clone(), Meaning::Custom(at))));
        Self {
            prefix: shared_prefix(&series),
            series,
            custom: engine
                .custom
                .iter()
                .map(|(key, _)| Arc::clone(key))
                .collect(),
        }
    }

    /// The attributes that further numbers become, in order.
    pub(super) fn attributes(&self) -> &[Arc<str>] {
        &self.custom
    }

    /// Reads a metrics page; `None` when it has none of the wanted metrics, so that another server's page is
    /// an error and not an idle engine.
    pub(super) fn read<'p>(&self, page: &'p [u8], at: Duration) -> Option<Told<'p>> {
        let mut found = Page {
            custom: vec![None; self.custom.len()],
            ..Page::default()
        };
        for sample in samples(page, &self.prefix) {
            for (spec, meaning) in &self.series {
                if sample.is(spec) {
                    found.take(sample, meaning);
                }
            }
        }
        let number = |value: Option<f64>| value.map_or(f32::NAN, |value| value as f32);
        found.any.then(|| Told {
            scraped: Scraped {
                at,
                waiting: number(found.waiting),
                running: number(found.running),
                kv_utilization: number(found.kv_utilization.map(|(_, value)| value)),
                block_tokens: found.block_tokens,
                kv_blocks: found.kv_blocks,
            },
            lora: found.lora,
            custom: found.custom,
        })
    }
}

impl<'p> Page<'p> {
    fn take(&mut self, sample: Sample<'p>, meaning: &Meaning) {
        match meaning {
            Meaning::Waiting => add(&mut self.waiting, sample.value()),
            Meaning::Running => add(&mut self.running, sample.value()),
            Meaning::KvUsage(rank) => {
                if let Some(value) = sample.value() {
                    self.kv_utilization = Some(match self.kv_utilization {
                        Some((known, most)) if known == *rank => (known, most.max(value)),
                        Some(known) if known.0 < *rank => known,
                        _ => (*rank, value),
                    });
                }
            }
            Meaning::CacheInfo(tokens, blocks) => {
                self.block_tokens = sample.number(tokens).or(self.block_tokens);
                self.kv_blocks = sample.number(blocks).or(self.kv_blocks);
            }
            Meaning::BlockTokens => self.block_tokens = whole(sample).or(self.block_tokens),
            Meaning::KvBlocks => self.kv_blocks = whole(sample).or(self.kv_blocks),
            Meaning::Lora => {
                let at = sample.value().unwrap_or(f64::MIN);
                if self.lora.is_none_or(|newest| at >= newest.at) {
                    self.lora = Some(Adapters { sample, at });
                }
            }
            Meaning::Custom(at) => {
                if let (Some(most), Some(value)) = (self.custom.get_mut(*at), sample.value()) {
                    *most = Some(most.map_or(value, |most| most.max(value)));
                }
                // Beside the point whether this is an engine: any page may have it.
                return;
            }
        }
        self.any = true;
    }
}

impl Adapters<'_> {
    /// What tells one state from another.
    pub(super) fn text(&self) -> &[u8] {
        self.sample.labels()
    }

    /// The adapters by name.
    pub(super) fn read(&self) -> Lora {
        let list = |label: &str| {
            let text = self
                .sample
                .label(label)
                .and_then(|text| std::str::from_utf8(text).ok());
            let names = text.unwrap_or_default().split(',').map(str::trim);
            names
                .filter(|name| (1..=LONGEST_ADAPTER).contains(&name.len()))
                .take(MOST_ADAPTERS)
                .map(Arc::from)
                .collect()
        };
        Lora {
            max: self.sample.number(lora::MAX).unwrap_or(0),
            running: list(lora::RUNNING),
            waiting: list(lora::WAITING),
        }
    }
}

fn add(sum: &mut Option<f64>, value: Option<f64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value);
    }
}

fn whole(sample: Sample<'_>) -> Option<u32> {
    let value = sample.value()?;
    (0.0..=f64::from(u32::MAX))
        .contains(&value)
        .then_some(value as u32)
}

/// The longest beginning that all names share.
fn shared_prefix(series: &[(MetricSpec, Meaning)]) -> Vec<u8> {
    let mut names = series.iter().map(|(spec, _)| spec.name.as_bytes());
    let mut prefix = names.next().unwrap_or_default();
    for name in names {
        let same = prefix.iter().zip(name).take_while(|(a, b)| a == b).count();
        prefix = &prefix[..same];
    }
    prefix.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use epp_core::config::Engines;
    use names::metric::engine::kind;
    use names::metric::vllm;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn wanted(engine: &str) -> Wanted {
        let engines = Engines::default();
        let labels = BTreeMap::from([(engines.label.clone(), engine.to_owned())]);
        Wanted::of(engines.of(&labels))
    }

    fn vllm(page: &[u8]) -> Option<Scraped> {
        wanted(kind::VLLM)
            .read(page, Duration::ZERO)
            .map(|told| told.scraped)
    }

    /// Five engines' pages: what is on them, in the order waiting, running, KV in use, tokens per block, blocks.
    #[test]
    fn every_engines_page_is_read() {
        type Row = (
            &'static str,
            &'static [u8],
            (f32, f32, f32, Option<u32>, Option<u32>),
        );
        let pages: [Row; 5] = [
            (
                kind::VLLM,
                include_bytes!("../../tests/golden/vllm_metrics.txt"),
                (3.0, 17.0, 0.4375, Some(16), Some(27450)),
            ),
            (
                kind::SGLANG,
                include_bytes!("../../tests/golden/sglang_metrics.txt"),
                (5.0, 9.0, 0.28, Some(64), Some(11836)),
            ),
            (
                kind::TRTLLM_SERVE,
                include_bytes!("../../tests/golden/trtllm_metrics.txt"),
                (2.0, 31.0, 0.625, Some(32), Some(4096)),
            ),
            (
                kind::TRITON_TENSORRT_LLM,
                include_bytes!("../../tests/golden/triton_trtllm_metrics.txt"),
                (4.0, 12.0, 0.5, Some(64), Some(6239)),
            ),
            (
                kind::TRITON,
                include_bytes!("../../tests/golden/triton_metrics.txt"),
                (7.0, 1523.0, f32::NAN, None, None),
            ),
        ];
        for (engine, page, (waiting, running, kv, block_tokens, kv_blocks)) in pages {
            let told = wanted(engine).read(page, Duration::from_secs(7)).unwrap();
            let Scraped { at, .. } = told.scraped;
            assert_eq!(at, Duration::from_secs(7));
            assert_eq!(
                (told.scraped.waiting, told.scraped.running),
                (waiting, running),
                "{engine}"
            );
            assert_eq!(
                (told.scraped.block_tokens, told.scraped.kv_blocks),
                (block_tokens, kv_blocks),
                "{engine}"
            );
            let read = told.scraped.kv_utilization;
            assert!(
                read == kv || read.is_nan() && kv.is_nan(),
                "{engine}: {read}"
            );
        }
    }

    #[test]
    fn of_adapters_the_newest_word_counts() {
        let page = br#"vllm:num_requests_running 1
vllm:lora_requests_info{max_lora="4",running_lora_adapters="old",waiting_lora_adapters=""} 1.7e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="sql, chat",waiting_lora_adapters="code"} 1.700000002e+09
vllm:lora_requests_info{max_lora="4",running_lora_adapters="",waiting_lora_adapters="older"} 1.69e+09
"#;
        let told = wanted(kind::VLLM).read(page, Duration::ZERO).unwrap();
        let names = |names: &[&str]| names.iter().map(|&name| Arc::from(name)).collect();
        let lora = Lora {
            max: 4,
            running: names(&["sql", "chat"]),
            waiting: names(&["code"]),
        };
        assert_eq!(told.lora.unwrap().read(), lora);
    }

    #[test]
    fn further_numbers_are_taken_and_make_no_engine() {
        let engine = Engine {
            waiting: Some(MetricSpec::parse("e:waiting").unwrap()),
            custom: vec![
                (
                    Arc::from("Power"),
                    MetricSpec::parse("watts{kind=now}").unwrap(),
                ),
                (Arc::from("Absent"), MetricSpec::parse("absent").unwrap()),
            ],
            ..Engine::default()
        };
        let wanted = Wanted::of(&engine);
        let page = b"watts{kind=\"now\",gpu=\"0\"} 250\nwatts{kind=\"now\",gpu=\"1\"} 300.5\nwatts{kind=\"max\"} 700\n";
        assert!(wanted.read(page, Duration::ZERO).is_none(), "no engine");
        let page = [page.as_slice(), b"e:waiting 2\n"].concat();
        let told = wanted.read(&page, Duration::ZERO).unwrap();
        assert_eq!(told.custom, [Some(300.5), None]);
        assert_eq!(&*wanted.attributes()[0], "Power");
    }

    #[test]
    fn ranks_add_up_and_the_fullest_cache_counts() {
        let page = b"vllm:gpu_cache_usage_perc 0.9\nvllm:num_requests_running{engine=\"0\"} 2\nvllm:num_requests_running{engine=\"1\"} 3.0 1700000000\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.2\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\nvllm:gpu_cache_usage_perc 0.9";
        let scraped = vllm(page).unwrap();
        assert_eq!((scraped.running, scraped.kv_utilization), (5.0, 0.5));
        assert!(scraped.waiting.is_nan(), "absent is unknown, not zero");
        let old = vllm(b"vllm:gpu_cache_usage_perc 0.9").unwrap();
        assert_eq!(old.kv_utilization, 0.9);
    }

    #[test]
    fn odd_labels_and_odd_numbers_do_not_mislead() {
        let page = b"vllm:num_requests_waiting{model_name=\"a}b\\\" 9\"} 4\r\nvllm:num_requests_running NaN\nvllm:cache_config_info{my_block_size=\"1\",block_size=\"32\",num_gpu_blocks=\"None\"} 1\n";
        let scraped = vllm(page).unwrap();
        assert_eq!(
            (scraped.waiting, scraped.block_tokens, scraped.kv_blocks),
            (4.0, Some(32), None)
        );
        assert!(scraped.running.is_nan());
    }

    #[test]
    fn another_servers_page_is_no_idle_engine() {
        assert_eq!(vllm(b"go_goroutines 7\n"), None);
        assert_eq!(vllm(b""), None);
        assert_eq!(
            vllm(include_bytes!("../../tests/golden/sglang_metrics.txt")),
            None
        );
    }

    proptest! {
        #[test]
        fn never_panics(tail in r#"\{?[a-z_="\\,{}0-9 .]{0,60}"#) {
            for name in [vllm::WAITING, vllm::CACHE_CONFIG, lora::INFO] {
                let page = format!("{name}{tail}");
                if let Some(told) = wanted(kind::VLLM).read(page.as_bytes(), Duration::ZERO) {
                    let _ = told.lora.map(|lora| lora.read());
                }
            }
        }
    }
}
