#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "sampling/grammar/token_index.h"
#include "specdec/types.h"

namespace specdec::testing {

/// The bytes of every token, by id; special tokens have none.
struct Vocabulary {
  std::string name;
  std::vector<std::string> bytes = {};
  std::vector<TokenId> end_tokens = {};

  int size() const { return static_cast<int>(bytes.size()); }
  grammar::TokenIndex index() const {
    const std::vector<std::string_view> views(bytes.begin(), bytes.end());
    return grammar::TokenIndex(views);
  }
};

/// SmolLM2's 49152 tokens, from the draft model in the repository.
const Vocabulary& smollm2_vocabulary();
/// Every byte, common pieces of JSON, words, whole and broken characters, the same bytes twice.
Vocabulary made_vocabulary();
/// Random strings of few different bytes, so that they share long prefixes and hit grammars often.
Vocabulary random_vocabulary(std::uint64_t seed);

}  // namespace specdec::testing
