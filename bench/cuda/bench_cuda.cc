// Forward passes on a GPU, each as a replayed graph: medians over device events, and the ratio of
// the bytes that a pass must read to a copy measured in the same run.
//   bench_cuda [--models llama-8b,smollm2] [--only decode] [--json FILE]
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>

#include "synthetic_model.h"
#include "timer.h"

using namespace specdec::kernels;
using namespace specdec::kernels::bench;
using nlohmann::json;

namespace {

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

json run_model(const std::string& name, const std::string& only, const cuda::DeviceInfo& device,
               Timer& timer, double copy_gb_s) {
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
    if (std::string_view(c.name).find(only) == std::string_view::npos) continue;
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
  std::string only;
  app.add_option("--models", models, "which shapes")->delimiter(',');
  app.add_option("--only", only, "only cases whose name has this in it");
  app.add_option("--json", json_path, "where to write the results");
  CLI11_PARSE(app, argc, argv);

  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    std::fprintf(stderr, "bench_cuda: no GPU\n");
    return 1;
  }
  try {
    const cuda::DeviceInfo device = describe_device(properties);
    Timer timer;
    const double copy = copy_rate(timer);
    json report = describe_run(properties, copy, argc, argv);
    report["models"] = json::array();
    for (const std::string& name : models)
      report["models"].push_back(run_model(name, only, device, timer, copy));
    if (!json_path.empty()) std::ofstream(json_path) << report.dump(2) << '\n';
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_cuda: %s\n", error.what());
    return 1;
  }
  return 0;
}
