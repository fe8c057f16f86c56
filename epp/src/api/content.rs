//! Hot path: what of a request makes up its prompt, fed to the hasher as it arrives.

use super::error::{RequestError, wrong};
use super::json::{Kind, Reader};
use super::media::{Ids, Placed};
use super::scan::Look;
use super::shape::{Form, Part};
use epp_core::{ContentDigest, HashMark, PrefixHasher};

/// One member of a body that is part of the prompt.
///
/// Text, arrays of texts, and token ids are fed as they are. Everything else is fed in canonical form: strings decoded,
/// no insignificant white space, everything else as written. Equal content gives equal bytes however it was spelt. The
/// names of the members stand in for the template's own tokens around each message. Of images, recordings and files only
/// the digest is fed: they are no text.
#[derive(Debug)]
pub(super) struct Content {
    part: &'static Part,
    hasher: PrefixHasher,
    /// The key of the value that comes next or is at hand.
    key: Key,
    /// What may turn out to be no text, outermost first.
    asides: Vec<Aside>,
    /// The value at hand is a token id.
    id: bool,
}

/// What a member's name means in a prompt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Plain,
    /// An image, a recording, a file.
    Media,
    /// Anthropic's images and documents; of the latter some are text.
    Source,
    /// What a source is.
    Type,
}

impl Key {
    fn of(key: &[u8]) -> Self {
        match key {
            b"image_url" | b"input_audio" | b"audio_url" | b"video_url" | b"file_data" => {
                Self::Media
            }
            b"source" => Self::Source,
            b"type" => Self::Type,
            _ => Self::Plain,
        }
    }
}

/// A value of which perhaps only the digest counts.
#[derive(Debug)]
struct Aside {
    depth: usize,
    /// Where the prompt goes on if it is no text.
    mark: HashMark,
    digest: ContentDigest,
    text: bool,
    /// Its member `type` says what it is; other media are no text whatever they say.
    source: bool,
    /// The value of its member `type` as it comes; enough of it to know those that matter.
    kind: Option<Vec<u8>>,
}

/// Asides inside each other: a document's source, those of its images, and some. Each byte is fed to all of them.
const MOST_ASIDES: usize = 4;

/// Longest value of `type` that means something.
const LONGEST_TYPE: usize = 6;

impl Content {
    /// The value of `part`, of `kind`, begins; `None` = there is nothing in it.
    ///
    /// # Errors
    /// [`RequestError`] when the part is of another kind than its form asks for.
    pub(super) fn new(
        part: &'static Part,
        kind: Kind,
        hasher: PrefixHasher,
    ) -> Result<Option<Self>, RequestError> {
        let right = match (part.form, kind) {
            (Form::Setting, _) => return Ok(None),
            (_, Kind::Null) if !part.main => return Ok(None),
            (Form::Texts, Kind::String | Kind::Array)
            | (Form::Ids | Form::List, Kind::Array)
            | (Form::Content, Kind::Array | Kind::String)
            | (Form::Any, _) => {
                return Ok(Some(Self {
                    part,
                    hasher,
                    key: Key::Plain,
                    asides: Vec::new(),
                    id: false,
                }));
            }
            (Form::Texts, _) => TEXTS,
            (Form::Ids, _) => IDS,
            (Form::List, _) => "give an array",
            (Form::Content, _) => "give a text or an array",
        };
        Err(wrong(part.name, kind, right))
    }

    /// What was fed.
    pub(super) fn fed(self) -> PrefixHasher {
        self.hasher
    }

    fn feed(&mut self, bytes: &[u8]) {
        for aside in &mut self.asides {
            aside.digest.update(bytes);
        }
        if self.asides.iter().all(|aside| aside.text) {
            self.hasher.update(bytes);
        }
    }

    fn canonical(&self) -> bool {
        matches!(self.part.form, Form::List | Form::Content | Form::Any)
    }

    /// A member's key.
    pub(super) fn key(&mut self, key: &[u8]) {
        self.feed(key);
        self.feed(b":");
        self.key = Key::of(key);
    }

