#pragma once

#include <algorithm>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "engine/arena.h"
#include "engine/backend/cuda_error.h"
#include "engine/backend/cuda_memory.h"
#include "engine/device_loop.h"
#include "kernels/cuda/draft/eagle.h"
#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/sampling/accept.h"
#include "kernels/cuda/step/tree_batch.h"

// What is behind DeviceLoop: device_loop.cc places its memory, device_loop_graphs.cc captures its
// graphs, device_loop_run.cc enters and leaves them.

namespace specdec {

namespace cuda = kernels::cuda;

/// What the host fills for a run and copies in one piece.
struct Entry {
  cuda::RowSampling* sampling = nullptr;   // [sequences]
  cuda::SequenceState* states = nullptr;   // [sequences]
  cuda::SequenceLimits* limits = nullptr;  // [sequences]
  std::uint32_t** token_counts = nullptr;  // [sequences]
  std::int32_t* max_depths = nullptr;      // [sequences] -1: not there
  std::int32_t* max_nodes = nullptr;       // [sequences]
  std::int32_t* draft_lengths = nullptr;   // [sequences]
  cuda::PendingFeatures pending;
  std::int32_t* turn = nullptr;          // [1]
  std::int32_t* block_tables = nullptr;  // [sequences, blocks]
  std::int32_t* history = nullptr;       // [sequences, max_context]

  void place(Arena& arena, const DeviceLoopOptions& options) {
    const auto most = static_cast<std::size_t>(options.max_sequences);
    arena.take(sampling, most);
    arena.take(states, most);
    arena.take(limits, most);
    arena.take(token_counts, most);
    arena.take(max_depths, most);
    arena.take(max_nodes, most);
    arena.take(draft_lengths, most);
    pending.capacity = options.depth + 1;
    arena.take(pending.counts, most);
    arena.take(pending.rows, most * static_cast<std::size_t>(pending.capacity));
    arena.take(turn, 1);
    arena.take(block_tables, most * static_cast<std::size_t>(options.blocks_per_sequence));
    arena.take(history, most * static_cast<std::size_t>(options.max_context));
  }
};

struct GraphKey {
  int sequences = 0;  // rounded up: the launch's capacity
  int context = 0;    // likewise: no position is this or more
  int depth = 0;      // of the drafts; 0: each sequence has a row, its root's, and no draft
  bool loop = false;
  bool logprobs = false;
  cuda::SamplingNeeds needs;

  bool operator==(const GraphKey& other) const {
    return sequences == other.sequences && context == other.context && depth == other.depth &&
           loop == other.loop && logprobs == other.logprobs && needs.edits == other.needs.edits &&
           needs.sampled == other.needs.sampled && needs.nucleus == other.needs.nucleus &&
           needs.dense == other.needs.dense;
  }
};

class DeviceLoop::Impl {
 public:
  Impl(const DeviceLoopOptions& options, DeviceModel target, DeviceDraftModel draft,
       DeviceHead head, SpreadLogits spread);
  /// Of device memory that allocate() takes.
  std::size_t bytes();
  void allocate();

  /// Of the target's pass when drafts are `depth` deep.
  int rows_per_sequence(int depth) const {
    return std::min(1 + options_.nodes, cuda::growth_capacity(options_.topk, depth));
  }
  int slots_per_turn(int depth) const {
    return std::max(rows_per_sequence(depth), 1 + options_.topk * std::max(0, depth - 1));
  }
  const std::vector<int>& depths() const { return options_.depths; }
  int depth_of(int depth) const { return options_.depths[depth_index(depth)]; }
  const OwnedExecutable& graph(const GraphKey& key);
  GraphKey key_of(int sequences, int context, int depth, bool loop,
                  const cuda::SamplingNeeds& needs) const {
    constexpr int kShortest = 256;
    const auto rounded = [](int from, int least) {
      while (from < least) from *= 2;
      return from;
    };
    return {.sequences = std::min(rounded(1, sequences), options_.max_sequences),
            .context = std::min(rounded(kShortest, context), options_.max_context),
            .depth = depth_of(depth),
            .loop = loop,
            .needs = needs};
  }
  DeviceRunDone run(std::span<DeviceSequence> sequences, const cuda::SamplingNeeds& needs,
                    const DeviceRun& what, const OnTurn& on_turn);

