//! Engines' KV events: what is read is written and read the same, and no message makes the index believe nonsense.

use kv_cache::events::{Event, Form, decode, encode};
use kv_cache::{Ingest, Matches, Settings};

use super::{Shape, Target};

pub(super) static TARGET: Target = Target {
    name: "kv_events",
    words: &[
        b"\xabBlockStored",
        b"\xacBlockRemoved",
        b"\xb0AllBlocksCleared",
        b"\xa4type",
        b"\xacblock_hashes",
        b"\xb1parent_block_hash",
        b"\xa9token_ids",
        b"\xaablock_size",
        b"\xa6medium",
        b"\xa3CPU",
        b"\xaaextra_keys",
        b"\xa9group_idx",
        b"\xc0",
        b"\x92\xcb\x00\x00\x00\x00\x00\x00\x00\x00",
        b"\xdd\xff\xff\xff\xff",
        b"\xcf\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\xc4\x08\x00\x00\x00\x00\x00\x00\x00\x01",
    ],
    run,
};

const ENTRIES: usize = 64;

fn run(message: &[u8]) -> Shape {
    let batch = match decode(message) {
        Ok(batch) => batch,
        Err(error) => return Shape::default().with_error(&error),
    };
    let again = decode(&encode(&batch, Form::Map)).expect("a message we wrote");
    assert_eq!(again.events.len(), batch.events.len());
    let (mut told, mut read) = (batch.clone(), again);
    (told.unknown, told.malformed) = (0, 0);
    // Not a number is not equal to itself.
    (told.at, read.at) = (0.0, 0.0);
    assert_eq!(
        format!("{read:?}"),
        format!("{told:?}"),
        "written and read again"
    );
    let settings = Settings {
        block_tokens: 2,
        entries: ENTRIES,
        pods: 2,
        expected: 4,
        ..Settings::default()
    };
    let mut ingest = Ingest::new(settings).expect("settings in range");
    let pods = [0, 1].map(|_| ingest.add_pod().expect("room for it"));
    for _ in 0..2 {
        let _ = ingest.read(pods[0], "model", message);
        assert!(ingest.entries() <= ENTRIES);
    }
    ingest.reader().matched(&[], &mut Matches::default());
    let counts = ingest.counts();
    for pod in pods {
        ingest.remove_pod(pod);
    }
    while ingest.tidy(8) {}
    assert_eq!(
        (ingest.entries(), ingest.blocks(), ingest.sets()),
        (0, 0, 0)
    );
    let kinds = batch
        .events
        .iter()
        .take(4)
        .fold(Shape::default(), |shape, event| match event {
            Event::Stored(stored) => shape
                .with((
                    stored.parent_block_hash.is_some(),
                    stored.extra_keys.is_some(),
                ))
                .with_length(stored.block_hashes.len()),
            Event::Removed(removed) => shape.with(1).with_length(removed.block_hashes.len()),
            Event::Cleared => shape.with(2),
        });
    kinds
        .with((batch.unknown.min(2), batch.malformed.min(2)))
        .with((counts.stored > 0, counts.removed > 0, counts.orphaned > 0))
        .with((
            counts.misfits > 0,
            counts.evicted > 0,
            counts.cut_extras > 0,
        ))
}
