#include "examples/speculative_chat/report.h"

#include <cstdio>

namespace specdec::chat {
namespace {

template <typename... Values>
std::string format(const char* pattern, Values... values) {
  char buffer[256];
  const int length = std::snprintf(buffer, sizeof buffer, pattern, values...);
  return std::string(buffer, static_cast<std::size_t>(std::min(length, 255)));
}

// std::format is not in GCC 12, and column alignment has to count characters, not bytes.
std::string column(const std::string& text, int width) {
  int characters = 0;
  for (const char c : text) characters += (static_cast<unsigned char>(c) & 0xC0) != 0x80;
  return std::string(static_cast<std::size_t>(std::max(0, width - characters)), ' ') + text;
}

std::string row(const std::string& name, const std::string& plain, const std::string& speculative) {
  return "  " + name + std::string(24 - std::min<std::size_t>(24, name.size()), ' ') +
         column(plain, 12) + column(speculative, 14) + '\n';
}

}  // namespace

std::string closing_line(const Answer& answer, const PlainRate& plain) {
  const RequestStats& stats = answer.stats;
  std::string line = format("%d tokens", stats.num_output_tokens);
  const double rate = answer.decode_rate();
  if (rate > 0) line += format(" · %.0f tok/s", rate);
  if (answer.speculated()) {
    line += format(" · %.2f a step", stats.speculation.mean_acceptance_length());
    if (rate > 0 && plain.tokens_per_second > 0)
      line += format(" · %.2fx plain (%.0f tok/s %s)", rate / plain.tokens_per_second,
                     plain.tokens_per_second, plain.how.c_str());
  } else {
    line += " · no speculation";
  }
  line += format(" · first token %.0f ms", stats.time_to_first_token * 1e3);
  return line;
}

std::string ending_note(const Answer& answer, const Engine& engine, int max_tokens) {
  switch (answer.finish_reason) {
    case FinishReason::cancelled:
      return "stopped";
    case FinishReason::length:
      if (static_cast<int>(answer.tokens.size()) < max_tokens)
        return format("the context of %d tokens is full: /clear starts a new conversation",
                      engine.max_context());
      return format("cut at max_tokens = %d; /set max_tokens N changes it", max_tokens);
    case FinishReason::error:
      return answer.error ? answer.error->what() : "the request failed";
    default:
      return {};
  }
}

std::string comparison_table(const Comparison& comparison, const cli::Painter& paint) {
  const Answer& plain = comparison.plain;
  const Answer& speculative = comparison.speculative;
  std::string out = paint(cli::Style::bold, row("", "plain", comparison.method));
  out +=
      row("tokens", format("%zu", plain.tokens.size()), format("%zu", speculative.tokens.size()));
  const auto both = [&](const char* name, const char* pattern, auto value) {
    out += row(name, format(pattern, value(plain)), format(pattern, value(speculative)));
  };
  both("steps", "%.0f",
       [](const Answer& a) { return static_cast<double>(a.stats.speculation.num_spec_steps); });
  both("tokens a step", "%.2f",
       [](const Answer& a) { return a.stats.speculation.mean_acceptance_length(); });
  both("first token", "%.0f ms", [](const Answer& a) { return a.stats.time_to_first_token * 1e3; });
  both("decoding", "%.0f tok/s", [](const Answer& a) { return a.decode_rate(); });
  both("whole answer", "%.2f s", [](const Answer& a) { return a.stats.total_time; });
  if (plain.decode_rate() > 0)
    out += format("  decoding %.2fx, whole answer %.2fx as fast · ",
                  speculative.decode_rate() / plain.decode_rate(),
                  speculative.stats.total_time > 0
                      ? plain.stats.total_time / speculative.stats.total_time
                      : 0.0);
  out += comparison.identical ? paint(cli::Style::green, "the tokens are equal")
                              : paint(cli::Style::red, "THE TOKENS DIFFER");
  return out + '\n';
}

}  // namespace specdec::chat
