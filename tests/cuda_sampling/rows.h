#pragma once

#include <cstdint>
#include <random>
#include <span>
#include <string_view>

#include "batch.h"

namespace specdec::cuda_test {

/// Rows that break samplers.
enum class RowKind {
  plain,        // as a model's: a few good tokens, a long tail
  flat,         // nearly uniform: nuclei of thousands of tokens
  ties,         // few distinct values, so cutoffs fall among ties
  equal,        // one value
  zeros,        // +0, -0 and denormals
  masked,       // almost all -infinity
  single,       // one finite token
  outliers,     // +-1e30 and a normal rest
  twin_maxima,  // the same maximum at both ends
  close,        // the best tokens one ulp apart
};
constexpr RowKind kRowKinds[] = {
    RowKind::plain,  RowKind::flat,   RowKind::ties,     RowKind::equal,       RowKind::zeros,
    RowKind::masked, RowKind::single, RowKind::outliers, RowKind::twin_maxima, RowKind::close};

void fill_row(RowKind kind, std::span<float> row, std::mt19937_64& random);

/// Grows a tree of `nodes` nodes below `sequence`'s root over rows of logits [nodes, vocab], so
/// that the host accepts part of it: a child is mostly the token that the host samples at its
/// parent.
void grow_tree(TestSequence& sequence, std::span<const float> logits, int vocab, int nodes,
               std::mt19937_64& random);

}  // namespace specdec::cuda_test
