"""Forward passes of Llama shapes in PyTorch: each layer compiled, the whole pass one CUDA graph.

    python3 torch_llama.py [--models smollm2-bf16,llama-8b] [--json FILE]

Weights are random bf16, keys and values lie in a static cache, a pass ends at the logits, as in
bench_cuda. PyTorch gets the easier work where the two differ: plain decoding reads exactly the
context, without the mask that a cache of fixed size would need, and nothing is paged.
"""

import argparse
import json
import statistics

import torch
import torch.nn.functional as F

from shapes import SHAPES

# name, sequences, rows of each, committed context, tree
CASES = [
    ("decode, context 512", 1, 1, 512, False),
    ("decode, context 2048", 1, 1, 2048, False),
    ("verify a tree of 16", 1, 16, 512, True),
    ("verify a tree of 64", 1, 64, 512, True),
    ("batch 32, context 512", 32, 1, 512, False),
    ("prefill 2048", 1, 2048, 0, False),
]
REPEATS = 21


def rms_norm(x, weight):
    wide = x.float()
    return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * weight


def rotate(x, cos, sin):
    a, b = x.float().chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1).to(x.dtype)


def block(x, w, keys, values, positions, mask, cos, sin, heads, kv_heads, causal):
    """One layer. x [batch, rows, hidden], keys and values [batch, kv_heads, context, dim]."""
    batch, rows, _ = x.shape
    dim = keys.shape[-1]
    qkv = F.linear(rms_norm(x, w["attention_norm"]), w["qkv"])
    qkv = qkv.view(batch, rows, heads + 2 * kv_heads, dim).transpose(1, 2)
    q, k, v = qkv.split((heads, kv_heads, kv_heads), dim=1)
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    keys[:, :, positions] = k
    values[:, :, positions] = v
    y = F.scaled_dot_product_attention(
        q, keys, values, attn_mask=mask, is_causal=causal, enable_gqa=heads != kv_heads
    )
    x = x + F.linear(y.transpose(1, 2).reshape(batch, rows, heads * dim), w["output"])
    gate, up = F.linear(rms_norm(x, w["ffn_norm"]), w["gate_up"]).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, w["down"])


class Model:
    def __init__(self, shape):
        def random(*size):
            return torch.randn(*size, device="cuda", dtype=torch.bfloat16) * 0.02

        s = self.shape = shape
        width = (s["heads"] + 2 * s["kv_heads"]) * s["dim"]
        self.embedding = random(s["vocab"], s["hidden"])
        self.head = random(s["vocab"], s["hidden"])
        self.norm = random(s["hidden"])
        self.layers = [
            {
                "attention_norm": random(s["hidden"]),
                "qkv": random(width, s["hidden"]),
                "output": random(s["hidden"], s["heads"] * s["dim"]),
                "ffn_norm": random(s["hidden"]),
                "gate_up": random(2 * s["ffn"], s["hidden"]),
                "down": random(s["hidden"], s["ffn"]),
            }
            for _ in range(s["layers"])
        ]
        self.block = torch.compile(block, fullgraph=True, dynamic=False)

    def measure(self, sequences, rows, context, tree):
        """Median milliseconds of a pass."""
        s = self.shape
        length = context + rows
        caches = [
            tuple(
                torch.randn(
                    sequences, s["kv_heads"], length, s["dim"], device="cuda", dtype=torch.bfloat16
                )
                for _ in range(2)
            )
            for _ in self.layers
        ]
        tokens = torch.randint(s["vocab"], (sequences, rows), device="cuda")
        positions = torch.arange(context, length, device="cuda")
        frequencies = 10000.0 ** (-torch.arange(0, s["dim"], 2, device="cuda") / s["dim"])
        angles = positions[:, None] * frequencies
        cos, sin = angles.cos(), angles.sin()
        mask = None
        if tree:  # a binary tree: a node sees the context and its ancestors
            mask = torch.zeros(rows, length, dtype=torch.bool, device="cuda")
            mask[:, :context] = True
            for row in range(rows):
                node = row
                while node >= 0:
                    mask[row, context + node] = True
                    node = (node - 1) // 2 if node > 0 else -1
        causal = rows > 1 and not tree

        def forward():
            x = F.embedding(tokens, self.embedding)
            for w, (keys, values) in zip(self.layers, caches):
                x = self.block(
                    x, w, keys, values, positions, mask, cos, sin, s["heads"], s["kv_heads"], causal
                )
            if causal:
                x = x[:, -1:]
            return F.linear(rms_norm(x, self.norm), self.head)

        torch.cuda.synchronize()  # what was made above, before another stream reads it
        with torch.no_grad():
            stream = torch.cuda.Stream()
            with torch.cuda.stream(stream):
                for _ in range(3):
                    forward()
                stream.synchronize()
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph, stream=stream):
                    forward()
                times = []
                for i in range(REPEATS + 3):
                    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                    begin.record()
                    graph.replay()
                    end.record()
                    end.synchronize()
                    if i >= 3:
                        times.append(begin.elapsed_time(end))
        del graph, caches
        return statistics.median(times), min(times), max(times)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="smollm2-bf16,llama-8b")
    parser.add_argument("--json")
    options = parser.parse_args()
    results = {
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(),
        "models": {},
    }
    for name in options.models.split(","):
        model = Model(SHAPES[name])
        cases = results["models"][name] = {}
        for case, *work in CASES:
            torch.compiler.reset()
            median, fastest, slowest = model.measure(*work)
            cases[case] = {"us": median * 1e3, "min_us": fastest * 1e3, "max_us": slowest * 1e3}
            print(f"{name:13} {case:22} {median * 1e3:9.1f} us", flush=True)
        del model
        torch.cuda.empty_cache()
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)


if __name__ == "__main__":
    main()
