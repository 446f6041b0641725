#!/usr/bin/env python3
"""specdec against llama.cpp on the same GGUF file, alternately, in one run.

    python3 -m venv .cache/llama_cpp
    CMAKE_ARGS=-DGGML_NATIVE=ON .cache/llama_cpp/bin/pip install --no-binary llama-cpp-python \\
        llama-cpp-python==0.3.36
    ./run build
    .cache/llama_cpp/bin/python bench/vs_llama_cpp/compare.py --json bench/results/vs_llama_cpp.json

Prints plain decoding at three context lengths, prefill, verification of k rows against one, load
time, peak memory and answers to prompts end to end; each against llama.cpp on the same file and on
the same model requantised to Q4_0, its fastest type. Every figure is the median over rounds; sides
alternate within a round, and the order turns from round to round. Our side is timed as a whole step
with sampling, llama.cpp as llama_decode alone: where that matters, it is in llama.cpp's favour.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import llama_cpp
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PERF = ROOT / "build/release/tools/specdec_perf/specdec-perf"
ROWS = [2, 4, 6, 8, 16, 64]
CONTEXTS = [64, 512, 2048]


@llama_cpp.llama_log_callback
def _QUIET(_level, _text, _data):
    pass


llama_cpp.llama_log_set(_QUIET, ctypes.c_void_p(0))


class Ours:
    """specdec-perf as a child process: one JSON line per question."""

    def __init__(self, arguments):
        self.child = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      text=True)
        self.loaded = self._answer()

    def _answer(self):
        line = self.child.stdout.readline()
        if not line:
            sys.exit("specdec-perf ended; its message is above")
        answer = json.loads(line)
        if "error" in answer:
            sys.exit("specdec-perf: " + answer["error"])
        return answer

    def ask(self, **command):
        self.child.stdin.write(json.dumps(command) + "\n")
        self.child.stdin.flush()
        return self._answer()

    def steps(self, context, rows, count):
        answer = self.ask(op="verify" if rows > 1 else "decode", context=context, rows=rows,
                          steps=count)
        return answer["seconds_per_step"]

    def prefill(self, tokens):
        return self.ask(op="prefill", tokens=tokens)["seconds"]

    def close(self):
        self.child.stdin.close()
        self.child.wait()


class Theirs:
    """llama.cpp through its C API; one context of one sequence."""

    def __init__(self, path, threads, context):
        start = time.perf_counter()
        parameters = llama_cpp.llama_model_default_params()
        parameters.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(str(path).encode(), parameters)
        parameters = llama_cpp.llama_context_default_params()
        parameters.n_ctx = context
        parameters.n_batch = parameters.n_ubatch = 512
        parameters.n_threads = parameters.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, parameters)
        if not self.context:
            sys.exit(f"llama.cpp cannot load {path}")
        self.load_seconds = time.perf_counter() - start
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.vocab_size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        self.batch = llama_cpp.llama_batch_init(512, 0, 1)
        self.filled = 0  # positions in the KV cache

    def forget(self, position):
        llama_cpp.llama_memory_seq_rm(self.memory, 0, position, -1)
        self.filled = position

    def decode(self, tokens, all_logits):
        """Appends tokens; returns the seconds of llama_decode, logits being there at its end."""
        batch = self.batch
        batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            batch.token[i] = token
            batch.pos[i] = self.filled + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = all_logits or i + 1 == len(tokens)
        start = time.perf_counter()
        if llama_cpp.llama_decode(self.context, batch) != 0:
            sys.exit("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)
        seconds = time.perf_counter() - start
        self.filled += len(tokens)
        return seconds

    def fill(self, tokens):
        return sum(self.decode(tokens[i:i + 512], False) for i in range(0, len(tokens), 512))

    def argmax(self):
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return int(np.ctypeslib.as_array(logits, shape=(self.vocab_size,)).argmax())

    def prompt(self, length, salt):
        random = np.random.default_rng(salt)
        return random.integers(100, self.vocab_size, length).tolist()

    def steps(self, context, rows, count):
        if not (context <= self.filled < context + 64 and getattr(self, "base", 0) == context):
            self.forget(0)
            self.fill(self.prompt(context, 1))
            self.base = context
        seconds = []
        for i in range(count + 1):
            if rows > 1 or i == 0:
                self.forget(context)
            seconds.append(self.decode(self.prompt(rows, i), True))
        return seconds[1:]

    def prefill(self, tokens):
        self.forget(0)
        self.base = 0
        return self.fill(self.prompt(tokens, 2))

    def generate(self, tokens, max_tokens):
        """Greedy, plain. Returns the ids and the seconds."""
        self.forget(0)
        self.base = 0
        answer = []
        start = time.perf_counter()
        self.fill(tokens)
        while len(answer) < max_tokens:
            answer.append(self.argmax())
            if llama_cpp.llama_vocab_is_eog(self.vocab, answer[-1]) or len(answer) == max_tokens:
                break
            self.decode(answer[-1:], True)
        return answer, time.perf_counter() - start


def requantise(source, target):
    """The model in Q4_0; llama.cpp chooses the types of embeddings and head itself."""
    parameters = llama_cpp.llama_model_quantize_default_params()
    parameters.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    parameters.allow_requantize = True
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(),
                                      ctypes.byref(parameters)) != 0:
        sys.exit("llama_model_quantize failed")


def peak_memory():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024


def memory_child(path, threads):
    """Prints llama.cpp's peak at context 2048 and what Python had taken before."""
    python = peak_memory()
    peer = Theirs(path, threads, 2048)
    peer.fill(peer.prompt(2040, 1))
    for i in range(4):
        peer.decode(peer.prompt(1, i), True)
    print(json.dumps({"python_bytes": python, "peak_bytes": peak_memory(),
                      "load_seconds": peer.load_seconds}))


