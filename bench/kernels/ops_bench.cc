// Each fused op alone at SmolLM2-135M's shapes, rotating over the layers so that weights come from
// memory as in a real forward.
#include <benchmark/benchmark.h>

#include "kernels/cpu/thread_pool.h"
#include "synthetic_model.h"

namespace {

using namespace specdec::kernels;
using bench::SyntheticModel;

enum class Op { qkv, attention, output, gate_up, down, head };

/// Arguments: rows, context.
template <Op op>
void one_op(benchmark::State& state) {
  static SyntheticModel model(DataType::q4_1, 2048 + 512, 512);
  const auto rows = static_cast<int>(state.range(0));
  const auto context = static_cast<int>(state.range(1));
  ThreadPool pool(2);
  CpuOps ops(best_isa(), pool);
  model.embed(ops, rows);
  model.qkv(ops, 0, context, rows);
  int layer = 0;
  for (auto _ : state) {
    layer = (layer + 1) % SyntheticModel::kLayers;
    switch (op) {
      case Op::qkv:
        model.qkv(ops, layer, context, rows);
        break;
      case Op::attention:
        model.attention(ops, layer, context, rows);
        break;
      case Op::output:
        model.output(ops, layer, rows);
        break;
      case Op::gate_up:
        model.gate_up(ops, layer, rows);
        break;
      case Op::down:
        model.down(ops, layer, rows);
        break;
      case Op::head:
        model.head(ops, rows, rows <= 64);
        break;
    }
  }
}

void widths(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "context"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int rows : {1, 2, 4, 6, 8, 16, 64, 512}) b->Args({rows, 0});
}
void contexts(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "context"})->UseRealTime()->Unit(benchmark::kMicrosecond);
  for (const int context : {64, 512, 2048}) {
    for (const int rows : {1, 6, 16}) b->Args({rows, context});
  }
  b->Args({512, 0});
}

BENCHMARK(one_op<Op::qkv>)->Name("qkv")->Apply(widths);
BENCHMARK(one_op<Op::attention>)->Name("attention")->Apply(contexts);
BENCHMARK(one_op<Op::output>)->Name("output")->Apply(widths);
BENCHMARK(one_op<Op::gate_up>)->Name("gate_up")->Apply(widths);
BENCHMARK(one_op<Op::down>)->Name("down")->Apply(widths);
BENCHMARK(one_op<Op::head>)->Name("head")->Apply(widths);

}  // namespace
