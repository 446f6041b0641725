#pragma once

#include <cstdint>
#include <vector>

#include "specdec/request.h"

namespace specdec {

/// The outcome of verification for one sequence: the nodes that were accepted, root first, and one
/// emitted token for each: tokens[i] follows nodes[i]. tokens[i] is the token of nodes[i + 1]
/// (drafted = true) except the last, the bonus token (drafted = false). Truncating the output to
/// its first n tokens (a stop condition) keeps nodes[0..n).
struct AcceptedPath {
  std::vector<std::int32_t> nodes;
  std::vector<OutputToken> tokens;

  void truncate(std::size_t num_tokens) {
    nodes.resize(num_tokens);
    tokens.resize(num_tokens);
  }
};

}  // namespace specdec
