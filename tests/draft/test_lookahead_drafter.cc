#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <random>
#include <vector>

#include "draft/draft_length.h"
#include "draft/lookahead_drafter.h"

using namespace specdec;

namespace {

using Tokens = std::vector<TokenId>;

/// A target whose next token depends on the last two.
TokenId next_token(const Tokens& text, int alphabet) {
  const std::size_t last = text.size() - 1;
  const auto mixed = static_cast<unsigned>(text[last]) * 31U +
                     static_cast<unsigned>(last > 0 ? text[last - 1] : 0) * 17U;
  return static_cast<TokenId>((mixed ^ (mixed >> 3U)) % static_cast<unsigned>(alphabet));
}

/// The tokens from the root's child down to `node`.
Tokens path_to(const DraftProposal& proposal, int node) {
  Tokens path;
  for (; node >= 0; node = proposal.parents()[static_cast<std::size_t>(node)])
    path.insert(path.begin(), proposal.tokens()[static_cast<std::size_t>(node)]);
  return path;
}

Tokens joined(Tokens text, const Tokens& more) {
  text.insert(text.end(), more.begin(), more.end());
  return text;
}

bool has_path(const DraftProposal& proposal, const Tokens& path) {
  for (int node = 0; node < static_cast<int>(proposal.tokens().size()); ++node)
    if (path_to(proposal, node) == path) return true;
  return false;
}

bool occurs(const Tokens& text, const Tokens& part) {
  // A text shorter than the part is read in a circle.
  Tokens circle = text;
  while (circle.size() < text.size() + part.size())
    circle.insert(circle.end(), text.begin(), text.end());
  return std::search(circle.begin(), circle.end(), part.begin(), part.end()) != circle.end();
}

/// The pool by its definition: every n-gram with the time when it was last seen.
class ListedNgrams {
 public:
  explicit ListedNgrams(std::size_t capacity) : capacity_(capacity) {}

  void add(const Tokens& ngram) {
    std::erase(ngrams_, ngram);
    ngrams_.push_back(ngram);
    if (ngrams_.size() > capacity_) ngrams_.erase(ngrams_.begin());
  }
  std::vector<Tokens> find(TokenId first, std::size_t most) const {
    std::vector<Tokens> found;
    for (auto it = ngrams_.rbegin(); it != ngrams_.rend() && found.size() < most; ++it)
      if (it->front() == first) found.push_back(*it);
    return found;
  }
  std::size_t size() const { return ngrams_.size(); }

