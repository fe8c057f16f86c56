//! Hot path: the few values wanted from an engine's metrics page, in one pass without an allocation.
//!
//! vLLM's page is mostly histograms. Lines are told apart by their first bytes; only the wanted ones
//! are read further.

use epp_core::Scraped;
use memchr::{memchr, memchr_iter, memmem};
use names::metric::vllm;
use std::time::Duration;

/// What a page said. Several series of one name (ranks of one server) are joined: counts add up, and of
/// cache utilisations the fullest counts.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Page {
    waiting: Option<f32>,
    running: Option<f32>,
    kv_utilization: Option<f32>,
    block_tokens: Option<u32>,
    kv_blocks: Option<u32>,
}

/// Reads a metrics page; `None` when it has none of the wanted metrics, so that another server's page is
/// an error and not an idle engine.
pub fn parse(page: &[u8], at: Duration) -> Option<Scraped> {
    let mut found = Page::default();
    let mut start = 0;
    for end in memchr_iter(b'\n', page).chain(std::iter::once(page.len())) {
        let line = page.get(start..end).unwrap_or_default();
        start = end + 1;
        if line.starts_with(b"vllm:") {
            found.line(line);
        }
    }
    (found != Page::default()).then(|| Scraped {
        at,
        waiting: found.waiting.unwrap_or(f32::NAN),
        running: found.running.unwrap_or(f32::NAN),
        kv_utilization: found.kv_utilization.unwrap_or(f32::NAN),
        block_tokens: found.block_tokens,
        kv_blocks: found.kv_blocks,
    })
}

impl Page {
    fn line(&mut self, line: &[u8]) {
        let name_end = line
            .iter()
            .position(|byte| matches!(byte, b'{' | b' '))
            .unwrap_or(line.len());
        let (name, rest) = line.split_at(name_end);
        let is = |wanted: &str| name == wanted.as_bytes();
        if is(vllm::WAITING) {
            add(&mut self.waiting, value(rest));
        } else if is(vllm::RUNNING) {
            add(&mut self.running, value(rest));
        } else if is(vllm::KV_USAGE) || (is(vllm::OLD_KV_USAGE) && self.kv_utilization.is_none()) {
            if let Some(value) = value(rest) {
                self.kv_utilization =
                    Some(self.kv_utilization.map_or(value, |known| known.max(value)));
            }
        } else if is(vllm::CACHE_CONFIG) {
            self.block_tokens = label(rest, b"block_size=\"").or(self.block_tokens);
            self.kv_blocks = label(rest, b"num_gpu_blocks=\"").or(self.kv_blocks);
        }
    }
}

fn add(sum: &mut Option<f32>, value: Option<f32>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value);
    }
}

/// The number after the labels; a timestamp may follow.
fn value(rest: &[u8]) -> Option<f32> {
    let after = if rest.first() == Some(&b'{') {
        &rest[labels_end(rest)?..]
    } else {
        rest
    };
    let text = std::str::from_utf8(after).ok()?;
    let value: f32 = text.split_ascii_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some(value)
}

/// Offset after the closing brace; braces may stand in quoted values.
fn labels_end(rest: &[u8]) -> Option<usize> {
    let mut quoted = false;
    let mut escaped = false;
    for (index, &byte) in rest.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some(index + 1),
            _ => {}
        }
    }
    None
}

/// The number in the label whose name, equals sign and quote are `opening`.
fn label(rest: &[u8], opening: &[u8]) -> Option<u32> {
    let preceded = |&at: &usize| {
        at.checked_sub(1)
            .and_then(|before| rest.get(before))
            .is_some_and(|byte| matches!(byte, b'{' | b','))
    };
    let start = memmem::find_iter(rest, opening).find(preceded)? + opening.len();
    let value = &rest[start..];
    std::str::from_utf8(&value[..memchr(b'"', value)?])
        .ok()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn vllms_page_is_read() {
        let page = include_bytes!("../../tests/golden/vllm_metrics.txt");
        let scraped = parse(page, Duration::from_secs(7)).unwrap();
        let expected = Scraped {
            at: Duration::from_secs(7),
            waiting: 3.0,
            running: 17.0,
            kv_utilization: 0.4375,
            block_tokens: Some(16),
            kv_blocks: Some(27450),
        };
        assert_eq!(scraped, expected);
    }

    #[test]
    fn ranks_add_up_and_the_fullest_cache_counts() {
        let page = b"vllm:num_requests_running{engine=\"0\"} 2\nvllm:num_requests_running{engine=\"1\"} 3.0 1700000000\nvllm:kv_cache_usage_perc{engine=\"0\"} 0.2\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.5\nvllm:gpu_cache_usage_perc 0.9";
        let scraped = parse(page, Duration::ZERO).unwrap();
        assert_eq!((scraped.running, scraped.kv_utilization), (5.0, 0.5));
        assert!(scraped.waiting.is_nan(), "absent is unknown, not zero");
    }

    #[test]
    fn odd_labels_and_odd_numbers_do_not_mislead() {
        let page = b"vllm:num_requests_waiting{model_name=\"a}b\\\" 9\"} 4\r\nvllm:num_requests_running NaN\nvllm:cache_config_info{my_block_size=\"1\",block_size=\"32\",num_gpu_blocks=\"None\"} 1\n";
        let scraped = parse(page, Duration::ZERO).unwrap();
        assert_eq!(
            (scraped.waiting, scraped.block_tokens, scraped.kv_blocks),
            (4.0, Some(32), None)
        );
        assert!(scraped.running.is_nan());
    }

    #[test]
    fn another_servers_page_is_no_idle_engine() {
        assert_eq!(parse(b"go_goroutines 7\n", Duration::ZERO), None);
        assert_eq!(parse(b"", Duration::ZERO), None);
    }

    proptest! {
        #[test]
        fn never_panics(page in proptest::collection::vec(any::<u8>(), 0..300), tail in r#"\{?[a-z_="\\,{}0-9 .]{0,60}"#) {
            parse(&page, Duration::ZERO);
            for name in [vllm::WAITING, vllm::CACHE_CONFIG] {
                parse(format!("{name}{tail}").as_bytes(), Duration::ZERO);
            }
        }
    }
}
