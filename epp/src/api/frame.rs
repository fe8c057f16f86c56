//! gRPC's length-prefixed messages: a flag, a length of four bytes, the message, perhaps compressed.

use super::proto::ProtoError;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{Read, Write};

/// Bytes before each message.
pub const HEADER: usize = 5;

/// Why a body is no gRPC message that can be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The body is shorter than its frame says.
    #[error("breaks off after {have} of {want} bytes: send one whole length-prefixed message")]
    Short {
        /// Bytes there are.
        have: usize,
        /// Bytes there should be.
        want: usize,
    },
    /// More follows the message of a call that takes one.
    #[error("is followed by {extra} bytes more: this call takes one message")]
    More {
        /// Bytes beyond the frame.
        extra: usize,
    },
    /// The flag is neither 0 nor 1.
    #[error("begins with {flag}: 0 (plain) or 1 (compressed) would be right")]
    Flag {
        /// The flag.
        flag: u8,
    },
    /// Compressed in a way that is not read.
    #[error("is compressed with {encoding:?}: send it with grpc-encoding gzip or identity")]
    Encoding {
        /// What `grpc-encoding` says, shortened.
        encoding: String,
    },
    /// What claims to be gzip is not.
    #[error("is not the gzip that it claims to be")]
    Gzip,
    /// It grows beyond what the picker holds.
    #[error(
        "is larger than {limit} bytes once decompressed: shorten the prompt, or raise --max-request-bytes on the endpoint picker"
    )]
    TooLarge {
        /// The limit, bytes.
        limit: usize,
    },
    /// It is no protobuf message.
    #[error(transparent)]
    Proto(#[from] ProtoError),
}

/// The message of a call that takes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message, decompressed.
    pub bytes: Bytes,
    /// Whether it came compressed.
    pub compressed: bool,
}

impl Message {
    /// The only message of `body`; `encoding` is what `grpc-encoding` says. It may decompress to at most `limit` bytes.
    ///
    /// # Errors
    /// [`FrameError`] when it is not one whole message that can be read.
    pub fn only(body: &Bytes, encoding: Option<&[u8]>, limit: usize) -> Result<Self, FrameError> {
        let short = |want| FrameError::Short {
            have: body.len(),
            want,
        };
        let header = body.first_chunk::<HEADER>().ok_or(short(HEADER))?;
        let (flag, length) = parse_header(*header);
        let end = HEADER + length;
        match body.len() {
            have if have < end => return Err(short(end)),
            have if have > end => return Err(FrameError::More { extra: have - end }),
            _ => {}
        }
        let bytes = body.slice(HEADER..);
        match flag {
            0 => Ok(Self {
                bytes,
                compressed: false,
            }),
            1 => Ok(Self {
                bytes: decompressed(&bytes, encoding, limit)?,
                compressed: true,
            }),
            flag => Err(FrameError::Flag { flag }),
        }
    }
}

/// Flag and length of a frame.
pub fn parse_header([flag, length @ ..]: [u8; HEADER]) -> (u8, usize) {
    (flag, u32::from_be_bytes(length) as usize)
}

/// `message` as a frame; `compressed` compresses it with gzip.
pub fn framed(message: &[u8], compressed: bool) -> Vec<u8> {
    let mut frame = vec![u8::from(compressed); HEADER];
    if compressed {
        let mut encoder = GzEncoder::new(frame, Compression::fast());
        // Writing to memory has nothing to fail on.
        let _ = encoder.write_all(message);
        frame = encoder.finish().unwrap_or_default();
    } else {
        frame.extend_from_slice(message);
    }
    let length = u32::try_from(frame.len().saturating_sub(HEADER)).unwrap_or(u32::MAX);
    if let Some(place) = frame.get_mut(1..HEADER) {
        place.copy_from_slice(&length.to_be_bytes());
    }
    frame
}

/// `message` without its compression, at most `limit` bytes of it.
///
/// # Errors
/// [`FrameError`] when the encoding is not gzip, or the message no gzip, or too large.
pub fn decompressed(
    message: &[u8],
    encoding: Option<&[u8]>,
    limit: usize,
) -> Result<Bytes, FrameError> {
    match encoding {
        Some(gzip) if gzip.eq_ignore_ascii_case(b"gzip") => {}
        other => {
            return Err(FrameError::Encoding {
                encoding: super::error::shortened(other.unwrap_or(b"identity")),
            });
        }
    }
    let mut plain = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    GzDecoder::new(message)
        .take(most)
        .read_to_end(&mut plain)
        .map_err(|_| FrameError::Gzip)?;
    if plain.len() > limit {
        return Err(FrameError::TooLarge { limit });
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(body: &[u8], encoding: Option<&str>) -> Result<Message, FrameError> {
        Message::only(
            &Bytes::copy_from_slice(body),
            encoding.map(str::as_bytes),
            1000,
        )
    }

    #[test]
    fn what_is_wrong_with_a_frame_is_told() {
        let whole = framed(b"hello", false);
        for cut in 0..whole.len() {
            let want = if cut < HEADER { HEADER } else { whole.len() };
            assert_eq!(
                only(&whole[..cut], None),
                Err(FrameError::Short { have: cut, want })
            );
        }
        let longer = [&whole[..], b"x"].concat();
        assert_eq!(only(&longer, None), Err(FrameError::More { extra: 1 }));
        let mut flagged = whole.clone();
        flagged[0] = 7;
        assert_eq!(only(&flagged, None), Err(FrameError::Flag { flag: 7 }));
        flagged[0] = 1;
        assert_eq!(only(&flagged, Some("gzip")), Err(FrameError::Gzip));
        let error = only(&flagged, Some("zstd")).unwrap_err();
        assert!(error.to_string().contains("\"zstd\""), "{error}");
        assert!(matches!(
            only(&flagged, None),
            Err(FrameError::Encoding { .. })
        ));
    }

    #[test]
    fn what_grows_beyond_the_limit_is_refused_before_it_is_held() {
        let bomb = framed(&vec![0; 50_000_000], true);
        assert!(bomb.len() < 500_000);
        assert_eq!(
            only(&bomb, Some("gzip")),
            Err(FrameError::TooLarge { limit: 1000 })
        );
        let fits = framed(&[7; 1000], true);
        assert_eq!(only(&fits, Some("gzip")).unwrap().bytes.len(), 1000);
    }

    proptest! {
        #[test]
        fn a_frame_holds_its_message(message in proptest::collection::vec(any::<u8>(), 0..1000), compressed in any::<bool>()) {
            let frame = framed(&message, compressed);
            let read = only(&frame, Some("gzip")).unwrap();
            prop_assert_eq!((&read.bytes[..], read.compressed), (&message[..], compressed));
        }

        #[test]
        fn never_panics_on_any_bytes(body in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = only(&body, Some("gzip"));
        }
    }
}
