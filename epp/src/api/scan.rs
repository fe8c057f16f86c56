//! Hot path: a push scanner of JSON text, which comes in pieces cut anywhere.
//!
//! A prompt of a megabyte arrives over many messages. The scanner takes each as it comes, keeps nothing of it, and
//! tells a [`Sink`] what it finds: strings run by run, already decoded. What the sink does not want is passed over:
//! its structure is checked, its spelling is not. Refuses what [`super::json::Reader`] refuses.

use super::clipped::Clipped;
use super::json::{JsonError, Kind, MAX_DEPTH, unescape_simple};
use memchr::memchr2;

/// Characters of a number, at most: engines refuse longer ones.
const LONGEST_NUMBER: usize = 4_096;

/// What becomes of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Its text, members and elements are told.
    Into,
    /// It is passed over: only its end is told.
    Past,
}

/// Is told what stands in a text. Depths count from 0, the whole text's.
pub(super) trait Sink {
    /// Why the sink takes no more.
    type Error: From<JsonError>;

    /// A member's key, decoded; its value comes next, at `depth`.
    fn key(&mut self, key: &[u8], depth: usize);
    /// A value begins, offset `at`.
    fn begin(&mut self, kind: Kind, at: usize, depth: usize) -> Result<Look, Self::Error>;
    /// The next of a string's decoded bytes, or a number, `true`, `false` or `null` as written.
    fn text(&mut self, run: &[u8]) -> Result<(), Self::Error>;
    /// The value ended before offset `at`.
    fn end(&mut self, kind: Kind, at: usize, depth: usize) -> Result<(), Self::Error>;
}

/// What may come next, white space aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Expected {
    Value,
    /// After `[`.
    ElementOrEnd,
    /// After `{`.
    KeyOrEnd,
    Key,
    Colon,
    CommaOrEnd,
    Nothing,
}

/// What the text stands in the middle of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Within {
    Nothing,
    String,
    /// Behind a backslash.
    Escape,
    Number,
    /// A word of which so many bytes are there.
    Word(&'static [u8], usize),
}

/// A scanner of one text.
#[derive(Clone, Debug)]
pub(super) struct Scanner {
    /// Bytes of the pieces before.
    before: usize,
    /// Which containers are open, outermost first; `true` = an object.
    open: Vec<bool>,
    expected: Expected,
    within: Within,
    /// Where the value or escape sequence at hand begins.
    start: usize,
    /// The string at hand is a key.
    key: bool,
    /// The first half of a character that takes two escape sequences.
    high: Option<u32>,
    /// A key as far as it came.
    name: Clipped,
    /// What came of a number that a cut went through.
    number: Vec<u8>,
    escape: Vec<u8>,
    /// Depth of the value that is passed over.
    past: Option<usize>,
}

impl Default for Scanner {
    fn default() -> Self {
        Self {
            before: 0,
            open: Vec::new(),
            expected: Expected::Value,
            within: Within::Nothing,
            start: 0,
            key: false,
            high: None,
            name: Clipped::default(),
            number: Vec::new(),
            escape: Vec::new(),
            past: None,
        }
    }
}

fn error<T, E: From<JsonError>>(at: usize, expected: &'static str) -> Result<T, E> {
    Err(JsonError { at, expected }.into())
}

impl Scanner {
    /// Takes the next piece.
    ///
    /// # Errors
    /// [`JsonError`] where the text stops being JSON, and what `sink` returns. Nothing may be pushed after that.
    pub(super) fn push<S: Sink>(&mut self, piece: &[u8], sink: &mut S) -> Result<(), S::Error> {
        let mut at = 0;
        while at < piece.len() {
            at = match self.within {
                Within::Nothing => self.next(piece, at, sink)?,
                Within::String => self.string(piece, at, sink)?,
                Within::Escape => self.escaped(piece, at, sink)?,
                Within::Number => self.number(piece, at, sink)?,
                Within::Word(word, have) => self.word(piece, at, word, have, sink)?,
            };
        }
        self.before += piece.len();
        Ok(())
    }

