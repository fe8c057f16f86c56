//! Hot path: samples of a Prometheus page, found without reading more of it than names.

use epp_core::config::MetricSpec;
use memchr::memchr_iter;

/// One line of a page that is a sample: `name{labels} value timestamp`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample<'p> {
    pub(super) name: &'p [u8],
    /// Everything after the name.
    rest: &'p [u8],
}

/// Samples whose names begin with `prefix`.
pub(super) fn samples<'p>(page: &'p [u8], prefix: &[u8]) -> impl Iterator<Item = Sample<'p>> {
    let mut start = 0;
    memchr_iter(b'\n', page)
        .chain(std::iter::once(page.len()))
        .filter_map(move |end| {
            let line = page.get(start..end).unwrap_or_default();
            start = end + 1;
            if !line.starts_with(prefix) || line.first() == Some(&b'#') {
                return None;
            }
            let name_end = line.iter().position(|byte| matches!(byte, b'{' | b' '));
            let (name, rest) = line.split_at(name_end.unwrap_or(line.len()));
            Some(Sample { name, rest })
        })
}

impl<'p> Sample<'p> {
    /// Whether it is a series that `spec` means.
    pub(super) fn is(&self, spec: &MetricSpec) -> bool {
        let labelled =
            |(label, value): &(String, String)| self.label(label) == Some(value.as_bytes());
        self.name == spec.name.as_bytes() && spec.labels.iter().all(labelled)
    }

    /// The number after the labels; a timestamp may follow. `None` = there is none, or it is not finite.
    pub(super) fn value(&self) -> Option<f64> {
        let after = if self.rest.first() == Some(&b'{') {
            &self.rest[labels_end(self.rest)?..]
        } else {
            self.rest
        };
        let text = std::str::from_utf8(after).ok()?;
        let value: f64 = text.split_ascii_whitespace().next()?.parse().ok()?;
        value.is_finite().then_some(value)
    }

    /// The labels as they stand there.
    pub(super) fn labels(&self) -> &'p [u8] {
        labels_end(self.rest)
            .and_then(|end| self.rest.get(..end))
            .unwrap_or_default()
    }

    /// The value of the label `name`, escapes untouched.
    pub(super) fn label(&self, name: &str) -> Option<&'p [u8]> {
        let mut rest = self.rest.strip_prefix(b"{")?;
        loop {
            let equals = rest.iter().position(|byte| matches!(byte, b'=' | b'}'))?;
            let found = rest[..equals].trim_ascii();
            let quoted = rest
                .get(equals + 1..)?
                .trim_ascii_start()
                .strip_prefix(b"\"")?;
            let end = quote_end(quoted)?;
            if found == name.as_bytes() {
                return quoted.get(..end);
            }
            rest = quoted.get(end + 1..)?.trim_ascii_start();
            rest = rest.strip_prefix(b",").unwrap_or(rest).trim_ascii_start();
        }
    }

    /// The number in the label `name`.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        std::str::from_utf8(self.label(name)?).ok()?.parse().ok()
    }
}

/// Offset of the quote that ends a value.
fn quote_end(quoted: &[u8]) -> Option<usize> {
    let mut escaped = false;
    quoted.iter().position(|&byte| {
        let ends = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        ends
    })
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(line: &str) -> Sample<'_> {
        samples(line.as_bytes(), b"").next().unwrap()
    }

    #[test]
    fn labels_are_told_apart_whatever_stands_in_their_values() {
        let sample = one(r#"m{my_a="1", a="x\"y,b=\"2",b="}{", c = "3"} 4.5 1700000000"#);
        assert_eq!(sample.label("a"), Some(br#"x\"y,b=\"2"#.as_slice()));
        assert_eq!(sample.label("b"), Some(b"}{".as_slice()));
        assert_eq!(sample.number::<u32>("c"), Some(3));
        assert_eq!(sample.label("d"), None);
        assert_eq!(sample.value(), Some(4.5));
        assert!(sample.is(&MetricSpec::parse("m{c=3}").unwrap()));
        assert!(!sample.is(&MetricSpec::parse("m{c=4}").unwrap()));
        assert!(!sample.is(&MetricSpec::parse("n").unwrap()));
    }

    #[test]
    fn numbers_that_are_none_are_none() {
        assert_eq!(one("m NaN").value(), None);
        assert_eq!(one("m{a=\"b\"").value(), None);
        assert_eq!(one("m").value(), None);
        assert_eq!(one("m{} 1e3").value(), Some(1000.0));
    }

    #[test]
    fn comments_are_no_samples() {
        let page = b"# TYPE m gauge\nm 1\nn 2\n";
        let names: Vec<_> = samples(page, b"").map(|sample| sample.name).collect();
        assert_eq!(names, [b"m".as_slice(), b"n", b""]);
        assert_eq!(samples(page, b"n").count(), 1);
    }

    proptest! {
        #[test]
        fn never_panics(page in proptest::collection::vec(any::<u8>(), 0..300), tail in r#"\{?[a-z_="\\,{}0-9 .]{0,60}"#) {
            for sample in samples(&page, b"").chain(samples(format!("m{tail}").as_bytes(), b"m")) {
                let _ = (sample.value(), sample.labels(), sample.label("a"), sample.number::<f64>("b"));
            }
        }
    }
}
