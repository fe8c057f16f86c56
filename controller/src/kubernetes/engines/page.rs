//! The few values wanted from an engine's metrics page, vLLM's or SGLang's, in one pass.

use names::metric::{PROCESS_START, sglang, vllm};

/// What a page said. Series of one name (ranks of one server, adapters) are summed. What it did not say is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Page {
    /// Requests waiting for admission to the batch.
    pub waiting: Option<f64>,
    /// Requests in the batch.
    pub running: Option<f64>,
    /// Requests answered to the end, since the engine started.
    pub served: Option<f64>,
    /// Prompt tokens taken in, since the engine started.
    pub prompt_tokens: Option<f64>,
    /// Of those, found in the prefix cache.
    pub cached_tokens: Option<f64>,
    /// Tokens generated, since the engine started.
    pub output_tokens: Option<f64>,
    /// Tokens that the KV cache holds.
    pub kv_tokens: Option<f64>,
    /// When the engine's process started, unix seconds.
    pub started: Option<f64>,
}

#[derive(Clone, Copy)]
enum Wanted {
    Waiting,
    Running,
    Served,
    PromptTokens,
    CachedTokens,
    OutputTokens,
    Cache {
        tokens_per_block: &'static str,
        blocks: &'static str,
    },
}

/// Reads a page; `None` when nothing of an engine is on it, so that another server's page is no idle engine.
pub fn parse(page: &str) -> Option<Page> {
    let mut found = Page::default();
    for line in page.lines() {
        if line.starts_with("vllm:") || line.starts_with("sglang:") {
            read(&mut found, line);
        }
    }
    if found == Page::default() {
        return None;
    }
    found.started = page
        .lines()
        .find_map(|line| number(line.strip_prefix(PROCESS_START)?));
    Some(found)
}

fn wanted(name: &str) -> Option<Wanted> {
    Some(match name {
        vllm::WAITING | sglang::WAITING => Wanted::Waiting,
        vllm::RUNNING | sglang::RUNNING => Wanted::Running,
        vllm::SERVED | sglang::SERVED => Wanted::Served,
        vllm::PROMPT_TOKENS | sglang::PROMPT_TOKENS => Wanted::PromptTokens,
        vllm::CACHED_TOKENS | sglang::CACHED_TOKENS => Wanted::CachedTokens,
        vllm::OUTPUT_TOKENS | sglang::OUTPUT_TOKENS => Wanted::OutputTokens,
        vllm::CACHE_CONFIG => Wanted::Cache {
            tokens_per_block: "block_size",
            blocks: "num_gpu_blocks",
        },
        sglang::CACHE_CONFIG => Wanted::Cache {
            tokens_per_block: "page_size",
            blocks: "num_pages",
        },
        _ => return None,
    })
}

fn read(found: &mut Page, line: &str) {
    let name_end = line.find(['{', ' ']).unwrap_or(line.len());
    let (name, rest) = line.split_at(name_end);
    let Some(wanted) = wanted(name) else { return };
    let Some((labels, value)) = split(rest) else {
        return;
    };
    let (sum, value) = match wanted {
        Wanted::Waiting => (&mut found.waiting, number(value)),
        Wanted::Running => (&mut found.running, number(value)),
        Wanted::Served => (&mut found.served, number(value)),
        Wanted::PromptTokens => (&mut found.prompt_tokens, number(value)),
        Wanted::CachedTokens => (&mut found.cached_tokens, number(value)),
        Wanted::OutputTokens => (&mut found.output_tokens, number(value)),
        Wanted::Cache {
            tokens_per_block,
            blocks,
        } => {
            let of = |name| label(labels, name).and_then(number);
            let tokens = of(tokens_per_block)
                .zip(of(blocks))
                .map(|(tokens, blocks)| tokens * blocks);
            (&mut found.kv_tokens, tokens)
        }
    };
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0.0) + value);
    }
}

