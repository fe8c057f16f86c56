"""Records frames as the engines' own packages encode them.

Usage: record.py FOLDER, with the wheels `vllm-0.33.0`, `vllm-0.20.2`, `sglang-0.5.23` and `sglang-0.5.8` (or what
`unzip` makes of their `kv_events.py`) below FOLDER, one folder per package named like the wheel. Needs msgspec.
Only the event structs are taken out of each package's module and executed; nothing else of it is imported.
"""

import ast
import enum
import json
import pathlib
import sys
import typing

import msgspec

SOURCES = {
    "vllm-0.33.0": "vllm/distributed/kv_events.py",
    "vllm-0.20.2": "vllm/distributed/kv_events.py",
    "sglang-0.5.23": "sglang/srt/disaggregation/kv_events.py",
    "sglang-0.5.8": "sglang/srt/disaggregation/kv_events.py",
}
STRUCTS = ["EventBatch", "KVCacheEvent", "BlockStored", "BlockRemoved", "AllBlocksCleared", "KVEventBatch"]
DIGEST = bytes(range(200, 232))

STORED = {
    "block_hashes": [1, 2**63 + 5, 127, 128, 65536],
    "parent_block_hash": None,
    "token_ids": list(range(126, 136)) + [255, 256, 65535, 65536, 128255, 0, 1, 2, 3, 4],
    "block_size": 4,
    "lora_id": None,
    "medium": "GPU",
    "lora_name": None,
}
CASES = {
    "plain": [("BlockStored", STORED)],
    "child": [("BlockStored", {**STORED, "parent_block_hash": 2**64 - 1, "block_hashes": [9], "token_ids": [7] * 4})],
    "bytes": [
        ("BlockStored", {**STORED, "block_hashes": [DIGEST], "parent_block_hash": DIGEST[::-1], "token_ids": [7] * 4})
    ],
    "negative": [
        ("BlockStored", {**STORED, "block_hashes": [-1, -(2**63), -129], "token_ids": list(range(12))}),
        ("BlockRemoved", {"block_hashes": [-1, -129], "medium": "GPU"}),
    ],
    "adapter": [("BlockStored", {**STORED, "lora_id": 3, "lora_name": "sql-adapter"})],
    "extras": [
        (
            "BlockStored",
            {
                **STORED,
                "block_hashes": [11, 12, 13],
                "token_ids": list(range(12)),
                "extra_keys": [("salt",), None, (("image-hash", -3), "sql-adapter", b"\x01\x02")],
                "cache_salt": "salt",
            },
        )
    ],
    "groups": [
        ("BlockStored", {**STORED, "group_idx": 0, "kv_cache_spec_kind": "full_attention"}),
        (
            "BlockStored",
            {
                **STORED,
                "group_idx": 1,
                "kv_cache_spec_kind": "sliding_window",
                "kv_cache_spec_sliding_window": 1024,
            },
        ),
        ("BlockRemoved", {"block_hashes": [1], "medium": "GPU", "group_idx": 1}),
    ],
    "offload": [
        (
            "BlockStored",
            {**STORED, "block_hashes": [1, 2], "token_ids": [], "medium": "CPU", "locality": "LOCAL"},
        ),
        ("BlockRemoved", {"block_hashes": [1, 2], "medium": "CPU", "locality": "REMOTE"}),
    ],
    "cleared": [("BlockRemoved", {"block_hashes": list(range(20)), "medium": None}), ("AllBlocksCleared", {})],
}


def structs(source):
    """The event structs of a module, as its own text defines them."""
    space = {"msgspec": msgspec, "Any": typing.Any, "Union": typing.Union, "Optional": typing.Optional, "enum": enum}
    space["ExternalBlockHash"] = typing.Union[bytes, int]
    tree = ast.parse(source)
    body = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in STRUCTS]
    exec(compile(ast.Module(body, []), "kv_events", "exec"), space)
    return space


def plain(value):
    """As JSON: bytes as hexadecimal digits in an object, integers as text where they do not fit a float."""
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def main():
    here = pathlib.Path(__file__).parent
    folder = pathlib.Path(sys.argv[1])
    frames = []
    for package, module in SOURCES.items():
        space = structs((folder / package / module).read_text())
        for case, events in CASES.items():
            told, built = [], []
            for tag, fields in events:
                known = space[tag].__struct_fields__
                kept = {name: value for name, value in fields.items() if name in known}
                built.append(space[tag](**kept))
                told.append({"type": tag, **{name: plain(value) for name, value in kept.items()}})
            rank = None if case == "plain" else 3
            frame = msgspec.msgpack.encode(space["KVEventBatch"](1_760_000_000.25, built, rank))
            frames.append({"package": package, "case": case, "rank": rank, "events": told, "frame": frame.hex()})
    lines = ",\n".join(json.dumps(frame) for frame in frames)
    (here / "frames.json").write_text(f"[\n{lines}\n]\n")


main()
