#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "sampling/selection.h"
#include "specdec/types.h"

namespace specdec {

struct RowContext;

/// One row after penalties, bias and bans, with what top-k, top-p and min-p leave of it. Views
/// into the pipeline (and the logits), valid until its next call.
///
/// The processed log-probability of a kept token is (scores[t] - max) * inverse_temperature minus
/// log_normaliser(), which is the same for all of them.
struct ProcessedRow {
  std::span<const float> scores;     ///< [vocab]; -infinity: banned
  std::span<const float> chunk_max;  ///< [row_math::num_chunks(vocab)]
  float max = 0;                     ///< of the scores
  bool greedy = false;               ///< temperature 0; inverse_temperature is then 1
  double inverse_temperature = 1;
  bool filtered = false;          ///< top-k, top-p or min-p may have dropped tokens
  std::span<const TokenId> kept;  ///< ascending; only when filtered

  float scale() const noexcept;
  /// Score relative to the best in units of temperature: <= 0, double precision.
  double relative(TokenId token) const noexcept {
    return (static_cast<double>(scores[static_cast<std::size_t>(token)]) - max) *
           inverse_temperature;
  }
};

/// Penalties and bias -> temperature -> top-k -> top-p -> min-p, each on what the one before left.
///
/// Every filter keeps a prefix of the tokens in the order (score descending, id ascending), so each
/// is one cutoff and no row is ever sorted. Semantics of the penalties are vLLM's: repetition over
/// prompt and output (a positive logit is divided, a negative one multiplied), then frequency per
/// occurrence in the output, then presence once. Owns scratch: one instance per thread, no state.
class LogitsPipeline {
 public:
  explicit LogitsPipeline(int vocab_size);

  /// Throws Error(invalid_model) when the row holds NaN or +infinity or nothing but -infinity;
  /// Error(invalid_argument) when the options ban every token or the row's size is not the
  /// vocabulary's.
  ProcessedRow process(std::span<const float> logits, const RowContext& context);

  /// The row as the model gave it: checked, with its maximum, unfiltered, temperature 1.
  ProcessedRow raw(std::span<const float> logits, const RowContext& context);

 private:
  void apply_filters(const RowContext& context, std::span<const float> unpenalised,
                     ProcessedRow& row);
  void keep_top_k(const ProcessedRow& row, int top_k);
  void keep_top_p(const ProcessedRow& row, double top_p);
  void keep_min_p(const ProcessedRow& row, double min_p);
  void gather(const ProcessedRow& row, float threshold);

  int vocab_size_;
  std::vector<float> scores_;
  std::vector<float> chunk_max_;
  std::vector<float> chunk_order_;
  std::vector<std::int32_t> masses_;
  std::vector<WeightedToken> candidates_;
  std::vector<TokenId> kept_;
  WeightedSelection selection_;
  bool gathered_ = false;  // candidates_ holds what is left of the row
};

/// Sum of exp(relative(t)) over the kept tokens, in the order of row_math::sum_exp over the whole
/// row with 0 for the dropped ones; and its log.
double normaliser(const ProcessedRow& row);
double log_normaliser(const ProcessedRow& row);

}  // namespace specdec
