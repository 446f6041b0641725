#include "mask_oracle.h"

#include <doctest/doctest.h>

#include "sampling/grammar/token_masks.h"

namespace specdec::testing {

using namespace grammar;

std::vector<std::uint64_t> brute_force_mask(CompiledGrammar& grammar, GrammarState state,
                                            const Vocabulary& vocabulary) {
  std::vector<std::uint64_t> bits(mask_words(vocabulary), 0);
  const auto set = [&](std::size_t token) { bits[token >> 6] |= 1ull << (token & 63); };
  for (std::size_t token = 0; token < vocabulary.bytes.size(); ++token) {
    const std::string& bytes = vocabulary.bytes[token];
    if (!bytes.empty() && !grammar.is_dead(grammar.advance(state, bytes))) set(token);
  }
  if (grammar.accepts(state))
    for (const TokenId token : vocabulary.end_tokens) set(static_cast<std::size_t>(token));
  return bits;
}

GrammarState random_state(CompiledGrammar& grammar, std::mt19937_64& random, int num_bytes) {
  GrammarState state = grammar.start();
  for (int i = 0; i < num_bytes; ++i) {
    const ByteSet next = grammar.next_bytes(state);
    if (next.empty()) break;
    std::vector<unsigned char> bytes;
    for (unsigned byte = 0; byte < 256; ++byte)
      if (next.contains(byte)) bytes.push_back(static_cast<unsigned char>(byte));
    state = grammar.advance(state, bytes[random() % bytes.size()]);
    REQUIRE(!grammar.is_dead(state));
  }
  return state;
}

void compare_masks(CompiledGrammar& grammar, const Vocabulary& vocabulary, const TokenIndex& index,
                   const std::vector<GrammarState>& states) {
  TokenMasks masks(grammar, index, vocabulary.end_tokens);
  std::vector<std::uint64_t> bits(mask_words(vocabulary));
  for (const GrammarState state : states) {
    for (int again = 0; again < 2; ++again) {  // the second time from what was kept
      masks.fill(state, bits);
      const std::vector<std::uint64_t> expected = brute_force_mask(grammar, state, vocabulary);
      REQUIRE(bits == expected);
    }
  }
}

void compare_masks(CompiledGrammar& grammar, const Vocabulary& vocabulary, const TokenIndex& index,
                   std::mt19937_64& random, int num_states) {
  std::vector<GrammarState> states{grammar.start()};
  for (int i = 1; i < num_states; ++i)
    states.push_back(random_state(grammar, random, static_cast<int>(random() % 12)));
  compare_masks(grammar, vocabulary, index, states);
}

}  // namespace specdec::testing
