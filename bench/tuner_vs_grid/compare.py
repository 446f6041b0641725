#!/usr/bin/env python3
"""specdec-tune's choice against the best of a full grid.

The grid gives every setting of the tuner's table the same prompts; then the tuner searches as it would for anybody.
A grid's best is partly luck, the more so the more settings it holds: so the tuner's choice and the grid's best few
meet once more, each beside its own plain decoding, on all prompts and in turns. Needs a build with tools:

    python3 bench/tuner_vs_grid/compare.py --json out.json
"""
import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
CONFIG = """[target]
model = "{target}"
[draft]
method = "eagle3"
model = "{draft}"
[backend]
threads = {threads}
[sampling]
temperature = {temperature}
max_tokens = {max_tokens}
"""


def tune(options, config, minutes, grid):
    command = [options.tune, "--config", config, "--prompts", options.prompts, "--minutes", str(minutes), "--json"]
    begin = time.monotonic()
    ran = subprocess.run(command + (["--grid"] if grid else []), check=True, stdout=subprocess.PIPE)
    return json.loads(ran.stdout), time.monotonic() - begin


def speedup(options, config, trial):
    """Over plain decoding in the same run, on options.limit prompts."""
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        command = [options.bench, "--config", config, "--prompts", options.prompts, "--limit", str(options.limit),
                   "--draft-length-mode", trial["mode"], "--num-speculative-tokens",
                   str(trial["num_speculative_tokens"]), "--draft-topk", str(trial["topk"]), "--num-draft-tokens",
                   str(trial["num_draft_tokens"]), "--verify-method", trial["verify"], "--methods",
                   "none," + trial["method"], "--json", out.name]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        plain, method = json.load(open(out.name, encoding="utf-8"))["methods"]
        if not method["identical"] and options.temperature == 0:
            sys.exit(trial["setting"] + " changed tokens")
        return method["ratio_to_none"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    tools = ROOT / "build/release/tools"
    parser.add_argument("--tune", default=str(tools / "specdec_tune/specdec-tune"))
    parser.add_argument("--bench", default=str(tools / "specdec_bench/specdec-bench"))
    parser.add_argument("--target", default=str(ROOT / ".cache/models/SmolLM2-135M-Instruct.Q4_1.gguf"))
    parser.add_argument("--draft", default=str(ROOT / "models/smollm2-135m-eagle3"))
    parser.add_argument("--prompts", default=str(ROOT / "bench/prompts/spec_bench_dev.jsonl"))
    parser.add_argument("--limit", type=int, default=40, help="prompts of the last comparison")
    parser.add_argument("--grid-minutes", type=float, default=8)
    parser.add_argument("--minutes", type=float, default=4, help="the tuner's")
    parser.add_argument("--finalists", type=int, default=2, help="the grid's best that meet the tuner's choice")
    parser.add_argument("--rounds", type=int, default=1, help="of the last comparison")
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--temperature", type=float, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", help="write the figures here")
    options = parser.parse_args()

    with tempfile.NamedTemporaryFile("w", suffix=".toml") as config:
        config.write(CONFIG.format(**vars(options)))
        config.flush()
        grid, grid_seconds = tune(options, config.name, options.grid_minutes, True)
        tuned, seconds = tune(options, config.name, options.minutes, False)
        by_name = {trial["setting"]: trial for trial in grid["trials"]}
        if tuned["best"] not in by_name:
            sys.exit(f"the tuner chose {tuned['best']}")
        names = list(dict.fromkeys([tuned["best"]] + [t["setting"] for t in grid["trials"][:options.finalists]]))
        final = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                final[name].append(speedup(options, config.name, by_name[name]))
    means = {name: sum(values) / len(values) for name, values in final.items()}
    result = {"tuned": tuned["best"], "tuner_seconds": seconds,
              "grid_best": grid["best"], "grid_seconds": grid_seconds, "grid_settings": len(by_name),
              "tuned_to_grid_best": means[tuned["best"]] / max(means.values()),
              "tuned_to_grid_best_in_the_grid": by_name[tuned["best"]]["speedup"] / grid["trials"][0]["speedup"],
              "final_speedups": final,
              "grid_speedups": {trial["setting"]: round(trial["speedup"], 4) for trial in grid["trials"]},
              "grid_prompts": grid["trials"][0]["num_prompts"], "tuner_prompts": tuned["trials"][0]["num_prompts"],
              "max_tokens": options.max_tokens, "temperature": options.temperature, "machine": tuned["machine"],
              "version": tuned["version"]}
    print(f"{result['tuned']} in {seconds:.0f} s; the grid ({len(by_name)} settings, {grid_seconds:.0f} s): "
          f"{grid['best']}; tuned / best {result['tuned_to_grid_best']:.3f}")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as out:
            json.dump(result, out, indent=1)
            out.write("\n")


if __name__ == "__main__":
    main()
