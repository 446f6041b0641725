// Forward passes on a GPU, each as a replayed graph: medians over device events, and the ratio of
// the bytes that a pass must read to a copy measured in the same run.
//   bench_cuda [--models llama-8b,smollm2] [--cases decode,tree] [--ops attention] [--json FILE]
#include <CLI/CLI.hpp>
#include <algorithm>
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
  if (name == "smollm2-draft")  // models/smollm2-135m-draft.Q8_0.gguf, its layers kept as f16
    return {name, 256, 3, 4, 2, 64, 768, 49152, DataType::f16, DataType::q8_0};
  return {name, 576, 30, 9, 3, 64, 1536, 49152, DataType::q4_1, DataType::q8_0};
}

struct Case {
  const char* name;
  Workload work;
};

/// What to leave out of a run: cases with none of these in their names, operations that are not
/// among them. Empty: nothing.
struct Filter {
  std::vector<std::string> cases;
  std::vector<std::string> ops;

  bool has_case(const std::string& name) const {
    return cases.empty() || std::any_of(cases.begin(), cases.end(), [&](const auto& part) {
             return name.find(part) != std::string::npos;
           });
  }
  bool has_op(const std::string& name) const {
    return ops.empty() || std::find(ops.begin(), ops.end(), name) != ops.end();
  }
};

json run_model(const std::string& name, const Filter& filter, const cuda::DeviceInfo& device,
               Timer& timer, double copy_gb_s) {
  const ModelShape shape = shape_of(name);
  SyntheticModel model(shape, device, 2048, 32 * 1024);
  const std::vector<Case> cases = {
      {"decode, context 512", {.rows = 1}},
      {"decode, context 2048", {.rows = 1, .context = 2048}},
      {"verify a chain of 8", {.rows = 8}},
      {"verify a tree of 16", {.rows = 16, .tree = true}},
      {"verify a tree of 64", {.rows = 64, .tree = true}},
      {"batch 32, context 512", {.sequences = 32}},
      {"batch 32, drafts of 2", {.sequences = 32, .rows = 3}},
      {"prefill 128", {.rows = 128, .context = 0, .all_logits = false}},
      {"prefill 2048", {.rows = 2048, .context = 0, .all_logits = false}},
  };
  json results = json::array();
  double one_token = 0;
  for (const Case& c : cases) {
    if (!filter.has_case(c.name)) continue;
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
      if (filter.has_op(part))
        parts[part] = timer.measure(
            [&, which = bit](cudaStream_t stream) { model.forward(stream, which); }, 5);
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
  std::vector<std::string> models = {"smollm2", "smollm2-bf16", "smollm2-draft", "llama-8b"};
  Filter filter;
  std::string json_path;
  app.add_option("--models", models, "which shapes")->delimiter(',');
  app.add_option("--cases", filter.cases, "only those with one of these in their names")
      ->delimiter(',');
  app.add_option("--ops", filter.ops, "only these operations alone, beside the whole pass")
      ->delimiter(',');
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
      report["models"].push_back(run_model(name, filter, device, timer, copy));
    if (!json_path.empty()) std::ofstream(json_path) << report.dump(2) << '\n';
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_cuda: %s\n", error.what());
    return 1;
  }
  return 0;
}
