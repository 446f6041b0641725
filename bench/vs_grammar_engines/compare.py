#!/usr/bin/env python3
"""specdec's grammars against llguidance and xgrammar on the same MaskBench instances, in one run.

    python3 -m venv .cache/grammar_engines
    .cache/grammar_engines/bin/pip install llguidance xgrammar transformers tokenizers gguf
    ./run build
    .cache/grammar_engines/bin/python bench/vs_grammar_engines/compare.py MASKBENCH.jsonl \\
        --every 10 --json bench/results/vs_grammar_engines.json

A schema is fully right when every valid instance is accepted and every invalid one refused. Masks
are made before each token of the valid instances, all on one thread. The peers run behind their
Python packages, one worker process each, which is made anew when it crashes or passes the limit;
specdec runs as `specdec-grammar maskbench`, which starts a process per schema and judges each
instance in two spellings, with and without blanks. A call from Python costs a peer some tenths of a
microsecond a mask.
"""

import argparse
import json
import lzma
import multiprocessing
import os
import subprocess
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "build/release/tools/specdec_grammar/specdec-grammar"


def tokenizer_of(path):
    """The Hugging Face tokenizer of a folder, or one with the tokens and merges of a GGUF file."""
    from transformers import PreTrainedTokenizerFast

    if Path(path).is_dir():
        config = json.loads((Path(path) / "tokenizer_config.json").read_text())
        return PreTrainedTokenizerFast(tokenizer_file=str(Path(path) / "tokenizer.json"),
                                       eos_token=config["eos_token"])
    from gguf import GGUFReader
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    fields = GGUFReader(path).fields
    tokens = fields["tokenizer.ggml.tokens"].contents()
    kinds = fields["tokenizer.ggml.token_type"].contents()
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"].contents()]
    made = Tokenizer(models.BPE({text: i for i, text in enumerate(tokens)}, merges))
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False)
                             for text, kind in zip(tokens, kinds) if kind == 3])
    eos = tokens[fields["tokenizer.ggml.eos_token_id"].contents()]
    return PreTrainedTokenizerFast(tokenizer_object=made, eos_token=eos)


class LLGuidance:
    """`start` compiles, `mask` fills the mask of the place, `take` appends a token."""

    def __init__(self, tokenizer):
        import llguidance
        import llguidance.hf
        import llguidance.numpy

        self.module = llguidance
        self.tokens = llguidance.hf.from_tokenizer(tokenizer)
        # What llguidance.numpy.fill_next_token_bitmask calls, without its checks.
        self.bits = llguidance.numpy.allocate_token_bitmask(1, self.tokens.vocab_size)
        self.place = (self.bits.ctypes.data, self.bits.nbytes)

    def compile(self, schema):
        grammar = self.module.LLMatcher.grammar_from_json_schema(schema)
        self.first = self.module.LLMatcher(self.tokens, grammar, log_level=0)
        if self.first.is_error():
            raise ValueError(self.first.get_error())

    def start(self):
        self.matcher = self.first.deep_copy()

    def mask(self):
        self.matcher.unsafe_compute_mask_ptr(*self.place)

    def take(self, token):
        return self.matcher.consume_token(token)

    def ended(self):
        return self.matcher.is_accepting()


class XGrammar:
    def __init__(self, tokenizer):
        import xgrammar

        self.module = xgrammar
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer)
        self.compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
        self.bits = xgrammar.allocate_token_bitmask(1, info.vocab_size)
        self.eos = tokenizer.eos_token_id

    def compile(self, schema):
        # strict_mode would refuse members that the schema does not list.
        self.grammar = self.compiler.compile_json_schema(schema, strict_mode=False)

    def start(self):
        self.matcher = self.module.GrammarMatcher(self.grammar)

    def mask(self):
        self.matcher.fill_next_token_bitmask(self.bits)

    def take(self, token):
        return self.matcher.accept_token(token)

    def ended(self):
        return self.matcher.is_terminated() or self.matcher.accept_token(self.eos)


