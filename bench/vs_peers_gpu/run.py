"""specdec's forward passes on a GPU against PyTorch's and llama.cpp's, in one run.

    python3 bench/vs_peers_gpu/run.py --bench-cuda build/release/bench/cuda/bench_cuda [--json FILE]
        [--llama-bench llama-bench --gguf MODEL.gguf]

PyTorch (torch_llama.py) takes part where it is installed with CUDA; llama.cpp where its CUDA
build's llama-bench is in PATH (or named) and a model file is given. Order: ours, PyTorch, ours
again, so that a drift of the clock shows as a spread of our own figures.
"""

import argparse
import json
import os
import shutil
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


def run_llama_bench(program, gguf):
    if not gguf:
        return None, "no --gguf given"
    if shutil.which(program) is None:
        return None, f"{program} not found"
    done = subprocess.run(
        [program, "-m", gguf, "-p", "2048", "-n", "128", "-ngl", "99", "-fa", "1", "-o", "json"],
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode != 0:
        return None, f"failed with exit status {done.returncode}"
    return json.loads(done.stdout), None


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
        _, second = run_ours(options.bench_cuda, options.models, folder, "second.json")
    llama, llama_absent = run_llama_bench(options.llama_bench, options.gguf)

    rows = []
    print(f"\n{'model':13} {'case':22} {'ours, us':>17} {'PyTorch, us':>12} {'PyTorch / ours':>15}")
    for key, us in first.items():
        again = second[key]
        peer = torch_report["models"].get(key[0], {}).get(key[1]) if torch_report else None
        row = {"model": key[0], "case": key[1], "ours_us": [us, again], "torch": peer}
        line = f"{key[0]:13} {key[1]:22} {us:8.0f} {again:8.0f} "
        if peer:
            row["torch_over_ours"] = peer["us"] / ((us + again) / 2)
            line += f"{peer['us']:12.0f} {row['torch_over_ours']:14.2f}x"
        rows.append(row)
        print(line)
    if torch_absent:
        print(f"PyTorch: {torch_absent}")
    if llama_absent:
        print(f"llama.cpp: {llama_absent}")
    else:
        for entry in llama:
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
            "llama_cpp": llama if llama else llama_absent,
            "cases": rows,
        }
        with open(options.json, "w") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