    /// The text is complete.
    ///
    /// # Errors
    /// [`JsonError`] when it breaks off, and what `sink` returns.
    pub(super) fn finish<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        match self.within {
            Within::String | Within::Escape => return error(self.before, "a closing quote"),
            Within::Word(word, _) => return error(self.start, expected_word(word)),
            Within::Number => self.number_ends(&[], self.before, sink)?,
            Within::Nothing => {}
        }
        match self.expected {
            Expected::Nothing => Ok(()),
            _ => self.unexpected(self.before),
        }
    }

    /// Depth of the next value.
    fn depth(&self) -> usize {
        self.open.len()
    }

    fn unexpected<T, E: From<JsonError>>(&self, at: usize) -> Result<T, E> {
        let expected = match self.expected {
            Expected::Value | Expected::ElementOrEnd => "a value",
            Expected::Key | Expected::KeyOrEnd => "a string",
            Expected::Colon => "a colon after the key",
            Expected::CommaOrEnd if self.open.last() == Some(&true) => "a comma or a closing brace",
            Expected::CommaOrEnd => "a comma or a closing bracket",
            Expected::Nothing => "the end of the text",
        };
        error(at, expected)
    }

    /// Between two lexemes: takes white space and the byte behind it.
    fn next<S: Sink>(&mut self, piece: &[u8], at: usize, sink: &mut S) -> Result<usize, S::Error> {
        let blank = |byte: &u8| matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
        let Some(offset) = piece[at..].iter().position(|byte| !blank(byte)) else {
            return Ok(piece.len());
        };
        let at = at + offset;
        let (byte, place) = (piece[at], self.before + at);
        match (self.expected, byte) {
            (Expected::ElementOrEnd, b']') | (Expected::KeyOrEnd, b'}') => {
                self.close(place + 1, sink)?;
            }
            (Expected::CommaOrEnd, b'}' | b']') if self.open.last() == Some(&(byte == b'}')) => {
                self.close(place + 1, sink)?;
            }
            (Expected::CommaOrEnd, b',') => {
                let object = self.open.last() == Some(&true);
                self.expected = if object {
                    Expected::Key
                } else {
                    Expected::Value
                };
            }
            (Expected::Key | Expected::KeyOrEnd, b'"') => {
                self.key = true;
                self.name.clear();
                self.within = Within::String;
            }
            (Expected::Colon, b':') => self.expected = Expected::Value,
            (Expected::Value | Expected::ElementOrEnd, _) => {
                return self.begin(piece, at, sink);
            }
            _ => return self.unexpected(place),
        }
        Ok(at + 1)
    }

    /// A value begins at `at`.
    fn begin<S: Sink>(&mut self, piece: &[u8], at: usize, sink: &mut S) -> Result<usize, S::Error> {
        let place = self.before + at;
        let (kind, within) = match piece[at] {
            b'{' => (Kind::Object, Within::Nothing),
            b'[' => (Kind::Array, Within::Nothing),
            b'"' => (Kind::String, Within::String),
            b'-' | b'0'..=b'9' => (Kind::Number, Within::Number),
            b't' => (Kind::Bool, Within::Word(b"true", 1)),
            b'f' => (Kind::Bool, Within::Word(b"false", 1)),
            b'n' => (Kind::Null, Within::Word(b"null", 1)),
            _ => return self.unexpected(place),
        };
        let depth = self.depth();
        if self.past.is_none() && sink.begin(kind, place, depth)? == Look::Past {
            self.past = Some(depth);
        }
        (self.start, self.within, self.key) = (place, within, false);
        match kind {
            Kind::Object | Kind::Array => {
                if depth == MAX_DEPTH {
                    return error(place, "at most 128 levels of nesting");
                }
                self.open.push(kind == Kind::Object);
                self.expected = match kind {
                    Kind::Object => Expected::KeyOrEnd,
                    _ => Expected::ElementOrEnd,
                };
            }
            Kind::Number => {
                self.number.clear();
                return Ok(at);
            }
            _ => {}
        }
        Ok(at + 1)
    }

    /// The innermost container ends before `place`.
    fn close<S: Sink>(&mut self, place: usize, sink: &mut S) -> Result<(), S::Error> {
        let object = self.open.pop() == Some(true);
        let kind = if object { Kind::Object } else { Kind::Array };
        self.ended(kind, place, sink)
    }

    /// A value ended before `place`.
    fn ended<S: Sink>(&mut self, kind: Kind, place: usize, sink: &mut S) -> Result<(), S::Error> {
        self.within = Within::Nothing;
        let depth = self.depth();
        self.expected = match depth {
            0 => Expected::Nothing,
            _ => Expected::CommaOrEnd,
        };
        if self.past.is_none_or(|past| past == depth) {
            self.past = None;
            sink.end(kind, place, depth)?;
        }
        Ok(())
    }

    fn string<S: Sink>(
        &mut self,
        piece: &[u8],
        at: usize,
        sink: &mut S,
    ) -> Result<usize, S::Error> {
        let rest = &piece[at..];
        let stop = memchr2(b'"', b'\\', rest);
        let run = &rest[..stop.unwrap_or(rest.len())];
        if !run.is_empty() {
            self.lone(sink)?;
            self.tell(run, sink)?;
        }
        let Some(stop) = stop else {
            return Ok(piece.len());
        };
        let at = at + stop;
        if piece[at] == b'\\' {
            if self.high.is_none() {
                self.start = self.before + at;
            }
            self.escape.clear();
            self.within = Within::Escape;
            return Ok(at + 1);
        }
        self.lone(sink)?;
        if self.key {
            self.within = Within::Nothing;
            self.expected = Expected::Colon;
            if self.past.is_none() {
                sink.key(&self.name.text(), self.open.len());
            }
        } else {
            self.ended(Kind::String, self.before + at + 1, sink)?;
        }
        Ok(at + 1)
    }

    /// Decoded text of the string at hand.
    fn tell<S: Sink>(&mut self, run: &[u8], sink: &mut S) -> Result<(), S::Error> {
        match (self.past, self.key) {
            (Some(_), _) => Ok(()),
            (None, true) => {
                self.name.push(run);
                Ok(())
            }
            (None, false) => sink.text(run),
        }
    }

    /// A first half without a second is the replacement character.
    fn lone<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        match self.high.take() {
            Some(_) => self.tell("\u{fffd}".as_bytes(), sink),
            None => Ok(()),
        }
    }

    fn escaped<S: Sink>(
        &mut self,
        piece: &[u8],
        at: usize,
        sink: &mut S,
    ) -> Result<usize, S::Error> {
        let byte = piece[at];
        if self.past.is_some() {
            self.within = Within::String;
            return Ok(at + 1);
        }
        if self.escape.is_empty() && byte != b'u' {
            self.lone(sink)?;
            let Some(decoded) = unescape_simple(byte) else {
                return error(self.start, "an escape sequence of JSON");
            };
            self.tell(&[decoded], sink)?;
            self.within = Within::String;
            return Ok(at + 1);
        }
        if !self.escape.is_empty() && !byte.is_ascii_hexdigit() {
            return error(self.start, "an escape sequence of JSON");
        }
        self.escape.push(byte);
        if self.escape.len() == 5 {
            self.unicode(sink)?;
            self.within = Within::String;
        }
        Ok(at + 1)
    }

    /// `uXXXX` is complete.
    fn unicode<S: Sink>(&mut self, sink: &mut S) -> Result<(), S::Error> {
        let digits = self.escape[1..].iter();
        let value = digits.fold(0, |value, &digit| {
            value << 4 | char::from(digit).to_digit(16).unwrap_or(0)
        });
        let low = (0xdc00..0xe000).contains(&value);
        let code = match self.high {
            Some(high) if low => {
                self.high = None;
                0x10000 + ((high - 0xd800) << 10) + (value - 0xdc00)
            }
            _ => {
                self.lone(sink)?;
                value
            }
        };
        if (0xd800..0xdc00).contains(&code) {
            self.high = Some(code);
            return Ok(());
        }
        let decoded = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        self.tell(decoded.encode_utf8(&mut [0; 4]).as_bytes(), sink)
    }

    fn number<S: Sink>(
        &mut self,
        piece: &[u8],
        at: usize,
        sink: &mut S,
    ) -> Result<usize, S::Error> {
        let rest = &piece[at..];
        let of_number = |byte: &u8| matches!(byte, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E');
        match rest.iter().position(|byte| !of_number(byte)) {
            Some(length) => {
                self.number_ends(&rest[..length], self.before + at + length, sink)?;
                Ok(at + length)
            }
            None if self.number.len() + rest.len() > LONGEST_NUMBER => {
                error(self.start, "a number of at most 4,096 characters")
            }
            None => {
                self.number.extend_from_slice(rest);
                Ok(piece.len())
            }
        }
    }

    /// The number at hand ends with `tail`, before `place`.
    fn number_ends<S: Sink>(
        &mut self,
        tail: &[u8],
        place: usize,
        sink: &mut S,
    ) -> Result<(), S::Error> {
        if !self.number.is_empty() {
            self.number.extend_from_slice(tail);
        }
        let number = if self.number.is_empty() {
            tail
        } else {
            &self.number
        };
        if number.len() > LONGEST_NUMBER {
            return error(self.start, "a number of at most 4,096 characters");
        }
        // Arrays of token ids come through here: digits are right without a second look.
        let right = number.iter().all(u8::is_ascii_digit)
            || std::str::from_utf8(number).is_ok_and(|number| number.parse::<f64>().is_ok());
        if !right {
            return error(self.start, "a number");
        }
        if self.past.is_none() {
            sink.text(number)?;
        }
        self.ended(Kind::Number, place, sink)
    }

    fn word<S: Sink>(
        &mut self,
        piece: &[u8],
        at: usize,
        word: &'static [u8],
        have: usize,
        sink: &mut S,
    ) -> Result<usize, S::Error> {
        if word.get(have) != piece.get(at) {
            return error(self.start, expected_word(word));
        }
        let have = have + 1;
        self.within = Within::Word(word, have);
        if have == word.len() {
            if self.past.is_none() {
                sink.text(word)?;
            }
            let kind = if word == b"null" {
                Kind::Null
            } else {
                Kind::Bool
            };
            self.ended(kind, self.before + at + 1, sink)?;
        }
        Ok(at + 1)
    }
}

fn expected_word(word: &[u8]) -> &'static str {
    match word {
        b"true" => "true",
        b"null" => "null",
        _ => "true or false",
    }
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
