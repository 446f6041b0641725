#include "support/acceptance.h"

#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

namespace specdec::testing {

std::vector<std::string> development_prompts(const Tokenizer& tokenizer, int longest, int stride) {
  std::ifstream file(SPECDEC_SOURCE_DIR "/bench/prompts/spec_bench_dev.jsonl");
  std::vector<std::string> chosen;
  int index = 0;
  for (std::string line; std::getline(file, line);) {
    std::string turn = nlohmann::json::parse(line).at("turns").at(0).get<std::string>();
    const std::vector<ChatMessage> messages = {{"user", turn}};
    const std::string rendered = tokenizer.apply_chat_template(messages, true);
    if (static_cast<int>(tokenizer.encode(rendered).size()) >= longest) continue;
    if (index++ % stride == 0) chosen.push_back(std::move(turn));
  }
  return chosen;
}

std::vector<StepLengths> decode_lengths(Engine& engine, std::span<const std::string> prompts,
                                        int max_tokens) {
  constexpr std::size_t kBatch = 8;
  std::vector<StepLengths> answers(prompts.size());
  std::map<RequestId, std::size_t> running;
  std::size_t next = 0;
  while (next < prompts.size() || !running.empty()) {
    while (next < prompts.size() && running.size() < kBatch) {
      Request request;
      request.messages = {{"user", prompts[next]}};
      request.sampling.max_tokens = max_tokens;
      running[engine.submit(std::move(request))] = next++;
    }
    engine.step();
    for (const Output& output : engine.take_outputs()) {
      // The first token comes from prefill, where nothing is drafted: it is no decoding step.
      StepLengths& steps = answers[running.at(output.id)];
      if (!output.tokens.empty()) steps.push_back(static_cast<int>(output.tokens.size()));
      if (output.finished()) running.erase(output.id);
    }
  }
  for (StepLengths& steps : answers)
    if (!steps.empty()) steps.erase(steps.begin());
  return answers;
}

double mean_acceptance_length(std::span<const StepLengths> answers, int tokens) {
  int emitted = 0;
  int steps = 0;
  for (const StepLengths& answer : answers) {
    int in_answer = 0;
    for (auto step = answer.begin(); step != answer.end() && in_answer < tokens; ++step) {
      in_answer += *step;
      ++steps;
    }
    emitted += in_answer;
  }
  return steps == 0 ? 0 : static_cast<double>(emitted) / steps;
}

}  // namespace specdec::testing
