#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>

#include "draft/suffix_drafter.h"

using namespace specdec;

namespace {

DraftContext context_of(RequestId id, const std::vector<TokenId>& tokens, int max_depth = 8,
                        std::string_view salt = "") {
  return {.id = id,
          .tokens = tokens,
          .num_prompt_tokens = 1,
          .max_depth = max_depth,
          .max_nodes = max_depth,
          .cache_salt = salt};
}

DraftProposal propose(SuffixDrafter& drafter, const DraftContext& context) {
  std::vector<DraftProposal> proposals(1);
  drafter.propose({&context, 1}, proposals);
  return proposals.front();
}

std::vector<TokenId> tokens_of(const DraftProposal& proposal) {
  return {proposal.tokens().begin(), proposal.tokens().end()};
}

}  // namespace

TEST_CASE("the index finds every earlier place that ends alike, by brute force") {
  std::mt19937 random(1);
  for (int round = 0; round < 50; ++round) {
    SuffixIndex index;
    std::vector<TokenId> text;
    for (int i = 0; i < 200; ++i) {
      text.push_back(static_cast<TokenId>(random() % 4));
      if (random() % 40 == 0) {
        for (const TokenId token : text) index.append(token);
        index.end_document();
        text.clear();
      }
    }
    for (const TokenId token : text) index.append(token);
    if (text.size() < 2) continue;
    std::vector<SuffixIndex::Occurrence> found;
    index.find(text, 24, found);
    std::vector<std::pair<int, int>> expected;  // (end, match), the latest first
    for (int end = index.size() - 1; end >= 2; --end) {
      int match = 0;
      while (match < 24 && match < end && match < static_cast<int>(text.size()) &&
             index.token(end - 1 - match) ==
                 text[text.size() - 1 - static_cast<std::size_t>(match)])
        ++match;
      if (match >= 2 && index.token(end) >= 0) expected.emplace_back(end, match);
    }
    expected.resize(std::min<std::size_t>(expected.size(), SuffixIndex::kMostOccurrences));
    REQUIRE(found.size() == expected.size());
    for (std::size_t i = 0; i < found.size(); ++i) {
      CHECK(found[i].end == expected[i].first);
      CHECK(found[i].match == expected[i].second);
    }
  }
}

TEST_CASE("suffix continues a sequence as it went on before, no further than its match allows") {
  SuffixDrafter drafter({});
  const std::vector<TokenId> tokens = {1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 1, 2, 3, 4};
  CHECK(tokens_of(propose(drafter, context_of(1, tokens))) == std::vector<TokenId>{5, 6, 7, 8});
  CHECK(tokens_of(propose(drafter, context_of(1, tokens, 2))) == std::vector<TokenId>{5, 6});
  SuffixDrafter longer({.max_spec_factor = 1.5f, .max_spec_offset = 1});
  CHECK(tokens_of(propose(longer, context_of(1, tokens))) ==
        std::vector<TokenId>{5, 6, 7, 8, 9, 20, 1});
  CHECK(tokens_of(propose(drafter, context_of(2, {1, 2, 3}))).empty());
  CHECK(tokens_of(propose(drafter, context_of(3, {1}))).empty());
}

TEST_CASE("where a text went on in several ways the draft branches, by frequency") {
  // 1 2 3 was followed by 4 three times and by 5 once.
  std::vector<TokenId> tokens;
  for (const TokenId next : {4, 5, 4, 4}) {
    tokens.insert(tokens.end(), {1, 2, 3, next, static_cast<TokenId>(100 + tokens.size())});
  }
  tokens.insert(tokens.end(), {1, 2, 3});
  SuffixDrafter drafter({.min_token_prob = 0.05f});
  const DraftProposal tree = propose(drafter, context_of(1, tokens));
  REQUIRE(tree.tokens().size() >= 2);
  CHECK(tree.tokens()[0] == 4);
  CHECK(tree.parents()[0] == DraftProposal::kRoot);
  const auto second = std::find(tree.tokens().begin(), tree.tokens().end(), 5);
  REQUIRE(second != tree.tokens().end());
  const auto at = static_cast<std::size_t>(second - tree.tokens().begin());
  CHECK(tree.parents()[at] == DraftProposal::kRoot);
  CHECK(tree.confidences()[0] == doctest::Approx(3 * tree.confidences()[at]));

  DraftContext chain = context_of(1, tokens);
  chain.chain_only = true;
  const DraftProposal straight = propose(drafter, chain);
  for (std::size_t i = 0; i < straight.parents().size(); ++i)
    CHECK(straight.parents()[i] == static_cast<int>(i) - 1);
}

TEST_CASE("outputs of ended requests serve others of the same salt, and only those") {
  SuffixDrafter drafter({});
  const std::vector<TokenId> output = {0, 11, 12, 13, 14, 15, 16, 17};
  propose(drafter, context_of(1, output, 8, "alice"));
  const std::vector<TokenId> begun = {50, 11, 12, 13};
  CHECK(propose(drafter, context_of(2, begun, 8, "alice")).tokens().empty());
  drafter.finished(1);
  CHECK(tokens_of(propose(drafter, context_of(2, begun, 8, "alice"))) ==
        std::vector<TokenId>{14, 15, 16});
  CHECK(propose(drafter, context_of(3, begun, 8, "bob")).tokens().empty());
  CHECK(propose(drafter, context_of(4, begun, 8, "")).tokens().empty());
  drafter.finished(77);  // never seen: nothing happens

  SuffixDrafter forgetful({.cache_mb = 0});
  propose(forgetful, context_of(1, output));
  forgetful.finished(1);
  CHECK(propose(forgetful, context_of(2, begun)).tokens().empty());
}

TEST_CASE("the memory of ended requests is bounded, and the least used goes first") {
  SuffixDrafter drafter({.cache_mb = 1});
  std::mt19937 random(5);
  const std::vector<TokenId> favourite = {0, 1001, 1002, 1003, 1004, 1005, 1006};
  const std::vector<TokenId> begun = {7, 1001, 1002, 1003};
  propose(drafter, context_of(1, favourite, 8, "favourite"));
  drafter.finished(1);
  for (RequestId id = 2; id < 400; ++id) {
    std::vector<TokenId> tokens(500);
    for (TokenId& token : tokens) token = static_cast<TokenId>(random() % 1000);
    propose(drafter, context_of(id, tokens));
    drafter.finished(id);
    CHECK(drafter.cached_bytes() < (1U << 20U) + (1U << 18U));
    // Used all the time, so it stays.
    CHECK(propose(drafter, context_of(1000, begun, 8, "favourite")).tokens().size() == 3);
  }
}
