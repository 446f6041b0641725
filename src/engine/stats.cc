#include "specdec/stats.h"

#include <cstddef>

namespace specdec {
namespace {

void add_counts(std::vector<std::int64_t>& into, const std::vector<std::int64_t>& from) {
  if (into.size() < from.size()) into.resize(from.size(), 0);
  for (std::size_t i = 0; i < from.size(); ++i) into[i] += from[i];
}

}  // namespace

void SpeculationStats::record_draft(int num_draft_tokens, int num_accepted) {
  if (num_draft_tokens <= 0) return;
  const auto accepted = static_cast<std::size_t>(num_accepted < 0 ? 0 : num_accepted);
  ++spec_decode_num_drafts;
  spec_decode_num_draft_tokens += num_draft_tokens;
  spec_decode_num_accepted_tokens += static_cast<std::int64_t>(accepted);
  if (spec_decode_num_accepted_tokens_per_pos.size() < accepted)
    spec_decode_num_accepted_tokens_per_pos.resize(accepted, 0);
  for (std::size_t depth = 0; depth < accepted; ++depth)
    ++spec_decode_num_accepted_tokens_per_pos[depth];
  if (acceptance_histogram.size() <= accepted) acceptance_histogram.resize(accepted + 1, 0);
  ++acceptance_histogram[accepted];
}

void SpeculationStats::merge(const SpeculationStats& other) {
  spec_decode_num_drafts += other.spec_decode_num_drafts;
  spec_decode_num_draft_tokens += other.spec_decode_num_draft_tokens;
  spec_decode_num_accepted_tokens += other.spec_decode_num_accepted_tokens;
  add_counts(spec_decode_num_accepted_tokens_per_pos,
             other.spec_decode_num_accepted_tokens_per_pos);
  add_counts(acceptance_histogram, other.acceptance_histogram);
  num_spec_steps += other.num_spec_steps;
  num_output_tokens += other.num_output_tokens;
}

}  // namespace specdec
