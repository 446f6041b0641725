#include "engine/device_turn.h"

#include <string>
#include <utility>

namespace specdec {

namespace cuda = kernels::cuda;

Error error_of(cuda::RowStatus status, int position) {
  const std::string where = "cannot draw the token at position " + std::to_string(position) + ": ";
  switch (status) {
    case cuda::RowStatus::bad_logits:
      return {ErrorCode::invalid_model,
              where + "the model's logits hold NaN or +infinity; check the model file"};
    case cuda::RowStatus::no_logits:
      return {ErrorCode::invalid_model,
              where + "every logit of the model is -infinity; check the model file"};
    case cuda::RowStatus::bad_edits:
      return {ErrorCode::invalid_argument,
              where + "logit_bias or a penalty makes a logit NaN or +infinity; use finite values"};
    default:
      return {ErrorCode::invalid_argument,
              where + "logit_bias and min_tokens ban every token; leave at least one"};
  }
}

AcceptedPath path_of(const DeviceLoop::Turn& turn, std::size_t index,
                     const SamplingOptions& options) {
  const cuda::TurnEntry& entry = turn.entries[index];
  AcceptedPath path;
  for (int i = 0; i < entry.num_tokens; ++i) {
    OutputToken token;
    token.token = entry.tokens[i];
    token.drafted = i < entry.num_accepted;
    const std::size_t at =
        index * static_cast<std::size_t>(turn.path_capacity) + static_cast<std::size_t>(i);
    if (options.logprobs >= 0) token.logprob = turn.logprobs[at];
    for (int j = 0; j < options.logprobs; ++j) {
      const std::size_t top =
          at * static_cast<std::size_t>(turn.most_logprobs) + static_cast<std::size_t>(j);
      if (turn.top_tokens[top] < 0) break;  // the vocabulary is smaller
      token.top_logprobs.push_back({turn.top_tokens[top], turn.top_logprobs[top]});
    }
    path.nodes.push_back(i);
    path.tokens.push_back(std::move(token));
  }
  return path;
}

}  // namespace specdec
