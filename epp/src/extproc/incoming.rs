//! Hot path: the proxy's messages in the protocol's own words.

use super::hub::Hub;
use super::protocol::Event;
use super::wire::{self, Incoming, ProcessingRequest};
use crate::api::head::{Header, grpc_status};
use names::{header, metadata};

/// What a message says, in neutral words; `None` for messages of kinds unknown here.
pub(super) fn event(message: ProcessingRequest, hub: &Hub) -> Option<Event> {
    let ProcessingRequest {
        metadata_context,
        request,
    } = message;
    Some(match request? {
        Incoming::RequestHeaders(headers) => Event::RequestHeaders {
            end_of_stream: headers.end_of_stream,
            headers: neutral(headers.headers),
            subset: metadata_context.and_then(subset),
        },
        Incoming::ResponseHeaders(headers) => Event::ResponseHeaders {
            end_of_stream: headers.end_of_stream,
            headers: neutral(headers.headers),
            served: metadata_context.and_then(|metadata| hub.endpoint_at(&served(&metadata)?)),
        },
        Incoming::RequestBody(body) => Event::RequestBody {
            body: body.body,
            end_of_stream: body.end_of_stream,
        },
        Incoming::ResponseBody(body) => Event::ResponseBody {
            body: body.body,
            end_of_stream: body.end_of_stream,
        },
        Incoming::RequestTrailers(_) => Event::RequestTrailers,
        Incoming::ResponseTrailers(trailers) => Event::ResponseTrailers {
            grpc_status: grpc_status(&neutral(trailers.trailers)),
        },
    })
}

fn neutral(headers: Option<wire::HeaderMap>) -> Vec<Header> {
    let headers = headers.unwrap_or_default().headers.into_iter();
    headers
        .map(
            |wire::HeaderValue {
                 key,
                 value,
                 raw_value,
             }| {
                let value = if raw_value.is_empty() {
                    value
                } else {
                    raw_value
                };
                Header { name: key, value }
            },
        )
        .collect()
}

/// The endpoint that the proxy says answered.
fn served(metadata: &wire::Metadata) -> Option<String> {
    let fields = &metadata.filter_metadata.get(metadata::LB)?.fields;
    match fields.get(header::DESTINATION_SERVED)?.kind.as_ref()? {
        wire::Kind::Text(address) => Some(address.trim().to_owned()),
        _ => None,
    }
}

/// The endpoints the proxy wants the choice to be among. A key that is there but empty allows none.
fn subset(metadata: wire::Metadata) -> Option<Vec<String>> {
    let hint = metadata.filter_metadata.get(metadata::SUBSET_HINT)?;
    let text = |kind: &wire::Kind| match kind {
        wire::Kind::Text(text) => text.split(',').map(|part| part.trim().to_owned()).collect(),
        _ => Vec::new(),
    };
    match hint.fields.get(header::DESTINATION_SUBSET)?.kind.as_ref() {
        Some(wire::Kind::List(list)) => Some(
            list.values
                .iter()
                .filter_map(|value| value.kind.as_ref())
                .flat_map(text)
                .collect(),
        ),
        Some(kind) => Some(text(kind)),
        None => Some(Vec::new()),
    }
}