 private:
  std::size_t capacity_;
  std::vector<Tokens> ngrams_;  // the newest last
};

struct Outcome {
  int steps = 0;
  int accepted = 0;
};

/// Decodes with the drafter as the engine would, and holds every proposal against columns that are
/// kept by absolute position: what stands at position t must be what the target gave there when it
/// was last asked.
Outcome decode_and_check(const LookaheadConfig& options, const Tokens& prompt, int length,
                         int alphabet, int max_depth) {
  LookaheadDrafter drafter(options);
  Tokens text = prompt;
  std::map<int, Tokens> columns;  // by the position of their first token
  ListedNgrams pool(static_cast<std::size_t>(options.pool_size));
  Outcome outcome;
  const auto width = static_cast<std::size_t>(options.ngram_size - 1);
  while (static_cast<int>(text.size()) < length) {
    const int root = static_cast<int>(text.size()) - 1;
    const DraftContext context{
        .id = 1, .tokens = text, .max_depth = max_depth, .max_nodes = drafter.max_nodes(options)};
    std::vector<DraftProposal> proposals(1);
    drafter.propose({&context, 1}, proposals);
    const DraftProposal& proposal = proposals[0];
    REQUIRE(static_cast<int>(proposal.tokens().size()) <= context.max_nodes);

    for (Tokens ngram :
         pool.find(text.back(), static_cast<std::size_t>(options.verification_set_size))) {
      ngram.erase(ngram.begin());
      ngram.resize(std::min(ngram.size(), static_cast<std::size_t>(max_depth)));
      CHECK(has_path(proposal, ngram));
    }

    const int expected_columns =
        std::clamp(max_depth - (options.ngram_size - 3), 0, options.window_size);
    REQUIRE(static_cast<int>(proposal.watched().size()) == expected_columns);
    if (columns.contains(root)) columns[root].front() = text.back();
    Tokens answers;
    std::map<int, Tokens> next;
    Tokens firsts;  // of columns 1 to i
    for (int i = 0; i < expected_columns; ++i) {
      const Tokens path = path_to(proposal, proposal.watched()[static_cast<std::size_t>(i)]);
      REQUIRE(path.size() == static_cast<std::size_t>(i) + width - 1);
      Tokens column(path.end() - static_cast<std::ptrdiff_t>(width - 1), path.end());
      if (i > 0) firsts.push_back(path[static_cast<std::size_t>(i) - 1]);
      CHECK(Tokens(path.begin(), path.begin() + i) == firsts);
      column.insert(column.begin(), i == 0 ? text.back() : firsts.back());
      if (columns.contains(root + i))
        CHECK(column == columns[root + i]);
      else if (i > 0)
        CHECK(occurs(text, column));
      answers.push_back(next_token(joined(text, path), alphabet));
      column.push_back(answers.back());
      pool.add(column);
      column.erase(column.begin());
      next[root + 1 + i] = column;
    }
    columns = next;
    drafter.watched(1, answers);

    Tokens path;
    int taken = -1;
    do {
      path.push_back(next_token(joined(text, path), alphabet));
      ++taken;
    } while (has_path(proposal, path));
    outcome.accepted += taken;
    ++outcome.steps;
    text = joined(text, path);
  }
  Tokens plain = prompt;
  while (plain.size() < text.size()) plain.push_back(next_token(plain, alphabet));
  CHECK(text == plain);
  return outcome;
}

}  // namespace

TEST_CASE("the n-gram pool equals its definition") {
  std::mt19937 random(1);
  for (const int capacity : {1, 3, 20}) {
    NgramPool pool(capacity);
    ListedNgrams listed(static_cast<std::size_t>(capacity));
    for (int round = 0; round < 2000; ++round) {
      const Tokens ngram = {static_cast<TokenId>(random() % 4), static_cast<TokenId>(random() % 3),
                            static_cast<TokenId>(random() % 3)};
      pool.add(ngram);
      listed.add(ngram);
      REQUIRE(pool.size() == static_cast<int>(listed.size()));
      const auto first = static_cast<TokenId>(random() % 5);
      const int most = static_cast<int>(random() % 6);
      std::vector<Tokens> found;
      for (const auto ngram_found : pool.find(first, most))
        found.emplace_back(ngram_found.begin(), ngram_found.end());
      REQUIRE(found == listed.find(first, static_cast<std::size_t>(most)));
    }
  }
}

TEST_CASE("the window is a Jacobi iteration, and its n-grams are the draft") {
  std::mt19937 random(2);
  for (int round = 0; round < 60; ++round) {
    const LookaheadConfig options{.window_size = 1 + static_cast<int>(random() % 6),
                                  .ngram_size = 3 + static_cast<int>(random() % 4),
                                  .verification_set_size = 1 + static_cast<int>(random() % 4),
                                  .pool_size = 1 + static_cast<int>(random() % 60)};
    const int alphabet = 3 + static_cast<int>(random() % 30);
    Tokens prompt(1 + random() % 20);
    for (TokenId& token : prompt) token = static_cast<TokenId>(random() % 30);
    CAPTURE(round);
    decode_and_check(options, prompt, 150, alphabet, 1 + static_cast<int>(random() % 12));
  }
}

TEST_CASE("text that its target can foresee takes fewer steps") {
  const LookaheadConfig options{.window_size = 4, .ngram_size = 4};
  const Outcome outcome = decode_and_check(options, {1, 2, 3}, 400, 13, 8);
  CHECK(outcome.steps < 200);
  CHECK(outcome.accepted > 200);
}

