#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <ctime>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/token_masks.h"

namespace specdec::fuzz {

/// Limits under which a hostile grammar is refused within a tenth of a second.
inline grammar::GrammarLimits small_limits() {
  return {.regex_bytes = std::size_t{16} << 20,
          .matcher_bytes = std::size_t{48} << 20,
          .symbols = 100'000,
          .production_symbols = 1'000'000,
          .fuel = 30'000,
          .emptiness_fuel = 10'000};
}

/// Aborts where an input took more than a tenth of a second of the processor: 0.4 s in a build with
/// sanitizers, which with the fuzzer's counters make ten to twenty of a millisecond.
class TimeLimit {
 public:
  TimeLimit() = default;
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
  ~TimeLimit() {
    if (std::clock() - begin_ > CLOCKS_PER_SEC / 1000 * SPECDEC_FUZZ_LIMIT_MS) std::abort();
  }

 private:
  std::clock_t begin_ = std::clock();
};

/// Follows a text through the grammar, each byte picked by `choices` among those that may follow.
/// Aborts where a token mask and taking the token disagree.
inline void follow(grammar::CompiledGrammar& grammar, std::string_view choices) {
  static const std::vector<std::string_view> tokens = [] {
    static std::vector<std::string> bytes(1);
    for (int byte = 0; byte < 256; ++byte) bytes.emplace_back(1, static_cast<char>(byte));
    for (const char* piece : {"ab", "a\"", "\",\"", "{\"", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", "1.5",
                              "\xC3\xA4", "\xE2\x82", "x\xC3", "\":", "true", "(a", "))", "\\u00"})
      bytes.emplace_back(piece);
    return std::vector<std::string_view>(bytes.begin(), bytes.end());
  }();
  static const grammar::TokenIndex index(tokens);
  const grammar::RegexPool::Budget budget = grammar.budget();  // of the whole text
  constexpr TokenId kEnd = 0;
  grammar::TokenMasks masks(grammar, index, {&kEnd, 1});
  std::vector<std::uint64_t> bits(index.words());
  grammar::GrammarState state = grammar.start();
  for (const char choice : choices.substr(0, std::min<std::size_t>(choices.size(), 24))) {
    masks.fill(state, bits);
    std::vector<std::size_t> allowed;
    for (std::size_t token = 1; token < tokens.size(); ++token) {
      const bool masked = bits[token >> 6] >> (token & 63) & 1;
      if (masked == grammar.is_dead(grammar.advance(state, tokens[token]))) std::abort();
      if (masked) allowed.push_back(token);
    }
    if (static_cast<bool>(bits[0] & 1) != grammar.accepts(state)) std::abort();
    if (allowed.empty()) {
      if (!grammar.accepts(state)) std::abort();  // a dead end: every byte is a token
      return;
    }
    state = grammar.advance(state,
                            tokens[allowed[static_cast<unsigned char>(choice) % allowed.size()]]);
  }
}

}  // namespace specdec::fuzz