def serve(pipe, engine, tokenizer):
    """The worker: a line of MaskBench comes in, its row goes out."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # a peer warns of every token that it refuses
    # The first of everything pays for what is loaded as it is first used.
    engine.compile('{"properties":{"a":{"type":"string"}}}')
    engine.start()
    engine.mask()
    while True:
        case = pipe.recv()
        row = {"masks_us": [], "verdicts": []}
        begin = time.perf_counter_ns()
        try:
            engine.compile(json.dumps(case["schema"]))
        except Exception as error:
            pipe.send({"result": "refused", "error": str(error)[:300]})
            continue
        row["compile_us"] = (time.perf_counter_ns() - begin) / 1000
        for test in case["tests"]:
            text = json.dumps(test["data"], separators=(",", ":"), ensure_ascii=False)
            engine.start()
            taken = True
            for token in tokenizer.encode(text, add_special_tokens=False):
                if test["valid"]:
                    begin = time.perf_counter_ns()
                    engine.mask()
                    row["masks_us"].append((time.perf_counter_ns() - begin) / 1000)
                taken = engine.take(token)
                if not taken:
                    break
            row["verdicts"].append(bool(taken and engine.ended()))
        row["result"] = "ok"
        pipe.send(row)


class Worker:
    """A copy of this process, which has the engine loaded."""

    def __init__(self, engine, tokenizer):
        self.arguments = (engine, tokenizer)
        self.begin()

    def begin(self):
        self.pipe, other = multiprocessing.Pipe()
        self.process = multiprocessing.Process(target=serve, args=(other, *self.arguments),
                                               daemon=True)
        self.process.start()
        other.close()

    def run(self, case, limit_s):
        self.pipe.send(case)
        try:
            if self.pipe.poll(limit_s):
                return self.pipe.recv()
            result = "timeout"
        except EOFError:
            result = "crash"
        self.process.kill()
        self.process.join()
        self.begin()
        return {"result": result}


def percentile(values, share):
    """The nearest rank."""
    values = sorted(values)
    return values[max(0, -int(-share * len(values) // 1) - 1)] if values else 0


def summary_of(cases, rows):
    summary = {"schemas": len(cases), "fully_right": 0, "invalid_accepted": 0, "valid_rejected": 0}
    for name, result in (("compile_errors", "refused"), ("crashes", "crash"),
                         ("timeouts", "timeout")):
        summary[name] = sum(row["result"] == result for row in rows)
    done = [(case, row) for case, row in zip(cases, rows) if row["result"] == "ok"]
    for case, row in done:
        pairs = [(test["valid"], verdict) for test, verdict in zip(case["tests"], row["verdicts"])]
        summary["invalid_accepted"] += sum(verdict and not valid for valid, verdict in pairs)
        summary["valid_rejected"] += sum(valid and not verdict for valid, verdict in pairs)
        summary["fully_right"] += all(valid == verdict for valid, verdict in pairs)
    compiles = [row["compile_us"] for _, row in done]
    masks = [mask for _, row in done for mask in row["masks_us"]]
    summary["masks"] = len(masks)
    for name, values in (("compile", compiles), ("mask", masks)):
        for share in (0.5, 0.99):
            summary[f"{name}_p{share * 100:.0f}_us"] = round(percentile(values, share), 2)
        summary[f"{name}_most_us"] = round(max(values, default=0), 1)
    return summary


def run_specdec(cases, tokenizer):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as lines, \
            tempfile.NamedTemporaryFile(suffix=".json") as report:
        for case in cases:
            lines.write(json.dumps(case) + "\n")
        lines.flush()
        subprocess.run([TOOL, "maskbench", lines.name, "--tokenizer", tokenizer, "--json",
                        report.name], check=True, stdout=subprocess.DEVNULL)
        return json.load(open(report.name))["summary"]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="MaskBench, JSON lines, perhaps as .xz")
    parser.add_argument("--tokenizer", action="append",
                        help="GGUF file, or folder with tokenizer.json and tokenizer_config.json")
    parser.add_argument("--every", type=int, default=10, help="take one schema of so many")
    parser.add_argument("--limit-s", type=float, default=1, help="seconds for a schema, peers")
    parser.add_argument("--engines", default="specdec,llguidance,xgrammar")
    parser.add_argument("--json", help="write the figures to this file")
    options = parser.parse_args()
    tokenizers = options.tokenizer or [str(ROOT / "models/smollm2-135m-draft.Q8_0.gguf")]

    opened = lzma.open if options.file.endswith(".xz") else open
    with opened(options.file, "rt", encoding="utf-8") as file:
        cases = [json.loads(line) for i, line in enumerate(file) if i % options.every == 0]
    report = {"every": options.every, "limit_s": options.limit_s, "vocabularies": []}
    for tokenizer in tokenizers:
        engines = {}
        for name in options.engines.split(","):
            if name == "specdec":
                engines[name] = run_specdec(cases, tokenizer)
                continue
            made = tokenizer_of(tokenizer)
            worker = Worker({"llguidance": LLGuidance, "xgrammar": XGrammar}[name](made), made)
            rows = [worker.run(case, options.limit_s) for case in cases]
            worker.process.kill()
            engines[name] = {"version": version(name), **summary_of(cases, rows)}
        report["vocabularies"].append({"tokenizer": Path(tokenizer).name,
                                       "tokens": len(tokenizer_of(tokenizer)), "engines": engines})
        print(f"\n{Path(tokenizer).name}: {len(cases)} schemas")
        keys = [key for key in next(iter(engines.values())) if key != "version"]
        print(f"{'':18}" + "".join(f"{name:>14}" for name in engines))
        for key in keys:
            print(f"{key:18}" + "".join(f"{engine.get(key, '-'):>14}"
                                        if not isinstance(engine.get(key), float)
                                        else f"{engine[key]:>14.2f}" for engine in engines.values()))
    if options.json:
        Path(options.json).write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    multiprocessing.set_start_method("fork")
    main()
