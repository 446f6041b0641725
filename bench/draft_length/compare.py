#!/usr/bin/env python3
"""Adaptive lengths against every fixed one, by kind of text, and after a switch of domain.

Runs specdec-bench on the prompts of one kind after another: fixed lengths side by side, the adaptive mode before and
after them, each beside its own plain decoding; what is compared is their ratio to that. The kinds come from the development prompts: code, chat,
summarisation; random text is drawn here (seeded), and "switch" is a conversation whose turns come from two kinds.
Needs nothing but a build with tools:

    python3 bench/draft_length/compare.py --config specdec.toml --draft-model models/smollm2-135m-eagle3
"""
import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]


def workload(per_kind):
    rows = [json.loads(line) for line in open(ROOT / "bench/prompts/spec_bench_dev.jsonl", encoding="utf-8")]
    by_category = {}
    for row in rows:
        by_category.setdefault(row["category"], []).append(row["turns"])
    chat = [turns for kind in ("roleplay", "writing", "humanities") for turns in by_category[kind]]
    kinds = {"code": by_category["coding"], "chat": chat, "summarisation": by_category["summarization"]}
    random.seed(20261124)
    words = ["".join(random.choices("abcdefghijklmnopqrstuvwxyz", k=random.randint(2, 9))) for _ in range(400)]
    kinds["random"] = [["Continue: " + " ".join(random.choices(words, k=60))] for _ in range(per_kind)]
    prompts = [{"category": kind, "turns": turns[:1]}
               for kind, all_turns in kinds.items() for turns in all_turns[:per_kind]]
    order = ["chat", "code", "summarisation", "random"]
    for i in range(per_kind):
        first, second = order[i % 4], order[(i + 1 + i // 4) % 4]
        if first == second:
            second = order[(i + 2) % 4]
        prompts.append({"category": "switch", "turns": [kinds[first][i % len(kinds[first])][0],
                                                        kinds[second][(i + 1) % len(kinds[second])][0]]})
    return prompts


def bench(options, prompts_file, mode, methods):
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [options.bench, "--config", options.config, "--draft-model", options.draft_model, "--draft-method",
                   options.method, "--prompts", prompts_file, "--turns", "all", "--temperature",
                   str(options.temperature), "--max-tokens", str(options.max_tokens), "--draft-length-mode", mode,
                   "--num-speculative-tokens", str(options.most), "--draft-topk", str(options.topk),
                   "--num-draft-tokens", str(options.nodes), "--threads", str(options.threads), "--methods",
                   ",".join(methods), "--json", out.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return json.load(open(out.name, encoding="utf-8"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", default=str(ROOT / "build/release/tools/specdec_bench/specdec-bench"))
    parser.add_argument("--config", default=str(ROOT / "specdec.toml"))
    parser.add_argument("--draft-model", default=str(ROOT / "models/smollm2-135m-eagle3"))
    parser.add_argument("--method", default="suffix+eagle3")
    parser.add_argument("--lengths", default="1,2,3,4,5,6,8")
    parser.add_argument("--most", type=int, default=8, help="bound of the adaptive mode")
    parser.add_argument("--topk", type=int, default=1)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--kinds", help="of code, chat, summarisation, random, switch; all by default")
    parser.add_argument("--per-kind", type=int, default=8, help="prompts of each kind")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()

    lengths = options.lengths.split(",")
    by_kind = {}
    for prompt in workload(options.per_kind):
        by_kind.setdefault(prompt["category"], []).append(prompt)
    ratios = {}  # [kind][setting]
    print(f"{'kind':14}" + "".join(f"{n:>8}" for n in lengths) + f"{'adaptive':>10}{'to best fixed':>15}", flush=True)
    for kind in options.kinds.split(",") if options.kinds else by_kind:
        row = ratios[kind] = {}
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
            file.writelines(json.dumps(prompt) + "\n" for prompt in by_kind[kind])
            file.flush()
            before = bench(options, file.name, "adaptive", ["none", options.method])
            fixed = bench(options, file.name, "fixed", ["none"] + [f"{options.method}:{n}" for n in lengths])
            adaptive = bench(options, file.name, "adaptive", ["none", options.method])
        for document in (before, fixed, adaptive):
            for method in document["methods"]:
                if not method["identical"] and options.temperature == 0:
                    sys.exit(f"{method['method']} changed tokens in {kind}")
        for n, method in zip(lengths, fixed["methods"][1:]):
            row[n] = method["ratio_to_none"]
        row["adaptive_runs"] = [document["methods"][1]["ratio_to_none"] for document in (before, adaptive)]
        row["adaptive"] = sum(row["adaptive_runs"]) / 2
        best = max(row[n] for n in lengths)
        row["adaptive_to_best_fixed"] = row["adaptive"] / best
        print(f"{kind:14}" + "".join(f"{row[n]:8.2f}" for n in lengths) +
              f"{row['adaptive']:10.2f}{row['adaptive_to_best_fixed']:15.3f}", flush=True)
    if options.json:
        arguments = {key: value for key, value in vars(options).items()
                     if key not in ("bench", "config", "draft_model", "json")}
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump({"speedup_over_plain": ratios, "options": arguments, "machine": adaptive["machine"],
                       "version": adaptive["version"]}, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
