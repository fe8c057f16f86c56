//! Hot path: a pull reader over JSON text that allocates nothing and remembers where values stand.
//!
//! A prompt of a megabyte is one string in one object: building a tree of it would cost more than
//! everything else a request needs. The reader walks the text once, hands out borrowed strings and
//! the byte spans of values, and checks structure, not spelling: what is inside a string that
//! nobody decodes is the model server's business.

use memchr::{memchr, memchr2};
use std::borrow::Cow;
use std::ops::Range;

/// Deepest nesting that is read.
pub(super) const MAX_DEPTH: usize = 128;

/// Where the text stopped being JSON.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not valid JSON at byte {at}: expected {expected}")]
pub struct JsonError {
    /// Offset of the offending byte.
    pub at: usize,
    /// What would have been right there.
    pub expected: &'static str,
}

/// What kind of value comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `{`
    Object,
    /// `[`
    Array,
    /// `"`
    String,
    /// A digit or a minus sign.
    Number,
    /// `true` or `false`
    Bool,
    /// `null`
    Null,
}

impl Kind {
    /// The kind in words, for errors.
    pub fn name(self) -> &'static str {
        match self {
            Self::Object => "an object",
            Self::Array => "an array",
            Self::String => "a string",
            Self::Number => "a number",
            Self::Bool => "a boolean",
            Self::Null => "null",
        }
    }
}

/// The inside of a string, still escaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    /// Bytes between the quotes.
    pub raw: &'a [u8],
    /// Whether `raw` holds an escape sequence.
    pub escaped: bool,
    /// Offset of `raw` in the whole text.
    at: usize,
}

impl<'a> Text<'a> {
    /// Offset of the opening quote in the whole text.
    pub fn start(&self) -> usize {
        self.at - 1
    }

    /// The string's bytes, decoded.
    ///
    /// # Errors
    /// [`JsonError`] at an escape sequence that JSON does not have.
    pub fn bytes(&self) -> Result<Cow<'a, [u8]>, JsonError> {
        if !self.escaped {
            return Ok(Cow::Borrowed(self.raw));
        }
        let mut decoded = Vec::with_capacity(self.raw.len());
        self.feed(&mut |run| decoded.extend_from_slice(run))?;
        Ok(Cow::Owned(decoded))
    }

    /// The string, decoded; bytes that are no UTF-8 become the replacement character.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn decode(&self) -> Result<Cow<'a, str>, JsonError> {
        Ok(match self.bytes()? {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        })
    }

    /// Hands the decoded bytes to `sink` run by run, without collecting them.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub fn feed(&self, sink: &mut impl FnMut(&[u8])) -> Result<(), JsonError> {
        let mut rest = self.raw;
        let next_escape = |rest: &[u8]| {
            if self.escaped {
                memchr(b'\\', rest)
            } else {
                None
            }
        };
        while let Some(escape) = next_escape(rest) {
            sink(&rest[..escape]);
            let at = self.at + (self.raw.len() - rest.len()) + escape;
            let mut utf8 = [0; 4];
            let (decoded, used) = unescape(&rest[escape + 1..], &mut utf8).ok_or(JsonError {
                at,
                expected: "an escape sequence of JSON",
            })?;
            sink(decoded);
            rest = &rest[escape + 1 + used..];
        }
        sink(rest);
        Ok(())
    }
}

/// Decodes what follows a backslash: its bytes and how much of the text it took.
fn unescape<'b>(after: &[u8], utf8: &'b mut [u8; 4]) -> Option<(&'b [u8], usize)> {
    let first = *after.first()?;
    if first == b'u' {
        let (decoded, used) = unescape_unicode(&after[1..])?;
        return Some((decoded.encode_utf8(utf8).as_bytes(), used + 1));
    }
    utf8[0] = unescape_simple(first)?;
    Some((&utf8[..1], 1))
}

