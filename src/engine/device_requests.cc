#include "engine/device_requests.h"

#include <cstring>

#include "engine/row_sampling.h"

namespace specdec {

namespace cuda = kernels::cuda;

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
  place.sampling = row_sampling(options, sequence.seed);
  place.sampling.num_bias = static_cast<std::int32_t>(options.logit_bias.size());
  place.sampling.num_end_tokens = static_cast<std::int32_t>(sequence.end_tokens.size());

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
    const std::vector<std::uint32_t> counts = token_counts(sequence.penalties, vocab_size_);
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
  for (const Sequence* sequence : batch) add_needs(sequence->request.sampling, vocab_size, needs);
  return needs;
}

}  // namespace specdec
