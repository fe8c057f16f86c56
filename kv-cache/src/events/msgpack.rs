//! As much of msgpack as events need: a reader that allocates nothing and cannot recurse, and a writer.

use super::DecodeError;

/// One value, or the head of a list of values.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Token<'a> {
    Nil,
    Boolean,
    /// Signed integers carry their two's complement.
    Integer(u64),
    Float(f64),
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    Array(usize),
    Map(usize),
    Extension,
}

/// The rest of a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Input<'a> {
    bytes: &'a [u8],
    whole: usize,
}

impl<'a> Input<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        let whole = bytes.len();
        Self { bytes, whole }
    }

    /// Bytes read so far.
    pub(super) fn offset(&self) -> usize {
        self.whole - self.bytes.len()
    }

    /// Bytes left: no list can have more elements.
    pub(super) fn left(&self) -> usize {
        self.bytes.len()
    }

    fn short(&self) -> DecodeError {
        DecodeError::Truncated { bytes: self.whole }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self
            .bytes
            .split_at_checked(length)
            .ok_or_else(|| self.short())?;
        self.bytes = tail;
        Ok(head)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self
            .bytes
            .split_first_chunk::<N>()
            .ok_or_else(|| self.short())?;
        self.bytes = tail;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<usize, DecodeError> {
        self.fixed().map(|[byte]| usize::from(byte))
    }

    fn u16(&mut self) -> Result<usize, DecodeError> {
        self.fixed()
            .map(|bytes| usize::from(u16::from_be_bytes(bytes)))
    }

    fn u32(&mut self) -> Result<usize, DecodeError> {
        self.fixed().map(|bytes| u32::from_be_bytes(bytes) as usize)
    }

    /// The next value.
    pub(super) fn token(&mut self) -> Result<Token<'a>, DecodeError> {
        let at = self.offset();
        let [marker] = self.fixed()?;
        Ok(match marker {
            0x00..=0x7f => Token::Integer(u64::from(marker)),
            0x80..=0x8f => Token::Map(usize::from(marker & 0x0f)),
            0x90..=0x9f => Token::Array(usize::from(marker & 0x0f)),
            0xa0..=0xbf => Token::Text(self.take(usize::from(marker & 0x1f))?),
            0xc0 => Token::Nil,
            0xc1 => return Err(DecodeError::Marker { at }),
            0xc2 | 0xc3 => Token::Boolean,
            0xc4..=0xc6 => {
                let length = self.length(marker - 0xc4)?;
                Token::Bytes(self.take(length)?)
            }
            0xc7..=0xc9 => {
                let length = self.length(marker - 0xc7)?;
                self.take(length.saturating_add(1))?;
                Token::Extension
            }
            0xca => Token::Float(f64::from(f32::from_be_bytes(self.fixed()?))),
            0xcb => Token::Float(f64::from_be_bytes(self.fixed()?)),
            0xcc => Token::Integer(self.u8()? as u64),
            0xcd => Token::Integer(self.u16()? as u64),
            0xce => Token::Integer(self.u32()? as u64),
            0xcf => Token::Integer(u64::from_be_bytes(self.fixed()?)),
            0xd0 => Token::Integer(i64::from(i8::from_be_bytes(self.fixed()?)) as u64),
            0xd1 => Token::Integer(i64::from(i16::from_be_bytes(self.fixed()?)) as u64),
            0xd2 => Token::Integer(i64::from(i32::from_be_bytes(self.fixed()?)) as u64),
            0xd3 => Token::Integer(i64::from_be_bytes(self.fixed()?) as u64),
            0xd4..=0xd8 => {
                self.take((1 << (marker - 0xd4)) + 1)?;
                Token::Extension
            }
            0xd9..=0xdb => {
                let length = self.length(marker - 0xd9)?;
                Token::Text(self.take(length)?)
            }
            0xdc => Token::Array(self.u16()?),
            0xdd => Token::Array(self.u32()?),
            0xde => Token::Map(self.u16()?),
            0xdf => Token::Map(self.u32()?),
            0xe0..=0xff => Token::Integer(i64::from(marker as i8) as u64),
        })
    }

    /// A length of one, two or four bytes.
    fn length(&mut self, width: u8) -> Result<usize, DecodeError> {
        match width {
            0 => self.u8(),
            1 => self.u16(),
            _ => self.u32(),
        }
    }

    /// Reads past one value with all that is in it.
    pub(super) fn skip(&mut self) -> Result<(), DecodeError> {
        let mut values = 1_usize;
        while values > 0 {
            values -= 1;
            match self.token()? {
                Token::Array(more) => values = values.saturating_add(more),
                Token::Map(more) => values = values.saturating_add(more.saturating_mul(2)),
                _ => {}
            }
            if values > self.left() {
                return Err(self.short());
            }
        }
        Ok(())
    }
}

/// A message being written.
#[derive(Debug, Default)]
pub(super) struct Output(pub(super) Vec<u8>);

impl Output {
    pub(super) fn nil(&mut self) {
        self.0.push(0xc0);
    }

