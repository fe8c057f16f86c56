//! Events to a message's bytes, as engines write them.

use super::msgpack::Output;
use super::{Batch, Event, ExtraKey, Removed, Stored};

/// How an engine writes its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Arrays with the tag first and this many of the fields behind it: vLLM writes all 11 (3 for a removal), SGLang
    /// 6 (2). At least the fields without which an event says nothing are written.
    Array {
        /// Fields behind the tag of a stored event.
        stored: usize,
        /// Fields behind the tag of a removed event.
        removed: usize,
    },
    /// Maps with the tag under `type` and only the fields that are set.
    Map,
}

impl Form {
    /// Arrays with every field.
    pub const FULL: Self = Self::Array {
        stored: 11,
        removed: 3,
    };
}

/// Writes one message. What a batch counts as unknown or malformed is not in it.
pub fn encode(batch: &Batch, form: Form) -> Vec<u8> {
    let mut output = Output::default();
    output.array(if batch.data_parallel_rank.is_some() {
        3
    } else {
        2
    });
    output.float(batch.at);
    output.array(batch.events.len());
    for event in &batch.events {
        match event {
            Event::Stored(event) => stored(&mut output, event, form),
            Event::Removed(event) => removed(&mut output, event, form),
            Event::Cleared => cleared(&mut output, form),
        }
    }
    if let Some(rank) = batch.data_parallel_rank {
        output.unsigned(u64::from(rank));
    }
    output.0
}

/// One field: its name, whether it may be left out of a map, how it is written.
type Field<'a, E> = (&'static str, bool, &'a dyn Fn(&mut Output, &E));

fn event<E>(
    output: &mut Output,
    tag: &str,
    event: &E,
    count: Option<usize>,
    fields: &[Field<'_, E>],
) {
    match count {
        Some(count) => {
            let fields = &fields[..count.min(fields.len())];
            output.array(1 + fields.len());
            output.text(tag);
            fields.iter().for_each(|(_, _, write)| write(output, event));
        }
        None => {
            let fields: Vec<_> = fields.iter().filter(|(_, absent, _)| !absent).collect();
            output.map(1 + fields.len());
            output.text("type");
            output.text(tag);
            for (name, _, write) in fields {
                output.text(name);
                write(output, event);
            }
        }
    }
}

fn stored(output: &mut Output, stored: &Stored, form: Form) {
    let count = match form {
        Form::Array { stored, .. } => Some(stored.clamp(4, 11)),
        Form::Map => None,
    };
    let fields: [Field<'_, Stored>; 13] = [
        ("block_hashes", false, &|output, event| {
            hashes(output, &event.block_hashes)
        }),
        ("parent_block_hash", false, &|output, event| {
            optional(output, event.parent_block_hash, Output::unsigned);
        }),
        ("token_ids", false, &|output, event| {
            output.array(event.token_ids.len());
            for token in &event.token_ids {
                output.unsigned(u64::from(*token));
            }
        }),
        ("block_size", false, &|output, event| {
            output.unsigned(u64::from(event.block_size))
        }),
        ("lora_id", stored.lora_id.is_none(), &|output, event| {
            optional(output, event.lora_id, Output::signed);
        }),
        ("medium", stored.medium.is_none(), &|output, event| {
            optional(output, event.medium.as_deref(), Output::text);
        }),
        ("lora_name", stored.lora_name.is_none(), &|output, event| {
            optional(output, event.lora_name.as_deref(), Output::text);
        }),
        (
            "extra_keys",
            stored.extra_keys.is_none(),
            &|output, event| {
                optional(output, event.extra_keys.as_deref(), |output, blocks| {
                    output.array(blocks.len());
                    for block in blocks {
                        optional(output, block.as_deref(), extras);
                    }
                });
            },
        ),
        ("group_idx", stored.group_idx.is_none(), &|output, event| {
            optional(output, event.group_idx.map(u64::from), Output::unsigned);
        }),
        (
            "kv_cache_spec_kind",
            stored.kv_cache_spec_kind.is_none(),
            &|output, event| {
                optional(output, event.kv_cache_spec_kind.as_deref(), Output::text);
            },
        ),
        (
            "kv_cache_spec_sliding_window",
            stored.kv_cache_spec_sliding_window.is_none(),
            &|output, event| {
                let window = event.kv_cache_spec_sliding_window.map(u64::from);
                optional(output, window, Output::unsigned);
            },
        ),
        ("locality", stored.locality.is_none(), &|output, event| {
            optional(output, event.locality.as_deref(), Output::text);
        }),
        (
            "cache_salt",
            stored.cache_salt.is_none(),
            &|output, event| {
                optional(output, event.cache_salt.as_deref(), Output::text);
            },
        ),
    ];
    event(output, "BlockStored", stored, count, &fields);
}

fn removed(output: &mut Output, removed: &Removed, form: Form) {
    let count = match form {
        Form::Array { removed, .. } => Some(removed.clamp(1, 3)),
        Form::Map => None,
    };
    let fields: [Field<'_, Removed>; 4] = [
        ("block_hashes", false, &|output, event| {
            hashes(output, &event.block_hashes)
        }),
        ("medium", removed.medium.is_none(), &|output, event| {
            optional(output, event.medium.as_deref(), Output::text);
        }),
        (
            "group_idx",
            removed.group_idx.is_none(),
            &|output, event| {
                optional(output, event.group_idx.map(u64::from), Output::unsigned);
            },
        ),
        ("locality", removed.locality.is_none(), &|output, event| {
            optional(output, event.locality.as_deref(), Output::text);
        }),
    ];
    event(output, "BlockRemoved", removed, count, &fields);
}

fn cleared(output: &mut Output, form: Form) {
    let count = match form {
        Form::Array { .. } => Some(0),
        Form::Map => None,
    };
    event(output, "AllBlocksCleared", &(), count, &[]);
}

fn hashes(output: &mut Output, hashes: &[u64]) {
    output.array(hashes.len());
    for hash in hashes {
        output.unsigned(*hash);
    }
}

fn extras(output: &mut Output, keys: &[ExtraKey]) {
    output.array(keys.len());
    for key in keys {
        match key {
            ExtraKey::Nil => output.nil(),
            ExtraKey::Text(text) => output.text(text),
            ExtraKey::Bytes(bytes) => output.bytes(bytes),
            ExtraKey::Integer(integer) => output.signed(*integer),
            ExtraKey::Float(float) => output.float(*float),
            ExtraKey::List(list) => extras(output, list),
        }
    }
}

fn optional<T>(output: &mut Output, value: Option<T>, write: impl FnOnce(&mut Output, T)) {
    match value {
        Some(value) => write(output, value),
        None => output.nil(),
    }
}
