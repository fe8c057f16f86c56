//! Listening to peers.

use super::Peers;
use super::wire::{SERVICE, Said, TELL, Told};
use epp_core::peers::{Delta, Refused};
use runtime::tls::PeerCertificates;
use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::codegen::{Body, BoxFuture, StdError};
use tonic::server::{ClientStreamingService, Grpc, NamedService};
use tonic::{Code, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Largest message: the most endpoints and the most prefix blocks, with room for their names.
const LARGEST_MESSAGE: usize = 8 << 20;

/// `headroom.peers.v1.Peers`.
#[derive(Clone, Debug)]
pub(super) struct Listener {
    peers: Arc<Peers>,
}

impl Listener {
    pub(super) fn new(peers: Arc<Peers>) -> Self {
        Self { peers }
    }
}

impl NamedService for Listener {
    const NAME: &'static str = SERVICE;
}

impl<B> tonic::codegen::Service<http::Request<B>> for Listener
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        if request.uri().path() != TELL {
            let answer = Status::unimplemented("only Tell is served here").into_http();
            return Box::pin(ready(Ok(answer)));
        }
        let shown = request.extensions().get::<PeerCertificates>();
        if !shown.is_some_and(|shown| shown.name(names::peer::SERVER_NAME)) {
            let wanted = names::peer::SERVER_NAME;
            let answer = Status::permission_denied(format!(
                "the certificate shown is not for {wanted:?}: it is no peer's"
            ));
            return Box::pin(ready(Ok(answer.into_http())));
        }
        let listen = Listen(Arc::clone(&self.peers));
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default())
                .apply_max_message_size_config(Some(LARGEST_MESSAGE), None);
            Ok(grpc.client_streaming(listen, request).await)
        })
    }
}

struct Listen(Arc<Peers>);

impl ClientStreamingService<Said> for Listen {
    type Response = Told;
    type Future = BoxFuture<Response<Told>, Status>;

    fn call(&mut self, request: tonic::Request<Streaming<Said>>) -> Self::Future {
        let peers = Arc::clone(&self.0);
        let mut said = request.into_inner();
        Box::pin(async move {
            while let Some(said) = said.message().await? {
                peers.hear(&Delta::from(said)).map_err(status)?;
            }
            Ok(Response::new(Told {}))
        })
    }
}

/// The status that ends a connection; [`super::link`] reads it.
fn status(refused: Refused) -> Status {
    let code = match refused {
        Refused::Oneself { .. } => Code::AlreadyExists,
        Refused::Namesake { .. } => Code::FailedPrecondition,
        Refused::Unknown { .. } => Code::Aborted,
        Refused::TooMany { .. } => Code::ResourceExhausted,
    };
    Status::new(code, refused.to_string())
}
