// How often an EAGLE-3 head is right, position by position along the target's own greedy answers
// (teacher-forced): the figures of models/README.md, without the engine's stepping in between.
//
//   eagle_acceptance TARGET HEAD PROMPTS.jsonl MAX_TOKENS LIMIT [file|q8_0|q4_1 [auto|cuda|cpu]]
//
// The last says who answers; features and head are computed on the CPU.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <numeric>
#include <string>
#include <vector>

#include "engine/model/eagle_head.h"
#include "engine/model/transformer.h"
#include "specdec/specdec.h"

namespace {

using namespace specdec;

constexpr int kSteps = 5;
constexpr int kLongestPrompt = 480;
constexpr int kMaxRows = 512;
constexpr int kBlockSize = 32;
constexpr int kNumBlocks = 160;  // positions of a text, then kSteps - 1 slots for each anchor

struct Counts {
  double right[kSteps] = {};
  double tried[kSteps] = {};
  double anchors = 0;
  double accepted = 0;  // over anchors: leading right steps and the bonus token
  double steps = 0;     // of decoding from the answer's begin on
  double tokens = 0;
};

class Measure {
 public:
  Measure(const std::string& target, const std::string& head, HeadWeights weights)
      : backend_(make_backend({.device = "cpu"})),
        source_(open_model(target)),
        head_source_(open_eagle_head(head, source_->config(), weights)),
        target_(*backend_, TransformerWeights(*backend_, *source_), pool(source_->config()),
                kMaxRows),
        head_(*backend_, *head_source_, target_.embedding(), pool(head_source_->layer), kMaxRows),
        hidden_(static_cast<std::size_t>(head_.hidden_size())) {
    for (int block = 0; block < kNumBlocks; ++block) table_.push_back(block);
  }

  /// `tokens`: prompt and greedy answer.
  void add(const std::vector<TokenId>& tokens, int num_prompt, Counts& counts) {
    const auto size = static_cast<int>(tokens.size());
    read_features(tokens);
    std::vector<int> run(tokens.size(), 1);
    std::vector<bool> alive(tokens.size(), true);
    std::vector<float> outputs = features_;  // of the step before, by anchor
    for (int step = 1; step <= kSteps; ++step) {
      // An anchor is the root of a draft: an answer's token. The first step's pass also writes the
      // entries before the anchors.
      const int first = step == 1 ? 1 : num_prompt;
      for (int begin = first; begin + step < size; begin += kMaxRows) {
        const int end = std::min(size - step, begin + kMaxRows);
        ForwardBatch batch;
        for (int anchor = begin; anchor < end; ++anchor) {
          const int entry = anchor + step - 1;
          if (step == 1) {
            if (anchor == begin) batch.begin_sequence(anchor, table_);
            batch.add_row(tokens[at(entry)], entry, true);
          } else {
            batch.begin_sequence(anchor + 1, table_);
            std::vector<std::int32_t> path(at(step - 1));
            std::iota(path.begin(), path.end(), size + (anchor - num_prompt) * (kSteps - 1));
            batch.add_row(tokens[at(entry)], entry, path, true);
          }
          const int from = step == 1 ? entry - 1 : anchor;
          std::copy_n(&outputs[at(from) * hidden_], hidden_,
                      head_.hidden() + at(anchor - begin) * hidden_);
        }
        const std::span<const float> logits = head_.forward(batch, Stream{});
        const auto vocab = static_cast<std::size_t>(head_.draft_vocab_size());
        for (int anchor = begin; anchor < end; ++anchor) {
          const auto* row = &logits[at(anchor - begin) * vocab];
          const auto best = static_cast<std::size_t>(std::max_element(row, row + vocab) - row);
          const std::span<const TokenId> known = head_.target_tokens();
          const TokenId token = known.empty() ? static_cast<TokenId>(best) : known[best];
          std::copy_n(head_.hidden() + at(anchor - begin) * hidden_, hidden_,
                      &next_[at(anchor) * hidden_]);
          if (anchor < num_prompt) continue;
          const bool right = token == tokens[at(anchor + step)];
          counts.tried[step - 1] += 1;
          counts.right[step - 1] += right ? 1 : 0;
          alive[at(anchor)] = alive[at(anchor)] && right;
          run[at(anchor)] += alive[at(anchor)] ? 1 : 0;
        }
      }
      outputs = next_;
    }
    for (int anchor = num_prompt; anchor + 1 < size; ++anchor) {
      counts.anchors += 1;
      counts.accepted += run[at(anchor)];
    }
    for (int anchor = num_prompt; anchor + 1 < size;) {
      const int emitted = std::min(run[at(anchor)], size - 1 - anchor);
      counts.steps += 1;
      counts.tokens += emitted;
      anchor += emitted;
    }
  }

