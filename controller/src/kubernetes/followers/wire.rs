//! What travels from the leader to its followers: length, then JSON.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use controller_core::model::ModelKey;
use serde::{Deserialize, Serialize};

use crate::kubernetes::state::{Kept, States};
use crate::published::Published;

/// Largest message, bytes.
pub const MAX_MESSAGE: usize = 32 << 20;
const LENGTH: usize = 4;

/// One message.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Message {
    /// What the leader published.
    pub published: Published,
    /// What its decisions remember; absent where the message before told it already.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub states: Vec<State>,
}

/// What the decisions on one model remember.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// The model.
    pub model: ModelKey,
    /// What is remembered.
    pub state: Kept,
}

impl Message {
    /// A message with `states`, if any.
    pub fn new(published: Published, states: Option<&States>) -> Self {
        let states = states.into_iter().flatten();
        Self {
            published,
            states: states
                .map(|(model, state)| State {
                    model: model.clone(),
                    state: state.clone(),
                })
                .collect(),
        }
    }

    /// Its states by model.
    pub fn states(&self) -> States {
        let states = self.states.iter();
        states
            .map(|one| (one.model.clone(), one.state.clone()))
            .collect()
    }
}

/// What cannot be sent or read.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// A message beyond all bounds.
    #[error("a message of {bytes} bytes, at most {MAX_MESSAGE} are sent")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// Not the JSON of a message.
    #[error("a message that is not understood: {0}")]
    Json(#[from] serde_json::Error),
}

/// The bytes of `message`.
///
/// # Errors
/// [`WireError::TooLarge`].
pub fn encode(message: &Message) -> Result<Bytes, WireError> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len())
        .ok()
        .filter(|_| json.len() <= MAX_MESSAGE)
        .ok_or(WireError::TooLarge { bytes: json.len() })?;
    let mut bytes = BytesMut::with_capacity(LENGTH + json.len());
    bytes.put_u32(length);
    bytes.extend_from_slice(&json);
    Ok(bytes.freeze())
}

/// Puts messages together from the pieces that arrive. Holds at most one message and a piece.
#[derive(Debug, Default)]
pub struct Decoder {
    buffered: BytesMut,
}

impl Decoder {
    /// More bytes have come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffered.extend_from_slice(bytes);
    }

    /// The next whole message, if it is there.
    ///
    /// # Errors
    /// [`WireError`]; the stream is of no use after it.
    pub fn message(&mut self) -> Result<Option<Message>, WireError> {
        let Some(length) = self.buffered.first_chunk::<LENGTH>() else {
            return Ok(None);
        };
        let bytes = u32::from_be_bytes(*length) as usize;
        if bytes > MAX_MESSAGE {
            return Err(WireError::TooLarge { bytes });
        }
        if self.buffered.len() < LENGTH + bytes {
            return Ok(None);
        }
        self.buffered.advance(LENGTH);
        let json = self.buffered.split_to(bytes);
        Ok(Some(serde_json::from_slice(&json)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn message(sequence: u64) -> Message {
        let published = Published {
            at_ms: 7,
            sequence,
            models: Vec::new(),
        };
        Message::new(published, None)
    }

    #[test]
    fn a_length_beyond_all_bounds_is_refused_at_once() {
        let mut decoder = Decoder::default();
        decoder.push(&u32::MAX.to_be_bytes());
        assert!(matches!(decoder.message(), Err(WireError::TooLarge { .. })));
    }

    #[test]
    fn what_is_no_message_is_refused() {
        let mut decoder = Decoder::default();
        decoder.push(&[0, 0, 0, 2, b'[', b']']);
        assert!(matches!(decoder.message(), Err(WireError::Json(_))));
    }

    proptest! {
        #[test]
        fn messages_survive_being_cut_anywhere(count in 1_u64..5, cuts in proptest::collection::vec(1_usize..40, 1..50)) {
            let sent: Vec<Message> = (0..count).map(message).collect();
            let bytes: Vec<u8> = sent.iter().flat_map(|one| encode(one).unwrap()).collect();
            let (mut decoder, mut received, mut rest) = (Decoder::default(), Vec::new(), bytes.as_slice());
            for cut in cuts.iter().cycle() {
                let (piece, left) = rest.split_at((*cut).min(rest.len()));
                decoder.push(piece);
                while let Some(one) = decoder.message().unwrap() {
                    received.push(one);
                }
                rest = left;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(received, sent);
        }
    }
}
