//! Asks Prometheus over HTTP. The client is `prometheus-http-query`'s; answers are read up to a bound.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use prometheus_http_query::Client;
use prometheus_http_query::response::{Data, PromqlResult};
use reqwest::Certificate;
use reqwest::header::AUTHORIZATION;
use serde::Deserialize;

use super::query::{Answers, Element, Question, Subject, WINDOW};

/// One answer takes no longer than this.
const DEADLINE: Duration = Duration::from_secs(5);
/// Largest answer that is read, bytes.
const MAX_ANSWER: usize = 4 << 20;
/// Models asked about in one question; more are asked about in further ones.
const SUBJECTS: usize = 50;

/// Where Prometheus is and how it is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrometheusOptions {
    /// `http://host:port` or `https://…`, with a path where a proxy wants one.
    pub url: String,
    /// Certificates (PEM) that its own is verified by; without, the system's.
    pub ca_file: Option<PathBuf>,
    /// A bearer token, read anew for every round, so that it may rotate.
    pub token_file: Option<PathBuf>,
    /// Rates are taken over this long: at least four times the scrape interval.
    pub window: Duration,
}

impl PrometheusOptions {
    /// Of the server at `url`, verified by the system's certificates, over the usual window.
    pub fn new(url: impl Into<String>) -> Self {
        Self {
            url: url.into(),
            ca_file: None,
            token_file: None,
            window: WINDOW,
        }
    }
}

/// Why Prometheus cannot be asked, or did not answer.
#[derive(Debug, thiserror::Error)]
pub enum PrometheusError {
    /// A file that cannot be used.
    #[error("{flag} {}: {source}", path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The client cannot be made of the options.
    #[error(
        "--prometheus-url {url:?} cannot be used; it should look like http://prometheus.monitoring.svc:9090"
    )]
    Options {
        /// The address given.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer.
    #[error("Prometheus at {url} does not answer")]
    Unreachable {
        /// Its address.
        url: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// An answer that is none.
    #[error("Prometheus at {url} answers {status}: {message}")]
    Refused {
        /// Its address.
        url: String,
        /// HTTP status.
        status: u16,
        /// What it said, shortened.
        message: String,
    },
    /// An answer beyond all bounds.
    #[error("an answer of Prometheus at {url} is larger than {MAX_ANSWER} bytes")]
    TooLarge {
        /// Its address.
        url: String,
    },
}

/// Prometheus, ready to be asked.
#[derive(Clone)]
pub struct Prometheus {
    client: Client,
    options: PrometheusOptions,
}

impl fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prometheus")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
#[serde(tag = "status", rename_all = "lowercase")]
enum Envelope {
    Success { data: PromqlResult },
    Error { error: String },
}

impl Prometheus {
    /// Prepares the client; nothing is asked yet.
    ///
    /// # Errors
    /// An address or a file that cannot be used.
    pub fn new(options: PrometheusOptions) -> Result<Self, PrometheusError> {
        let unusable =
            |source: Box<dyn std::error::Error + Send + Sync>| PrometheusError::Options {
                url: options.url.clone(),
                source,
            };
        let mut builder = reqwest::Client::builder()
            .timeout(DEADLINE)
            .redirect(reqwest::redirect::Policy::none());
        let roots = match &options.ca_file {
            Some(path) => Some(certificates(path)?),
            // Without TLS the system's certificates, which an image may lack, are not asked for.
            None => (!options.url.starts_with("https:")).then(Vec::new),
        };
        if let Some(roots) = roots {
            builder = builder.tls_certs_only(roots);
        }
        let http = builder.build().map_err(|error| unusable(error.into()))?;
        let client = Client::from(http, &options.url).map_err(|error| unusable(error.into()))?;
        Ok(Self { client, options })
    }

    /// Asks everything about `subjects`.
    ///
    /// # Errors
    /// The first answer that did not come.
    pub async fn ask(&self, subjects: &[Subject]) -> Result<Answers, PrometheusError> {
        let token = self.token()?;
        let mut answers = Answers::new();
        for some in subjects.chunks(SUBJECTS) {
            for question in Question::ALL {
                if let Some(text) = question.text(some, self.options.window) {
                    let elements = self.answer(&text, token.as_deref()).await?;
                    answers.entry(question).or_default().extend(elements);
                }
            }
        }
        Ok(answers)
    }

    async fn answer(
        &self,
        text: &str,
        token: Option<&str>,
    ) -> Result<Vec<Element>, PrometheusError> {
        let url = || self.options.url.clone();
        let mut query = self.client.query(text).timeout(DEADLINE.as_millis() as i64);
        if let Some(token) = token {
            let value = reqwest::header::HeaderValue::from_str(&format!("Bearer {token}"))
                .map_err(|error| PrometheusError::Unreachable {
                    url: url(),
                    source: error.into(),
                })?;
            query = query.header(AUTHORIZATION, value);
        }
        let mut response =
            query
                .post_raw()
                .await
                .map_err(|error| PrometheusError::Unreachable {
                    url: url(),
                    source: error.into(),
                })?;
        let status = response.status().as_u16();
        let mut body = Vec::new();
        loop {
            let chunk = response
                .chunk()
                .await
                .map_err(|error| PrometheusError::Unreachable {
                    url: url(),
                    source: error.into(),
                })?;
            let Some(chunk) = chunk else { break };
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(PrometheusError::TooLarge { url: url() });
            }
            body.extend_from_slice(&chunk);
        }
        read(&body).map_err(|message| PrometheusError::Refused {
            url: url(),
            status,
            message,
        })
    }

    fn token(&self) -> Result<Option<String>, PrometheusError> {
        let Some(path) = &self.options.token_file else {
            return Ok(None);
        };
        let text = std::fs::read_to_string(path)
            .map_err(|error| file("--prometheus-token-file", path, error.into()))?;
        Ok(Some(text.trim().to_owned()))
    }
}

fn certificates(path: &Path) -> Result<Vec<Certificate>, PrometheusError> {
    let flag = "--prometheus-ca-file";
    let pem = std::fs::read(path).map_err(|error| file(flag, path, error.into()))?;
    let found =
        Certificate::from_pem_bundle(&pem).map_err(|error| file(flag, path, error.into()))?;
    if found.is_empty() {
        return Err(file(flag, path, "it holds no certificate in PEM".into()));
    }
    Ok(found)
}

fn file(
    flag: &'static str,
    path: &Path,
    source: Box<dyn std::error::Error + Send + Sync>,
) -> PrometheusError {
    PrometheusError::File {
        flag,
        path: path.to_owned(),
        source,
    }
}

/// The elements of an answer, or what it says instead.
fn read(body: &[u8]) -> Result<Vec<Element>, String> {
    const SHOWN: usize = 200;
    let envelope: Envelope = serde_json::from_slice(body).map_err(|_| {
        let text = String::from_utf8_lossy(body);
        text.chars().take(SHOWN).collect::<String>()
    })?;
    match envelope {
        Envelope::Error { error } => Err(error.chars().take(SHOWN).collect()),
        Envelope::Success { data } => match data.into_inner().0 {
            Data::Vector(elements) => Ok(elements
                .into_iter()
                .map(|element| {
                    let (labels, sample) = element.into_inner();
                    Element {
                        labels: labels.into_iter().collect(),
                        value: sample.value(),
                    }
                })
                .collect()),
            Data::Matrix(_) | Data::Scalar(_) => {
                Err("an answer that is not an instant vector".to_owned())
            }
        },
    }
}

#[cfg(test)]
mod tests;
