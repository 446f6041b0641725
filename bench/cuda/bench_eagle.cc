// A whole speculative step with a one-layer EAGLE-3 head at a large model's shape, on the device
// loop: sequential drafts, verification of their tree, acceptance, KV moves. Weights are random and
// acceptance is forced to a rate, level by level. Medians over device events.
//   bench_eagle [--drafts 6] [--nodes 32] [--topk 8] [--rate 0.75] [--json FILE]
#include <CLI/CLI.hpp>
#include <cstdio>
#include <fstream>

#include "engine/device_loop.h"
#include "synthetic_head.h"
#include "timer.h"

using namespace specdec;
using namespace specdec::kernels;
using namespace specdec::kernels::bench;
using nlohmann::json;

namespace {

constexpr int kContext = 512;
constexpr int kPositions = 2048;
constexpr int kBlocks = kPositions / 64;

struct Options {
  int drafts = 6;
  int nodes = 32;  // of the tree, its root included
  int topk = 8;
  int draft_vocab = 32768;
  float rate = 0.75f;
  int turns = 64;  // of a run
};

json run(const Options& options, const cuda::DeviceInfo& device, Timer& timer) {
  const ModelShape shape = {"llama-8b",     4096,          32, 32, 8, 128, 14336, 128256,
                            DataType::bf16, DataType::bf16};
  SyntheticModel model(shape, device, 64, kPositions);
  SyntheticHead head(model, options.draft_vocab, 64, options.topk);
  auto* const turn = reinterpret_cast<std::uint32_t*>(model.take(sizeof(std::uint32_t)));
  auto* const sources = reinterpret_cast<std::int32_t*>(model.take(64 * sizeof(std::int32_t)));

  const auto view_of = [](const cuda::DeviceBatch& batch) {
    BatchView view;
    view.num_rows = batch.num_rows;
    view.num_outputs = batch.num_outputs;
    view.device = &batch;
    return view;
  };
  const auto verify = [&](const cuda::DeviceBatch& batch, cudaStream_t stream) {
    model.forward(view_of(batch), stream, SyntheticModel::kAll, [&](int layer, const float* x) {
      head.observe(layer, x, batch.num_rows, stream);
    });
    cuda::Launch to = model.launch();
    to.stream = stream;
    require(force_acceptance({.tokens = batch.tokens,
                              .positions = batch.positions,
                              .slots = batch.slots,
                              .path_offsets = batch.path_offsets,
                              .path_slots = batch.path_slots,
                              .num_rows = batch.num_rows,
                              .vocab = shape.vocab,
                              .rate = options.rate,
                              .logits = model.logits(),
                              .turn = turn},
                             to));
    return static_cast<const float*>(model.logits());
  };
  DeviceLoop loop({.device = device,
                   .stream = timer.stream(),
                   .vocab = shape.vocab,
                   .max_sequences = 1,
                   .max_context = kPositions,
                   .blocks_per_sequence = kBlocks,
                   .max_turns = options.turns,
                   .draft = DeviceDraft::eagle,
                   .depth = options.drafts,
                   .nodes = options.nodes - 1,
                   .topk = options.topk,
                   .most_logprobs = -1},
                  {.forward = verify, .pool = model.pool()}, {},
                  {.forward =
                       [&](const cuda::DeviceBatch& batch, const std::int32_t* from, bool at_roots,
                           cudaStream_t stream) {
                         return DraftLogits{head.forward(view_of(batch), from, at_roots, stream),
                                            head.tokens(), head.draft_vocab()};
                       },
                   .target = verify,
                   .enter = [](cudaStream_t) {}},
                  [&](const DraftLogits& logits, int outputs, cudaStream_t stream) {
                    return head.spread(logits.logits, outputs, stream);
                  });

  // Each repeat decodes the same turns from the same place.
  std::vector<std::int32_t> table(kBlocks);
  for (int i = 0; i < kBlocks; ++i) table[static_cast<std::size_t>(i)] = i;
  std::vector<TokenId> prompt;
  for (int i = 0; i <= kContext; ++i) prompt.push_back(i * 37 % shape.vocab);
  int turns_done = 0;
  int tokens = 0;
  // As an engine reserves them: what the longest run takes.
  const int reserved = std::min(kPositions, kContext + 1 + options.turns * (options.drafts + 1) +
                                                loop.slots_per_turn(options.drafts));
  const auto decode = [&](int turns) {
    turns_done = tokens = 0;
    require(cudaMemsetAsync(turn, 0, sizeof(std::uint32_t), timer.stream()));
    DeviceSequence sequence{
        .tokens = &prompt,
        .block_table = table,
        .sampling = {},
        .limits = {.max_output = kPositions, .max_length = kPositions - 1, .reserved = reserved}};
    sequence.feature_rows = {0};
    const auto on_turn = [&](const DeviceLoop::Turn& done) {
      if (done.entries[0].num_tokens < 0) throw std::runtime_error("a turn failed");
      tokens += done.entries[0].num_tokens;
      return true;
    };
    turns_done = loop.run({&sequence, 1}, {}, {.turns = turns}, on_turn).turns;
  };
  const double run_us = timer.measure_call([&] { decode(options.turns); }, 9);
  const double step_us = run_us / turns_done;
  const double tokens_a_step = static_cast<double>(tokens) / turns_done;
  const double one_step_us = timer.measure_call([&] { decode(1); });

  // The parts alone, as graphs of their own.
  model.stage({.rows = options.topk, .context = kContext, .tree = options.topk > 1});
  const double level_us = timer.measure(
      [&](cudaStream_t stream) { head.forward(model.view(), sources, false, stream); });
  model.stage({.rows = options.nodes, .context = kContext, .tree = true});
  const double verify_us = timer.measure([&](cudaStream_t stream) {
    model.forward(model.view(), stream, SyntheticModel::kAll, [&](int layer, const float* x) {
      head.observe(layer, x, options.nodes, stream);
    });
  });
  model.stage({.rows = 1, .context = kContext});
  const double plain_us = timer.measure([&](cudaStream_t stream) { model.forward(stream); });

  std::printf(
      "%d drafts of %d, %d nodes, rate %.2f: %.0f us a step (%d turns; one alone %.0f), %.2f "
      "tokens: %.0f tok/s | a draft's pass %.0f us, verification with features %.0f us | plain "
      "pass %.0f us, %.2fx\n",
      options.drafts, options.topk, options.nodes, static_cast<double>(options.rate), step_us,
      turns_done, one_step_us, tokens_a_step, tokens_a_step / step_us * 1e6, level_us, verify_us,
      plain_us, plain_us * tokens_a_step / step_us);
  return {{"model", shape.name},
          {"context", kContext},
          {"drafts", options.drafts},
          {"topk", options.topk},
          {"nodes", options.nodes},
          {"draft_vocab", options.draft_vocab},
          {"forced_rate", options.rate},
          {"turns", turns_done},
          {"us_a_step", step_us},
          {"us_of_one_step_alone", one_step_us},
          {"tokens_a_step", tokens_a_step},
          {"tokens_per_second", tokens_a_step / step_us * 1e6},
          {"us_of_a_draft_pass", level_us},
          {"us_of_verification", verify_us},
          {"us_of_a_plain_pass", plain_us},
          {"weight_bytes", model.weight_bytes()},
          {"head_weight_bytes", head.weight_bytes()}};
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A speculative step with an EAGLE-3 head at the shape of an 8B model");
  Options options;
  std::string json_path;
  app.add_option("--drafts", options.drafts, "sequential passes of the head")
      ->check(CLI::Range(1, 16));
  app.add_option("--nodes", options.nodes, "of the verified tree, its root included")
      ->check(CLI::Range(2, 64));
  app.add_option("--topk", options.topk, "children of a node; 1: a chain")
      ->check(CLI::Range(1, 16));
  app.add_option("--draft-vocab", options.draft_vocab, "rows of the head's output matrix");
  app.add_option("--rate", options.rate, "probability that a level of the tree is accepted")
      ->check(CLI::Range(0.0, 1.0));
  app.add_option("--turns", options.turns, "of a run; 1: steps without the device's own loop")
      ->check(CLI::Range(1, 64));
  app.add_option("--json", json_path, "where to write the results");
  CLI11_PARSE(app, argc, argv);
  if (options.topk == 1) options.nodes = options.drafts + 1;

  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    std::fprintf(stderr, "bench_eagle: no GPU\n");
    return 1;
  }
  try {
    Timer timer;
    json report = describe_run(properties, copy_rate(timer), argc, argv);
    report["step"] = run(options, describe_device(properties), timer);
    if (!json_path.empty()) std::ofstream(json_path) << report.dump(2) << '\n';
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench_eagle: %s\n", error.what());
    return 1;
  }
  return 0;
}
