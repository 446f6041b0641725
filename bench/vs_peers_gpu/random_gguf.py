"""A GGUF file of a Llama shape with random bf16 weights and no vocabulary, for llama.cpp's llama-bench.

    python3 random_gguf.py NAME FILE

NAME is one of shapes.py's. Weights repeat after BLOCK numbers: what they are does not
change how long a pass takes, and the 8B shape is written in seconds.
"""

import struct
import sys

import numpy as np

from shapes import SHAPES

ALIGNMENT = 32
BLOCK = 1 << 24
F32, BF16 = 0, 30  # ggml_type
UINT32, FLOAT32, STRING = 4, 6, 8  # gguf_metadata_value_type


def string(text):
    return struct.pack("<Q", len(text)) + text.encode()


def pair(key, kind, value):
    packed = string(value) if kind == STRING else struct.pack("<f" if kind == FLOAT32 else "<I", value)
    return string(key) + struct.pack("<I", kind) + packed


def metadata(name, shape):
    return [
        pair("general.architecture", STRING, "llama"),
        pair("general.name", STRING, name),
        pair("llama.context_length", UINT32, 8192),
        pair("llama.embedding_length", UINT32, shape["hidden"]),
        pair("llama.block_count", UINT32, shape["layers"]),
        pair("llama.feed_forward_length", UINT32, shape["ffn"]),
        pair("llama.attention.head_count", UINT32, shape["heads"]),
        pair("llama.attention.head_count_kv", UINT32, shape["kv_heads"]),
        pair("llama.attention.layer_norm_rms_epsilon", FLOAT32, 1e-5),
        pair("llama.rope.dimension_count", UINT32, shape["dim"]),
        pair("llama.vocab_size", UINT32, shape["vocab"]),
        pair("tokenizer.ggml.model", STRING, "no_vocab"),
    ]


def tensors(shape):
    """(name, rows, columns): one row of floats is a norm's, all others are matrices."""
    hidden, ffn = shape["hidden"], shape["ffn"]
    heads, kv_heads = (shape[key] * shape["dim"] for key in ("heads", "kv_heads"))
    yield "token_embd.weight", shape["vocab"], hidden
    for layer in range(shape["layers"]):
        for name, rows, cols in (
            ("attn_norm", 1, hidden),
            ("attn_q", heads, hidden),
            ("attn_k", kv_heads, hidden),
            ("attn_v", kv_heads, hidden),
            ("attn_output", hidden, heads),
            ("ffn_norm", 1, hidden),
            ("ffn_gate", ffn, hidden),
            ("ffn_up", ffn, hidden),
            ("ffn_down", hidden, ffn),
        ):
            yield f"blk.{layer}.{name}.weight", rows, cols
    yield "output_norm.weight", 1, hidden
    yield "output.weight", shape["vocab"], hidden


def padded(size):
    return -(-size // ALIGNMENT) * ALIGNMENT


def write(name, path):
    shape = SHAPES[name]
    pairs = metadata(name, shape)
    infos = []
    sizes = []
    offset = 0
    for tensor, rows, cols in tensors(shape):
        dims = (cols,) if rows == 1 else (cols, rows)
        infos.append(
            string(tensor)
            + struct.pack(f"<I{len(dims)}Q", len(dims), *dims)
            + struct.pack("<IQ", F32 if rows == 1 else BF16, offset)
        )
        sizes.append((rows, rows * cols))
        offset += padded(rows * cols * (4 if rows == 1 else 2))
    header = b"GGUF" + struct.pack("<IQQ", 3, len(infos), len(pairs)) + b"".join(pairs + infos)

    random = np.random.default_rng(0).standard_normal(BLOCK, dtype=np.float32) * 0.02
    weights = (random.view(np.uint32) >> 16).astype(np.uint16)
    with open(path, "wb") as file:
        file.write(header.ljust(padded(len(header)), b"\0"))
        for rows, count in sizes:
            if rows == 1:
                file.write(np.ones(count, np.float32).tobytes().ljust(padded(4 * count), b"\0"))
                continue
            for first in range(0, count, BLOCK):
                file.write(weights[: min(BLOCK, count - first)].data)
            file.write(b"\0" * (padded(2 * count) - 2 * count))


if __name__ == "__main__":
    write(*sys.argv[1:])