    pub(super) fn float(&mut self, value: f64) {
        self.0.push(0xcb);
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn unsigned(&mut self, value: u64) {
        if value < 0x80 {
            self.0.push(value as u8);
        } else if let Ok(value) = u8::try_from(value) {
            self.0.extend_from_slice(&[0xcc, value]);
        } else if let Ok(value) = u16::try_from(value) {
            self.0.push(0xcd);
            self.0.extend_from_slice(&value.to_be_bytes());
        } else if let Ok(value) = u32::try_from(value) {
            self.0.push(0xce);
            self.0.extend_from_slice(&value.to_be_bytes());
        } else {
            self.0.push(0xcf);
            self.0.extend_from_slice(&value.to_be_bytes());
        }
    }

    pub(super) fn signed(&mut self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => self.unsigned(value),
            Err(_) if value >= -32 => self.0.push(value as u8),
            Err(_) => {
                self.0.push(0xd3);
                self.0.extend_from_slice(&value.to_be_bytes());
            }
        }
    }

    pub(super) fn text(&mut self, text: &str) {
        let length = text.len();
        if length < 32 {
            self.0.push(0xa0 | length as u8);
        } else {
            self.length(length, [0xd9, 0xda, 0xdb]);
        }
        self.0.extend_from_slice(text.as_bytes());
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len(), [0xc4, 0xc5, 0xc6]);
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn array(&mut self, length: usize) {
        self.list(length, 0x90, [0xdc, 0xdd]);
    }

    pub(super) fn map(&mut self, length: usize) {
        self.list(length, 0x80, [0xde, 0xdf]);
    }

    fn length(&mut self, length: usize, [one, two, four]: [u8; 3]) {
        if let Ok(length) = u8::try_from(length) {
            self.0.extend_from_slice(&[one, length]);
        } else {
            self.wide(length, [two, four]);
        }
    }

    fn list(&mut self, length: usize, fixed: u8, wide: [u8; 2]) {
        if length < 16 {
            self.0.push(fixed | length as u8);
        } else {
            self.wide(length, wide);
        }
    }

    fn wide(&mut self, length: usize, [two, four]: [u8; 2]) {
        if let Ok(length) = u16::try_from(length) {
            self.0.push(two);
            self.0.extend_from_slice(&length.to_be_bytes());
        } else {
            self.0.push(four);
            self.0.extend_from_slice(&(length as u32).to_be_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Output)) -> Vec<u8> {
        let mut output = Output::default();
        write(&mut output);
        output.0
    }

    #[test]
    fn numbers_of_every_width_come_back() {
        for value in [
            0,
            127,
            128,
            255,
            256,
            65_535,
            65_536,
            u64::from(u32::MAX),
            1 << 32,
            u64::MAX,
        ] {
            let bytes = written(|output| output.unsigned(value));
            assert_eq!(Input::new(&bytes).token(), Ok(Token::Integer(value)));
        }
        for value in [-1, -32, -33, -200, i64::MIN, 5] {
            let bytes = written(|output| output.signed(value));
            assert_eq!(Input::new(&bytes).token(), Ok(Token::Integer(value as u64)));
        }
        for (bytes, value) in [
            (&[0xd0, 0x80][..], -128),
            (&[0xd1, 0xff, 0], -256),
            (&[0xd2, 255, 255, 255, 0], -256),
        ] {
            assert_eq!(Input::new(bytes).token(), Ok(Token::Integer(value as u64)));
        }
    }

    #[test]
    fn lengths_of_every_width_come_back() {
        for length in [0, 15, 31, 32, 255, 256, 65_535, 65_536] {
            let text = "x".repeat(length);
            let bytes = written(|output| output.text(&text));
            assert_eq!(Input::new(&bytes).token(), Ok(Token::Text(text.as_bytes())));
            let bytes = written(|output| output.bytes(text.as_bytes()));
            assert_eq!(
                Input::new(&bytes).token(),
                Ok(Token::Bytes(text.as_bytes()))
            );
            let bytes = written(|output| output.array(length));
            assert_eq!(Input::new(&bytes).token(), Ok(Token::Array(length)));
            let bytes = written(|output| output.map(length));
            assert_eq!(Input::new(&bytes).token(), Ok(Token::Map(length)));
        }
    }

    #[test]
    fn skipping_passes_whatever_is_nested() {
        let bytes = written(|output| {
            output.array(3);
            output.map(1);
            output.text("a");
            output.array(2);
            output.nil();
            output.float(0.5);
            output.bytes(b"b");
            output.unsigned(9);
            output.signed(-9);
        });
        let mut input = Input::new(&bytes);
        assert_eq!(input.skip(), Ok(()));
        assert_eq!(input.token(), Ok(Token::Integer(-9_i64 as u64)));
        let deep = [0x91; 100_000];
        assert!(Input::new(&deep).skip().is_err());
        let huge = [0xdd, 0xff, 0xff, 0xff, 0xff, 0];
        assert_eq!(
            Input::new(&huge).skip(),
            Err(DecodeError::Truncated { bytes: 6 })
        );
        for extension in [
            &[0xd4, 1, 2][..],
            &[0xd8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            &[0xc7, 1, 5, 0],
        ] {
            let mut input = Input::new(extension);
            assert_eq!((input.skip(), input.left()), (Ok(()), 0));
        }
        assert_eq!(
            Input::new(&[0xc1]).token(),
            Err(DecodeError::Marker { at: 0 })
        );
    }
}
