//! A listener's connections with their handshakes done, for servers that take a stream of them.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{ServerTls, TlsIo};

/// Handshakes at the same time; further connections wait in the listener's backlog.
const HANDSHAKES: usize = 256;
/// Rest after an error of the listener itself, such as too many open files.
const AFTER_ERROR: Duration = Duration::from_millis(100);

/// Connections with their handshakes done. A failed handshake is logged and never ends the stream; dropping it
/// closes the listener.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<TlsIo>,
    _accepting: JoinSet<()>,
}

impl Stream for Incoming {
    type Item = io::Result<TlsIo>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|next| next.map(Ok))
    }
}

/// Accepts on `listener` and does the handshakes, many at a time so that a slow client holds up no other.
/// TCP_NODELAY is set. To be called on a tokio runtime.
pub fn incoming(listener: TcpListener, tls: ServerTls) -> Incoming {
    let (sender, connections) = mpsc::channel(1);
    let mut accepting = JoinSet::new();
    accepting.spawn(async move {
        let mut handshakes = JoinSet::new();
        loop {
            while handshakes.len() >= HANDSHAKES {
                handshakes.join_next().await;
            }
            tokio::select! {
                Some(_) = handshakes.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((connection, from)) => {
                        let (tls, sender) = (tls.clone(), sender.clone());
                        handshakes.spawn(async move {
                            // Only a hint to the kernel; a connection that refuses it serves as well.
                            let _ = connection.set_nodelay(true);
                            match tls.accept(connection).await {
                                // The receiver is gone when the server ends: so is the connection.
                                Ok(connection) => drop(sender.send(connection).await),
                                Err(error) => tracing::debug!(%from, %error, "TLS handshake failed"),
                            }
                        });
                    }
                    Err(error) => {
                        tracing::warn!(%error, "cannot accept connections");
                        tokio::time::sleep(AFTER_ERROR).await;
                    }
                },
            }
        }
    });
    Incoming {
        connections,
        _accepting: accepting,
    }
}
