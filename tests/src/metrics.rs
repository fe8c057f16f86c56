//! Reading counters and gauges from a Prometheus text page.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use crate::client::Call;

/// The samples of one page.
#[derive(Clone, Debug)]
pub struct Page(String);

impl Page {
    /// Reads the page at `path` of `server`.
    pub async fn at(server: SocketAddr, path: &str) -> Self {
        Self(Call::get(path).send(server).await.text().to_owned())
    }

    /// Sum over the samples called `name` whose labels contain every one of `labels`, each written
    /// `name="value"`; `None` when there is no such sample.
    pub fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let wanted = self
            .samples(name)
            .filter(|(found, _)| labels.iter().all(|label| found.contains(label)));
        wanted.fold(None, |sum, (_, value)| Some(sum.unwrap_or(0.0) + value))
    }

    /// The same of things that are counted; without any sample, none.
    pub fn count(&self, name: &str, labels: &[&str]) -> u64 {
        self.sum(name, labels).unwrap_or(0.0) as u64
    }

    /// Sums over the samples called `name` by the value of one label.
    pub fn by_label(&self, name: &str, label: &str) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.samples(name) {
            let found = labels
                .split(',')
                .find_map(|pair| pair.strip_prefix(label)?.strip_prefix("=\""));
            *sums
                .entry(found.unwrap_or_default().trim_end_matches('"').to_owned())
                .or_default() += value;
        }
        sums
    }
}

impl Page {
    fn samples<'p>(&'p self, name: &'p str) -> impl Iterator<Item = (&'p str, f64)> {
        self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            let (labels, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            Some((labels, value.trim().parse().ok()?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let page = Page(
            "# TYPE a counter\na_total{x=\"1\",y=\"b\"} 2\na_total{x=\"2\"} 3\na 7\nab 9\n"
                .to_owned(),
        );
        assert_eq!(page.sum("a_total", &[]), Some(5.0));
        assert_eq!(page.sum("a_total", &["x=\"1\""]), Some(2.0));
        assert_eq!(page.sum("a", &[]), Some(7.0));
        assert_eq!(page.sum("a", &["x=\"1\""]), None);
        assert_eq!(page.count("c", &[]), 0);
        assert_eq!(
            page.by_label("a_total", "x"),
            [("1".to_owned(), 2.0), ("2".to_owned(), 3.0)].into()
        );
    }
}
