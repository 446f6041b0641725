"""specdec's forward passes on a GPU against PyTorch's and llama.cpp's, in one run.

    python3 bench/vs_peers_gpu/run.py --bench-cuda build/release/bench/cuda/bench_cuda [--json FILE]
        [--llama-bench llama-bench] [--gguf MODEL.gguf]

PyTorch (torch_llama.py) takes part where it is installed with CUDA; llama.cpp where its CUDA
build's llama-bench is in PATH (or named), with the same shapes in files of random weights
(random_gguf.py; 16 GB in the folder for temporary files), and with a model file if one is given.
(In llama.cpp's tree: cmake -B build -DGGML_CUDA=ON && cmake --build build --target llama-bench.)
Order: ours, the peers, ours again, so that a drift of the clock shows as a spread of our own
figures.

llama.cpp gets the easier work where the two differ: it verifies a chain, not a tree, with the
logits of its last token alone, and of the sizes of a physical batch the faster one counts. What its
host does between two tokens is in its figure, as in its own reports.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile

MODELS = "smollm2-bf16,llama-8b"


def run_ours(program, models, folder, name):
    path = os.path.join(folder, name)
    subprocess.run([program, "--models", models, "--json", path], check=True)
    with open(path) as file:
        report = json.load(file)
    return report, {
        (model["model"], case["case"]): case["us"]
        for model in report["models"]
        for case in model["cases"]
    }


def run_torch(models, folder):
    try:
        import torch
    except ImportError:
        return None, "not installed"
    if not torch.cuda.is_available():
        return None, "installed without CUDA"
    path = os.path.join(folder, "torch.json")
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "torch_llama.py")
    done = subprocess.run([sys.executable, script, "--models", models, "--json", path])
    if done.returncode != 0:
        return None, f"failed with exit status {done.returncode}"
    with open(path) as file:
        return json.load(file), None


def llama_bench(program, model, *flags):
    done = subprocess.run(
        [program, "-m", model, "-ngl", "99", "-fa", "1", "-o", "json", *flags],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


# Our case: tokens of the prompt, of the answer, of the context before.
LLAMA_CASES = {
    "decode, context 512": (0, 64, 512),
    "decode, context 2048": (0, 64, 2048),
    "verify a tree of 16": (16, 0, 512),
    "verify a tree of 64": (64, 0, 512),
    "prefill 2048": (2048, 0, 0),
}


def run_llama(program, models, folder, gguf):
    """"models": {model: {case: us}}, "build": its number, "of_file": of `gguf`; or None and why not."""
    if shutil.which(program) is None:
        return None, f"{program} not found"
    try:
        import random_gguf
    except ImportError as error:
        return None, str(error)
    flags = ("-p", "16,64,2048", "-n", "64", "-d", "0,512,2048", "-ub", "512,2048", "-r", "3")
    report = {"models": {}, "of_file": []}
    for model in models.split(","):
        path = os.path.join(folder, model + ".gguf")
        try:
            random_gguf.write(model, path)
            entries = llama_bench(program, path, *flags)
        except (OSError, subprocess.CalledProcessError) as error:
            return None, f"{model}: {error}"
        finally:
            if os.path.exists(path):
                os.remove(path)
        report["build"] = entries[0]["build_commit"]
        cases = report["models"][model] = {}
        for case, wanted in LLAMA_CASES.items():
            tokens = wanted[1] or 1  # an answer's take a pass each
            cases[case] = min(
                statistics.median(entry["samples_ns"]) / 1e3 / tokens
                for entry in entries
                if (entry["n_prompt"], entry["n_gen"], entry["n_depth"]) == wanted
            )
    if gguf:  # the shapes' figures stay if this fails
        try:
            report["of_file"] = llama_bench(program, gguf, "-p", "512,2048", "-n", "128")
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"llama.cpp on {gguf}: {error}", file=sys.stderr)
    return report, None


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bench-cuda", required=True)
    parser.add_argument("--models", default=MODELS)
    parser.add_argument("--llama-bench", default="llama-bench")
    parser.add_argument("--gguf")
    parser.add_argument("--json")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        report, first = run_ours(options.bench_cuda, options.models, folder, "first.json")
        torch_report, torch_absent = run_torch(options.models, folder)
        llama, llama_absent = run_llama(
            options.llama_bench, options.models, folder, options.gguf
        )
        _, second = run_ours(options.bench_cuda, options.models, folder, "second.json")

    rows = []
    print(
        f"\n{'model':13} {'case':22} {'ours, us':>17} {'PyTorch, us':>12} {'/ ours':>7} "
        f"{'llama.cpp, us':>14} {'/ ours':>7}"
    )
    for key, us in first.items():
        again = second[key]
        ours = (us + again) / 2
        row = {"model": key[0], "case": key[1], "ours_us": [us, again]}
        line = f"{key[0]:13} {key[1]:22} {us:8.0f} {again:8.0f} "
        torch_case = torch_report["models"].get(key[0], {}).get(key[1]) if torch_report else None
        llama_us = llama["models"].get(key[0], {}).get(key[1]) if llama else None
        for name, peer, peer_us, width in (
            ("torch", torch_case, torch_case and torch_case["us"], 12),
            ("llama_cpp", llama_us, llama_us, 14),
        ):
            row[name] = peer
            if peer:
                row[f"{name}_over_ours"] = peer_us / ours
                line += f"{peer_us:{width}.0f} {peer_us / ours:6.2f}x "
            else:
                line += " " * (width + 9)
        rows.append(row)
        print(line.rstrip())
    if torch_absent:
        print(f"PyTorch: {torch_absent}")
    if llama_absent:
        print(f"llama.cpp: {llama_absent}")
    for entry in llama["of_file"] if llama else []:
        print(
            f"llama.cpp {entry['model_type']}: {entry['n_prompt']} + {entry['n_gen']} tokens, "
            f"{entry['avg_ts']:.0f} tok/s"
        )
    if options.json:
        result = {
            "command": sys.argv,
            "device": report["device"],
            "clock_mhz_max": report["clock_mhz_max"],
            "cuda_driver_version": report["cuda_driver_version"],
            "torch": torch_report["torch"] if torch_report else torch_absent,
            "llama_cpp": llama["build"] if llama else llama_absent,
            "llama_cpp_of_file": llama["of_file"] if llama else None,
            "cases": rows,
        }
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