 private:
  void place(Arena& arena);
  void place_pinned(Arena& arena);
  void fill_constants();
  void enter(std::span<const DeviceSequence> sequences, const GraphKey& key);
  void enqueue_turn(const GraphKey& key, cudaGraphConditionalHandle condition);
  void propose(const GraphKey& key);
  void grow(const GraphKey& key);
  DraftLogits run_draft(const cuda::DeviceBatch& rows, bool at_roots) {
    return with_head() ? head_.forward(rows, sources_, at_roots, stream_)
                       : draft_.forward(rows, stream_);
  }
  const float* run_target(const cuda::DeviceBatch& rows, const GraphKey& key) {
    return with_head() && key.depth > 0 ? head_.target(rows, stream_)
                                        : target_.forward(rows, stream_);
  }
  cuda::TreeBuffers trees(const GraphKey& key) const;
  cuda::TargetRows target_rows(const GraphKey& key) const;
  cuda::DeviceBatch batch(const cuda::DeviceBatch& buffers, const GraphKey& key, int rows,
                          int outputs) const;
  void grow_workspace(const GraphKey& key);
  Turn turn_at(int turn, std::size_t sequences) const;

  int rule_levels() const {
    return options_.rule == cuda::SampledRule::traversal ? options_.depth + 1 : 1;
  }
  cudaError_t accept(const cuda::SampleRowsParams& rows, const GraphKey& key,
                     const cuda::Launch& to) const;
  bool with_model() const { return options_.draft == DeviceDraft::draft_model; }
  bool with_head() const { return options_.draft == DeviceDraft::eagle; }
  /// Drafts come out of passes, level by level.
  bool with_passes() const { return with_model() || with_head(); }
  /// No draft has branches: nodes lie at their positions.
  bool with_chains() const { return !with_passes() || options_.topk == 1; }
  /// Somebody looks at how good a draft's candidates are.
  bool scores_wanted() const { return options_.topk > 1 || options_.min_confidence > 0; }
  /// Rows a sequence of the draft's pass at the roots; the last one is the root's.
  int root_rows(int depth) const { return with_head() ? depth + 1 : 2; }
  std::size_t depth_index(int depth) const {
    const auto& depths = options_.depths;
    return static_cast<std::size_t>(std::lower_bound(depths.begin(), depths.end() - 1, depth) -
                                    depths.begin());
  }
  cuda::PendingFeatures pending(const cuda::PendingFeatures& memory, const GraphKey& key) const {
    cuda::PendingFeatures pending = memory;
    pending.capacity = key.depth + 1;
    return pending;
  }

  DeviceLoopOptions options_;  // with depths from 0 to depth
  DeviceModel target_;
  DeviceDraftModel draft_;
  DeviceHead head_;
  SpreadLogits spread_;
  OwnedStream own_stream_;
  cudaStream_t stream_ = nullptr;
  cuda::Launch launch_;
  DeviceMemory memory_;
  PinnedMemory pinned_;
  DeviceMemory entry_memory_;
  Entry host_;    // pinned
  Entry device_;  // the same layout
  std::size_t entry_bytes_ = 0;
  cuda::TurnEntry* ring_ = nullptr;         // pinned [max_turns, max_sequences]
  volatile std::int32_t* leave_ = nullptr;  // pinned
  std::int32_t* turns_done_ = nullptr;      // pinned
  float* logprobs_ = nullptr;               // pinned [max_turns, max_sequences, path capacity]
  std::int32_t* top_tokens_ = nullptr;      // pinned [the same, most_logprobs]
  float* top_logprobs_ = nullptr;           // pinned [the same, most_logprobs]

  cuda::TreeBuffers trees_;
  std::int32_t* draft_slots_ = nullptr;  // [rows]
  cuda::SamplingScratch scratch_;        // of the target's rows and the draft's, in turn
  std::int32_t* sampled_ = nullptr;      // [rows]
  cuda::RowStatus* status_ = nullptr;    // [rows]
  cuda::AcceptedPaths paths_;
  float* rule_probabilities_ = nullptr;  // [rows, vocab]; only with a rule, like the next
  double* rule_weights_ = nullptr;       // [sequences, rule_levels(), vocab]
  cuda::DraftGrowth growth_;
  std::int32_t* candidate_counts_ = nullptr;
  std::int32_t* candidate_tokens_ = nullptr;
  float* candidate_scores_ = nullptr;
  float* candidate_sums_ = nullptr;
  std::vector<cuda::DeviceBatch> target_batches_;  // [options_.depths]
  std::vector<cuda::DeviceBatch> root_batches_;    // [options_.depths]; unused without passes
  cuda::DeviceBatch level_batch_;
  std::int32_t* sources_ = nullptr;                         // [rows of a draft's pass]
  std::list<std::pair<GraphKey, OwnedExecutable>> graphs_;  // last used first
};

}  // namespace specdec
