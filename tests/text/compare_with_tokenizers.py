#!/usr/bin/env python3
"""Tokenises the test corpus with Python's `tokenizers` and writes or checks tests/text/golden_ids.txt.

    pip install tokenizers==0.23.3
    python3 tests/text/compare_with_tokenizers.py --write      # regenerate golden_ids.txt
    python3 tests/text/compare_with_tokenizers.py              # check it

Needs the program write_text_corpus (target of the same name), looked for under build/ or given with
--corpus-tool. The vocabulary is SmolLM2's, from models/smollm2-135m-draft.Q8_0.gguf. Bytes that are no
UTF-8, which `tokenizers` cannot take, cut the text: each is a piece of its own (its byte token, or
nothing where the vocabulary lacks the byte), and what stands between them is tokenised by itself.
"""
import argparse
import array
import pathlib
import re
import struct
import subprocess
import sys
import tempfile
import zlib

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/text/golden_ids.txt"
GGUF = ROOT / "models/smollm2-135m-draft.Q8_0.gguf"

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")


def read_metadata(path):
    """The key-value part of a GGUF file (v3)."""
    data, at = path.read_bytes(), 24
    scalars = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}

    def value(kind):
        nonlocal at
        if kind == 8:
            (n,) = struct.unpack_from("<Q", data, at)
            at += 8 + n
            return data[at - n : at].decode()
        if kind == 9:
            element, n = struct.unpack_from("<IQ", data, at)
            at += 12
            return [value(element) for _ in range(n)]
        layout = "<" + scalars[kind]
        (result,) = struct.unpack_from(layout, data, at)
        at += struct.calcsize(layout)
        return result

    metadata = {}
    for _ in range(struct.unpack_from("<Q", data, 16)[0]):
        key = value(8)
        metadata[key] = value(value(4))
    return metadata


def pre_tokenizer(name):
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    if name == "gpt2":
        return byte_level
    if name == "smollm":
        return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), byte_level])
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(LLAMA3 if name == "llama3" else QWEN2), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def make_tokenizer(metadata, column):
    name, _, option = column.partition("+")
    tokens = metadata["tokenizer.ggml.tokens"]
    merges = [tuple(m.split(" ")) for m in metadata["tokenizer.ggml.merges"]]
    vocab = {text: i for i, text in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges, ignore_merges=option == "ignore_merges"))
    tokenizer.pre_tokenizer = pre_tokenizer(name)
    tokenizer.decoder = decoders.ByteLevel()
    if option == "nfc":
        tokenizer.normalizer = normalizers.NFC()
    kinds = metadata["tokenizer.ggml.token_type"]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t, k in zip(tokens, kinds) if k == 3])
    return tokenizer


def byte_tokens(metadata):
    """Byte -> ids: bytes_to_unicode() of GPT-2's encoder.py, looked up in the vocabulary."""
    vocab = {text: i for i, text in enumerate(metadata["tokenizer.ggml.tokens"])}
    own = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [b for b in range(256) if b not in own]
    stand_in = {b: chr(b) for b in own} | {b: chr(256 + i) for i, b in enumerate(others)}
    return {b: [vocab[c]] if (c := stand_in[b]) in vocab else [] for b in range(256)}


def encode(tokenizer, byte_ids, data):
    ids = []
    for piece in re.split("([\udc80-\udcff])", data.decode("utf-8", "surrogateescape")):
        if len(piece) == 1 and "\udc80" <= piece <= "\udcff":
            ids += byte_ids[ord(piece) - 0xDC00]
        elif piece:
            ids += tokenizer.encode(piece, add_special_tokens=False).ids
    return ids


def piece_lengths(tokenizer, data):
    """Bytes of each piece that the pre-tokenizer cuts; special tokens are plain text here."""
    lengths = []
    for piece in re.split("([\udc80-\udcff])", data.decode("utf-8", "surrogateescape")):
        if len(piece) == 1 and "\udc80" <= piece <= "\udcff":
            lengths.append(1)
        elif piece:
            # ByteLevel has made one character of each byte.
            lengths += [len(text) for text, _ in tokenizer.pre_tokenizer.pre_tokenize_str(piece)]
    return lengths


def read_corpus(tool):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "corpus"
        subprocess.run([tool, path], check=True)
        data, at = path.read_bytes(), 0
    while at < len(data):
        name, length, _ = data[at : at + 64].split(b"\0", 2)
        at += len(name) + len(length) + 2
        yield name.decode(), data[at : at + int(length)]
        at += int(length)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write golden_ids.txt instead of checking it")
    parser.add_argument("--corpus-tool", help="path of write_text_corpus")
    arguments = parser.parse_args()
    tool = arguments.corpus_tool or max(
        (p for p in ROOT.glob("build/**/write_text_corpus") if p.is_file()), key=lambda p: p.stat().st_mtime, default=None
    )
    if tool is None:
        sys.exit("write_text_corpus is not built: ninja -C build/release write_text_corpus")
    metadata = read_metadata(GGUF)
    columns = ["gpt2", "smollm", "llama3", "qwen2", "llama3+ignore_merges", "qwen2+nfc"]
    tokenizers = [make_tokenizer(metadata, column) for column in columns]
    byte_ids = byte_tokens(metadata)
    pieces = ["gpt2", "smollm", "llama3", "qwen2"]
    lines, total = [" ".join(["chunk", "bytes", *columns, *(name + "+pieces" for name in pieces)])], 0
    for name, data in read_corpus(tool):
        total += len(data)
        cells = []
        rows = [encode(tokenizer, byte_ids, data) for tokenizer in tokenizers]
        rows += [piece_lengths(tokenizers[columns.index(name)], data) for name in pieces]
        for row in rows:
            row = array.array("i", row)
            cells.append(f"{len(row)}:{zlib.crc32(row.tobytes()):x}")
        lines.append(" ".join([name, str(len(data)), *cells]))
    text = "\n".join(lines) + "\n"
    if arguments.write:
        GOLDEN.write_text(text)
    elif GOLDEN.read_text() != text:
        sys.exit(f"{GOLDEN} differs from what tokenizers gives")
    print(f"{len(lines) - 1} chunks, {total} bytes, {len(columns)} ways: {'written' if arguments.write else 'equal'}")


main()