/// What `letter` means behind a backslash; `None` = nothing by itself.
pub(super) fn unescape_simple(letter: u8) -> Option<u8> {
    Some(match letter {
        b'"' | b'\\' | b'/' => letter,
        b'b' => 8,
        b'f' => 12,
        b'n' => b'\n',
        b'r' => b'\r',
        b't' => b'\t',
        _ => return None,
    })
}

/// Decodes `XXXX`, or a surrogate pair `XXXX\uXXXX`; a lone surrogate is the replacement character.
fn unescape_unicode(after: &[u8]) -> Option<(char, usize)> {
    let high = hex4(after)?;
    if (0xd800..0xdc00).contains(&high) && after.get(4..6) == Some(b"\\u") {
        let low = hex4(&after[6..])?;
        if (0xdc00..0xe000).contains(&low) {
            let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
            return Some((char::from_u32(code)?, 10));
        }
    }
    Some((
        char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER),
        4,
    ))
}

fn hex4(text: &[u8]) -> Option<u32> {
    text.get(..4)?.iter().try_fold(0, |value, &digit| {
        Some(value << 4 | char::from(digit).to_digit(16)?)
    })
}

/// A cursor over JSON text.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    text: &'a [u8],
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    /// At the start of `text`.
    pub fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            at: 0,
            depth: 0,
        }
    }

    /// The text at `span`, as [`Self::span`] returned it.
    pub fn slice(&self, span: Range<usize>) -> &'a [u8] {
        self.text.get(span).unwrap_or_default()
    }

    /// Offset of the next byte that is read.
    pub fn position(&self) -> usize {
        self.at
    }

    fn error<T>(&self, expected: &'static str) -> Result<T, JsonError> {
        Err(JsonError {
            at: self.at,
            expected,
        })
    }

    fn peek(&mut self) -> Option<u8> {
        while let Some(&byte) = self.text.get(self.at) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Some(byte);
            }
            self.at += 1;
        }
        None
    }

    /// What the next value is.
    ///
    /// # Errors
    /// When no value begins here.
    pub fn kind(&mut self) -> Result<Kind, JsonError> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b't' | b'f') => Ok(Kind::Bool),
            Some(b'n') => Ok(Kind::Null),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            _ => self.error("a value"),
        }
    }

    /// Reads an object: `member` is called after each key and must consume the value.
    ///
    /// # Errors
    /// When the text is not an object, or whatever `member` returns.
    pub fn object<E: From<JsonError>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.enter(b'{', "an object")?;
        if self.peek() == Some(b'}') {
            return self.leave();
        }
        loop {
            let key = self.string()?;
            if self.peek() != Some(b':') {
                return Ok(self.error("a colon after the key")?);
            }
            self.at += 1;
            member(self, key)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    return self.leave();
                }
                _ => return Ok(self.error("a comma or a closing brace")?),
            }
        }
    }

    /// Reads an array: `element` is called before each value and must consume it.
    ///
    /// # Errors
    /// When the text is not an array, or whatever `element` returns.
    pub fn array<E: From<JsonError>>(
        &mut self,
        mut element: impl FnMut(&mut Self) -> Result<(), E>,
    ) -> Result<(), E> {
        self.enter(b'[', "an array")?;
        if self.peek() == Some(b']') {
            return self.leave();
        }
        loop {
            element(self)?;
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    return self.leave();
                }
                _ => return Ok(self.error("a comma or a closing bracket")?),
            }
        }
    }

    fn enter(&mut self, open: u8, expected: &'static str) -> Result<(), JsonError> {
        if self.peek() != Some(open) {
            return self.error(expected);
        }
        if self.depth == MAX_DEPTH {
            return self.error("at most 128 levels of nesting");
        }
        self.depth += 1;
        self.at += 1;
        Ok(())
    }

    fn leave<E>(&mut self) -> Result<(), E> {
        self.depth -= 1;
        self.at += 1;
        Ok(())
    }

    /// Reads a string.
    ///
    /// # Errors
    /// When the next value is no string, or never ends.
    pub fn string(&mut self) -> Result<Text<'a>, JsonError> {
        if self.peek() != Some(b'"') {
            return self.error("a string");
        }
        let start = self.at + 1;
        let mut end = start;
        let mut escaped = false;
        loop {
            match memchr2(b'"', b'\\', &self.text[end.min(self.text.len())..]) {
                Some(offset) if self.text[end + offset] == b'"' => {
                    end += offset;
                    break;
                }
                Some(offset) => {
                    escaped = true;
                    end += offset + 2;
                }
                None => {
                    self.at = self.text.len();
                    return self.error("a closing quote");
                }
            }
        }
        self.at = end + 1;
        Ok(Text {
            raw: &self.text[start..end],
            escaped,
            at: start,
        })
    }

    /// Reads a number's text.
    ///
    /// # Errors
    /// When the next value is no number.
    pub fn number(&mut self) -> Result<&'a str, JsonError> {
        if !matches!(self.peek(), Some(b'-' | b'0'..=b'9')) {
            return self.error("a number");
        }
        let rest = &self.text[self.at..];
        let length = rest
            .iter()
            .position(|byte| !matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'))
            .unwrap_or(rest.len());
        let number = std::str::from_utf8(&rest[..length])
            .ok()
            .filter(|number| number.parse::<f64>().is_ok());
        match number {
            Some(number) => {
                self.at += length;
                Ok(number)
            }
            None => self.error("a number"),
        }
    }

    /// Reads a number that is a non-negative integer; `None` when it is another number.
    ///
    /// # Errors
    /// When the next value is no number.
    pub fn unsigned(&mut self) -> Result<Option<u64>, JsonError> {
        // Arrays of token ids come through here: digits are summed up without a second look.
        self.peek();
        let start = self.at;
        let mut value: u64 = 0;
        while let Some(digit @ b'0'..=b'9') = self.text.get(self.at) {
            value = value
                .saturating_mul(10)
                .saturating_add(u64::from(digit - b'0'));
            self.at += 1;
        }
        if self.at > start && !matches!(self.text.get(self.at), Some(b'.' | b'e' | b'E')) {
            return Ok(Some(value));
        }
        self.at = start;
        self.number().map(|_| None)
    }

    /// Reads `true` or `false`.
    ///
    /// # Errors
    /// When the next value is neither.
    pub fn bool(&mut self) -> Result<bool, JsonError> {
        match self.peek() {
            Some(b't') => self.literal(b"true", "true").map(|()| true),
            _ => self.literal(b"false", "true or false").map(|()| false),
        }
    }

    fn literal(&mut self, word: &[u8], expected: &'static str) -> Result<(), JsonError> {
        self.peek();
        if !self.text[self.at..].starts_with(word) {
            return self.error(expected);
        }
        self.at += word.len();
        Ok(())
    }

    /// Passes over the next value, whatever it is.
    ///
    /// # Errors
    /// When it is not well formed.
    pub fn skip(&mut self) -> Result<(), JsonError> {
        match self.kind()? {
            Kind::Object => self.object(|reader, _| reader.skip()),
            Kind::Array => self.array(Self::skip),
            Kind::String => self.string().map(|_| ()),
            Kind::Number => self.number().map(|_| ()),
            Kind::Bool => self.bool().map(|_| ()),
            Kind::Null => self.literal(b"null", "null"),
        }
    }

    /// Passes over the next value and returns where it stands.
    ///
    /// # Errors
    /// When it is not well formed.
    pub fn span(&mut self) -> Result<Range<usize>, JsonError> {
        self.peek();
        let start = self.at;
        self.skip()?;
        Ok(start..self.at)
    }

    /// Makes sure that only white space is left.
    ///
    /// # Errors
    /// At the first byte that is something else.
    pub fn end(&mut self) -> Result<(), JsonError> {
        if self.peek().is_some() {
            self.error("the end of the text")
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
