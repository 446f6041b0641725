#include "engine/device_requests.h"

#include <algorithm>
#include <cstring>

namespace specdec {

namespace {

namespace cuda = kernels::cuda;

bool penalises(const SamplingOptions& options) {
  return options.repetition_penalty != 1 || options.presence_penalty != 0 ||
         options.frequency_penalty != 0;
}

cuda::RowSampling numbers_of(const Sequence& sequence) {
  const SamplingOptions& options = sequence.request.sampling;
  cuda::RowSampling sampling;
  sampling.seed = sequence.seed;
  if (options.temperature > 0)
    sampling.inverse_temperature = 1.0 / static_cast<double>(options.temperature);
  sampling.top_p = options.top_p;
  sampling.min_p = options.min_p;
  sampling.top_k = options.top_k;
  sampling.logprobs = options.logprobs;
  sampling.repetition_penalty = options.repetition_penalty;
  sampling.presence_penalty = options.presence_penalty;
  sampling.frequency_penalty = options.frequency_penalty;
  sampling.min_tokens = options.min_tokens;
  sampling.num_bias = static_cast<std::int32_t>(options.logit_bias.size());
  sampling.num_end_tokens = static_cast<std::int32_t>(sequence.end_tokens.size());
  return sampling;
}

std::vector<std::uint32_t> counts_of(const PenaltyState& penalties, int vocab_size) {
  std::vector<std::uint32_t> counts(static_cast<std::size_t>(vocab_size));
  for (const auto& [token, count] : penalties.prompt_counts())
    counts[static_cast<std::size_t>(token)] |= cuda::RowSampling::kInPrompt;
  for (const auto& [token, count] : penalties.output_counts())
    counts[static_cast<std::size_t>(token)] += static_cast<std::uint32_t>(count);
  return counts;
}

}  // namespace

DeviceRequests::DeviceRequests(Backend& backend, int vocab_size, int max_sequences)
    : backend_(backend),
      vocab_size_(vocab_size),
      places_(static_cast<std::size_t>(max_sequences)) {}

cuda::RowSampling DeviceRequests::place(std::size_t index, const Sequence& sequence) {
  Place& place = places_[index];
  const SamplingOptions& options = sequence.request.sampling;
  const bool with_counts = penalises(options);
  const bool is_current =
      place.id == sequence.id && (!with_counts || place.num_output == sequence.num_output());
  place.num_output = sequence.num_output();
  if (is_current) return place.sampling;
  place.id = sequence.id;
  place.sampling = numbers_of(sequence);

  // One piece: end tokens, biased tokens, their biases, counts.
  std::vector<std::uint32_t> words(sequence.end_tokens.begin(), sequence.end_tokens.end());
  for (const auto& [token, bias] : options.logit_bias)
    words.push_back(static_cast<std::uint32_t>(token));
  for (const auto& [token, bias] : options.logit_bias) {
    std::uint32_t word = 0;
    std::memcpy(&word, &bias, sizeof(word));
    words.push_back(word);
  }
  const std::size_t counts_begin = words.size();
  if (with_counts) {
    const std::vector<std::uint32_t> counts = counts_of(sequence.penalties, vocab_size_);
    words.insert(words.end(), counts.begin(), counts.end());
  }
  if (words.empty()) return place.sampling;

  const std::size_t bytes = words.size() * sizeof(std::uint32_t);
  if (place.memory.bytes() < bytes) {
    place.memory = DeviceBuffer();
    place.memory = backend_.allocate(bytes, MemoryUse::scratch);
  }
  backend_.write(place.memory.as<void>(), words.data(), bytes, Stream{});
  const auto* const ids = place.memory.as<const std::int32_t>();
  const std::size_t num_end = sequence.end_tokens.size();
  const std::size_t num_bias = options.logit_bias.size();
  place.sampling.end_tokens = ids;
  place.sampling.bias_tokens = ids + num_end;
  place.sampling.bias_values = place.memory.as<const float>() + num_end + num_bias;
  if (with_counts)
    place.sampling.token_counts = place.memory.as<const std::uint32_t>() + counts_begin;
  return place.sampling;
}

cuda::SamplingNeeds DeviceRequests::needs(std::span<Sequence* const> batch, int vocab_size) {
  cuda::SamplingNeeds needs;
  for (const Sequence* sequence : batch) {
    const SamplingOptions& options = sequence->request.sampling;
    needs.edits |= penalises(options) || !options.logit_bias.empty() || options.min_tokens > 0;
    if (options.temperature <= 0) continue;
    const bool top_k = options.top_k > 0 && options.top_k < vocab_size;
    needs.sampled = true;
    needs.nucleus |= options.top_p < 1 && !top_k;
    needs.dense |= !top_k || options.top_k > cuda::kMostSelected;
  }
  return needs;
}

}  // namespace specdec
