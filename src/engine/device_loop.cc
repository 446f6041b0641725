#include "engine/device_loop.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <list>
#include <string>
#include <utility>

#include "engine/backend/cuda_memory.h"
#include "kernels/cuda/draft/candidates.h"
#include "kernels/cuda/draft/eagle.h"
#include "kernels/cuda/draft/growth.h"
#include "kernels/cuda/sampling/accept.h"
#include "kernels/cuda/step/tree_batch.h"
#include "specdec/error.h"

namespace specdec {

namespace {

namespace cuda = kernels::cuda;

void check(cudaError_t status, const char* doing) {
  if (status == cudaSuccess) return;
  ::cudaGetLastError();
  const std::string message = std::string(doing) + ": " + ::cudaGetErrorString(status);
  if (status == cudaErrorMemoryAllocation)
    throw Error(ErrorCode::out_of_memory, message + ": lower kv_cache.memory_mb");
  throw Error(ErrorCode::device, message + ": load the engine anew");
}

struct DestroyGraph {
  void operator()(cudaGraph_t graph) const noexcept { ::cudaGraphDestroy(graph); }
};
struct DestroyExecutable {
  void operator()(cudaGraphExec_t graph) const noexcept { ::cudaGraphExecDestroy(graph); }
};
using OwnedGraph = std::unique_ptr<std::remove_pointer_t<cudaGraph_t>, DestroyGraph>;
using OwnedExecutable = std::unique_ptr<std::remove_pointer_t<cudaGraphExec_t>, DestroyExecutable>;

/// Hands out parts of one allocation. A first pass without memory counts, a second one assigns.
class Arena {
 public:
  explicit Arena(std::byte* memory) : memory_(memory) {}
  template <typename T>
  void take(T*& part, std::size_t count) {
    if (memory_ != nullptr) part = reinterpret_cast<T*>(memory_ + used_);
    constexpr std::size_t kAlignment = 256;
    used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

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
  int sequences = 0;    // rounded up: the launch's capacity
  int context = 0;      // likewise: no position is this or more
  bool drafts = false;  // else each sequence has a row, its root's, and nothing is proposed
  bool loop = false;
  bool logprobs = false;
  cuda::SamplingNeeds needs;

  bool operator==(const GraphKey& other) const {
    return sequences == other.sequences && context == other.context && drafts == other.drafts &&
           loop == other.loop && logprobs == other.logprobs && needs.edits == other.needs.edits &&
           needs.sampled == other.needs.sampled && needs.nucleus == other.needs.nucleus &&
           needs.dense == other.needs.dense;
  }
};

}  // namespace

class DeviceLoop::Impl {
 public:
  Impl(const DeviceLoopOptions& options, DeviceModel target, DeviceModel draft, DeviceHead head);

  int rows_per_sequence() const { return 1 + options_.nodes; }
  int rows_per_sequence(const GraphKey& key) const { return key.drafts ? rows_per_sequence() : 1; }
  int slots_per_turn() const {
    return std::max(options_.nodes, options_.topk * std::max(0, options_.depth - 1)) + 1;
  }
  const OwnedExecutable& graph(const GraphKey& key);
  GraphKey key_of(int sequences, int context, bool loop, const cuda::SamplingNeeds& needs) const {
    constexpr int kShortest = 256;
    const auto rounded = [](int from, int least) {
      while (from < least) from *= 2;
      return from;
    };
    return {.sequences = std::min(rounded(1, sequences), options_.max_sequences),
            .context = std::min(rounded(kShortest, context), options_.max_context),
            .drafts = options_.depth > 0,
            .loop = loop,
            .needs = needs};
  }
  int run(std::span<DeviceSequence> sequences, const cuda::SamplingNeeds& needs, int turns,
          const OnTurn& on_turn);

