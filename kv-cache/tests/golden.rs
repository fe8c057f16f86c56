//! Frames that vLLM's and SGLang's own event structs encoded (`golden/record.py`), field by field, and messages of our
//! own that are cut short or carry what nobody knows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use kv_cache::events::{
    Batch, DecodeError, Event, ExtraKey, Form, Removed, Stored, decode, encode,
};
use serde_json::Value;

fn frames() -> Vec<Value> {
    serde_json::from_str(include_str!("golden/frames.json")).unwrap()
}

fn bytes(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
        .collect()
}

/// A hash as the recording tells it: a number of either sign, or a digest whose last eight bytes count.
fn hash(told: &Value) -> u64 {
    if let Some(digest) = told["bytes"].as_str() {
        let digest = bytes(digest);
        return u64::from_be_bytes(*digest.last_chunk().unwrap());
    }
    told.as_u64()
        .unwrap_or_else(|| told.as_i64().unwrap() as u64)
}

fn hashes(told: &Value) -> Vec<u64> {
    told.as_array().unwrap().iter().map(hash).collect()
}

fn text(told: &Value) -> Option<String> {
    told.as_str().map(str::to_owned)
}

fn small(told: &Value) -> Option<u32> {
    told.as_u64().map(|number| u32::try_from(number).unwrap())
}

fn extra(told: &Value) -> ExtraKey {
    match told {
        Value::Null => ExtraKey::Nil,
        Value::String(text) => ExtraKey::Text(text.clone()),
        Value::Number(number) => ExtraKey::Integer(number.as_i64().unwrap()),
        Value::Array(list) => ExtraKey::List(list.iter().map(extra).collect()),
        other => ExtraKey::Bytes(bytes(other["bytes"].as_str().unwrap())),
    }
}

fn event(told: &Value) -> Event {
    match told["type"].as_str().unwrap() {
        "BlockStored" => Event::Stored(Stored {
            block_hashes: hashes(&told["block_hashes"]),
            parent_block_hash: Some(&told["parent_block_hash"])
                .filter(|told| !told.is_null())
                .map(hash),
            token_ids: told["token_ids"]
                .as_array()
                .unwrap()
                .iter()
                .map(|id| small(id).unwrap())
                .collect(),
            block_size: small(&told["block_size"]).unwrap(),
            lora_id: told["lora_id"].as_i64(),
            medium: text(&told["medium"]),
            lora_name: text(&told["lora_name"]),
            extra_keys: told["extra_keys"].as_array().map(|blocks| {
                let list = |block: &Value| {
                    block
                        .as_array()
                        .map(|keys| keys.iter().map(extra).collect())
                };
                blocks.iter().map(list).collect()
            }),
            group_idx: small(&told["group_idx"]),
            kv_cache_spec_kind: text(&told["kv_cache_spec_kind"]),
            kv_cache_spec_sliding_window: small(&told["kv_cache_spec_sliding_window"]),
            locality: text(&told["locality"]),
            cache_salt: text(&told["cache_salt"]),
        }),
        "BlockRemoved" => Event::Removed(Removed {
            block_hashes: hashes(&told["block_hashes"]),
            medium: text(&told["medium"]),
            group_idx: small(&told["group_idx"]),
            locality: text(&told["locality"]),
        }),
        _ => Event::Cleared,
    }
}

#[test]
fn frames_of_the_engines_packages_decode_field_by_field() {
    let frames = frames();
    assert_eq!(frames.len(), 36);
    for frame in frames {
        let expected = Batch {
            at: 1_760_000_000.25,
            events: frame["events"]
                .as_array()
                .unwrap()
                .iter()
                .map(event)
                .collect(),
            data_parallel_rank: small(&frame["rank"]),
            unknown: 0,
            malformed: 0,
        };
        let message = bytes(frame["frame"].as_str().unwrap());
        assert_eq!(
            decode(&message),
            Ok(expected.clone()),
            "{} {}",
            frame["package"],
            frame["case"]
        );
        for end in 0..message.len() {
            assert!(decode(&message[..end]).is_err(), "cut after {end} bytes");
        }
        for form in [Form::FULL, Form::Map] {
            let again = decode(&encode(&expected, form)).unwrap();
            if form == Form::Map {
                assert_eq!(again, expected);
            }
            assert_eq!(again.events.len(), expected.events.len());
        }
    }
}

#[test]
fn what_nobody_knows_is_counted_and_passed_over() {
    // [1.5, [["Later", {"a": [1]}], ["BlockRemoved", "no list"], 7, ["AllBlocksCleared", "more"]], nil, "more"]
    let mut message = vec![0x94, 0xcb];
    message.extend(1.5_f64.to_be_bytes());
    message.extend([0x94, 0x92, 0xa5]);
    message.extend(b"Later");
    message.extend([0x81, 0xa1, b'a', 0x91, 1, 0x92, 0xac]);
    message.extend(b"BlockRemoved");
    message.push(0xa7);
    message.extend(b"no list");
    message.extend([7, 0x92, 0xb0]);
    message.extend(b"AllBlocksCleared");
    message.extend([0xa4]);
    message.extend(b"more");
    message.extend([0xc0, 0xa4]);
    message.extend(b"more");
    let batch = decode(&message).unwrap();
    assert_eq!((batch.unknown, batch.malformed), (1, 2));
    assert_eq!(batch.events, [Event::Cleared]);
    assert_eq!(batch.data_parallel_rank, None);
}

#[test]
fn short_arrays_and_no_messages_at_all() {
    let stored = Stored {
        block_hashes: vec![1],
        token_ids: vec![1, 2],
        block_size: 2,
        medium: Some("GPU".to_owned()),
        ..Stored::default()
    };
    let batch = |event| Batch {
        events: vec![event],
        ..Batch::default()
    };
    let short = Form::Array {
        stored: 0,
        removed: 0,
    };
    let message = encode(&batch(Event::Stored(stored.clone())), short);
    let without = Stored {
        medium: None,
        ..stored
    };
    assert_eq!(decode(&message), Ok(batch(Event::Stored(without))));
    for (message, error) in [
        (&[][..], DecodeError::Truncated { bytes: 0 }),
        (&[0x91, 1], DecodeError::Missing { field: "events" }),
        (
            &[7],
            DecodeError::Kind {
                field: "message",
                at: 0,
                expected: "an array or a map",
            },
        ),
    ] {
        assert_eq!(decode(message), Err(error));
    }
}
