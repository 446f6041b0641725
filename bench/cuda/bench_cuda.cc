// Forward passes on a GPU, each as a replayed graph: medians over device events, and the ratio of
// the bytes that a pass must read to a copy measured in the same run.
//   bench_cuda [--models llama-8b,smollm2] [--json FILE]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "random_weights.h"
#include "synthetic_model.h"

using namespace specdec::kernels;
using namespace specdec::kernels::bench;
using nlohmann::json;

namespace {

constexpr int kRepeats = 21;

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

class Timer {
 public:
  Timer() {
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    require(cudaEventCreate(&begin_));
    require(cudaEventCreate(&end_));
  }
  ~Timer() {
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
    cudaStreamDestroy(stream_);
  }
  cudaStream_t stream() const { return stream_; }

  /// Microseconds of one `enqueue`, which is captured into a graph and replayed.
  template <class Enqueue>
  double measure(Enqueue enqueue, int repeats = kRepeats) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t runnable = nullptr;
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    enqueue(stream_);
    require(cudaStreamEndCapture(stream_, &graph));
    require(cudaGraphInstantiate(&runnable, graph, 0));
    std::vector<double> times;
    for (int i = 0; i < repeats + 3; ++i) {
      require(cudaEventRecord(begin_, stream_));
      require(cudaGraphLaunch(runnable, stream_));
      require(cudaEventRecord(end_, stream_));
      require(cudaStreamSynchronize(stream_));
      float milliseconds = 0;
      require(cudaEventElapsedTime(&milliseconds, begin_, end_));
      if (i >= 3) times.push_back(milliseconds * 1e3);
    }
    require(cudaGraphExecDestroy(runnable));
    require(cudaGraphDestroy(graph));
    return median(times);
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

/// GB/s of a device-to-device copy, bytes read and written.
double copy_rate(Timer& timer) {
  const std::size_t bytes = std::size_t{2} << 30;
  void* from = nullptr;
  void* to = nullptr;
  require(cudaMalloc(&from, bytes));
  require(cudaMalloc(&to, bytes));
  require(cudaMemset(from, 0x5a, bytes));
  const double us = timer.measure(
      [&](cudaStream_t stream) { require(copy_on_processors(to, from, bytes, stream)); });
  cudaFree(from);
  cudaFree(to);
  return 2.0 * static_cast<double>(bytes) / us / 1e3;
}

ModelShape shape_of(const std::string& name) {
  if (name == "llama-8b")
    return {name, 4096, 32, 32, 8, 128, 14336, 128256, DataType::bf16, DataType::bf16};
  if (name == "smollm2-bf16")
    return {name, 576, 30, 9, 3, 64, 1536, 49152, DataType::bf16, DataType::bf16};
  return {name, 576, 30, 9, 3, 64, 1536, 49152, DataType::q4_1, DataType::q8_0};
}

struct Case {
  const char* name;
  Workload work;
};

json run_model(const std::string& name, const cuda::DeviceInfo& device, Timer& timer,
               double copy_gb_s) {
  const ModelShape shape = shape_of(name);
  SyntheticModel model(shape, device, 2048, 32 * 1024);
  const std::vector<Case> cases = {
      {"decode, context 512", {.rows = 1}},
      {"decode, context 2048", {.rows = 1, .context = 2048}},
      {"verify a tree of 16", {.rows = 16, .tree = true}},
      {"verify a tree of 64", {.rows = 64, .tree = true}},
      {"batch 32, context 512", {.sequences = 32}},
      {"prefill 2048", {.rows = 2048, .context = 0, .all_logits = false}},
  };
  json results = json::array();
  double one_token = 0;
  for (const Case& c : cases) {
    model.stage(c.work);
    const int repeats = c.work.rows > 64 ? 5 : kRepeats;
    const double us = timer.measure([&](cudaStream_t stream) { model.forward(stream); }, repeats);
    if (one_token == 0) one_token = us;
    const double bytes = static_cast<double>(model.weight_bytes() + model.kv_bytes(c.work));
    json parts;
    using Model = SyntheticModel;
    const std::pair<const char*, int> all[] = {
        {"qkv", Model::qkv},         {"attention", Model::attention}, {"output", Model::output},
        {"gate_up", Model::gate_up}, {"down", Model::down},           {"head", Model::head}};
    for (const auto& [part, bit] : all)
      parts[part] =
          timer.measure([&, which = bit](cudaStream_t stream) { model.forward(stream, which); }, 5);
    const double rate = bytes / us / 1e3;
    std::printf("%-13s %-22s %9.1f us  %5.0f GB/s  %4.2f of copy  %5.2f of one token |",
                name.c_str(), c.name, us, rate, rate / copy_gb_s, us / one_token);
    for (const auto& [part, value] : parts.items())
      std::printf(" %s %.0f", part.c_str(), value.get<double>());
    std::printf("\n");
    std::fflush(stdout);
    results.push_back({{"case", c.name},
                       {"us", us},
                       {"bytes", bytes},
                       {"ratio_to_copy", rate / copy_gb_s},
                       {"ratio_to_one_token", us / one_token},
                       {"us_of_each_op_alone_all_layers", parts}});
  }
  return {{"model", name}, {"weight_bytes", model.weight_bytes()}, {"cases", results}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Forward passes on a GPU");
  std::vector<std::string> models = {"smollm2", "smollm2-bf16", "llama-8b"};
  std::string json_path;
  app.add_option("--models", models, "which shapes")->delimiter(',');
  app.add_option("--json", json_path, "where to write the results");
  CLI11_PARSE(app, argc, argv);

  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    std::fprintf(stderr, "bench_cuda: no GPU\n");
    return 1;
  }
  const cuda::DeviceInfo device = cuda::device_info(0, properties);
  int driver = 0;
  int clock_khz = 0;
  cudaDriverGetVersion(&driver);
  cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, 0);
  try {
    Timer timer;
    const double copy = copy_rate(timer);
    std::printf("%s, CUDA driver %d, clock up to %d MHz, copy %.0f GB/s\n", properties.name, driver,
                clock_khz / 1000, copy);
    json report = {{"device", properties.name},
                   {"cuda_driver_version", driver},
                   {"clock_mhz_max", clock_khz / 1000},
                   {"copy_gb_s", copy},
                   {"models", json::array()}};
    for (int i = 0; i < argc; ++i) report["command"].push_back(argv[i]);
    for (const std::string& name : models)
      report["models"].push_back(run_model(name, device, timer, copy));
    if (!json_path.empty()) std::ofstream(json_path) << report.dump(2) << '\n';
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_cuda: %s\n", error.what());
    return 1;
  }
  return 0;
}
