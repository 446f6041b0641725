#include "examples/speculative_chat/chat.h"

#include <algorithm>
#include <chrono>
#include <fstream>
#include <iterator>
#include <sstream>
#include <utility>

namespace specdec::chat {
namespace {

constexpr std::string_view kLengthKey = "draft.length.num_speculative_tokens";
constexpr std::string_view kSamplingPrefix = "sampling.";

bool settable(std::string_view key) {
  return key == kLengthKey || key.starts_with(kSamplingPrefix);
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file) throw Error(ErrorCode::io, "cannot read " + path);
  return text;
}

}  // namespace

Chat::Chat(Engine& engine, Config config, std::string system_prompt)
    : engine_(engine),
      config_(std::move(config)),
      system_prompt_(std::move(system_prompt)),
      method_when_on_(config_.draft.method) {
  clear();
}

void Chat::clear() {
  messages_.clear();
  if (!system_prompt_.empty()) messages_.push_back({"system", system_prompt_});
  last_answer_.reset();
  last_rate_ = start_rate_;
}

Grammar read_json_schema(const std::string& path) { return Grammar::json_schema(read_file(path)); }

Grammar read_grammar(const std::string& path) {
  return path.ends_with(".json") ? read_json_schema(path) : Grammar::gbnf(read_file(path));
}

Request Chat::request(std::vector<ChatMessage> messages) const {
  Request request;
  request.messages = std::move(messages);
  request.sampling = config_.sampling;
  request.speculation = speculation_;
  request.grammar = grammar_;
  request.speculation.num_speculative_tokens = config_.draft.length.num_speculative_tokens;
  return request;
}

const Answer& Chat::ask(const std::string& prompt, const std::function<void(const Output&)>& show) {
  messages_.push_back({"user", prompt});
  return answer(show);
}

const Answer& Chat::answer(const std::function<void(const Output&)>& show) {
  try {
    last_answer_ = run_request(engine_, request(messages_), show);
  } catch (...) {
    messages_.pop_back();
    throw;
  }
  messages_.push_back({"assistant", last_answer_->text});
  if (last_answer_->speculated())
    follow_plain_rate();
  else if (last_answer_->tokens.size() >= 32)
    set_plain_rate(last_answer_->decode_rate(), "in the last plain answer");
  return *last_answer_;
}

const Answer& Chat::regenerate(const std::function<void(const Output&)>& show) {
  if (!last_answer_ || messages_.empty() || messages_.back().role != "assistant")
    throw Error(ErrorCode::invalid_argument, "there is no answer yet that could be made again");
  messages_.pop_back();
  // A seed that the user fixed would give the same answer: go on from it instead.
  if (config_.sampling.seed) config_.sampling.seed = *config_.sampling.seed + 1;
  return answer(show);
}

Comparison Chat::compare(const std::string& prompt) {
  std::vector<ChatMessage> messages = messages_;
  if (!prompt.empty()) {
    messages.push_back({"user", prompt});
  } else {
    if (empty())
      throw Error(ErrorCode::invalid_argument,
                  "nothing to compare yet: ask something first, or "
                  "give the prompt: /compare PROMPT");
    if (messages.back().role == "assistant") messages.pop_back();
  }
  Comparison result;
  result.method = speculation() == "none" ? method_when_on_ : speculation();
  if (result.method == "none")
    throw Error(ErrorCode::invalid_argument,
                "no draft method is configured to compare with: /spec lists what is loaded");
  Request plain = request(messages);
  if (!plain.sampling.seed) plain.sampling.seed = last_answer_ ? last_answer_->seed : 1;
  Request speculative = plain;
  plain.speculation = {.enabled = false, .method = {}, .num_speculative_tokens = {}};
  speculative.speculation.enabled = true;
  speculative.speculation.method = result.method;
  // Own salts: neither run finds the other's prefix, nor the conversation's, in the cache.
  const std::string salt = "compare-" + std::to_string(num_comparisons_++);
  plain.cache_salt = salt + "-plain";
  speculative.cache_salt = salt + "-speculative";
  result.plain = run_request(engine_, std::move(plain));
  if (result.plain.finish_reason == FinishReason::cancelled) return result;
  result.speculative = run_request(engine_, std::move(speculative));
  result.identical =
      std::equal(result.plain.tokens.begin(), result.plain.tokens.end(),
                 result.speculative.tokens.begin(), result.speculative.tokens.end(),
                 [](const OutputToken& a, const OutputToken& b) { return a.token == b.token; });
  if (result.plain.tokens.size() >= 16) set_plain_rate(result.plain.decode_rate(), "in /compare");
  return result;
}

void Chat::measure_plain_rate() {
  Request request;
  request.messages = {{"user", "Count from one to twenty, please."}};
  request.sampling.max_tokens = 24;
  request.cache_salt = "warm-up";
  start_rate_ = measure_plainly(std::move(request));
  if (start_rate_ > 0) set_plain_rate(start_rate_, "at the start");
}