 private:
  static std::size_t at(int i) { return static_cast<std::size_t>(i); }
  KvPoolStorage pool(const ModelConfig& config) {
    return {*backend_, config, kNumBlocks, kBlockSize, kernels::DataType::f16};
  }

  void read_features(const std::vector<TokenId>& tokens) {
    features_.assign(tokens.size() * hidden_, 0);
    next_ = features_;
    for (std::size_t begin = 0; begin < tokens.size(); begin += kMaxRows) {
      const std::size_t end = std::min(tokens.size(), begin + kMaxRows);
      ForwardBatch batch;
      batch.begin_sequence(static_cast<int>(begin), table_);
      for (std::size_t t = begin; t < end; ++t)
        batch.add_row(tokens[t], static_cast<int>(t), false);
      target_.forward(batch, Stream{}, &head_);
      std::copy_n(head_.features(), (end - begin) * hidden_, &features_[begin * hidden_]);
    }
  }

  std::unique_ptr<Backend> backend_;
  std::unique_ptr<ModelSource> source_;
  std::unique_ptr<EagleSource> head_source_;
  Transformer target_;
  EagleHead head_;
  std::size_t hidden_;
  std::vector<BlockId> table_;
  std::vector<float> features_;  // [tokens, hidden]
  std::vector<float> next_;      // [tokens, hidden]
};

}  // namespace

int main(int argc, char** argv) {
  if (argc < 6) {
    std::fprintf(stderr,
                 "usage: eagle_acceptance TARGET HEAD PROMPTS MAX_TOKENS LIMIT [TYPE [DEVICE]]\n");
    return 2;
  }
  try {
    const std::string type = argc > 6 ? argv[6] : "q8_0";
    const HeadWeights weights = type == "file"   ? HeadWeights::as_stored
                                : type == "q4_1" ? HeadWeights::q4_1
                                                 : HeadWeights::q8_0;
    Measure measure(argv[1], argv[2], weights);
    Config config;
    config.target.model = argv[1];
    config.backend.device = argc > 7 ? argv[7] : "cpu";
    Engine engine = Engine::load(config);
    std::vector<std::vector<ChatMessage>> prompts;
    std::ifstream file(argv[3]);
    for (std::string line; std::getline(file, line);)
      prompts.push_back({{"user", nlohmann::json::parse(line).at("turns").at(0)}});
    const auto limit = std::min(prompts.size(), static_cast<std::size_t>(std::atol(argv[5])));
    Counts total;
    double per_prompt = 0;
    double used = 0;
    for (std::size_t i = 0; i < limit; ++i) {
      const auto& messages = prompts[i * prompts.size() / limit];
      Request request;
      request.prompt_tokens =
          engine.tokenizer().encode(engine.tokenizer().apply_chat_template(messages, true), true);
      if (request.prompt_tokens.size() >= kLongestPrompt) continue;
      std::vector<TokenId> tokens = request.prompt_tokens;
      const auto num_prompt = static_cast<int>(tokens.size());
      request.sampling.max_tokens = std::atoi(argv[4]);
      engine.submit(request);
      while (engine.step())
        for (const Output& output : engine.take_outputs())
          for (const OutputToken& token : output.tokens) tokens.push_back(token.token);
      if (static_cast<int>(tokens.size()) < num_prompt + 3) continue;
      Counts counts;
      measure.add(tokens, num_prompt, counts);
      used += 1;
      per_prompt += counts.tokens / counts.steps;
      total.anchors += counts.anchors;
      total.accepted += counts.accepted;
      total.steps += counts.steps;
      total.tokens += counts.tokens;
      for (int step = 0; step < kSteps; ++step) {
        total.right[step] += counts.right[step];
        total.tried[step] += counts.tried[step];
      }
    }
    std::printf("%.0f prompts, %.0f anchors, top-1 per step:", used, total.anchors);
    for (int step = 0; step < kSteps; ++step)
      std::printf(" %.3f", total.right[step] / total.tried[step]);
    std::printf(
        "\nmean tokens a step: %.3f decoding, %.3f averaged over prompts, %.3f over anchors\n",
        total.tokens / total.steps, per_prompt / used, total.accepted / total.anchors);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "eagle_acceptance: %s\n", error.what());
    return 1;
  }
}