 private:
  void place(Arena& arena);
  void place_pinned(Arena& arena);
  void fill_constants();
  void enter(std::span<const DeviceSequence> sequences, int capacity);
  void enqueue_turn(const GraphKey& key, cudaGraphConditionalHandle condition);
  void propose(const GraphKey& key, const cuda::Launch& to);
  const float* run_draft(const cuda::DeviceBatch& rows, bool at_roots) {
    return with_head() ? head_.forward(rows, sources_, at_roots, stream_)
                       : draft_.forward(rows, stream_);
  }
  cuda::TreeBuffers trees(const GraphKey& key) const;
  cuda::DeviceBatch batch(const cuda::DeviceBatch& buffers, const GraphKey& key, int rows,
                          int outputs) const;
  void grow_workspace(const GraphKey& key);
  Turn turn_at(int turn, std::size_t sequences) const;

  bool with_model() const { return options_.draft == DeviceDraft::draft_model; }
  bool with_head() const { return options_.draft == DeviceDraft::eagle; }
  /// Drafts come out of passes, level by level.
  bool with_passes() const { return with_model() || with_head(); }
  /// Rows a sequence of the draft's pass at the roots; the last one is the root's.
  int root_rows() const { return with_head() ? options_.depth + 1 : 2; }

  DeviceLoopOptions options_;
  DeviceModel target_;
  DeviceModel draft_;
  DeviceHead head_;
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
  cuda::DraftGrowth growth_;
  std::int32_t* candidate_counts_ = nullptr;
  std::int32_t* candidate_tokens_ = nullptr;
  float* candidate_scores_ = nullptr;
  float* candidate_sums_ = nullptr;
  cuda::DeviceBatch target_batch_;
  cuda::DeviceBatch plain_batch_;
  cuda::DeviceBatch root_batch_;
  cuda::DeviceBatch level_batch_;
  std::int32_t* sources_ = nullptr;                         // [rows of a draft's pass]
  std::list<std::pair<GraphKey, OwnedExecutable>> graphs_;  // last used first
};

DeviceLoop::Impl::Impl(const DeviceLoopOptions& options, DeviceModel target, DeviceModel draft,
                       DeviceHead head)
    : options_(options),
      target_(std::move(target)),
      draft_(std::move(draft)),
      head_(std::move(head)) {
  if (options_.draft == DeviceDraft::none) options_.depth = options_.nodes = 0;
  if (!with_passes()) options_.topk = 1;
  if (options_.topk == 1) options_.nodes = options_.depth;
  if (options_.depth + 1 > cuda::TurnEntry::kMostTokens || options_.topk > cuda::kMostCandidates)
    throw Error(ErrorCode::unsupported, "the device loop drafts at most " +
                                            std::to_string(cuda::TurnEntry::kMostTokens - 1) +
                                            " deep and " + std::to_string(cuda::kMostCandidates) +
                                            " wide");
  check(::cudaSetDevice(options_.device.index), "selecting the GPU");
  stream_ = options_.stream;
  if (stream_ == nullptr) {
    check(::cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    own_stream_.reset(stream_);
  }
  launch_.stream = stream_;
  launch_.device = options_.device;

  Arena sizes(nullptr);
  place(sizes);
  void* memory = nullptr;
  check(::cudaMalloc(&memory, sizes.used()), "allocating the loop's buffers");
  memory_.reset(static_cast<std::byte*>(memory));
  check(::cudaMemsetAsync(memory, 0, sizes.used(), stream_), "clearing the loop's buffers");
  Arena parts(memory_.get());
  place(parts);

  Arena entry_size(nullptr);
  host_.place(entry_size, options_);
  entry_bytes_ = entry_size.used();
  check(::cudaMalloc(&memory, entry_bytes_), "allocating the loop's buffers");
  entry_memory_.reset(static_cast<std::byte*>(memory));
  Arena entry_parts(entry_memory_.get());
  device_.place(entry_parts, options_);

  Arena pinned_size(nullptr);
  place_pinned(pinned_size);
  check(::cudaMallocHost(&memory, pinned_size.used()), "allocating pinned memory");
  std::memset(memory, 0, pinned_size.used());
  pinned_.reset(static_cast<std::byte*>(memory));
  Arena pinned_parts(pinned_.get());
  place_pinned(pinned_parts);
  fill_constants();
}

void DeviceLoop::Impl::place_pinned(Arena& arena) {
  host_.place(arena, options_);  // first: it is copied as one piece
  const auto entries = static_cast<std::size_t>(options_.max_turns) *
                       static_cast<std::size_t>(options_.max_sequences);
  arena.take(ring_, entries);
  std::int32_t* leave = nullptr;
  arena.take(leave, 1);
  leave_ = leave;
  arena.take(turns_done_, 1);
  if (options_.most_logprobs < 0) return;
  const std::size_t tokens = entries * static_cast<std::size_t>(paths_.capacity);
  const std::size_t top = tokens * static_cast<std::size_t>(options_.most_logprobs);
  arena.take(logprobs_, tokens);
  arena.take(top_tokens_, top);
  arena.take(top_logprobs_, top);
}

void DeviceLoop::Impl::place(Arena& arena) {
  const auto sequences = static_cast<std::size_t>(options_.max_sequences);
  const auto rows = sequences * static_cast<std::size_t>(rows_per_sequence());
  const auto frontier = sequences * static_cast<std::size_t>(options_.topk);
  const auto topk = static_cast<std::size_t>(options_.topk);
  const auto vocab = static_cast<std::size_t>(options_.vocab);
  const auto levels = static_cast<std::size_t>(options_.depth + 1);
  trees_.rows_per_sequence = rows_per_sequence();
  for (std::int32_t** part : {&trees_.sequence_of_row, &trees_.tokens, &trees_.parents,
                              &trees_.depths, &draft_slots_, &sampled_})
    arena.take(*part, rows);
  arena.take(trees_.first_rows, sequences);
  arena.take(trees_.sizes, sequences);
  arena.take(status_, rows);

  // A draft level has as many rows as fit here too: it is over before the target's rows come.
  const std::size_t most_rows = std::max(rows, frontier);
  arena.take(scratch_.states, most_rows);
  arena.take(scratch_.chunk_keys,
             most_rows * static_cast<std::size_t>(cuda::num_chunks(options_.vocab)));
  arena.take(scratch_.raw_chunk_keys,
             most_rows * static_cast<std::size_t>(cuda::num_chunks(options_.vocab)));
  arena.take(scratch_.scores, most_rows * vocab);
  arena.take(scratch_.digits, most_rows * cuda::kDigitBins);
  arena.take(scratch_.slice_best, std::max(rows, frontier * topk) *
                                      static_cast<std::size_t>(cuda::num_slices(options_.vocab)));
  paths_.capacity = options_.depth + 1;
  arena.take(paths_.lengths, sequences);
  arena.take(paths_.status, sequences);
  arena.take(paths_.nodes, sequences * levels);
  arena.take(paths_.tokens, sequences * levels);

  growth_.topk = options_.topk;
  growth_.capacity = cuda::growth_capacity(options_.topk, options_.depth);
  const auto grown = sequences * static_cast<std::size_t>(growth_.capacity);
  for (std::int32_t** part :
       {&growth_.first_nodes, &growth_.counts, &growth_.frontier_sizes, &growth_.next_slots})
    arena.take(*part, sequences);
  for (std::int32_t** part : {&growth_.tokens, &growth_.parents, &growth_.depths, &growth_.slots})
    arena.take(*part, grown);
  arena.take(growth_.survival, grown);
  arena.take(growth_.sequence_of_row, frontier);
  arena.take(growth_.node_of_row, frontier);
  arena.take(candidate_counts_, frontier);
  arena.take(candidate_tokens_, frontier * topk);
  arena.take(candidate_scores_, frontier * topk);
  arena.take(candidate_sums_,
             frontier * static_cast<std::size_t>(cuda::num_chunks(options_.vocab)));

  const auto place_batch = [&](cuda::DeviceBatch& batch, std::size_t batch_rows,
                               std::size_t outputs) {
    for (std::int32_t** part :
         {&batch.tokens, &batch.positions, &batch.slots, &batch.row_sequences, &batch.path_offsets})
      arena.take(*part, batch_rows);
    arena.take(batch.output_rows, outputs);
    arena.take(batch.sequence_begins, sequences + 1);
    arena.take(batch.context_lens, sequences);
    arena.take(batch.path_slots, batch_rows * levels);
  };
  place_batch(target_batch_, rows, rows);
  place_batch(plain_batch_, sequences, sequences);
  const std::size_t root_batch_rows = static_cast<std::size_t>(root_rows()) * sequences;
  place_batch(root_batch_, root_batch_rows, frontier);
  place_batch(level_batch_, frontier, frontier);
  // Roots follow what is committed; a chain's nodes lie at their positions.
  plain_batch_.has_paths = root_batch_.has_paths = false;
  level_batch_.has_paths = options_.topk > 1;
  arena.take(sources_, std::max(root_batch_rows, frontier));
}

// Which rows belong to which sequence never changes.
void DeviceLoop::Impl::fill_constants() {
  const int sequences = options_.max_sequences;
  const auto upload = [&](std::int32_t* to, const std::vector<std::int32_t>& values) {
    check(::cudaMemcpyAsync(to, values.data(), values.size() * sizeof(std::int32_t),
                            cudaMemcpyHostToDevice, stream_),
          "writing the loop's buffers");
    check(::cudaStreamSynchronize(stream_), "writing the loop's buffers");
  };
  const auto fill = [&](const cuda::DeviceBatch& batch, int rows_each, int outputs_each) {
    std::vector<std::int32_t> row_sequences, begins, outputs;
    for (int i = 0; i < sequences; ++i) {
      begins.push_back(i * rows_each);
      row_sequences.insert(row_sequences.end(), static_cast<std::size_t>(rows_each), i);
      // The draft's roots: the second row of each sequence, for every place of its frontier.
      for (int j = 0; j < outputs_each; ++j)
        outputs.push_back(rows_each == outputs_each ? i * rows_each + j
                                                    : i * rows_each + rows_each - 1);
    }
    begins.push_back(sequences * rows_each);
    upload(batch.row_sequences, row_sequences);
    upload(batch.sequence_begins, begins);
    upload(batch.output_rows, outputs);
  };
  fill(target_batch_, rows_per_sequence(), rows_per_sequence());
  fill(plain_batch_, 1, 1);
  if (!with_passes()) return;
  fill(level_batch_, options_.topk, options_.topk);
  std::vector<std::int32_t> outputs;
  fill(root_batch_, root_rows(), options_.topk);
  for (int i = 0; i < sequences; ++i)
    outputs.insert(outputs.end(), static_cast<std::size_t>(options_.topk),
                   (i + 1) * root_rows() - 1);
  upload(root_batch_.output_rows, outputs);
}

cuda::TreeBuffers DeviceLoop::Impl::trees(const GraphKey& key) const {
  cuda::TreeBuffers trees = trees_;
  trees.num_sequences = key.sequences;
  trees.rows_per_sequence = rows_per_sequence(key);
  return trees;
}

cuda::DeviceBatch DeviceLoop::Impl::batch(const cuda::DeviceBatch& buffers, const GraphKey& key,
                                          int rows, int outputs) const {
  cuda::DeviceBatch batch = buffers;
  batch.num_rows = rows;
  batch.num_outputs = outputs;
  batch.num_sequences = key.sequences;
  batch.max_context = key.context;
  batch.table_stride = options_.blocks_per_sequence;
  batch.block_tables = device_.block_tables;
  return batch;
}

void DeviceLoop::Impl::propose(const GraphKey& key, const cuda::Launch& to) {
  const char* const doing = "capturing a draft";
  if (!with_passes() || !key.drafts) {  // max_depths 0: the root alone
    check(cuda::propose_ngram({.trees = trees(key),
                               .sequences = device_.states,
                               .history = device_.history,
                               .history_stride = options_.max_context,
                               .min_match = options_.ngram_min,
                               .max_match = options_.ngram_max,
                               .max_tokens = device_.max_depths},
                              to),
          doing);
    return;
  }
  cuda::GrowParams grow{.growth = growth_,
                        .sequences = device_.states,
                        .options = device_.sampling,
                        .history = device_.history,
                        .history_stride = options_.max_context,
                        .max_depths = device_.max_depths,
                        .max_nodes = device_.max_nodes,
                        .candidate_counts = candidate_counts_,
                        .candidate_tokens = candidate_tokens_,
                        .candidate_scores = candidate_scores_};
  grow.growth.num_sequences = key.sequences;
  const int frontier = key.sequences * options_.topk;
  check(cuda::begin_growth(grow, to), doing);
  for (int depth = 0; depth < options_.depth; ++depth) {
    cuda::DeviceBatch rows;
    if (depth == 0) {
      rows = batch(root_batch_, key, root_rows() * key.sequences, frontier);
      check(with_head() ? cuda::fill_eagle_roots(grow, device_.pending, rows, sources_, to)
                        : cuda::fill_draft_roots(grow, device_.draft_lengths, rows, to),
            doing);
    } else {
      rows = batch(level_batch_, key, frontier, frontier);
      const cuda::DraftSources sources =
          with_head() ? cuda::DraftSources{sources_, root_rows()} : cuda::DraftSources{};
      check(cuda::fill_draft_level(grow, rows, options_.depth + 1, sources, to), doing);
    }
    const float* const logits = run_draft(rows, depth == 0);
    check(
        cuda::draft_candidates({.rows = {.vocab = options_.vocab,
                                         .tree = grow.growth.rows(),
                                         .logits = logits,
                                         .options = device_.sampling,
                                         .sequences = device_.states,
                                         .scratch = scratch_},
                                .k = options_.topk,
                                .min_confidence = options_.min_confidence,
                                .counts = candidate_counts_,
                                .tokens = candidate_tokens_,
                                .scores = candidate_scores_,
                                .chunk_sums = candidate_sums_,
                                .scores_wanted = options_.topk > 1 || options_.min_confidence > 0},
                               key.needs, to),
        doing);
    check(cuda::grow_level(grow, depth, to), doing);
  }
  check(cuda::finish_growth(grow, trees(key), draft_slots_, to), doing);
}

void DeviceLoop::Impl::enqueue_turn(const GraphKey& key, cudaGraphConditionalHandle condition) {
  const cuda::Launch& to = launch_;
  propose(key, to);

  const cuda::TreeBuffers tree = trees(key);
  const int rows = key.sequences * rows_per_sequence(key);
  const cuda::DeviceBatch target =
      batch(key.drafts ? target_batch_ : plain_batch_, key, rows, rows);
  check(cuda::fill_target_batch(tree, device_.states, target, options_.depth + 1, to),
        "capturing a batch");
  const float* const logits = target_.forward(target, to.stream);

  const cuda::SampleRowsParams sample_rows{.vocab = options_.vocab,
                                           .tree = tree.rows(),
                                           .logits = logits,
                                           .options = device_.sampling,
                                           .sequences = device_.states,
                                           .scratch = scratch_,
                                           .tokens = sampled_,
                                           .status = status_};
  check(cuda::sample_and_accept(sample_rows, key.needs, paths_, to), "capturing acceptance");
  if (key.logprobs)
    check(cuda::path_logprobs({.rows = sample_rows,
                               .paths = paths_,
                               .most = options_.most_logprobs,
                               .logprobs = logprobs_,
                               .top_tokens = top_tokens_,
                               .top_logprobs = top_logprobs_,
                               .turn = device_.turn,
                               .turn_entries = options_.max_sequences * paths_.capacity},
                              to),
          "capturing log-probabilities");
  if (key.drafts)
    check(cuda::commit_kv({.num_sequences = key.sequences,
                           .target = target_.pool,
                           .draft = with_model() ? draft_.pool : cuda::KvPoolView{},
                           .block_tables = device_.block_tables,
                           .table_stride = options_.blocks_per_sequence,
                           .sequences = device_.states,
                           .first_rows = trees_.first_rows,
                           .draft_slots = draft_slots_,
                           .paths = paths_},
                          to),
          "capturing the commit");
  check(
      cuda::advance({.num_sequences = key.sequences,
                     .sequences = device_.states,
                     .limits = device_.limits,
                     .token_counts = device_.token_counts,
                     .paths = paths_,
                     .tree_sizes = trees_.sizes,
                     .draft_slots = with_model() && key.drafts ? draft_slots_ : nullptr,
                     .first_rows = trees_.first_rows,
                     .draft_lengths = with_model() && key.drafts ? device_.draft_lengths : nullptr,
                     .history = device_.history,
                     .history_stride = options_.max_context,
                     .slots_per_turn = slots_per_turn(),
                     .ring = ring_,
                     .ring_stride = options_.max_sequences,
                     .turn = device_.turn,
                     .leave = const_cast<const std::int32_t*>(leave_),
                     .in_loop = key.loop,
                     .condition = condition},
                    to),
      "capturing publication");
  if (with_head() && key.drafts)
    check(cuda::keep_features(device_.pending, key.sequences, paths_, trees_.first_rows, to),
          "capturing features");
}

// One pass of each model over rows of padding, outside of any capture: scratch memory takes its
// place, and kernels are loaded.
void DeviceLoop::Impl::grow_workspace(const GraphKey& key) {
  const auto pass = [&](const cuda::DeviceBatch& buffers, int rows, int outputs, auto forward) {
    const cuda::DeviceBatch padding = batch(buffers, key, rows, outputs);
    const auto bytes = static_cast<std::size_t>(rows) * sizeof(std::int32_t);
    for (std::int32_t* part : {padding.tokens, padding.positions})
      check(::cudaMemsetAsync(part, 0, bytes, stream_), "warming up");
    for (std::int32_t* part : {padding.slots, padding.path_offsets})  // kPaddingSlot; no path
      check(::cudaMemsetAsync(part, 0xff, bytes, stream_), "warming up");
    if (with_head()) {
      const std::size_t all =
          std::max(root_rows(), options_.topk) * static_cast<std::size_t>(options_.max_sequences);
      check(::cudaMemsetAsync(sources_, 0, all * sizeof(std::int32_t), stream_), "warming up");
    }
    forward(padding);
  };
  const int rows = key.sequences * rows_per_sequence(key);
  pass(key.drafts ? target_batch_ : plain_batch_, rows, rows,
       [&](const cuda::DeviceBatch& batch) { target_.forward(batch, stream_); });
  if (!with_passes() || !key.drafts) return;
  const int frontier = key.sequences * options_.topk;
  pass(root_batch_, root_rows() * key.sequences, frontier,
       [&](const cuda::DeviceBatch& batch) { run_draft(batch, true); });
  pass(level_batch_, frontier, frontier,
       [&](const cuda::DeviceBatch& batch) { run_draft(batch, false); });
}

const OwnedExecutable& DeviceLoop::Impl::graph(const GraphKey& key) {
  const auto known = std::find_if(graphs_.begin(), graphs_.end(),
                                  [&](const auto& entry) { return entry.first == key; });
  if (known != graphs_.end()) {
    graphs_.splice(graphs_.begin(), graphs_, known);
    return graphs_.front().second;
  }
  grow_workspace(key);
  cudaGraph_t made = nullptr;
  check(::cudaGraphCreate(&made, 0), "creating a graph");
  const OwnedGraph whole(made);
  cudaGraph_t body = made;
  cudaGraphConditionalHandle condition = 0;
  if (key.loop) {
    check(::cudaGraphConditionalHandleCreate(&condition, made, 1, cudaGraphCondAssignDefault),
          "creating a loop");
    cudaGraphNodeParams params{};
    params.type = cudaGraphNodeTypeConditional;
    params.conditional.handle = condition;
    params.conditional.type = cudaGraphCondTypeWhile;
    params.conditional.size = 1;
    cudaGraphNode_t node = nullptr;
#if CUDART_VERSION >= 13000
    check(::cudaGraphAddNode(&node, made, nullptr, nullptr, 0, &params), "creating a loop");
#else
    check(::cudaGraphAddNode(&node, made, nullptr, 0, &params), "creating a loop");
#endif
    body = params.conditional.phGraph_out[0];
  }
  check(::cudaStreamBeginCaptureToGraph(stream_, body, nullptr, nullptr, 0,
                                        cudaStreamCaptureModeThreadLocal),
        "capturing a step");
  try {
    enqueue_turn(key, condition);
  } catch (...) {
    ::cudaStreamEndCapture(stream_, &body);
    throw;
  }
  check(::cudaStreamEndCapture(stream_, &body), "capturing a step");
  cudaGraphExec_t executable = nullptr;
  check(::cudaGraphInstantiate(&executable, made, 0), "instantiating a graph");
  OwnedExecutable owned(executable);
  check(::cudaGraphUpload(executable, stream_), "uploading a graph");
  graphs_.emplace_front(key, std::move(owned));
  if (static_cast<int>(graphs_.size()) > options_.most_graphs) graphs_.pop_back();
  return graphs_.front().second;
}

void DeviceLoop::Impl::enter(std::span<const DeviceSequence> sequences, int capacity) {
  for (int i = 0; i < capacity; ++i) {
    const auto at = static_cast<std::size_t>(i);
    const bool there = at < sequences.size();
    host_.max_depths[i] = there ? std::min(sequences[at].max_depth, options_.depth) : -1;
    host_.max_nodes[i] = there ? std::min(sequences[at].max_nodes, options_.nodes) : 0;
    host_.states[i] = {};
    host_.limits[i] = {};
    host_.token_counts[i] = nullptr;
    host_.draft_lengths[i] = 0;
    host_.pending.counts[i] = -1;
    if (!there) {
      host_.limits[i] = {.max_output = INT32_MAX, .max_length = INT32_MAX, .reserved = INT32_MAX};
      host_.sampling[i] = {};
      continue;
    }
    const DeviceSequence& sequence = sequences[at];
    const std::vector<TokenId>& tokens = *sequence.tokens;
    if (tokens.empty() || static_cast<int>(tokens.size()) >= options_.max_context ||
        static_cast<int>(sequence.block_table.size()) > options_.blocks_per_sequence ||
        static_cast<int>(sequence.feature_rows.size()) > host_.pending.capacity)
      throw Error(ErrorCode::internal, "a sequence does not fit the device loop's buffers");
    host_.sampling[i] = sequence.sampling;
    host_.states[i] = {static_cast<std::int32_t>(tokens.size()), sequence.num_output};
    host_.limits[i] = sequence.limits;
    host_.token_counts[i] = const_cast<std::uint32_t*>(sequence.sampling.token_counts);
    host_.draft_lengths[i] = sequence.draft_length;
    if (!sequence.feature_rows.empty()) {
      host_.pending.counts[i] = static_cast<std::int32_t>(sequence.feature_rows.size());
      std::copy(sequence.feature_rows.begin(), sequence.feature_rows.end(),
                host_.pending.rows + i * host_.pending.capacity);
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

int DeviceLoop::Impl::run(std::span<DeviceSequence> sequences, const cuda::SamplingNeeds& needs,
                          int turns, const OnTurn& on_turn) {
  if (sequences.empty() || turns < 1) return 0;
  if (static_cast<int>(sequences.size()) > options_.max_sequences)
    throw Error(ErrorCode::internal, "more sequences than the device loop has rows for");
  check(::cudaSetDevice(options_.device.index), "selecting the GPU");
  int longest = 0;
  for (const DeviceSequence& sequence : sequences)
    longest = std::max(longest, sequence.limits.reserved);
  GraphKey key = key_of(static_cast<int>(sequences.size()), longest, turns > 1, needs);
  key.drafts = std::any_of(sequences.begin(), sequences.end(), [&](const DeviceSequence& sequence) {
    return std::min(sequence.max_depth, options_.depth) > 0;
  });
  key.logprobs =
      options_.most_logprobs >= 0 &&
      std::any_of(sequences.begin(), sequences.end(),
                  [](const DeviceSequence& sequence) { return sequence.sampling.logprobs >= 0; });
  const OwnedExecutable& executable = graph(key);
  enter(sequences, key.sequences);
  if (with_head()) head_.enter(stream_);
  // advance() counts from here, so that a run of fewer turns ends at the same place in the ring.
  turns = std::min(turns, options_.max_turns);
  for (int i = 0; i < key.sequences; ++i) host_.limits[i].last_turn = turns - 1;
  check(::cudaMemcpyAsync(entry_memory_.get(), pinned_.get(), entry_bytes_, cudaMemcpyHostToDevice,
                          stream_),
        "entering the loop");
  check(::cudaGraphLaunch(executable.get(), stream_), "entering the loop");
  check(::cudaMemcpyAsync(turns_done_, device_.turn, sizeof(std::int32_t), cudaMemcpyDeviceToHost,
                          stream_),
        "leaving the loop");
  const auto fetch = [&](std::int32_t* host, const std::int32_t* device, int each) {
    check(::cudaMemcpyAsync(host, device,
                            static_cast<std::size_t>(key.sequences * each) * sizeof(std::int32_t),
                            cudaMemcpyDeviceToHost, stream_),
          "leaving the loop");
  };
  if (with_model()) fetch(host_.draft_lengths, device_.draft_lengths, 1);
  if (with_head()) {
    fetch(host_.pending.counts, device_.pending.counts, 1);
    fetch(host_.pending.rows, device_.pending.rows, device_.pending.capacity);
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
    check(state, "running the loop");
    break;
  }
  while (seen < *turns_done_) take();
  for (std::size_t i = 0; i < sequences.size(); ++i) {
    if (with_model()) sequences[i].draft_length = host_.draft_lengths[i];
    std::vector<std::int32_t>& features = sequences[i].feature_rows;
    if (!key.drafts) features.clear();  // nothing ran the head
    if (!with_head() || features.empty()) continue;
    const std::int32_t* const rows =
        host_.pending.rows + static_cast<std::ptrdiff_t>(i) * host_.pending.capacity;
    features.assign(rows, rows + host_.pending.counts[i]);
  }
  return seen;
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

DeviceLoop::DeviceLoop(const DeviceLoopOptions& options, DeviceModel target, DeviceModel draft,
                       DeviceHead head)
    : impl_(std::make_unique<Impl>(options, std::move(target), std::move(draft), std::move(head))) {
}
DeviceLoop::~DeviceLoop() = default;

int DeviceLoop::slots_per_turn() const { return impl_->slots_per_turn(); }

void DeviceLoop::warm_up(std::span<const int> num_sequences, const cuda::SamplingNeeds& needs,
                         int context) {
  for (const int count : num_sequences)
    for (const bool loop : {false, true}) impl_->graph(impl_->key_of(count, context, loop, needs));
}

int DeviceLoop::run(std::span<DeviceSequence> sequences, const cuda::SamplingNeeds& needs,
                    int turns, const OnTurn& on_turn) {
  return impl_->run(sequences, needs, turns, on_turn);
}

}  // namespace specdec
