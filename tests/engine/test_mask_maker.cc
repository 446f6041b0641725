#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/constrain.h"
#include "engine/mask_maker.h"
#include "kernels/cpu/thread_pool.h"

// The masks of a step's trees: made before the pass or beside it, they are the same.

using namespace specdec;

namespace {

GrammarVocabulary letters() {
  std::vector<std::string> bytes{""};
  for (char c = 'a'; c <= 'z'; ++c) bytes.emplace_back(1, c);
  const std::vector<std::string_view> views(bytes.begin(), bytes.end());
  return GrammarVocabulary(views, std::vector<TokenId>{0});
}

TokenId letter(char c) { return c - 'a' + 1; }

std::unique_ptr<Sequence> sequence_at_root(const Grammar& grammar,
                                           const GrammarVocabulary& vocabulary) {
  auto sequence = std::make_unique<Sequence>();
  sequence->grammar.emplace(grammar, vocabulary);
  sequence->samples = true;
  sequence->tokens = {letter('x')};
  sequence->tree.reset(letter('x'));
  sequence->origins.assign(1, NodeOrigin{});
  return sequence;
}

void add(Sequence& sequence, char c, int parent) {
  sequence.tree.add(letter(c), parent);
  sequence.origins.emplace_back();
}

}  // namespace

TEST_CASE("every node of every tree has its mask, and none where the grammar is over") {
  const GrammarVocabulary vocabulary = letters();
  for (const bool overlap : {false, true}) {
    CAPTURE(overlap);
    kernels::ThreadPool pool(2);
    MaskMaker maker(pool, overlap);
    const Grammar words = Grammar::regex("(ab|cd){1,8}e");
    for (int step = 0; step < 50; ++step) {
      std::vector<std::unique_ptr<Sequence>> owned;
      std::vector<Sequence*> batch;
      for (int i = 0; i < 3; ++i) {
        owned.push_back(sequence_at_root(words, vocabulary));
        Sequence& sequence = *owned.back();
        add(sequence, 'a', 0);
        add(sequence, 'c', 0);
        add(sequence, 'b', 1);
        add(sequence, 'z', 1);  // forbidden, with what is below
        add(sequence, 'a', 4);
        add(sequence, 'e', 3);  // the end
        prune_by_grammar(sequence);
        REQUIRE(sequence.node_grammar.size() == 5);
        batch.push_back(&sequence);
      }
      auto free_text = std::make_unique<Sequence>();
      free_text->samples = true;
      batch.push_back(free_text.get());
      maker.begin(batch).wait();
      CHECK(free_text->node_masks.empty());
      for (const auto& sequence : owned) {
        REQUIRE(sequence->node_masks.size() == 5);
        CHECK(sequence->node_masks[4] == nullptr);
        for (std::size_t node = 0; node < 4; ++node) {
          std::vector<std::uint64_t> bits(vocabulary.mask_words());
          sequence->node_grammar[node].fill_mask(bits);
          REQUIRE(sequence->node_masks[node] != nullptr);
          CHECK(*sequence->node_masks[node] == bits);
        }
        // A state that several trees share is one row.
        CHECK(sequence->node_masks[1] == owned[0]->node_masks[1]);
      }
    }
  }
}
