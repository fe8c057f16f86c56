//! Hot path: a pull reader over protobuf messages that allocates nothing and remembers where values stand.
//!
//! A prompt is one packed list of a hundred thousand token ids in one message: only the fields that are asked for are
//! looked into, and what is changed is changed in place.

use std::ops::Range;

/// The bytes are no protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no protobuf message: it breaks off or goes wrong at byte {at}")]
pub struct ProtoError {
    /// Offset of the offending byte.
    pub at: usize,
}

/// One field of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Its number.
    pub number: u64,
    /// Its value.
    pub value: Value<'a>,
}

/// The value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// An integer or boolean.
    Varint(u64),
    /// Text, bytes, a message, or a packed list.
    Bytes {
        /// The content.
        bytes: &'a [u8],
        /// Offset of the content in the message.
        at: usize,
        /// Where its length is written.
        length: Range<usize>,
    },
    /// Four or eight bytes that no API read here uses.
    Fixed,
}

impl<'a> Value<'a> {
    /// The integer, as far as it fits.
    pub fn count(&self) -> Option<u32> {
        match self {
            Self::Varint(value) => Some(u32::try_from(*value).unwrap_or(u32::MAX)),
            Self::Bytes { .. } | Self::Fixed => None,
        }
    }

    /// The content of a text, bytes or message.
    pub fn bytes(&self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes { bytes, .. } => Some(bytes),
            Self::Varint(_) | Self::Fixed => None,
        }
    }

    /// The elements of a repeated integer field, packed or one by one.
    pub fn integers(&self) -> Integers<'a> {
        match self {
            Self::Varint(value) => Integers {
                one: Some(*value),
                packed: &[],
                at: 0,
            },
            Self::Bytes { bytes, .. } => Integers {
                one: None,
                packed: bytes,
                at: 0,
            },
            Self::Fixed => Integers {
                one: None,
                packed: &[],
                at: 0,
            },
        }
    }
}

/// The fields of a message, in the order written.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Those of `message`.
    pub fn of(message: &'a [u8]) -> Self {
        Self { message, at: 0 }
    }

    fn field(&mut self) -> Option<Field<'a>> {
        let tag = varint(self.message, &mut self.at)?;
        let value = match tag & 7 {
            0 => Value::Varint(varint(self.message, &mut self.at)?),
            1 => self.fixed(8)?,
            2 => {
                let begin = self.at;
                let length = usize::try_from(varint(self.message, &mut self.at)?).ok()?;
                let at = self.at;
                let bytes = self.message.get(at..at.checked_add(length)?)?;
                self.at = at + length;
                Value::Bytes {
                    bytes,
                    at,
                    length: begin..at,
                }
            }
            5 => self.fixed(4)?,
            _ => return None,
        };
        Some(Field {
            number: tag >> 3,
            value,
        })
    }

    fn fixed(&mut self, width: usize) -> Option<Value<'a>> {
        self.message.get(self.at..self.at + width)?;
        self.at += width;
        Some(Value::Fixed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<Field<'a>, ProtoError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.message.len() {
            return None;
        }
        let begin = self.at;
        let field = self.field().ok_or(ProtoError { at: begin });
        if field.is_err() {
            self.at = self.message.len();
        }
        Some(field)
    }
}

/// The elements of a repeated integer field.
#[derive(Clone, Debug)]
pub struct Integers<'a> {
    one: Option<u64>,
    packed: &'a [u8],
    at: usize,
}

impl Iterator for Integers<'_> {
    type Item = Result<u64, ProtoError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(one) = self.one.take() {
            return Some(Ok(one));
        }
        if self.at >= self.packed.len() {
            return None;
        }
        let begin = self.at;
        let value = varint(self.packed, &mut self.at).ok_or(ProtoError { at: begin });
        if value.is_err() {
            self.at = self.packed.len();
        }
        Some(value)
    }
}

/// Reads a base-128 integer of at most ten bytes at `at`, and moves `at` behind it.
fn varint(bytes: &[u8], at: &mut usize) -> Option<u64> {
    let mut value = 0;
    for shift in 0..10 {
        let byte = *bytes.get(*at)?;
        *at += 1;
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// `value` as a base-128 integer.
pub fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field of text, bytes or a message.
pub fn put_bytes(number: u64, content: &[u8], out: &mut Vec<u8>) {
    put_varint(number << 3 | 2, out);
    put_varint(content.len() as u64, out);
    out.extend_from_slice(content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use prost::Message;

    #[derive(Clone, PartialEq, Message)]
    struct Sample {
        #[prost(uint64, tag = "1")]
        number: u64,
        #[prost(bytes = "vec", tag = "2")]
        bytes: Vec<u8>,
        #[prost(uint32, repeated, tag = "3")]
        packed: Vec<u32>,
        #[prost(uint32, repeated, packed = "false", tag = "4")]
        unpacked: Vec<u32>,
        #[prost(double, tag = "5")]
        double: f64,
        #[prost(float, tag = "1000")]
        float: f32,
    }

    fn sample() -> impl Strategy<Value = Sample> {
        (
            any::<u64>(),
            proptest::collection::vec(any::<u8>(), 0..200),
            proptest::collection::vec(any::<u32>(), 0..20),
            proptest::collection::vec(any::<u32>(), 0..5),
            any::<bool>(),
        )
            .prop_map(|(number, bytes, packed, unpacked, fixed)| Sample {
                number,
                bytes,
                packed,
                unpacked,
                double: f64::from(u8::from(fixed)),
                float: f32::from(u8::from(fixed)),
            })
    }

    fn read(message: &[u8]) -> Result<Sample, ProtoError> {
        let mut read = Sample::default();
        for field in Fields::of(message) {
            let Field { number, value } = field?;
            match (number, &value) {
                (1, Value::Varint(number)) => read.number = *number,
                (2, Value::Bytes { bytes, at, .. }) => {
                    assert_eq!(&message[*at..*at + bytes.len()], *bytes);
                    read.bytes = bytes.to_vec();
                }
                (3, value) => {
                    for id in value.integers() {
                        read.packed.push(id? as u32);
                    }
                }
                (4, value) => {
                    for id in value.integers() {
                        read.unpacked.push(id? as u32);
                    }
                }
                (5, Value::Fixed) => read.double = 1.0,
                (1000, Value::Fixed) => read.float = 1.0,
                other => panic!("{other:?}"),
            }
        }
        Ok(read)
    }

    proptest! {
        #[test]
        fn reads_what_another_implementation_wrote(sample in sample()) {
            prop_assert_eq!(read(&sample.encode_to_vec()), Ok(sample));
        }

        #[test]
        fn a_message_that_breaks_off_is_an_error_or_a_shorter_message(sample in sample(), cut in any::<prop::sample::Index>()) {
            let whole = sample.encode_to_vec();
            let part = &whole[..cut.index(whole.len() + 1)];
            // Whatever another implementation refuses is refused here.
            let accepted = Fields::of(part).all(|field| field.is_ok());
            prop_assert_eq!(accepted, Sample::decode(part).is_ok());
        }

        #[test]
        fn never_panics_on_any_bytes(message in proptest::collection::vec(any::<u8>(), 0..200)) {
            for field in Fields::of(&message).flatten() {
                field.value.integers().for_each(|id| { let _ = id; });
            }
        }

        #[test]
        fn writes_what_another_implementation_reads(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut out = Vec::new();
            put_bytes(2, &bytes, &mut out);
            prop_assert_eq!(Sample::decode(&out[..]).unwrap().bytes, bytes);
        }
    }
}