// Tokens per second, once it runs; 0 if that was not to be seen.
double Chat::measure_plainly(Request request) {
  using Clock = std::chrono::steady_clock;
  request.sampling.ignore_eos = true;
  request.speculation.enabled = false;
  int tokens = 0;
  Clock::time_point first;
  Clock::time_point last;
  // The first two tokens are left out: they pay for page faults and cold caches.
  request.on_token = [&](const OutputToken&) {
    last = Clock::now();
    if (++tokens == 2) first = last;
    return tokens > 6 && last - first > std::chrono::milliseconds(300);
  };
  const Answer answer = run_request(engine_, std::move(request));
  const double seconds = std::chrono::duration<double>(last - first).count();
  if (answer.finish_reason == FinishReason::cancelled || tokens <= 4 || seconds <= 0) return 0;
  return (tokens - 2) / seconds;
}

void Chat::set_plain_rate(double rate, std::string how) {
  last_rate_ = rate;
  plain_rate_ = {rate, std::move(how)};
}

// A token costs more the longer the conversation is, so plain decoding is measured once more where
// the last answer ended: what it would have taken on the way is the mean of that and of what it
// took where the answer began. Only where that takes no time that somebody would notice.
void Chat::follow_plain_rate() {
  constexpr int kTokens = 12;
  const double allowed = std::max(0.1, 0.05 * last_answer_->stats.total_time);
  const double before = last_rate_;
  if (before == 0 || kTokens / before > allowed ||
      last_answer_->finish_reason == FinishReason::cancelled)
    return;
  Request request;
  request.messages = messages_;
  request.sampling.max_tokens = kTokens;
  try {
    if (const double now = measure_plainly(std::move(request)); now > 0) {
      last_rate_ = now;
      plain_rate_ = {2 / (1 / before + 1 / now), "at this length"};
    }
  } catch (const Error&) {
    // The conversation has no room for more: the next question will say so.
  }
}

void Chat::set_speculation(const std::string& value) {
  if (value == "off" || value == "none") {
    speculation_.enabled = false;
    return;
  }
  const std::vector<std::string> methods = engine_.draft_methods();
  std::string wanted = value;
  if (value == "on") {
    wanted = method_when_on_;
    // Configured without a drafter: any loaded one is what "on" can mean.
    if (wanted == "none" && methods.size() > 1) wanted = methods.back();
  }
  bool is_known = wanted != "none";
  std::istringstream parts(wanted);  // a mixture is its parts' names with '+' between them
  for (std::string part; std::getline(parts, part, '+');)
    is_known = is_known && std::find(methods.begin(), methods.end(), part) != methods.end();
  if (!is_known) {
    std::string known;
    for (const std::string& method : methods) known += (known.empty() ? "" : ", ") + method;
    throw Error(ErrorCode::invalid_argument,
                "no draft method \"" + value + "\" here; there is: on, off, " + known);
  }
  speculation_.enabled = true;
  speculation_.method = wanted;
  method_when_on_ = wanted;
}

std::string Chat::speculation() const {
  if (speculation_.enabled && !*speculation_.enabled) return "none";
  return speculation_.method.value_or(config_.draft.method);
}

void Chat::set(const std::string& key, const std::string& value) {
  for (const std::string& known : Config::keys()) {
    const bool matches = known == key || known.substr(known.rfind('.') + 1) == key;
    if (!matches) continue;
    if (!settable(known)) {
      if (known != key) continue;
      break;
    }
    Config changed = config_;
    changed.set(known, value, "/set");
    validate(changed.sampling, engine_.tokenizer().vocab_size());
    config_ = std::move(changed);
    return;
  }
  std::string names;
  for (const auto& setting : settings()) names += (names.empty() ? "" : ", ") + setting.first;
  throw Error(ErrorCode::invalid_argument,
              "\"" + key + "\" cannot be set here; there is: " + names +
                  ". Other keys are flags: start again with --help to see them");
}

std::vector<std::pair<std::string, std::string>> Chat::settings() const {
  // to_toml() is the one place that knows how each key's value is written: "key = value  # origin"
  // below its [section].
  std::vector<std::pair<std::string, std::string>> found;
  const std::string toml = config_.to_toml();
  std::string section;
  for (std::size_t begin = 0; begin < toml.size();) {
    const std::size_t end = std::min(toml.find('\n', begin), toml.size());
    std::string line = toml.substr(begin, end - begin);
    begin = end + 1;
    if (line.starts_with('[')) section = line.substr(1, line.find(']') - 1);
    const std::size_t equals = line.find(" = ");
    if (equals == std::string::npos) continue;
    std::string name = line.substr(0, equals);
    const std::size_t first = name.find_first_not_of("# \t");
    if (first == std::string::npos) continue;
    name = name.substr(first);
    name = name.substr(0, name.find(' '));
    if (!settable(section + '.' + name)) continue;
    std::string value = line.substr(equals + 3);
    if (const std::size_t comment = value.find("  #"); comment != std::string::npos)
      value.resize(comment);
    value.resize(value.find_last_not_of(' ') + 1);
    found.emplace_back(name, value);
  }
  return found;
}

}  // namespace specdec::chat
