#include "examples/speculative_chat/answer.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "tools/cli/terminal.h"

namespace specdec::chat {

double Answer::decode_rate() const noexcept {
  return stats.time_per_output_token > 0 ? 1.0 / stats.time_per_output_token : 0.0;
}

bool Answer::speculated() const noexcept { return stats.speculation.spec_decode_num_drafts > 0; }

Answer run_request(Engine& engine, Request request,
                   const std::function<void(const Output&)>& show) {
  Answer answer;
  const RequestId id = engine.submit(std::move(request));
  bool cancelled = false;
  bool more = true;
  while (more) {
    more = engine.step();
    for (Output& output : engine.take_outputs()) {
      if (output.id != id) continue;
      answer.text += output.text;
      answer.tokens.insert(answer.tokens.end(), output.tokens.begin(), output.tokens.end());
      if (!output.tokens.empty())
        if (TreeSnapshot tree = engine.last_tree(id); !tree.tokens.empty())
          answer.trees.push_back(std::move(tree));
      if (show) show(output);
      if (!output.finished()) continue;
      answer.finish_reason = output.finish_reason;
      answer.error = output.error;
      answer.seed = output.seed;
      answer.stats = output.stats;
    }
    if (!cancelled && cli::InterruptGuard::take()) {
      engine.cancel(id);
      cancelled = true;
      more = true;  // one more step, so that the cancelled request's last output comes out
    }
  }
  return answer;
}

std::string to_json(const Answer& answer) {
  nlohmann::ordered_json ids = nlohmann::ordered_json::array();
  for (const OutputToken& token : answer.tokens) ids.push_back(token.token);
  const RequestStats& stats = answer.stats;
  const SpeculationStats& drafts = stats.speculation;
  nlohmann::ordered_json line = {
      {"text", answer.text},
      {"tokens", ids},
      {"finish_reason", to_string(answer.finish_reason)},
      {"stats",
       {{"num_prompt_tokens", stats.num_prompt_tokens},
        {"num_cached_tokens", stats.num_cached_tokens},
        {"num_output_tokens", stats.num_output_tokens},
        {"num_preemptions", stats.num_preemptions},
        {"seed", answer.seed},
        {"tok_per_s", answer.decode_rate()},
        {"queue_time", stats.queue_time},
        {"time_to_first_token", stats.time_to_first_token},
        {"time_per_output_token", stats.time_per_output_token},
        {"total_time", stats.total_time},
        {"mean_acceptance_length", drafts.mean_acceptance_length()},
        {"draft_acceptance_rate", drafts.draft_acceptance_rate()},
        {"num_spec_steps", drafts.num_spec_steps},
        {"spec_decode_num_drafts", drafts.spec_decode_num_drafts},
        {"spec_decode_num_draft_tokens", drafts.spec_decode_num_draft_tokens},
        {"spec_decode_num_accepted_tokens", drafts.spec_decode_num_accepted_tokens},
        {"spec_decode_num_accepted_tokens_per_pos", drafts.spec_decode_num_accepted_tokens_per_pos},
        {"acceptance_histogram", drafts.acceptance_histogram}}}};
  // Logprobs only where they were asked for.
  bool any_logprob = false;
  for (const OutputToken& token : answer.tokens)
    any_logprob = any_logprob || token.logprob != 0 || !token.top_logprobs.empty();
  if (any_logprob) {
    nlohmann::ordered_json logprobs = nlohmann::ordered_json::array();
    for (const OutputToken& token : answer.tokens) {
      nlohmann::ordered_json top = nlohmann::ordered_json::array();
      for (const TokenLogprob& entry : token.top_logprobs)
        top.push_back({{"token", entry.token}, {"logprob", entry.logprob}});
      logprobs.push_back({{"logprob", token.logprob}, {"top", top}});
    }
    line["logprobs"] = logprobs;
  }
  if (answer.error)
    line["error"] = {{"code", to_string(answer.error->code())}, {"message", answer.error->what()}};
  return line.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace specdec::chat
