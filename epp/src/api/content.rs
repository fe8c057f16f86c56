//! Hot path: what of a request makes up its prompt, fed to the hasher.

use super::error::{RequestError, wrong};
use super::json::{JsonError, Kind, Reader};
use super::media::{Ids, Placed};
use epp_core::{PrefixHasher, content_digest};

/// Feeds text, an array of texts, token ids, or an array of those, which is the value of `field`.
pub(super) fn feed_texts(
    field: &'static str,
    value: &[u8],
    hasher: &mut PrefixHasher,
) -> Result<(), RequestError> {
    feed_text(field, &mut Reader::new(value), hasher, 0)
}

fn feed_text(
    field: &'static str,
    reader: &mut Reader<'_>,
    hasher: &mut PrefixHasher,
    depth: u8,
) -> Result<(), RequestError> {
    const RIGHT: &str = "give a text, an array of texts, or an array of token ids";
    match reader.kind()? {
        Kind::String => Ok(reader
            .string()?
            .feed(&mut |run: &[u8]| hasher.update(run))?),
        Kind::Array if depth < 2 => {
            reader.array(|reader| feed_text(field, reader, hasher, depth + 1))
        }
        Kind::Number if depth > 0 => {
            hasher.update(&token_id(field, reader)?.to_le_bytes());
            Ok(())
        }
        other => Err(wrong(field, other, RIGHT)),
    }
}

/// Feeds an array of token ids, which is the value of `field`.
pub(super) fn feed_ids(
    field: &'static str,
    value: &[u8],
    placed: &Placed,
    hasher: &mut PrefixHasher,
) -> Result<(), RequestError> {
    const RIGHT: &str = "give an array of token ids";
    let mut ids = Ids::new(placed);
    let mut reader = Reader::new(value);
    match reader.kind()? {
        Kind::Array => reader.array(|reader| match reader.kind()? {
            Kind::Number => {
                ids.feed(token_id(field, reader)?, hasher);
                Ok(())
            }
            other => Err(wrong(field, other, RIGHT)),
        }),
        other => Err(wrong(field, other, RIGHT)),
    }
}

fn token_id(field: &'static str, reader: &mut Reader<'_>) -> Result<u32, RequestError> {
    let id = reader.unsigned()?.and_then(|id| u32::try_from(id).ok());
    id.ok_or_else(|| RequestError::Field {
        field,
        problem: "holds a number that is no token id".into(),
    })
}

/// Feeds the value in canonical form: strings decoded, no insignificant white space, everything else as written.
/// Equal content gives equal bytes however it was spelt. The names of the members stand in for the template's own
/// tokens around each message. Of images, recordings and files only the digest is fed: they are no text.
pub(super) fn feed_content(
    reader: &mut Reader<'_>,
    hasher: &mut PrefixHasher,
) -> Result<(), JsonError> {
    feed_value(reader, hasher, 0)
}

/// As [`feed_content`], inside so many members called `source`.
fn feed_value(
    reader: &mut Reader<'_>,
    hasher: &mut PrefixHasher,
    sources: u8,
) -> Result<(), JsonError> {
    match reader.kind()? {
        Kind::Object => {
            hasher.update(b"{");
            reader.object(|reader, key| {
                key.feed(&mut |run| hasher.update(run))?;
                hasher.update(b":");
                feed_member(key.raw, reader, hasher, sources)?;
                hasher.update(b",");
                Ok::<_, JsonError>(())
            })?;
            hasher.update(b"}");
        }
        Kind::Array => {
            hasher.update(b"[");
            reader.array(|reader| {
                feed_value(reader, hasher, sources)?;
                hasher.update(b",");
                Ok::<_, JsonError>(())
            })?;
            hasher.update(b"]");
        }
        Kind::String => reader.string()?.feed(&mut |run| hasher.update(run))?,
        Kind::Number | Kind::Bool | Kind::Null => {
            let span = reader.span()?;
            hasher.update(reader.slice(span));
        }
    }
    Ok(())
}

/// Sources inside each other that are looked into: a document's, and those of the images in it.
const MOST_SOURCES: u8 = 2;

