#pragma once

#include <cstdint>
#include <random>
#include <vector>

#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/token_index.h"
#include "vocabularies.h"

namespace specdec::testing {

inline std::size_t mask_words(const Vocabulary& vocabulary) {
  return (vocabulary.bytes.size() + 63) / 64;
}

/// Every token fed byte by byte. [mask_words(vocabulary)]
std::vector<std::uint64_t> brute_force_mask(grammar::CompiledGrammar& grammar,
                                            grammar::GrammarState state,
                                            const Vocabulary& vocabulary);

/// The state after `num_bytes` random bytes, fewer where the text has to end.
grammar::GrammarState random_state(grammar::CompiledGrammar& grammar, std::mt19937_64& random,
                                   int num_bytes);

/// Requires that the masks of these states are those of brute force, made and remembered.
void compare_masks(grammar::CompiledGrammar& grammar, const Vocabulary& vocabulary,
                   const grammar::TokenIndex& index,
                   const std::vector<grammar::GrammarState>& states);

/// The same for the start and random states.
void compare_masks(grammar::CompiledGrammar& grammar, const Vocabulary& vocabulary,
                   const grammar::TokenIndex& index, std::mt19937_64& random, int num_states);

}  // namespace specdec::testing
