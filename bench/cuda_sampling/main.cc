// Times sampling + tree acceptance on the device: a captured graph of kRepeats acceptances over
// rotating logits, device events around it, the median of kRounds.
//   bench_cuda_sampling [out.json]

#include <cuda_runtime.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/sampling/accept.h"

namespace {

using namespace specdec::kernels::cuda;

constexpr int kRepeats = 20;
constexpr int kRounds = 25;

void check(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::fprintf(stderr, "CUDA: %s\n", cudaGetErrorString(error));
  std::exit(1);
}

template <typename T>
T* device_zeros(std::size_t count) {
  T* data = nullptr;
  check(cudaMalloc(&data, count * sizeof(T)));
  check(cudaMemset(data, 0, count * sizeof(T)));
  return data;
}
template <typename T>
T* to_device(const std::vector<T>& values) {
  T* data = device_zeros<T>(values.size());
  check(cudaMemcpy(data, values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice));
  return data;
}

struct Case {
  std::string name;
  RowSampling options;
  SamplingNeeds needs;
};

/// Median microseconds of one acceptance; `buffers` of logits in turn.
double time_accept(SampleRowsParams params, const Case& what, const AcceptedPaths& paths,
                   const std::vector<float*>& buffers, const Launch& to) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  check(cudaStreamBeginCapture(to.stream, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < kRepeats; ++i) {
    params.logits = buffers[static_cast<std::size_t>(i) % buffers.size()];
    check(sample_and_accept(params, what.needs, paths, to));
  }
  check(cudaStreamEndCapture(to.stream, &graph));
  check(cudaGraphInstantiate(&executable, graph, 0));
  cudaEvent_t begin = nullptr;
  cudaEvent_t end = nullptr;
  check(cudaEventCreate(&begin));
  check(cudaEventCreate(&end));
  std::vector<double> times;
  for (int round = 0; round < kRounds + 3; ++round) {
    check(cudaEventRecord(begin, to.stream));
    check(cudaGraphLaunch(executable, to.stream));
    check(cudaEventRecord(end, to.stream));
    check(cudaEventSynchronize(end));
    float milliseconds = 0;
    check(cudaEventElapsedTime(&milliseconds, begin, end));
    if (round >= 3) times.push_back(1000.0 * static_cast<double>(milliseconds) / kRepeats);
  }
  check(cudaGraphExecDestroy(executable));
  check(cudaGraphDestroy(graph));
  std::nth_element(times.begin(), times.begin() + kRounds / 2, times.end());
  return times[kRounds / 2];
}

}  // namespace

