//! Prometheus's text format, version 0.0.4, as vLLM writes it.

use super::histogram::Histogram;
use std::fmt::Write;

/// A page of metrics being written; every sample carries the label `model_name`.
pub(crate) struct Exposition<'a> {
    text: String,
    model: Escaped<'a>,
}

/// A label value; escapes what would end it.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|character| match character {
            '"' | '\\' => write!(f, "\\{character}"),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

impl<'a> Exposition<'a> {
    pub(crate) fn new(model: &'a str) -> Self {
        Self {
            // About what a page comes to.
            text: String::with_capacity(24 << 10),
            model: Escaped(model),
        }
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.begin(name, help, "gauge");
        let model = &self.model;
        push(
            &mut self.text,
            format_args!("{name}{{model_name=\"{model}\"}} {value:?}\n"),
        );
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.begin(name, help, "counter");
        let model = &self.model;
        push(
            &mut self.text,
            format_args!("{name}{{model_name=\"{model}\"}} {:?}\n", value as f64),
        );
    }

    /// One counter per value of `label`.
    pub(crate) fn counters_by(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        values: &[(&str, u64)],
    ) {
        self.begin(name, help, "counter");
        let model = &self.model;
        for (value, count) in values {
            let count = *count as f64;
            push(
                &mut self.text,
                format_args!("{name}{{{label}=\"{value}\",model_name=\"{model}\"}} {count:?}\n"),
            );
        }
    }

    pub(crate) fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.begin(name, help, "histogram");
        let model = &self.model;
        for (bound, count) in histogram.cumulative() {
            let text = &mut self.text;
            let count = count as f64;
            if bound.is_finite() {
                push(
                    text,
                    format_args!(
                        "{name}_bucket{{le=\"{bound:?}\",model_name=\"{model}\"}} {count:?}\n"
                    ),
                );
            } else {
                push(
                    text,
                    format_args!("{name}_bucket{{le=\"+Inf\",model_name=\"{model}\"}} {count:?}\n"),
                );
            }
        }
        let (count, sum) = (histogram.count() as f64, histogram.sum());
        push(
            &mut self.text,
            format_args!("{name}_count{{model_name=\"{model}\"}} {count:?}\n"),
        );
        push(
            &mut self.text,
            format_args!("{name}_sum{{model_name=\"{model}\"}} {sum:?}\n"),
        );
    }

    /// The size of the KV cache as labels; an unbounded cache has no `num_gpu_blocks`.
    pub(crate) fn cache_config(&mut self, name: &str, block_tokens: u32, blocks: Option<u32>) {
        self.begin(name, "Configuration of the KV cache.", "gauge");
        let model = &self.model;
        let blocks = blocks.map_or(String::new(), |blocks| {
            format!(",num_gpu_blocks=\"{blocks}\"")
        });
        push(
            &mut self.text,
            format_args!(
                "{name}{{block_size=\"{block_tokens}\",model_name=\"{model}\"{blocks}}} 1.0\n"
            ),
        );
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }

    fn begin(&mut self, name: &str, help: &str, kind: &str) {
        push(
            &mut self.text,
            format_args!("# HELP {name} {help}\n# TYPE {name} {kind}\n"),
        );
    }
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = out.write_fmt(text);
}
