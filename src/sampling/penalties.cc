#include "sampling/penalties.h"

#include <algorithm>
#include <limits>

#include "sampling/mutation.h"

namespace specdec {

void PenaltyState::add_prompt(std::span<const TokenId> tokens) {
  for (const TokenId token : tokens) ++prompt_[token];
}
void PenaltyState::add_output(TokenId token) { ++output_[token]; }
void PenaltyState::clear() {
  prompt_.clear();
  output_.clear();
}

namespace {

bool penalises(const SamplingOptions& options) {
  return options.repetition_penalty != 1.0f || options.presence_penalty != 0.0f ||
         options.frequency_penalty != 0.0f;
}

bool bans_end_tokens(const RowContext& context) {
  int num_output_tokens = context.num_output_tokens;
  if (mutant_active("min_tokens_without_path")) {
    num_output_tokens -= static_cast<int>(context.path.size());
  }
  return num_output_tokens < context.options->min_tokens;
}

void ban_disallowed(std::span<const std::uint64_t> allowed, std::span<float> scores) {
  constexpr float kBanned = -std::numeric_limits<float>::infinity();
  for (std::size_t begin = 0; begin < scores.size(); begin += 64) {
    std::uint64_t word = allowed[begin / 64];
    if (mutant_active("grammar_mask_shifted")) word = word << 1 | word;
    if (word == ~std::uint64_t{0}) continue;
    const std::size_t end = std::min(begin + 64, scores.size());
    if (word == 0) {
      std::fill(scores.data() + begin, scores.data() + end, kBanned);
      continue;
    }
    for (std::size_t token = begin; token < end; ++token)
      if ((word >> (token - begin) & 1) == 0) scores[token] = kBanned;
  }
}

void repeat(float& score, float penalty) { score = score > 0 ? score / penalty : score * penalty; }

void apply_penalties(const RowContext& context, std::span<float> scores) {
  const SamplingOptions& options = *context.options;
  std::span<const TokenId> path = context.path;
  if (mutant_active("penalties_without_path")) path = {};
  const auto inside = [&](TokenId token) {
    return token >= 0 && static_cast<std::size_t>(token) < scores.size();
  };
  const auto penalise_output = [&](TokenId token, std::ptrdiff_t count) {
    if (!inside(token)) return;
    float& score = scores[static_cast<std::size_t>(token)];
    if (options.repetition_penalty != 1.0f) repeat(score, options.repetition_penalty);
    score -= options.frequency_penalty * static_cast<float>(count);
    score -= options.presence_penalty;
  };

  static const PenaltyState kEmpty;
  const PenaltyState& state = context.penalties != nullptr ? *context.penalties : kEmpty;
  const auto& outputs = state.output_counts();
  for (const auto& [token, count] : outputs) {
    penalise_output(token, count + std::count(path.begin(), path.end(), token));
  }
  for (auto it = path.begin(); it != path.end(); ++it) {
    if (!outputs.contains(*it) && std::find(path.begin(), it, *it) == it) {
      penalise_output(*it, std::count(it, path.end(), *it));
    }
  }
  if (options.repetition_penalty != 1.0f) {
    for (const auto& [token, count] : state.prompt_counts()) {
      if (inside(token) && !outputs.contains(token) &&
          std::find(path.begin(), path.end(), token) == path.end()) {
        repeat(scores[static_cast<std::size_t>(token)], options.repetition_penalty);
      }
    }
  }
}

}  // namespace

bool has_edits(const RowContext& context) {
  const SamplingOptions& options = *context.options;
  return penalises(options) || !options.logit_bias.empty() ||
         (bans_end_tokens(context) && !context.end_tokens.empty()) || !context.allowed.empty();
}

void apply_edits(const RowContext& context, std::span<float> scores) {
  const SamplingOptions& options = *context.options;
  if (penalises(options)) apply_penalties(context, scores);
  for (const auto& [token, bias] : options.logit_bias) {
    if (token >= 0 && static_cast<std::size_t>(token) < scores.size()) {
      scores[static_cast<std::size_t>(token)] += bias;
    }
  }
  if (bans_end_tokens(context)) {
    for (const TokenId token : context.end_tokens) {
      if (token >= 0 && static_cast<std::size_t>(token) < scores.size()) {
        scores[static_cast<std::size_t>(token)] = -std::numeric_limits<float>::infinity();
      }
    }
  }
  if (!context.allowed.empty()) ban_disallowed(context.allowed, scores);
}

}  // namespace specdec