int main(int argc, char** argv) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, 0));
  int clock = 0;
  int driver = 0;
  check(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, 0));
  check(cudaDriverGetVersion(&driver));
  nlohmann::json out = {{"command", "bench_cuda_sampling"},
                        {"device", properties.name},
                        {"most_clock_mhz", clock / 1000},
                        {"cuda_driver", driver},
                        {"unit", "microseconds, median of device events"},
                        {"results", nlohmann::json::array()}};

  Launch to;
  check(describe_device(0, properties, to.device));
  check(cudaStreamCreate(&to.stream));

  std::vector<Case> cases(5);
  cases[0].name = "greedy";
  cases[1] = {"top_k 50, top_p 0.9", {}, {.sampled = true}};
  cases[1].options.top_k = 50;
  cases[1].options.top_p = 0.9f;
  cases[2] = {"top_p 0.9", {}, {.sampled = true, .nucleus = true, .dense = true}};
  cases[2].options.top_p = 0.9f;
  cases[3] = {"min_p 0.05", {}, {.sampled = true, .dense = true}};
  cases[3].options.min_p = 0.05f;
  cases[4] = {"temperature alone", {}, {.sampled = true, .dense = true}};
  for (std::size_t i = 1; i < cases.size(); ++i) {
    cases[i].options.inverse_temperature = 1 / 0.8;
    cases[i].options.seed = 7;
  }

  for (const int vocab : {49152, 128256})
    for (const int rows : {1, 16, 64}) {
      std::mt19937_64 random(1);
      std::normal_distribution<float> normal(0, 2.5f);
      const auto width = static_cast<std::size_t>(vocab);
      std::vector<float> logits(static_cast<std::size_t>(rows) * width);
      for (float& value : logits) value = normal(random);
      std::vector<std::int32_t> tokens, parents, depths,
          sequence_of_row(static_cast<std::size_t>(rows), 0);
      // A chain along the greedy tokens: the walk goes all the way, at most 16 deep.
      for (int node = 0; node < rows; ++node) {
        const auto row = logits.begin() + static_cast<std::ptrdiff_t>(node) * vocab;
        const std::size_t winner = random() % width;
        for (int i = 0; i < 40; ++i) row[static_cast<std::ptrdiff_t>(random() % width)] += 6;
        row[static_cast<std::ptrdiff_t>(winner)] = 30;
        const bool chain = node < 16;
        tokens.push_back(static_cast<std::int32_t>(winner));
        parents.push_back(node == 0 ? -1 : chain ? node - 1 : 0);
        depths.push_back(chain ? node : 1);
      }
      std::rotate(tokens.begin(), tokens.end() - 1, tokens.end());

      // One buffer stays in the second-level cache; together they are larger than it.
      std::vector<float*> buffers;
      const std::size_t count = 1 + (128u << 20) / (logits.size() * sizeof(float));
      for (std::size_t i = 0; i < std::min<std::size_t>(count, kRepeats); ++i)
        buffers.push_back(to_device(logits));

      const auto all = static_cast<std::size_t>(rows);
      SampleRowsParams params;
      params.vocab = vocab;
      params.tree = {.num_sequences = 1,
                     .num_rows = rows,
                     .first_rows = device_zeros<std::int32_t>(1),
                     .sizes = to_device(std::vector<std::int32_t>{rows}),
                     .sequence_of_row = to_device(sequence_of_row),
                     .tokens = to_device(tokens),
                     .parents = to_device(parents),
                     .depths = to_device(depths)};
      params.sequences = to_device(std::vector<SequenceState>{{100, 10}});
      params.scratch = {
          .states = device_zeros<RowState>(all),
          .chunk_keys =
              device_zeros<std::uint32_t>(all * static_cast<std::size_t>(num_chunks(vocab))),
          .digits = device_zeros<unsigned long long>(all * kDigitBins),
          .slice_best = device_zeros<SliceBest>(all * static_cast<std::size_t>(num_slices(vocab)))};
      params.tokens = device_zeros<std::int32_t>(all);
      params.status = device_zeros<RowStatus>(all);
      const AcceptedPaths paths{.capacity = 65,
                                .lengths = device_zeros<std::int32_t>(1),
                                .nodes = device_zeros<std::int32_t>(65),
                                .tokens = device_zeros<std::int32_t>(65),
                                .status = device_zeros<RowStatus>(1)};
      for (const Case& what : cases) {
        params.options = to_device(std::vector<RowSampling>{what.options});
        const double cached = time_accept(params, what, paths, {buffers[0]}, to);
        const double rotated = time_accept(params, what, paths, buffers, to);
        std::int32_t length = 0;
        check(cudaMemcpy(&length, paths.lengths, sizeof(length), cudaMemcpyDeviceToHost));
        std::printf("vocab %6d rows %2d %-20s cached %7.2f us, from memory %7.2f us, path %d\n",
                    vocab, rows, what.name.c_str(), cached, rotated, length);
        out["results"].push_back({{"vocab", vocab},
                                  {"rows", rows},
                                  {"options", what.name},
                                  {"logits_in_cache", cached},
                                  {"logits_in_memory", rotated},
                                  {"accepted_path", length}});
      }
      for (float* buffer : buffers) check(cudaFree(buffer));
    }
  if (argc > 1) {
    std::FILE* file = std::fopen(argv[1], "w");
    if (file == nullptr) return 1;
    const std::string text = out.dump(1);
    std::fwrite(text.data(), 1, text.size(), file);
    std::fclose(file);
  }
  return 0;
}