fn feed_member(
    key: &[u8],
    reader: &mut Reader<'_>,
    hasher: &mut PrefixHasher,
    sources: u8,
) -> Result<(), JsonError> {
    // Each look ahead reads the source once more: without a bound on them, as often as it is deep.
    let source = key == b"source" && sources < MOST_SOURCES;
    let media = match key {
        b"image_url" | b"input_audio" | b"audio_url" | b"video_url" | b"file_data" => true,
        // Anthropic's images and documents; of the latter some are text.
        b"source" => source && holds_no_text(reader.clone())?,
        _ => false,
    };
    if !media {
        return feed_value(reader, hasher, sources + u8::from(source));
    }
    let span = reader.span()?;
    hasher.update(&content_digest(reader.slice(span)).to_le_bytes());
    Ok(())
}

fn holds_no_text(mut reader: Reader<'_>) -> Result<bool, JsonError> {
    let mut found = false;
    if reader.kind()? == Kind::Object {
        reader.object(|reader, key| {
            if key.raw == b"type" && reader.kind()? == Kind::String {
                found = matches!(reader.string()?.raw, b"base64" | b"url" | b"file");
                return Ok(());
            }
            reader.skip()
        })?;
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn fed(value: &str) -> (u32, Arc<[u64]>) {
        let mut hasher = PrefixHasher::new("m", "", 64);
        feed_content(&mut Reader::new(value.as_bytes()), &mut hasher).unwrap();
        hasher.finish()
    }

    #[test]
    fn spelling_does_not_count_and_content_does() {
        let plain = fed(r#"[{"role":"user","content":"h\u00e9/"}]"#);
        assert_eq!(
            plain,
            fed("[ {\"role\" : \"user\" , \"content\":\"h\u{e9}\\/\"} ]")
        );
        assert_ne!(plain, fed(r#"[{"role":"user","content":"he/"}]"#));
        assert_ne!(fed("[1,true,null]"), fed("[1,false,null]"));
    }

    #[test]
    fn images_and_recordings_are_told_apart_but_their_length_is_not_text() {
        let data = "A".repeat(100_000);
        for block in [
            r#"{"type":"image_url","image_url":{"url":"data:image/png;base64,DATA"}}"#,
            r#"{"type":"input_image","image_url":"data:image/png;base64,DATA"}"#,
            r#"{"type":"input_audio","input_audio":{"data":"DATA","format":"wav"}}"#,
            r#"{"type":"audio_url","audio_url":{"url":"DATA"}}"#,
            r#"{"type":"video_url","video_url":{"url":"DATA"}}"#,
            r#"{"type":"file","file":{"file_data":"DATA","filename":"x.pdf"}}"#,
            r#"{"type":"image","source":{"data":"DATA","type":"base64","media_type":"image/png"}}"#,
            r#"{"type":"document","source":{"type":"url","url":"DATA"}}"#,
        ] {
            let one = fed(&block.replace("DATA", &data));
            assert!(one.0 < 40, "{block}: {} tokens", one.0);
            let other = format!("{data}B");
            assert_ne!(one.1, fed(&block.replace("DATA", &other)).1, "{block}");
        }
    }

    /// Each source that is looked into is read once more: only the outer ones are.
    #[test]
    fn sources_inside_sources_are_not_looked_into_for_ever() {
        let data = "A".repeat(10_000);
        let image = format!(r#"{{"type":"base64","data":"{data}"}}"#);
        let within = |depth: usize| {
            let (open, close) = (r#"{"source":"#.repeat(depth), "}".repeat(depth));
            fed(&format!("{open}{image}{close}")).0
        };
        assert!(within(1) < 40 && within(2) < 40, "a document's images");
        assert!(within(3) > 2_000, "it is text like any other");
        assert!(within(120) > 2_000);
    }

    #[test]
    fn text_under_the_name_of_a_source_is_text() {
        let text = "word ".repeat(1000);
        for block in [
            r#"{"type":"document","source":{"type":"text","media_type":"text/plain","data":"TEXT"}}"#,
            r#"{"type":"tool_use","input":{"source":"TEXT"}}"#,
            r#"{"type":"text","text":"TEXT"}"#,
        ] {
            assert!(fed(&block.replace("TEXT", &text)).0 > 1200, "{block}");
        }
    }
}
