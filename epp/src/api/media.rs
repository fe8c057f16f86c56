//! Images and recordings in a prompt of token ids: their place is held by ids that are the same for all of them.

use super::json::{JsonError, Kind, Reader};
use super::proto::{Fields, ProtoError, Value};
use epp_core::{PrefixHasher, content_digest};

/// Items that are told apart in one prompt; further ones count as their placeholders.
const MOST_ITEMS: usize = 1024;

/// Kinds of items that are told apart in one prompt; further ones count as their placeholders.
const MOST_MODALITIES: usize = 16;

/// Which item stands where, in order of place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Placed(Vec<(u64, u64)>);

impl Placed {
    /// From vLLM's `features`: `mm_hashes` and `mm_placeholders`, both by modality. Other members are passed over.
    pub(super) fn from_features(features: &[u8]) -> Result<Self, JsonError> {
        let mut found: Vec<Modality<'_>> = Vec::new();
        let mut reader = Reader::new(features);
        if reader.kind()? != Kind::Object {
            return Ok(Self::default());
        }
        reader.object(|reader, key| match (key.raw, reader.kind()?) {
            (b"mm_hashes", Kind::Object) => reader.object(|reader, key| {
                let Some(modality) = modality(&mut found, key.raw) else {
                    return reader.skip();
                };
                modality.hashes = hashes(reader)?;
                Ok(())
            }),
            (b"mm_placeholders", Kind::Object) => reader.object(|reader, key| {
                let Some(modality) = modality(&mut found, key.raw) else {
                    return reader.skip();
                };
                modality.offsets = offsets(reader)?;
                Ok(())
            }),
            _ => reader.skip(),
        })?;
        let items = found.iter().flat_map(|modality| {
            let offsets = modality.offsets.iter().copied();
            offsets.zip(modality.hashes.iter().copied())
        });
        Ok(Self::sorted(items))
    }

    /// From vLLM's `MultimodalInputs` message: placeholders are field 5, hashes field 6.
    pub(super) fn from_message(message: &[u8]) -> Result<Self, ProtoError> {
        let (mut offsets, mut hashes) = (Vec::new(), Vec::new());
        for field in Fields::of(message) {
            let field = field?;
            match (field.number, field.value.bytes()) {
                (5, Some(range)) if offsets.len() < MOST_ITEMS => offsets.push(offset(range)?),
                (6, Some(hash)) if hashes.len() < MOST_ITEMS => hashes.push(content_digest(hash)),
                _ => {}
            }
        }
        Ok(Self::sorted(offsets.into_iter().zip(hashes)))
    }

    /// Whether nothing is placed.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn sorted(items: impl Iterator<Item = (u64, u64)>) -> Self {
        let mut items: Vec<_> = items.collect();
        items.sort_unstable();
        Self(items)
    }
}

/// The items of one modality.
struct Modality<'a> {
    name: &'a [u8],
    offsets: Vec<u64>,
    hashes: Vec<u64>,
}

/// The modality `name`, new if there is room for one more.
fn modality<'m, 'a>(
    found: &'m mut Vec<Modality<'a>>,
    name: &'a [u8],
) -> Option<&'m mut Modality<'a>> {
    let known = found.iter().position(|modality| modality.name == name);
    let index = known.unwrap_or(found.len());
    if known.is_none() && index < MOST_MODALITIES {
        found.push(Modality {
            name,
            offsets: Vec::new(),
            hashes: Vec::new(),
        });
    }
    found.get_mut(index)
}

fn hashes(reader: &mut Reader<'_>) -> Result<Vec<u64>, JsonError> {
    let mut hashes = Vec::new();
    if reader.kind()? != Kind::Array {
        return reader.skip().map(|()| hashes);
    }
    reader.array(|reader| {
        if reader.kind()? != Kind::String || hashes.len() >= MOST_ITEMS {
            return reader.skip();
        }
        hashes.push(content_digest(reader.string()?.raw));
        Ok(())
    })?;
    Ok(hashes)
}

fn offsets(reader: &mut Reader<'_>) -> Result<Vec<u64>, JsonError> {
    let mut offsets = Vec::new();
    if reader.kind()? != Kind::Array {
        return reader.skip().map(|()| offsets);
    }
    reader.array(|reader| {
        if reader.kind()? != Kind::Object || offsets.len() >= MOST_ITEMS {
            return reader.skip();
        }
        let mut offset = None;
        reader.object(|reader, key| match (key.raw, reader.kind()?) {
            (b"offset", Kind::Number) => {
                offset = reader.unsigned()?;
                Ok(())
            }
            _ => reader.skip(),
        })?;
        // Without a place it is behind everything, where it marks nothing.
        offsets.push(offset.unwrap_or(u64::MAX));
        Ok::<_, JsonError>(())
    })?;
    Ok(offsets)
}

