//! One kept-alive HTTP connection: a page at a time, each within a deadline and a size.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, ETAG, HOST, IF_NONE_MATCH};
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// Why a page did not come.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer in time.
    #[error("no answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// No connection.
    #[error("no connection to {address}: {source}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Broken(#[from] hyper::Error),
    /// The page is larger than is read, or broke off.
    #[error("the page could not be read up to {most} bytes: {source}")]
    Body {
        /// The most that is read, bytes.
        most: usize,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Another status.
    #[error("HTTP status {status}{}", advice(*.status))]
    Status {
        /// The status.
        status: u16,
    },
    /// What is asked with cannot be written into a header.
    #[error("a header cannot be written: {0}")]
    Header(#[from] http::Error),
}

fn advice(status: u16) -> &'static str {
    match status {
        401 => ": the token is not accepted (does its audience fit, may the picker review tokens?)",
        403 => {
            ": the account may not get this page (ClusterRole with nonResourceURLs /headroom/v1/*)"
        }
        _ => "",
    }
}

/// A page as it came.
#[derive(Debug)]
pub struct Page {
    /// The server's tag of it, without quotes.
    pub etag: Option<String>,
    /// Its bytes.
    pub body: Bytes,
}

/// What to ask for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Path and query.
    pub path: &'a str,
    /// Bearer token.
    pub token: Option<&'a str>,
    /// Not again what has this tag.
    pub unless: Option<&'a str>,
    /// Largest page, bytes.
    pub most: usize,
}

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    host: HeaderValue,
}

impl Connection {
    /// Connects, over TLS to a server of that name if `tls` is given.
    ///
    /// # Errors
    /// Whatever keeps it from being made.
    pub async fn open(
        address: SocketAddr,
        tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    ) -> Result<Self, FetchError> {
        let failed = |source| FetchError::Connect { address, source };
        let tcp = TcpStream::connect(address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        let host = HeaderValue::from_str(&address.to_string()).map_err(http::Error::from)?;
        let sender = match tls {
            None => begin(TokioIo::new(tcp)).await?,
            Some((tls, name)) => {
                let stream = TlsConnector::from(tls)
                    .connect(name, tcp)
                    .await
                    .map_err(failed)?;
                begin(TokioIo::new(stream)).await?
            }
        };
        Ok(Self { sender, host })
    }

    /// Gets a page; `None` = it still has the tag named.
    ///
    /// # Errors
    /// [`FetchError`]; after any but [`FetchError::Status`] the connection is of no use.
    pub async fn get(&mut self, ask: Ask<'_>) -> Result<Option<Page>, FetchError> {
        let response = self.send(ask).await?;
        let status = response.status().as_u16();
        let etag = response
            .headers()
            .get(ETAG)
            .and_then(|tag| tag.to_str().ok())
            .map(|tag| tag.trim_matches('"').to_owned());
        let body = Limited::new(response.into_body(), ask.most)
            .collect()
            .await
            .map_err(|source| FetchError::Body {
                most: ask.most,
                source,
            })?;
        match status {
            200 => Ok(Some(Page {
                etag,
                body: body.to_bytes(),
            })),
            304 => Ok(None),
            _ => Err(FetchError::Status { status }),
        }
    }

    /// Gets an endless page.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn stream(&mut self, ask: Ask<'_>) -> Result<Incoming, FetchError> {
        let response = self.send(ask).await?;
        match response.status().as_u16() {
            200 => Ok(response.into_body()),
            status => Err(FetchError::Status { status }),
        }
    }

    async fn send(&mut self, ask: Ask<'_>) -> Result<Response<Incoming>, FetchError> {
        let mut request = Request::get(ask.path).header(HOST, self.host.clone());
        if let Some(token) = ask.token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {token}")).map_err(http::Error::from)?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if let Some(tag) = ask.unless {
            request = request.header(IF_NONE_MATCH, format!("\"{tag}\""));
        }
        self.sender.ready().await?;
        Ok(self
            .sender
            .send_request(request.body(Empty::new())?)
            .await?)
    }
}

async fn begin<T>(io: TokioIo<T>) -> Result<SendRequest<Empty<Bytes>>, FetchError>
where
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    // It ends when the sender is dropped or the peer goes; either shows in the next request.
    tokio::spawn(async move {
        let _ = connection.await;
    });
    Ok(sender)
}