/// The text between the braces, if any, and what follows them.
fn split(rest: &str) -> Option<(&str, &str)> {
    let Some(labels) = rest.strip_prefix('{') else {
        return Some(("", rest));
    };
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in labels.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'}' if !quoted => return Some((&labels[..at], &labels[at + 1..])),
            _ => {}
        }
    }
    None
}

/// The first word as a finite number, 0 or more; a timestamp may follow.
fn number(text: &str) -> Option<f64> {
    let value: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
    (value.is_finite() && value >= 0.0).then_some(value)
}

/// The value of the label `name`, as written.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut rest = labels;
    loop {
        let at = rest.find(name)?;
        let begins = at == 0 || matches!(rest.as_bytes()[at - 1], b',' | b' ');
        let after = &rest[at + name.len()..];
        if let (true, Some(value)) = (begins, after.strip_prefix("=\"")) {
            return Some(&value[..value.find('"')?]);
        }
        rest = after;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VLLM: &str = r#"# HELP vllm:num_requests_running Requests in the running batch.
vllm:num_requests_running{engine="0",model_name="llama"} 7.0
vllm:num_requests_running{engine="1",model_name="llama"} 5.0
vllm:num_requests_waiting{model_name="llama"} 3
vllm:cache_config_info{block_size="16",my_num_gpu_blocks="1",num_gpu_blocks="1000"} 1.0
vllm:prompt_tokens_total{model_name="llama"} 1.2e+06
vllm:generation_tokens_total{model_name="llama"} 50000 1700000000
vllm:prefix_cache_hits_total{model_name="llama"} 300000
vllm:request_success_total{finished_reason="stop",model_name="a}b"} 900
vllm:request_success_total{finished_reason="length",model_name="llama"} 100
vllm:request_success_created{finished_reason="length"} 1.7e9
process_start_time_seconds 1.7e+09
"#;

    #[test]
    fn vllms_page_is_read_and_ranks_are_summed() {
        let page = Page {
            waiting: Some(3.0),
            running: Some(12.0),
            served: Some(1000.0),
            prompt_tokens: Some(1.2e6),
            cached_tokens: Some(3e5),
            output_tokens: Some(5e4),
            kv_tokens: Some(16_000.0),
            started: Some(1.7e9),
        };
        assert_eq!(parse(VLLM), Some(page));
    }

    #[test]
    fn sglangs_page_is_read() {
        let text = "sglang:num_running_reqs{model_name=\"m\"} 2\nsglang:num_queue_reqs 1\nsglang:num_requests_total 9\nsglang:cache_config_info{page_size=\"1\",num_pages=\"4096\"} 1\n";
        let page = parse(text).unwrap();
        assert_eq!((page.running, page.waiting), (Some(2.0), Some(1.0)));
        assert_eq!((page.served, page.kv_tokens), (Some(9.0), Some(4096.0)));
        assert_eq!(page.prompt_tokens, None, "not told is not zero");
    }

    #[test]
    fn what_is_no_number_is_unknown() {
        let text = "vllm:num_requests_running NaN\nvllm:cache_config_info{num_gpu_blocks=\"None\",block_size=\"16\"} 1\nvllm:num_requests_waiting -1\nvllm:request_success_total 1\n";
        let expected = Page {
            served: Some(1.0),
            ..Page::default()
        };
        assert_eq!(parse(text), Some(expected));
        assert_eq!(
            parse("go_goroutines 7\nprocess_start_time_seconds 1\n"),
            None
        );
    }

    proptest! {
        #[test]
        fn never_panics(tail in "\\PC{0,80}", labels in r#"[{},="\\ a-zé0-9]{0,60}"#) {
            let _ = parse(&tail);
            for name in [vllm::WAITING, vllm::CACHE_CONFIG, sglang::CACHE_CONFIG] {
                let _ = parse(&format!("{name}{tail}"));
                let _ = parse(&format!("{name}{labels} block_size"));
                let _ = parse(&format!("{name}{{{labels}num_pages=\"1\"}} 1"));
            }
        }
    }
}
