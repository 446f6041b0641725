#include "tools/specdec_bench/runner.h"

#include <algorithm>
#include <chrono>
#include <map>
#include <utility>

namespace specdec::bench {
namespace {

// A conversation that is being run: its messages grow by the answers.
struct Conversation {
  const Prompt* prompt = nullptr;
  std::vector<ChatMessage> messages;
  std::string salt;
  std::string answer;
  std::size_t next_turn = 0;
  int num_free_tokens = 0;  // that kFree makes
  Run run;
};

void record(Conversation& conversation, const Output& last) {
  if (last.error) throw *last.error;
  Run& run = conversation.run;
  const RequestStats& stats = last.stats;
  run.total_time += stats.total_time;
  if (stats.num_output_tokens > 1) {
    run.decode_tokens += stats.num_output_tokens - 1;
    run.decode_time += stats.time_per_output_token * (stats.num_output_tokens - 1);
  }
  if (conversation.next_turn == 1) run.time_to_first_token = stats.time_to_first_token;
  run.num_spec_steps += stats.speculation.num_spec_steps;
  run.num_step_tokens += stats.speculation.num_output_tokens;
  run.num_draft_tokens += stats.speculation.spec_decode_num_draft_tokens;
  run.num_accepted_tokens += stats.speculation.spec_decode_num_accepted_tokens;
  run.num_drafts += stats.speculation.spec_decode_num_drafts;
  const auto& accepted = stats.speculation.spec_decode_num_accepted_tokens_per_pos;
  if (run.accepted_at_depth.size() < accepted.size()) run.accepted_at_depth.resize(accepted.size());
  for (std::size_t depth = 0; depth < accepted.size(); ++depth)
    run.accepted_at_depth[depth] += accepted[depth];
}

class BatchRun {
 public:
  BatchRun(Engine& engine, const Plan& plan, std::size_t method)
      : engine_(engine), plan_(plan), method_(method) {}

  void run(std::span<Conversation> conversations) {
    for (const Conversation& conversation : conversations)
      if (conversation.prompt->grammar) engine_.grammar(*conversation.prompt->grammar);
    const double grammar_before = engine_.stats().grammar_time;
    const auto start = std::chrono::steady_clock::now();
    for (Conversation& conversation : conversations) submit(conversation);
    while (engine_.step()) {
      for (const Output& output : engine_.take_outputs()) take(output);
    }
    for (const Output& output : engine_.take_outputs()) take(output);
    const double grammar_time = engine_.stats().grammar_time - grammar_before;
    for (Conversation& conversation : conversations)
      conversation.run.grammar_time = grammar_time / static_cast<double>(conversations.size());
    if (conversations.size() == 1) return;
    const std::chrono::duration<double> wall = std::chrono::steady_clock::now() - start;
    for (Conversation& conversation : conversations)
      conversation.run.total_time = wall.count() / static_cast<double>(conversations.size());
  }

 private:
  void submit(Conversation& conversation) {
    conversation.messages.push_back({"user", conversation.prompt->turns[conversation.next_turn++]});
    conversation.answer.clear();
    Request request;
    request.messages = conversation.messages;
    request.sampling = plan_.sampling;
    const std::string& method = plan_.methods[method_];
    const bool free = method == kFree;
    request.speculation.method = free ? "none" : method;
    if (free) {
      request.sampling.max_tokens = conversation.num_free_tokens;
      request.sampling.min_tokens = 0;
      request.sampling.ignore_eos = true;
      request.sampling.stop.clear();
      request.sampling.stop_token_ids.clear();
    } else if (conversation.prompt->grammar) {
      request.grammar = engine_.grammar(*conversation.prompt->grammar);
    }
    if (!plan_.lengths.empty()) request.speculation.num_speculative_tokens = plan_.lengths[method_];
    request.cache_salt = conversation.salt;
    running_[engine_.submit(std::move(request))] = &conversation;
  }

  void take(const Output& output) {
    const auto found = running_.find(output.id);
    if (found == running_.end()) return;
    Conversation& conversation = *found->second;
    conversation.answer += output.text;
    for (const OutputToken& token : output.tokens) conversation.run.tokens.push_back(token.token);
    if (!output.finished()) return;
    record(conversation, output);
    running_.erase(found);
    conversation.messages.push_back({"assistant", conversation.answer});
    if (plan_.all_turns && conversation.next_turn < conversation.prompt->turns.size())
      submit(conversation);
  }

  Engine& engine_;
  const Plan& plan_;
  std::size_t method_;  // of the plan's
  std::map<RequestId, Conversation*> running_;
};

}  // namespace

std::vector<std::vector<Run>> run_all(Engine& engine, const std::vector<Prompt>& prompts,
                                      const Plan& plan,
                                      const std::function<bool(std::size_t)>& progress) {
  const std::size_t num_methods = plan.methods.size();
  const auto batch_size = static_cast<std::size_t>(std::max(1, plan.batch));
  const auto none = static_cast<std::size_t>(
      std::find(plan.methods.begin(), plan.methods.end(), "none") - plan.methods.begin());
  // What refers to the tokens of "none" runs when these are there.
  const std::size_t num_rotating = num_methods - (plan.methods.back() == kFree ? 1 : 0);
  std::vector<std::vector<Run>> runs(num_methods);
  std::size_t done = 0;
  for (std::size_t begin = 0, round = 0; begin < prompts.size(); begin += batch_size, ++round) {
    const std::size_t count = std::min(batch_size, prompts.size() - begin);
    for (std::size_t turn = 0; turn < num_methods; ++turn) {
      const std::size_t method = turn < num_rotating ? (turn + round) % num_rotating : turn;
      std::vector<Conversation> conversations(count);
      for (std::size_t i = 0; i < count; ++i) {
        conversations[i].prompt = &prompts[begin + i];
        conversations[i].run.category = prompts[begin + i].category;
        if (method == num_rotating)
          conversations[i].num_free_tokens =
              static_cast<int>(std::max<std::size_t>(1, runs[none][begin + i].tokens.size()));
        conversations[i].salt =
            plan.salt + '-' + std::to_string(method) + '-' + std::to_string(begin + i);
      }
      BatchRun(engine, plan, method).run(conversations);
      for (Conversation& conversation : conversations)
        runs[method].push_back(std::move(conversation.run));
      engine.clear_prefix_cache();
      done += count;
      if (progress(done)) return runs;
    }
  }
  return runs;
}

}  // namespace specdec::bench