    /// A value begins; that of the part has depth 0.
    pub(super) fn begin(&mut self, kind: Kind, depth: usize) -> Result<Look, RequestError> {
        if !self.canonical() {
            self.id = match (self.part.form, kind) {
                (Form::Texts, Kind::String) => false,
                (Form::Texts, Kind::Array) if depth < 2 => false,
                (Form::Texts | Form::Ids, Kind::Number) if depth > 0 => true,
                (Form::Ids, Kind::Array) if depth == 0 => false,
                (Form::Ids, _) => return Err(wrong(self.part.name, kind, IDS)),
                _ => return Err(wrong(self.part.name, kind, TEXTS)),
            };
            return Ok(Look::Into);
        }
        let key = std::mem::replace(&mut self.key, Key::Plain);
        let media = key == Key::Media;
        let aside = media || key == Key::Source && kind == Kind::Object;
        if aside && self.asides.len() < MOST_ASIDES {
            self.asides.push(Aside {
                depth,
                mark: self.hasher.mark(),
                digest: ContentDigest::default(),
                text: !media,
                source: !media,
                kind: None,
            });
        } else if let Some(aside) = self.asides.last_mut()
            && aside.source
            && key == Key::Type
            && kind == Kind::String
            && depth == aside.depth + 1
        {
            aside.kind = Some(Vec::new());
        }
        match kind {
            Kind::Object => self.feed(b"{"),
            Kind::Array => self.feed(b"["),
            _ => {}
        }
        Ok(Look::Into)
    }

    /// Text of the value at hand.
    pub(super) fn text(&mut self, run: &[u8]) -> Result<(), RequestError> {
        if self.id {
            let id = token_id(self.part.name, run)?;
            self.hasher.update(&id.to_le_bytes());
            return Ok(());
        }
        if let Some(kind) = self.asides.last_mut().and_then(|aside| aside.kind.as_mut())
            && kind.len() <= LONGEST_TYPE
        {
            kind.extend(run.iter().take(LONGEST_TYPE + 1));
        }
        self.feed(run);
        Ok(())
    }

    /// A value ended.
    pub(super) fn end(&mut self, kind: Kind, depth: usize) {
        self.id = false;
        if !self.canonical() {
            return;
        }
        match kind {
            Kind::Object => self.feed(b"}"),
            Kind::Array => self.feed(b"]"),
            _ => {}
        }
        if let Some(aside) = self.asides.last_mut() {
            if let Some(kind) = aside.kind.take() {
                aside.text = !matches!(&kind[..], b"base64" | b"url" | b"file");
            }
            if aside.depth == depth {
                self.put_aside();
            }
        }
        if depth > 0 {
            self.feed(b",");
        }
    }

    /// The innermost aside ended: if it is no text its digest takes its place.
    fn put_aside(&mut self) {
        let Some(aside) = self.asides.pop().filter(|aside| !aside.text) else {
            return;
        };
        self.hasher.rewind(aside.mark);
        self.feed(&aside.digest.finish().to_le_bytes());
    }
}

const TEXTS: &str = "give a text, an array of texts, or an array of token ids";
const IDS: &str = "give an array of token ids";

fn token_id(field: &'static str, number: &[u8]) -> Result<u32, RequestError> {
    let add = |value: u32, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
        value.checked_mul(10)?.checked_add(digit)
    };
    let id = number.iter().try_fold(0, add);
    id.ok_or_else(|| RequestError::Field {
        field,
        problem: "holds a number that is no token id".into(),
    })
}

/// Feeds an array of token ids, which is the value of `field`, with what is `placed` among them.
pub(super) fn feed_ids(
    field: &'static str,
    value: &[u8],
    placed: &Placed,
    hasher: &mut PrefixHasher,
) -> Result<(), RequestError> {
    let mut ids = Ids::new(placed);
    let mut reader = Reader::new(value);
    reader.array(|reader| {
        let id = token_id(field, reader.number()?.as_bytes())?;
        ids.feed(id, hasher);
        Ok(())
    })
}

#[cfg(test)]
#[path = "content_tests.rs"]
mod tests;
