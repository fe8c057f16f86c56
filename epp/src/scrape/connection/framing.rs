//! Where the body of an HTTP/1.1 answer lies and when it is complete.

use super::{LARGEST_ANSWER, ScrapeError};
use std::ops::Range;

/// Headers of one answer.
const HEADERS: usize = 64;

/// Where an answer's body is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Body {
    /// In the answer as it came.
    InPlace(Range<usize>),
    /// Put together from chunks.
    Joined,
}

/// How the end of a body is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Length(usize),
    /// Chunks; those before this offset have been joined.
    Chunked(usize),
    UntilClosed,
}

impl Framing {
    /// The body and where the answer ends, once it is complete.
    pub(super) fn body(
        &mut self,
        answer: &[u8],
        start: usize,
        closed: bool,
        joined: &mut Vec<u8>,
    ) -> Result<Option<(Body, usize)>, ScrapeError> {
        match self {
            Self::Length(length) => {
                let end = start.saturating_add(*length);
                Ok((answer.len() >= end).then_some((Body::InPlace(start..end), end)))
            }
            Self::UntilClosed => {
                Ok(closed.then_some((Body::InPlace(start..answer.len()), answer.len())))
            }
            Self::Chunked(at) => {
                *at = (*at).max(start);
                while let Some((data, next)) = chunk(answer, *at)? {
                    *at = next;
                    if data.is_empty() {
                        return Ok(Some((Body::Joined, next)));
                    }
                    joined.extend_from_slice(&answer[data]);
                }
                Ok(None)
            }
        }
    }
}

/// The chunk at `at` and where the next one begins; `None` while it is incomplete. The last one is empty.
fn chunk(answer: &[u8], at: usize) -> Result<Option<(Range<usize>, usize)>, ScrapeError> {
    const LINE_END: usize = 2;
    match httparse::parse_chunk_size(answer.get(at..).unwrap_or_default()) {
        Ok(httparse::Status::Partial) => Ok(None),
        Ok(httparse::Status::Complete((line, size))) => {
            let size = usize::try_from(size)
                .ok()
                .filter(|size| *size <= LARGEST_ANSWER)
                .ok_or(ScrapeError::TooLarge)?;
            let data = at + line..at + line + size;
            let next = data.end + LINE_END;
            Ok((answer.len() >= next).then_some((data, next)))
        }
        Err(_) => Err(ScrapeError::Chunk),
    }
}

/// An answer's head.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) bytes: usize,
    pub(super) framing: Framing,
    pub(super) keep_alive: bool,
}

impl Head {
    /// `None` while it is incomplete.
    pub(super) fn parse(answer: &[u8]) -> Result<Option<Self>, ScrapeError> {
        let mut headers = [httparse::EMPTY_HEADER; HEADERS];
        let mut response = httparse::Response::new(&mut headers);
        let httparse::Status::Complete(bytes) = response.parse(answer)? else {
            return Ok(None);
        };
        if response.code != Some(200) {
            return Err(ScrapeError::Status(response.code.unwrap_or(0)));
        }
        let mut head = Self {
            bytes,
            framing: Framing::UntilClosed,
            keep_alive: response.version == Some(1),
        };
        for header in response.headers.iter() {
            if header.name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(header.value)
                    .ok()
                    .and_then(|text| text.trim().parse().ok());
                head.framing = length.map_or(head.framing, Framing::Length);
            } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
                head.framing = Framing::Chunked(bytes);
            } else if header.name.eq_ignore_ascii_case("connection") {
                head.keep_alive &= !header.value.eq_ignore_ascii_case(b"close");
            }
        }
        Ok(Some(head))
    }
}
