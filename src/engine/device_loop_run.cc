#include <algorithm>
#include <atomic>
#include <chrono>
#include <string>

#include "engine/device_loop_impl.h"
#include "specdec/error.h"

namespace specdec {

void DeviceLoop::Impl::enter(std::span<const DeviceSequence> sequences, const GraphKey& key) {
  const int capacity = key.sequences;
  const cuda::PendingFeatures pending = this->pending(host_.pending, key);
  for (int i = 0; i < capacity; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const bool there = at < sequences.size();
    host_.max_depths[i] = there ? std::min(sequences[at].max_depth, key.depth) : -1;
    host_.max_nodes[i] = there ? std::min(sequences[at].max_nodes, options_.nodes) : 0;
    host_.states[i] = {};
    host_.limits[i] = {};
    host_.token_counts[i] = nullptr;
    host_.draft_lengths[i] = 0;
    pending.counts[i] = -1;
    if (!there) {
      host_.limits[i] = {.max_output = INT32_MAX, .max_length = INT32_MAX, .reserved = INT32_MAX};
      host_.sampling[i] = {};
      continue;
    }
    const DeviceSequence& sequence = sequences[at];
    const std::vector<TokenId>& tokens = *sequence.tokens;
    if (tokens.empty() || static_cast<int>(tokens.size()) >= options_.max_context ||
        static_cast<int>(sequence.block_table.size()) > options_.blocks_per_sequence ||
        static_cast<int>(sequence.feature_rows.size()) > pending.capacity)
      throw Error(ErrorCode::internal, "a sequence does not fit the device loop's buffers");
    host_.sampling[i] = sequence.sampling;
    host_.states[i] = {static_cast<std::int32_t>(tokens.size()), sequence.num_output};
    host_.limits[i] = sequence.limits;
    host_.token_counts[i] = const_cast<std::uint32_t*>(sequence.sampling.token_counts);
    host_.draft_lengths[i] = sequence.draft_length;
    if (!sequence.feature_rows.empty()) {
      pending.counts[i] = static_cast<std::int32_t>(sequence.feature_rows.size());
      std::copy(sequence.feature_rows.begin(), sequence.feature_rows.end(),
                pending.rows + i * pending.capacity);
    }
    std::copy(sequence.block_table.begin(), sequence.block_table.end(),
              host_.block_tables + i * options_.blocks_per_sequence);
    std::copy(tokens.begin(), tokens.end(),
              host_.history + static_cast<std::ptrdiff_t>(i) * options_.max_context);
  }
  *host_.turn = 0;
  *leave_ = 0;
  for (int turn = 0; turn < options_.max_turns; ++turn)
    for (int i = 0; i < capacity; ++i) ring_[turn * options_.max_sequences + i].turn = 0;
}

DeviceRunDone DeviceLoop::Impl::run(std::span<DeviceSequence> sequences,
                                    const cuda::SamplingNeeds& needs, const DeviceRun& what,
                                    const OnTurn& on_turn) {
  if (sequences.empty() || what.turns < 1) return {};
  if (static_cast<int>(sequences.size()) > options_.max_sequences)
    throw Error(ErrorCode::internal, "more sequences than the device loop has rows for");
  check_cuda(::cudaSetDevice(options_.device.index), "selecting the GPU");
  int longest = 0;
  for (const DeviceSequence& sequence : sequences)
    longest = std::max(longest, sequence.limits.reserved);
  const bool drafts =
      std::any_of(sequences.begin(), sequences.end(),
                  [](const DeviceSequence& sequence) { return sequence.max_depth > 0; });
  GraphKey key = key_of(static_cast<int>(sequences.size()), longest, drafts ? what.depth : 0,
                        what.turns > 1, needs);
  key.logprobs =
      options_.most_logprobs >= 0 &&
      std::any_of(sequences.begin(), sequences.end(),
                  [](const DeviceSequence& sequence) { return sequence.sampling.logprobs >= 0; });
  const OwnedExecutable& executable = graph(key);
  enter(sequences, key);
  if (with_head() && key.depth > 0) head_.enter(stream_);
  // advance() counts from here, so that a run of fewer turns ends at the same place in the ring.
  const int turns = std::min(what.turns, options_.max_turns);
  for (int i = 0; i < key.sequences; ++i) host_.limits[i].last_turn = turns - 1;
  check_cuda(::cudaMemcpyAsync(entry_memory_.get(), pinned_.get(), entry_bytes_,
                               cudaMemcpyHostToDevice, stream_),
             "entering the loop");
  const auto begin = std::chrono::steady_clock::now();
  check_cuda(::cudaGraphLaunch(executable.get(), stream_), "entering the loop");
  check_cuda(::cudaMemcpyAsync(turns_done_, device_.turn, sizeof(std::int32_t),
                               cudaMemcpyDeviceToHost, stream_),
             "leaving the loop");
  const auto fetch = [&](std::int32_t* host, const std::int32_t* device, int each) {
    check_cuda(
        ::cudaMemcpyAsync(host, device,
                          static_cast<std::size_t>(key.sequences * each) * sizeof(std::int32_t),
                          cudaMemcpyDeviceToHost, stream_),
        "leaving the loop");
  };
  if (with_model()) fetch(host_.draft_lengths, device_.draft_lengths, 1);
  const cuda::PendingFeatures pending = this->pending(host_.pending, key);
  if (with_head()) {
    fetch(pending.counts, device_.pending.counts, 1);
    fetch(pending.rows, device_.pending.rows, pending.capacity);
  }

  // The host only reads along; it never makes the device wait.
  int seen = 0;
  const auto take = [&] {
    try {
      if (!on_turn(turn_at(seen++, sequences.size()))) *leave_ = 1;
    } catch (...) {  // nobody may touch the sequences' memory before the device is done with it
      *leave_ = 1;
      ::cudaStreamSynchronize(stream_);
      throw;
    }
  };
  const auto complete = [&] {
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const volatile std::int32_t& turn =
          ring_[static_cast<std::size_t>(seen * options_.max_sequences) + i].turn;
      if (turn != seen + 1) return false;
    }
    std::atomic_thread_fence(std::memory_order_acquire);
    return true;
  };
  for (;;) {
    if (seen < turns && complete()) {
      take();
      continue;
    }
    const cudaError_t state = ::cudaStreamQuery(stream_);
    if (state == cudaErrorNotReady) continue;
    check_cuda(state, "running the loop");
    break;
  }
  while (seen < *turns_done_) take();
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (with_model()) sequences[i].draft_length = host_.draft_lengths[i];
    std::vector<std::int32_t>& features = sequences[i].feature_rows;
    if (key.depth == 0) features.clear();  // nothing ran the head
    if (!with_head() || features.empty()) continue;
    const std::int32_t* const rows =
        pending.rows + static_cast<std::ptrdiff_t>(i) * pending.capacity;
    features.assign(rows, rows + pending.counts[i]);
  }
  const std::chrono::duration<double> taken = std::chrono::steady_clock::now() - begin;
  return {.turns = seen, .seconds = taken.count()};
}

DeviceLoop::Turn DeviceLoop::Impl::turn_at(int turn, std::size_t sequences) const {
  const auto first =
      static_cast<std::size_t>(turn) * static_cast<std::size_t>(options_.max_sequences);
  Turn out{.entries = {ring_ + first, sequences},
           .path_capacity = paths_.capacity,
           .most_logprobs = options_.most_logprobs};
  if (logprobs_ == nullptr) return out;
  const std::size_t token = first * static_cast<std::size_t>(paths_.capacity);
  const std::size_t top = token * static_cast<std::size_t>(options_.most_logprobs);
  out.logprobs = logprobs_ + token;
  out.top_tokens = top_tokens_ + top;
  out.top_logprobs = top_logprobs_ + top;
  return out;
}

}  // namespace specdec
