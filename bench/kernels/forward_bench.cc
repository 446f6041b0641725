// Whole forwards of SmolLM2-135M's shapes: decoding, verification and prefill.
#include <benchmark/benchmark.h>

#include <string>

#include "kernels/cpu/thread_pool.h"
#include "synthetic_model.h"

namespace {

using namespace specdec::kernels;
using bench::SyntheticModel;

SyntheticModel& model() {
  static SyntheticModel instance(DataType::q4_1, 2048 + 512, 512);
  return instance;
}

/// Arguments: rows, context, threads.
void forward(benchmark::State& state, Isa isa) {
  const auto rows = static_cast<int>(state.range(0));
  const auto context = static_cast<int>(state.range(1));
  ThreadPool pool(static_cast<int>(state.range(2)));
  CpuOps ops(isa, pool);
  SyntheticModel& m = model();
  for (auto _ : state) m.forward(ops, context, rows, rows <= 64);
  state.counters["tok/s"] =
      benchmark::Counter(static_cast<double>(rows), benchmark::Counter::kIsIterationInvariantRate);
}

void forward_arguments(benchmark::internal::Benchmark* b) {
  b->ArgNames({"rows", "context", "threads"})->UseRealTime()->Unit(benchmark::kMillisecond);
  for (const int context : {64, 512, 2048}) {
    for (const int rows : {1, 2, 4, 6, 8, 16, 64}) b->Args({rows, context, 2});
  }
  b->Args({1, 64, 1})->Args({6, 64, 1})->Args({512, 0, 2})->Args({512, 0, 1});
}

// One family per instruction set that this machine has.
[[maybe_unused]] const bool registered = [] {
  for (const Isa isa : {Isa::avx2, Isa::avx512_vnni, Isa::amx}) {
    if (!supported(isa)) continue;
    const std::string name = std::string("forward/") + to_string(isa);
    benchmark::RegisterBenchmark(name.c_str(), forward, isa)->Apply(forward_arguments);
  }
  return true;
}();

}  // namespace