def spread(path, limit):
    prompts = [json.loads(line) for line in Path(path).read_text().splitlines() if line.strip()]
    texts = [p["turns"][0] if "turns" in p else p["prompt"] for p in prompts]
    return [texts[i * len(texts) // limit] for i in range(limit)] if limit < len(texts) else texts


def measure(sides, options):
    """{figure: {side: [seconds per round]}}"""
    figures = {}

    def note(figure, side, seconds):
        figures.setdefault(figure, {}).setdefault(side, []).append(seconds)

    for round_number in range(options.rounds):
        order = list(sides)
        order = order[round_number % len(order):] + order[:round_number % len(order)]
        for context in CONTEXTS:
            for side in order:
                steps = sides[side].steps(context, 1, 24)
                note(f"decode at {context}", side, statistics.median(steps))
        for side in order:
            note("prefill 512", side, sides[side].prefill(512))
        # A row count next to its own single row, so that both see the same machine.
        for rows in ROWS:
            for side in order:
                one = statistics.median(sides[side].steps(options.verify_context, 1, 8))
                many = statistics.median(sides[side].steps(options.verify_context, rows, 8))
                note(f"verify {rows} rows", side, many)
                note(f"verify {rows} rows / one", side, many / one)
        print(f"round {round_number + 1} of {options.rounds}", file=sys.stderr)
    return figures


def end_to_end(ours, peers, options):
    """Total tokens and seconds by side, prompt by prompt in turn."""
    methods = [m for m in ("none", "ngram", "draft_model") if m in ours.loaded["methods"]]
    totals = {}
    identical = {m: 0 for m in methods}
    texts = spread(options.prompts, options.limit)
    for number, text in enumerate(texts):
        tokens = ours.ask(op="render", prompt=text)["tokens"]
        runs = [("specdec " + m, m) for m in methods] + [(name, None) for name in peers]
        runs = runs[number % len(runs):] + runs[:number % len(runs)]
        answers = {}
        for name, method in runs:
            if method is None:
                answer, seconds = peers[name].generate(tokens, options.max_tokens)
            else:
                result = ours.ask(op="generate", tokens=tokens, method=method,
                                  max_tokens=options.max_tokens)
                answer, seconds = result["tokens"], result["seconds"]
                answers[method] = answer
            total = totals.setdefault(name, {"tokens": 0, "seconds": 0.0, "per_prompt": []})
            total["tokens"] += len(answer)
            total["seconds"] += seconds
            total["per_prompt"].append([len(answer), round(seconds, 4)])
        for method in methods:
            identical[method] += answers[method] == answers["none"]
        print(f"prompt {number + 1} of {len(texts)}", file=sys.stderr)
    for total in totals.values():
        total["tok_per_s"] = total["tokens"] / total["seconds"]
    return {"totals": totals, "identical_to_none": identical, "num_prompts": len(texts)}


def summary(figures):
    rows = {}
    for figure, by_side in figures.items():
        rows[figure] = {side: {"median": statistics.median(v), "min": min(v), "max": max(v)}
                        for side, v in by_side.items()}
    return rows


def print_tables(result):
    peers = list(result["peers"])
    print(f"\n{'':22}{'specdec':>12}" + "".join(f"{p:>20}{'ratio':>8}" for p in peers))
    for figure, sides in result["parts"].items():
        is_ratio = figure.endswith("/ one")
        unit = (lambda x: f"{x:.2f}") if is_ratio else (lambda x: f"{x * 1e3:.2f} ms")
        own = sides["specdec"]["median"]
        line = f"{figure:22}{unit(own):>12}"
        for peer in peers:
            other = sides[peer]["median"]
            line += f"{unit(other):>20}{other / own:>7.2f}x"
        print(line)
    load, memory = result["load_seconds"], result["peak_bytes_context_2048"]
    print(f"{'load':22}{load['specdec']:>10.2f} s" +
          "".join(f"{load[p]:>18.2f} s" for p in peers))
    print(f"{'peak memory, 2048':22}{memory['specdec'] / 2**20:>8.0f} MiB" +
          "".join(f"{memory[p] / 2**20:>16.0f} MiB" for p in peers) +
          "   (llama.cpp: Python included; specdec: with the draft model)")
    totals = result["end_to_end"]["totals"]
    if not totals:
        return
    print(f"\nend to end, {result['end_to_end']['num_prompts']} prompts, greedy, tok/s:")
    own_plain = totals["specdec none"]["tok_per_s"]
    for name, total in totals.items():
        line = f"  {name:22}{total['tok_per_s']:8.1f}  {total['tok_per_s'] / own_plain:5.2f}x plain"
        for peer in peers:
            line += f"  {total['tok_per_s'] / totals[peer]['tok_per_s']:5.2f}x {peer}"
        print(line)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--target", default=".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf")
    parser.add_argument("--draft-model", default="models/smollm2-135m-draft.Q8_0.gguf")
    parser.add_argument("--prompts", default="bench/prompts/spec_bench_dev.jsonl")
    parser.add_argument("--limit", type=int, default=16, help="prompts end to end, 0 = none")
    parser.add_argument("--max-tokens", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--verify-context", type=int, default=64)
    parser.add_argument("--num-speculative-tokens", type=int, default=5)
    parser.add_argument("--perf", default=str(PERF), help="the specdec-perf program")
    parser.add_argument("--json", help="write every figure to this file")
    parser.add_argument("--memory-child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory_child:
        return memory_child(options.memory_child, options.threads)
    os.chdir(ROOT)

    ours_arguments = [options.perf, "--target", options.target, "--draft-model",
                      options.draft_model, "--draft-method", "draft_model", "--threads",
                      str(options.threads), "--draft-length-mode", "fixed", "--num-speculative-tokens",
                      str(options.num_speculative_tokens), "--temperature", "0"]
    q4_0 = Path(tempfile.gettempdir()) / f"specdec-vs-llama-{os.getpid()}-Q4_0.gguf"
    requantise(options.target, q4_0)
    try:
        peers = {"llama.cpp same file": options.target, "llama.cpp Q4_0": str(q4_0)}
        # Loading and peak memory each in a process of their own, the page cache warm.
        load, memory = {}, {}
        for name, path in peers.items():
            child = [json.loads(subprocess.run(
                [sys.executable, str(Path(__file__).resolve()), "--memory-child", path, "--threads",
                 str(options.threads)], check=True, capture_output=True, text=True).stdout)
                for _ in range(3)]
            load[name] = statistics.median(c["load_seconds"] for c in child)
            memory[name] = max(c["peak_bytes"] for c in child)
        loads, peaks = [], []
        for _ in range(3):
            ours = Ours(ours_arguments)
            ours.steps(2040, 1, 4)
            loads.append(ours.loaded["load_seconds"])
            peaks.append(ours.ask(op="memory")["peak_bytes"])
            ours.close()
        load["specdec"], memory["specdec"] = statistics.median(loads), max(peaks)

        ours = Ours(ours_arguments)
        sides = {"specdec": ours}
        sides.update({name: Theirs(path, options.threads, 4096) for name, path in peers.items()})
        parts = summary(measure(sides, options))
        answers = end_to_end(ours, {name: sides[name] for name in peers}, options) \
            if options.limit else {"totals": {}, "num_prompts": 0}
        ours.close()
    finally:
        q4_0.unlink(missing_ok=True)
    result = {"command": "bench/vs_llama_cpp/compare.py " + " ".join(sys.argv[1:]),
              "machine": ours.loaded["machine"], "threads": options.threads,
              "rounds": options.rounds, "llama_cpp_python": llama_cpp.__version__,
              "peers": list(peers), "parts": parts, "load_seconds": load,
              "peak_bytes_context_2048": memory, "end_to_end": answers}
    print_tables(result)
    if options.json:
        Path(options.json).write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
