#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "examples/speculative_chat/answer.h"
#include "specdec/engine.h"
#include "tools/cli/terminal.h"

namespace specdec::chat {

/// A plain (one token a step) decoding rate that was measured, and how: what speed-ups in the
/// closing line refer to.
struct PlainRate {
  double tokens_per_second = 0;  ///< 0: not measured
  std::string how;
};

/// Two answers to one prompt, without and with speculation.
struct Comparison {
  Answer plain;
  Answer speculative;
  std::string method;
  bool identical = false;
};

/// A grammar from a file: GBNF, or a JSON Schema when the name ends in .json. Throws Error.
Grammar read_grammar(const std::string& path);
Grammar read_json_schema(const std::string& path);

/// A conversation with one engine: what was said, the settings of the next answer, the last answer.
/// Every turn sends the whole conversation; the engine's prefix cache makes that cheap.
class Chat {
 public:
  /// `config` is the engine's; its sampling table is what answers start from.
  Chat(Engine& engine, Config config, std::string system_prompt);

  /// Asks and remembers. Throws Error(invalid_argument) when the conversation no longer fits; the
  /// conversation is then as it was. A cancelled answer is remembered as far as it got.
  const Answer& ask(const std::string& prompt, const std::function<void(const Output&)>& show);
  /// Asks the last prompt again, with a new seed.
  const Answer& regenerate(const std::function<void(const Output&)>& show);
  /// The last prompt (or `prompt`, when not empty) without and with speculation, prefix cache cold
  /// for both, one seed. The conversation stays as it is.
  Comparison compare(const std::string& prompt);
  void clear();

  /// Measures plain decoding on a few tokens; takes about a third of a second at most. From then on
  /// it is followed as the conversation grows.
  void measure_plain_rate();
  const PlainRate& plain_rate() const noexcept { return plain_rate_; }

  /// "on", "off" or a method. Throws Error(invalid_argument) naming what there is.
  void set_speculation(const std::string& value);
  std::string speculation() const;  ///< the method in force, "none" when off
  /// Answers are texts of it from now on; no value: free text.
  void set_grammar(std::optional<Grammar> grammar) { grammar_ = std::move(grammar); }
  /// A key of [sampling], or the length of a draft, by its dotted key or its last part. Throws
  /// Error(invalid_argument, invalid_config).
  void set(const std::string& key, const std::string& value);
  /// The keys that set() takes, with their values.
  std::vector<std::pair<std::string, std::string>> settings() const;

  bool empty() const noexcept { return messages_.empty() || messages_.back().role == "system"; }
  const std::vector<ChatMessage>& messages() const noexcept { return messages_; }
  const std::optional<Answer>& last_answer() const noexcept { return last_answer_; }
  int max_tokens() const noexcept { return config_.sampling.max_tokens; }
  Engine& engine() noexcept { return engine_; }

 private:
  Request request(std::vector<ChatMessage> messages) const;
  const Answer& answer(const std::function<void(const Output&)>& show);
  double measure_plainly(Request request);
  void set_plain_rate(double rate, std::string how);
  void follow_plain_rate();

  Engine& engine_;
  Config config_;
  std::string system_prompt_;
  SpeculationOptions speculation_;
  std::optional<Grammar> grammar_;
  std::string method_when_on_;
  std::vector<ChatMessage> messages_;
  std::optional<Answer> last_answer_;
  PlainRate plain_rate_;
  // Tokens per second, plainly; 0: not measured.
  double start_rate_ = 0;  // of a conversation that has just begun
  double last_rate_ = 0;   // where the conversation is, or was when it was measured last
  int num_comparisons_ = 0;
};

}  // namespace specdec::chat