TEST_CASE("lookahead keeps its limits, and proposes nothing where only a chain is taken") {
  LookaheadDrafter drafter({.window_size = 5, .ngram_size = 5});
  const Tokens text = {1, 2, 3, 4, 5, 6};
  for (int max_nodes = 1; max_nodes < 40; ++max_nodes)
    for (int max_depth = 1; max_depth < 12; ++max_depth) {
      const DraftContext context{
          .id = 7, .tokens = text, .max_depth = max_depth, .max_nodes = max_nodes};
      std::vector<DraftProposal> proposals(1);
      drafter.propose({&context, 1}, proposals);
      CHECK(static_cast<int>(proposals[0].tokens().size()) <= max_nodes);
      for (int node = 0; node < static_cast<int>(proposals[0].tokens().size()); ++node)
        CHECK(static_cast<int>(path_to(proposals[0], node).size()) <= max_depth);
    }
  const DraftContext chain{
      .id = 8, .tokens = text, .max_depth = 8, .max_nodes = 64, .chain_only = true};
  std::vector<DraftProposal> proposals(1);
  drafter.propose({&chain, 1}, proposals);
  CHECK(proposals[0].tokens().empty());
}

TEST_CASE("one request's n-grams do not reach another, nor one that takes its id later") {
  LookaheadDrafter drafter({.window_size = 1, .ngram_size = 3});
  const Tokens text = {1, 2, 3};
  const auto propose = [&](RequestId id, const Tokens& tokens) {
    const DraftContext context{.id = id, .tokens = tokens, .max_depth = 4, .max_nodes = 16};
    std::vector<DraftProposal> proposals(1);
    drafter.propose({&context, 1}, proposals);
    return proposals[0];
  };
  const auto learn = [&](RequestId id) {
    const DraftProposal proposal = propose(id, text);
    const TokenId answer = 99;
    drafter.watched(id, {&answer, 1});
    return path_to(proposal, proposal.watched()[0]);
  };
  const Tokens column = learn(1);
  const Tokens secret = {column[0], 99};
  CHECK(has_path(propose(1, text), secret));
  CHECK_FALSE(has_path(propose(2, text), secret));
  drafter.finished(1);
  CHECK_FALSE(has_path(propose(1, text), secret));
}

TEST_CASE("a column without an answer ends the window") {
  LookaheadDrafter drafter({.window_size = 3, .ngram_size = 3});
  Tokens text = {1, 2, 3, 4, 5};
  const auto propose = [&] {
    const DraftContext context{.id = 1, .tokens = text, .max_depth = 8, .max_nodes = 64};
    std::vector<DraftProposal> proposals(1);
    drafter.propose({&context, 1}, proposals);
    return proposals[0];
  };
  const DraftProposal before = propose();
  const Tokens answers = {77, Drafter::kNoAnswer, 78};
  drafter.watched(1, answers);
  text.push_back(6);
  const DraftProposal after = propose();
  REQUIRE(after.watched().size() == 3);
  // Column 0 went on: its tokens behind the root are what it had guessed for it, and the answer.
  CHECK(path_to(after, after.watched()[0]) == Tokens{77});
  for (int node = 0; node < static_cast<int>(after.tokens().size()); ++node)
    CHECK(after.tokens()[static_cast<std::size_t>(node)] != 78);
}

TEST_CASE("a window that does not pay is closed, tried again later, and opened when it pays") {
  WindowHistory history;
  CHECK(history.open(0.3));  // the benefit of the doubt
  int steps = 0;
  while (history.open(0.3)) {
    history.observe(0);
    REQUIRE(++steps < 20);
  }
  int closed = 1;
  while (!history.open(0.3)) ++closed;
  CHECK(closed == 255);
  // The text has changed: the trial shows it.
  for (int i = 0; i < 16; ++i) history.observe(1);
  for (int i = 0; i < 100; ++i) CHECK(history.open(0.3));

  WindowHistory costly;
  int opened = 0;
  for (int i = 0; i < 2000; ++i)
    if (costly.open(2)) {
      ++opened;
      costly.observe(0);
    }
  CHECK(opened == 16);  // not yet after 256 steps: a trial costs 32
}
