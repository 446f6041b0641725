#include <doctest/doctest.h>

#include <random>
#include <vector>

#include "draft/ngram_drafter.h"

using namespace specdec;

namespace {

std::vector<TokenId> lookup(const std::vector<TokenId>& tokens, int min_match, int max_match,
                            int max_tokens) {
  const auto found = lookup_ngram(tokens, min_match, max_match, max_tokens);
  return {found.begin(), found.end()};
}

/// The definition, tried length by length, latest occurrence first.
std::vector<TokenId> brute_force(const std::vector<TokenId>& tokens, int min_match, int max_match,
                                 int max_tokens) {
  const int size = static_cast<int>(tokens.size());
  for (int match = max_match; match >= min_match; --match)
    for (int end = size - 1; end >= match; --end) {
      if (match > size - 1) continue;
      bool same = true;
      for (int i = 0; i < match; ++i)
        same = same && tokens[static_cast<std::size_t>(end - match + i)] ==
                           tokens[static_cast<std::size_t>(size - match + i)];
      if (!same) continue;
      std::vector<TokenId> out;
      for (int i = end; i < size && static_cast<int>(out.size()) < max_tokens; ++i)
        out.push_back(tokens[static_cast<std::size_t>(i)]);
      return out;
    }
  return {};
}

}  // namespace

TEST_CASE("prompt lookup proposes what followed the latest longest match") {
  CHECK(lookup({1, 2, 3, 4, 1, 2, 5, 6, 1, 2}, 2, 4, 3) == std::vector<TokenId>{5, 6, 1});
  CHECK(lookup({9, 1, 2, 7, 8, 1, 2, 5, 9, 1, 2}, 2, 4, 2) == std::vector<TokenId>{7, 8});
  CHECK(lookup({1, 2, 3, 4}, 2, 4, 3).empty());
  CHECK(lookup({5}, 1, 4, 3).empty());
  CHECK(lookup({5, 5}, 1, 4, 3) == std::vector<TokenId>{5});
}

TEST_CASE("prompt lookup equals its definition on random sequences") {
  std::mt19937 random(1);
  for (int round = 0; round < 3000; ++round) {
    std::vector<TokenId> tokens(1 + random() % 40);
    const unsigned alphabet = 1 + random() % 4;
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % alphabet);
    const int min_match = 1 + static_cast<int>(random() % 3);
    const int max_match = min_match + static_cast<int>(random() % 4);
    const int max_tokens = 1 + static_cast<int>(random() % 6);
    REQUIRE(lookup(tokens, min_match, max_match, max_tokens) ==
            brute_force(tokens, min_match, max_match, max_tokens));
  }
}

TEST_CASE("the ngram drafter proposes chains within the depth") {
  NgramDrafter drafter({.prompt_lookup_min = 2, .prompt_lookup_max = 4});
  const std::vector<TokenId> repeated = {1, 2, 3, 4, 5, 1, 2};
  const std::vector<TokenId> fresh = {1, 2, 3};
  const std::vector<DraftContext> contexts = {
      {.id = 1, .tokens = repeated, .max_depth = 2, .max_nodes = 2},
      {.id = 2, .tokens = fresh, .max_depth = 2, .max_nodes = 2}};
  std::vector<DraftProposal> proposals(2);
  drafter.propose(contexts, proposals);
  CHECK(std::vector<TokenId>(proposals[0].tokens().begin(), proposals[0].tokens().end()) ==
        std::vector<TokenId>{3, 4});
  CHECK(proposals[0].parents()[0] == DraftProposal::kRoot);
  CHECK(proposals[0].parents()[1] == 0);
  CHECK(proposals[1].tokens().empty());
}
