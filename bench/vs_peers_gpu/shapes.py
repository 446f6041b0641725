"""Llama shapes, as bench_cuda has them."""

SHAPES = {
    "smollm2-bf16": dict(hidden=576, layers=30, heads=9, kv_heads=3, dim=64, ffn=1536, vocab=49152),
    "llama-8b": dict(
        hidden=4096, layers=32, heads=32, kv_heads=8, dim=128, ffn=14336, vocab=128256
    ),
}
