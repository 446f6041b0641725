#pragma once

#include <unordered_map>
#include <vector>

#include "draft/ngram_pool.h"
#include "specdec/config.h"
#include "specdec/drafter.h"

namespace specdec {

/// Lookahead decoding (Fu et al., arXiv 2402.02057): the target itself guesses, beside each step,
/// how text a little further on might go.
///
/// A window of `window_size` columns stands behind the root. Column i holds ngram_size - 1 guessed
/// tokens for the positions from root + i on, and its rows see the first tokens of the columns
/// before it: a path of the draft tree. What the target gives behind a column completes an n-gram
/// for the pool; the column drops its first token and goes on with that answer, which is a Jacobi
/// iteration of every column. The pool's n-grams that begin with the root are the draft; a column
/// that was right is accepted like any other path.
///
/// Window and pool belong to one request. New columns are copied from its text.
class LookaheadDrafter final : public Drafter {
 public:
  explicit LookaheadDrafter(const LookaheadConfig& options) : options_(options) {}

  std::string_view name() const noexcept override { return "lookahead"; }
  /// A window that is deeper or larger than the limits loses its last columns. Proposes nothing
  /// where only a chain is taken.
  void propose(std::span<const DraftContext> contexts, std::span<DraftProposal> proposals) override;
  void watched(RequestId id, std::span<const TokenId> answers) override;
  void finished(RequestId id) override { requests_.erase(id); }

  /// Draft tokens of a step with a full window and as many n-grams as are verified.
  static int max_nodes(const LookaheadConfig& options) noexcept;

 private:
  struct Request {
    NgramPool pool;
    int root = 0;  // index of the token that columns[0] begins with
    std::vector<std::vector<TokenId>> columns = {};  // [window][ngram_size - 1]
  };

  void align(Request& request, std::span<const TokenId> tokens) const;
  DraftProposal draft(const Request& request, const DraftContext& context) const;

  LookaheadConfig options_;
  std::unordered_map<RequestId, Request> requests_;
};

}  // namespace specdec
