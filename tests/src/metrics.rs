//! Reading counters and gauges from a Prometheus text page.

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
        let samples = self.0.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (found, value) = match rest.strip_prefix('{') {
                Some(rest) => rest.rsplit_once("} ")?,
                None => ("", rest.strip_prefix(' ')?),
            };
            labels.iter().all(|label| found.contains(label)).then(|| value.trim().parse::<f64>().ok())?
        });
        samples.fold(None, |sum, value| Some(sum.unwrap_or(0.0) + value))
    }
}

#[cfg(test)]
mod tests {
    use super::Page;

    #[test]
    fn samples_are_summed_by_name_and_label() {
        let page = Page("# TYPE a counter\na_total{x=\"1\",y=\"b\"} 2\na_total{x=\"2\"} 3\na 7\nab 9\n".to_owned());
        assert_eq!(page.sum("a_total", &[]), Some(5.0));
        assert_eq!(page.sum("a_total", &["x=\"1\""]), Some(2.0));
        assert_eq!(page.sum("a", &[]), Some(7.0));
        assert_eq!(page.sum("a", &["x=\"1\""]), None);
    }
}