fn offset(range: &[u8]) -> Result<u64, ProtoError> {
    let mut offset = 0;
    for field in Fields::of(range) {
        let field = field?;
        if let (1, Value::Varint(value)) = (field.number, field.value) {
            offset = value;
        }
    }
    Ok(offset)
}

/// Feeds token ids, each as one token; where an item stands its placeholder is told apart.
#[derive(Debug)]
pub(super) struct Ids<'p> {
    placed: &'p [(u64, u64)],
    index: u64,
}

impl<'p> Ids<'p> {
    pub(super) fn new(placed: &'p Placed) -> Self {
        Self {
            placed: &placed.0,
            index: 0,
        }
    }

    pub(super) fn feed(&mut self, id: u32, hasher: &mut PrefixHasher) {
        let mut token = id;
        while let Some(((at, digest), later)) = self.placed.split_first() {
            if *at > self.index {
                break;
            }
            if *at == self.index {
                token ^= *digest as u32;
            }
            self.placed = later;
        }
        self.index += 1;
        hasher.update(&token.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hashed(placed: &Placed) -> (u32, std::sync::Arc<[u64]>) {
        let mut hasher = PrefixHasher::new(1);
        let mut ids = Ids::new(placed);
        (0..6).for_each(|id| ids.feed(id, &mut hasher));
        hasher.finish("m", "")
    }

    #[test]
    fn an_item_tells_prompts_apart_from_its_place_on() {
        let features = |hash: &str| {
            let text = format!(
                r#"{{"mm_hashes":{{"image":["{hash}"],"audio":["a"]}},"kwargs_data":null,"mm_placeholders":{{"audio":[{{"offset":4,"length":1}}],"image":[{{"length":2,"offset":2}}]}}}}"#
            );
            Placed::from_features(text.as_bytes()).unwrap()
        };
        let (plain, one, two) = (
            hashed(&Placed::default()),
            hashed(&features("one")),
            hashed(&features("two")),
        );
        assert_eq!(
            (one.0, plain.0),
            (6, 6),
            "an item is no longer than its placeholders"
        );
        assert_eq!(one.1[..2], two.1[..2]);
        assert_eq!(one.1[..2], plain.1[..2]);
        assert_ne!(one.1[2], two.1[2]);
        assert_ne!(one.1[2], plain.1[2]);
        assert_eq!(hashed(&features("one")), one);
    }

    /// Each key is held against all that are known: without a bound on them, a body of keys takes minutes.
    #[test]
    fn modalities_beyond_measure_mark_nothing() {
        let placed = |modalities: usize| {
            let each = |value: &str| {
                let members: Vec<_> = (0..modalities)
                    .map(|index| format!(r#""k{index}":{value}"#))
                    .collect();
                members.join(",")
            };
            let (hashes, places) = (each(r#"["h"]"#), each(r#"[{"offset":1,"length":1}]"#));
            let text = format!(r#"{{"mm_hashes":{{{hashes}}},"mm_placeholders":{{{places}}}}}"#);
            Placed::from_features(text.as_bytes()).unwrap().0.len()
        };
        assert_eq!(placed(MOST_MODALITIES), MOST_MODALITIES);
        assert_eq!(placed(MOST_MODALITIES + 100), MOST_MODALITIES);
    }

    #[test]
    fn features_of_other_shapes_mark_nothing() {
        for features in [
            "null",
            "[]",
            r#"{"mm_hashes":[],"mm_placeholders":{"image":7}}"#,
            r#"{"mm_hashes":{"image":[1]},"mm_placeholders":{"image":[{"length":1}]}}"#,
        ] {
            let placed = Placed::from_features(features.as_bytes()).unwrap();
            assert_eq!(hashed(&placed), hashed(&Placed::default()), "{features}");
        }
        assert!(Placed::from_features(b"{\"mm_hashes\":{").is_err());
    }

    #[test]
    fn a_list_without_end_is_cut() {
        let many = format!(r#"{{"mm_hashes":{{"i":[{}"x"]}}}}"#, r#""h","#.repeat(5000));
        assert_eq!(Placed::from_features(many.as_bytes()).unwrap().0.len(), 0);
        let mut reader = Reader::new(&many.as_bytes()[18..]);
        assert_eq!(hashes(&mut reader).unwrap().len(), MOST_ITEMS);
    }
}
