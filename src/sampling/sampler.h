#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "sampling/logits_pipeline.h"
#include "specdec/request.h"
#include "specdec/sampling_options.h"
#include "specdec/types.h"

namespace specdec {

/// Token counts of one sequence, as penalties read them. Committed tokens only: a draft path is
/// passed beside it.
class PenaltyState {
 public:
  void add_prompt(std::span<const TokenId> tokens);
  void add_output(TokenId token);
  void clear();

  bool in_prompt(TokenId token) const { return prompt_.contains(token); }
  const std::unordered_map<TokenId, int>& prompt_counts() const noexcept { return prompt_; }
  const std::unordered_map<TokenId, int>& output_counts() const noexcept { return output_; }

 private:
  std::unordered_map<TokenId, int> prompt_;
  std::unordered_map<TokenId, int> output_;
};

/// Everything a draw depends on, beside the logits. A row at a tree node passes the draft tokens on
/// the path to it.
struct RowContext {
  const SamplingOptions* options = nullptr;
  std::uint64_t seed = 0;
  std::int64_t position = 0;  ///< absolute index of the token to draw; keys the noise
  const PenaltyState* penalties = nullptr;
  std::span<const TokenId> path =
      {};                     ///< draft tokens below the root, up to and including the node
  int num_output_tokens = 0;  ///< output tokens before this draw, path included (min_tokens)
  std::span<const TokenId> end_tokens =
      {};  ///< EOS and stop ids, banned while num_output_tokens < min_tokens
  /// One bit a token, 64 to a word: those that a grammar allows here. Empty: no grammar.
  std::span<const std::uint64_t> allowed = {};
};

/// A draft model's candidate for the next token.
struct DraftCandidate {
  TokenId token = 0;
  float score = 0;  ///< temperature 0: the log-probability; else log-probability + Gumbel noise of
                    ///< (seed, position, token)
  float logprob = 0;  ///< natural log under the processed distribution
};

/// Draws tokens from logits rows. Every result is a pure function of the row and its context. Owns
/// scratch space: one instance per thread.
class RowSampler {
 public:
  explicit RowSampler(int vocab_size);

  /// The token that decoding emits here: argmax of log target_prob + Gumbel noise, plain argmax at
  /// temperature 0, ties to the lowest id; with logprobs when the options ask for them.
  OutputToken sample(std::span<const float> logits, const RowContext& row);

  /// The fully processed distribution, out [vocab]; one-hot at temperature 0.
  void probabilities(std::span<const float> logits, const RowContext& row, std::span<float> out);

  /// The k best candidates for coupled drafting, best first, ties to the lowest id. out.size() <=
  /// k.
  void coupled_candidates(std::span<const float> logits, const RowContext& row, int k,
                          std::vector<DraftCandidate>& out);

  /// Fills logprob and top_logprobs of a token chosen elsewhere (the sampled acceptance rules).
  void fill_logprobs(std::span<const float> logits, const RowContext& row, OutputToken& token);

  /// Probability of the most likely token under the processed distribution (temperature 0: under
  /// softmax of the logits).
  float confidence(std::span<const float> logits, const RowContext& row);

 private:
  struct Perturbed {
    double score = 0;  // relative score + noise
    TokenId token = 0;
  };
  /// The k best of relative score + noise, best first, ties to the lowest id. The one core of
  /// sample() and coupled_candidates().
  void best_perturbed(const ProcessedRow& row, const RowContext& context, int k);
  void best_perturbed_dense(const ProcessedRow& row, const RowContext& context, std::size_t k);
  void offer(const ProcessedRow& row, TokenId token, std::uint32_t word, std::size_t k);
  void best_scores(const ProcessedRow& row, int k);

  LogitsPipeline pipeline_;
  std::vector<Perturbed> best_;
  std::vector<float> dense_;
  std::vector<float> dense_max_;
  std::vector<WeightedToken> candidates_;
  WeightedSelection selection_;
};

/// Draws k children of a draft node from `probs` [vocab], keyed by (seed, position, node),
/// independent of the target's noise. `position` is that of the step's first new token, the same
/// for every node of the tree: then no two steps of a sequence share a draw. Without replacement
/// when asked; fewer than k when the support is smaller. Appends to `out` in drawing order.
void draw_draft_children(std::span<const float> probs, std::uint64_t seed, std::int64_t position,
                         int node, int k, bool without_replacement, std::vector<TokenId>& out);

}  // namespace specdec
