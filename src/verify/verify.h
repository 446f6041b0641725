#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "draft/draft_tree.h"
#include "verify/accepted_path.h"

namespace specdec {

enum class VerifyMethod : std::uint8_t { coupled, rejection, block, traversal, typical };

std::optional<VerifyMethod> parse_verify_method(std::string_view name);
const char* to_string(VerifyMethod method) noexcept;
/// Typical acceptance changes the output distribution; every other rule is lossless.
bool is_lossless(VerifyMethod method) noexcept;
/// Rules that accept against draft_probs need a drafter that samples; the others take the drafter's
/// best tokens.
bool wants_sampled_draft(VerifyMethod method) noexcept;

/// What the target says at the nodes of one draft tree. Rows are asked for one at a time and only
/// as far as the walk goes.
class TargetRows {
 public:
  virtual ~TargetRows() = default;

  virtual int vocab_size() const = 0;
  /// The token that plain decoding would emit after `node`.
  virtual OutputToken sample(int node) = 0;
  /// The fully processed distribution after `node`, out [vocab].
  virtual void probabilities(int node, std::span<float> out) = 0;
  /// Adds the logprobs that the request asked for to a token emitted after `node`.
  virtual void fill_logprobs(int node, OutputToken& token) = 0;
};

struct VerifyParams {
  VerifyMethod method = VerifyMethod::coupled;
  std::uint64_t seed = 0;
  std::int64_t position =
      0;  ///< absolute index of the token after the root; keys the rule's own uniforms
  bool greedy = false;  ///< temperature 0: every rule is the coupled walk
  float typical_epsilon = 0.09f;
  float typical_delta = 0.3f;
};

/// Walks the tree and returns the accepted path with its bonus token. Pure: equal inputs, equal
/// path. Throws Error(invalid_argument) for a rule that cannot take this tree (block verification
/// needs a chain).
AcceptedPath verify(const DraftTree& tree, TargetRows& target, const VerifyParams& params);

}  // namespace specdec
