//! A request's body as the picker takes it: in pieces.

use bytes::Bytes;
use epp::api::body::{Body, Intake, Reading};
use epp::api::edit::{Edit, apply};
use epp::api::error::RequestError;
use epp::api::paths::Api;
use epp::api::rope::Rope;

/// Reads `body`, and reads it again in pieces of `width` bytes, which must come to the same.
pub(super) fn read(
    api: Api,
    body: &Bytes,
    width: usize,
    intake: &Intake<'_>,
) -> Result<Body, RequestError> {
    let whole = in_pieces(api, body, body.len(), intake);
    let cut = in_pieces(api, body, width, intake);
    assert_eq!(
        format!("{whole:?}"),
        format!("{cut:?}"),
        "cut elsewhere, another request"
    );
    whole
}

fn in_pieces(
    api: Api,
    body: &Bytes,
    width: usize,
    intake: &Intake<'_>,
) -> Result<Body, RequestError> {
    let mut reading = Reading::new(api, intake.hashing);
    let pieces = pieces(body, width);
    pieces.iter().try_for_each(|piece| reading.push(piece))?;
    reading.finish(&rope(pieces), intake)
}

/// `body` with `edits` made, which must be the same however it came.
pub(super) fn edited(body: &Bytes, width: usize, edits: Vec<Edit>) -> Bytes {
    let sent = rope(pieces(body, width)).edited(edits.clone()).concat();
    let whole = apply(body.clone(), edits);
    assert_eq!(whole, sent, "cut elsewhere, changed otherwise");
    whole
}

fn pieces(body: &Bytes, width: usize) -> Vec<Bytes> {
    let starts = (0..body.len()).step_by(width.max(1));
    let end = |start: usize| body.len().min(start + width.max(1));
    starts.map(|start| body.slice(start..end(start))).collect()
}

fn rope(pieces: Vec<Bytes>) -> Rope {
    let mut rope = Rope::default();
    pieces.into_iter().for_each(|piece| rope.push(piece));
    rope
}
