//! KEDA's external scaler, for clusters where KEDA owns `external.metrics.k8s.io`: the same values from the same
//! [`Board`], pulled (`IsActive`, `GetMetrics`) or pushed (`StreamIsActive`).
//!
//! What may not be acted on is an error and never an old number. `GetMetricSpec` answers from the trigger alone, so
//! that KEDA's own fallback counts failures even before the first decision.

mod trigger;
pub mod wire;

#[cfg(test)]
mod tests;

pub use trigger::{Trigger, TriggerError};

use std::convert::Infallible;
use std::task::{Context, Poll};

use axum::Router;
use futures::Stream;
use runtime::Shutdown;
use tokio::sync::watch;
use tonic::codegen::{Body, BoxFuture, StdError};
use tonic::server::{Grpc, NamedService};
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use crate::published::Board;
use wire::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef,
};

/// Longest message that is read: names and a trigger's metadata.
const LONGEST_MESSAGE: usize = 64 * 1024;

/// The scaler.
#[derive(Clone, Debug)]
pub struct ExternalScaler {
    board: Board,
    shutdown: Shutdown,
}

impl ExternalScaler {
    /// Answers from `board`; streams end when `shutdown` drains, so that KEDA opens them elsewhere.
    pub fn new(board: Board, shutdown: Shutdown) -> Self {
        Self { board, shutdown }
    }

    /// It as a router, to be served by [`runtime::serve`].
    pub fn router(&self) -> Router {
        Routes::new(self.clone()).into_axum_router()
    }

    fn is_active(&self, object: &ScaledObjectRef) -> Result<IsActiveResponse, Status> {
        let trigger = Trigger::read(object)?;
        let result = trigger.active(&self.board.latest(), self.board.clock().now())?;
        Ok(IsActiveResponse { result })
    }

    fn metric_spec(object: &ScaledObjectRef) -> Result<GetMetricSpecResponse, Status> {
        let trigger = Trigger::read(object)?;
        Ok(GetMetricSpecResponse {
            metric_specs: vec![MetricSpec {
                metric_name: trigger.metric_name().to_owned(),
                target_size: trigger.target.ceil() as i64,
                target_size_float: trigger.target,
            }],
        })
    }

    fn metrics(&self, request: GetMetricsRequest) -> Result<GetMetricsResponse, Status> {
        let object = request
            .scaled_object_ref
            .ok_or_else(|| Status::invalid_argument("scaledObjectRef is missing"))?;
        let trigger = Trigger::read(&object)?;
        let value = trigger.value(&self.board.latest(), self.board.clock().now())?;
        Ok(GetMetricsResponse {
            metric_values: vec![MetricValue {
                metric_name: request.metric_name,
                metric_value: value.ceil() as i64,
                metric_value_float: value,
            }],
        })
    }

    /// Tells at once, and then whenever it changes. While the answer may not be acted on nothing is told, and what
    /// was told last stays.
    fn activity(
        &self,
        object: &ScaledObjectRef,
    ) -> Result<impl Stream<Item = Result<IsActiveResponse, Status>> + Send + use<>, Status> {
        let changes = self.board.changes();
        let watcher = Watcher {
            scaler: self.clone(),
            trigger: Trigger::read(object)?,
            changes,
            told: None,
        };
        Ok(futures::stream::unfold(watcher, Watcher::next))
    }
}

/// One stream of activity.
struct Watcher {
    scaler: ExternalScaler,
    trigger: Trigger,
    changes: watch::Receiver<u64>,
    told: Option<bool>,
}

impl Watcher {
    async fn next(mut self) -> Option<(Result<IsActiveResponse, Status>, Self)> {
        let ExternalScaler { board, shutdown } = self.scaler.clone();
        loop {
            self.changes.mark_unchanged();
            match self.trigger.active(&board.latest(), board.clock().now()) {
                Ok(result) if self.told != Some(result) => {
                    self.told = Some(result);
                    return Some((Ok(IsActiveResponse { result }), self));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(%error, trigger = ?self.trigger, "activity is not known")
                }
            }
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = shutdown.draining() => return None,
            }
        }
    }
}

impl NamedService for ExternalScaler {
    const NAME: &'static str = wire::SERVICE;
}

impl<B> tonic::codegen::Service<http::Request<B>> for ExternalScaler
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
        let scaler = self.clone();
        Box::pin(async move {
            let path = request.uri().path();
            let method = path.rsplit_once('/').map_or("", |(_, method)| method);
            Ok(match method {
                "IsActive" => {
                    let ask = |object| scaler.is_active(&object);
                    unary(ask, request).await
                }
                "GetMetricSpec" => {
                    let ask = |object| Self::metric_spec(&object);
                    unary(ask, request).await
                }
                "GetMetrics" => unary(|ask| scaler.metrics(ask), request).await,
                "StreamIsActive" => {
                    let open = tower::service_fn(|request: Request<ScaledObjectRef>| {
                        let opened = scaler.activity(request.get_ref()).map(Response::new);
                        std::future::ready(opened)
                    });
                    let mut grpc = Grpc::new(ProstCodec::default())
                        .apply_max_message_size_config(Some(LONGEST_MESSAGE), None);
                    grpc.server_streaming(open, request).await
                }
                _ => Status::unimplemented(format!("{path} is not served here")).into_http(),
            })
        })
    }
}

async fn unary<B, Q, A>(
    answer: impl Fn(Q) -> Result<A, Status>,
    request: http::Request<B>,
) -> http::Response<tonic::body::Body>
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
    Q: prost::Message + Default + Send + 'static,
    A: prost::Message + Default + Send + 'static,
{
    let service = tower::service_fn(|request: Request<Q>| {
        std::future::ready(answer(request.into_inner()).map(Response::new))
    });
    let mut grpc = Grpc::new(ProstCodec::<A, Q>::default())
        .apply_max_message_size_config(Some(LONGEST_MESSAGE), None);
    grpc.unary(service, request).await
}
