"""Small GGUF files, written by the tests: any tensors, any metadata; and a tiny language model in one."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from loadsparse.reference import tokenizer

Tensors = Mapping[str, tuple[tuple[int, ...], int, bytes]]


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value.encode())) + value.encode()


def item(value: Any) -> bytes:
    """A metadata value with its type: bool, int, float, str, or a list of strings."""
    if isinstance(value, bool):
        return struct.pack("<IB", 7, value)
    if isinstance(value, int):
        return struct.pack("<II", 4, value)
    if isinstance(value, float):
        return struct.pack("<If", 6, value)
    if isinstance(value, str):
        return struct.pack("<I", 8) + text(value)
    return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(text(entry) for entry in value)


def tiny_gguf(tensors: Tensors, alignment: int | None = None, metadata: Mapping[str, Any] | None = None) -> bytes:
    pairs = [text("general.name") + item("tiny"), text("a.list") + item(["x", "yz"])]
    pairs.append(text("b.list") + struct.pack("<IIQ3f", 9, 6, 3, 1, 2, 3))
    if alignment:
        pairs.append(text("general.alignment") + item(alignment))
    pairs += [text(key) + item(value) for key, value in (metadata or {}).items()]
    step = alignment or 32
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    data = b""
    for name, (shape, kind, raw) in tensors.items():
        head += text(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", kind, len(data))
        data += raw + bytes(-len(raw) % step)
    return head + bytes(-len(head) % step) + data


WIDTH, HEADS, KV_HEADS, HIDDEN, LAYERS = 32, 4, 2, 48, 2
MERGES = [("t", "h"), ("th", "e"), ("Ġ", "the"), ("a", "n")]
TOKENS = [*tokenizer.byte_symbols().values(), "th", "the", "Ġthe", "an"]


def tiny_tensors(seed: int) -> dict[str, np.ndarray]:
    """The float32 tensors of a model with two blocks, of a size at which every part matters."""
    rng = np.random.default_rng(seed)
    narrow = WIDTH // HEADS * KV_HEADS
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for i in range(LAYERS):
        shapes |= {f"blk.{i}.{name}": (WIDTH,) for name in ("attn_norm", "ffn_norm")}
        shapes |= {f"blk.{i}.{name}": (WIDTH, WIDTH) for name in ("attn_q", "attn_output")}
        shapes |= {f"blk.{i}.{name}": (narrow, WIDTH) for name in ("attn_k", "attn_v")}
        shapes |= {f"blk.{i}.{name}": (HIDDEN, WIDTH) for name in ("ffn_gate", "ffn_up")}
        shapes[f"blk.{i}.ffn_down"] = (WIDTH, HIDDEN)
    scale = {1: 0.2, 2: 0.25}
    return {
        f"{name}.weight": (scale[len(shape)] * rng.standard_normal(shape) + (len(shape) == 1)).astype(np.float32)
        for name, shape in shapes.items()
    }


def tiny_model(seed: int = 0, without: str = "", **changes: Any) -> bytes:
    """A GGUF file of that model. `without` leaves a tensor out; changes replace metadata, by the key's last part."""
    metadata = {
        "general.architecture": "llama", "llama.block_count": LAYERS, "llama.attention.head_count": HEADS,
        "llama.attention.head_count_kv": KV_HEADS, "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.freq_base": 100.0, "tokenizer.ggml.model": "gpt2", "tokenizer.ggml.tokens": TOKENS,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in MERGES],
    }  # fmt: skip
    metadata = {key: changes.get(key.rpartition(".")[2], value) for key, value in metadata.items()}
    tensors = {name: (values.shape, 0, values.tobytes()) for name, values in tiny_tensors(seed).items()}
    return tiny_gguf({name: entry for name, entry in tensors.items() if name != without}, metadata=metadata)
