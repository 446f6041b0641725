#include "engine/device_loop.h"

#include <algorithm>
#include <cstring>
#include <string>

#include "engine/device_loop_impl.h"
#include "kernels/cuda/draft/candidates.h"
#include "specdec/error.h"

namespace specdec {

DeviceLoop::Impl::Impl(const DeviceLoopOptions& options, DeviceModel target, DeviceDraftModel draft,
                       DeviceHead head, SpreadLogits spread)
    : options_(options),
      target_(std::move(target)),
      draft_(std::move(draft)),
      head_(std::move(head)),
      spread_(std::move(spread)) {
  if (options_.draft == DeviceDraft::none) options_.depth = options_.nodes = 0;
  if (!with_passes()) options_.topk = 1;
  if (options_.topk == 1) options_.nodes = options_.depth;
  std::vector<int>& depths = options_.depths;
  std::erase_if(depths, [&](int depth) { return depth <= 0 || depth >= options_.depth; });
  depths.insert(depths.begin(), 0);
  if (options_.depth > 0) depths.push_back(options_.depth);
  target_batches_.resize(depths.size());
  root_batches_.resize(depths.size());
  if (options_.depth + 1 > cuda::TurnEntry::kMostTokens || options_.topk > cuda::kMostCandidates)
    throw Error(ErrorCode::unsupported, "the device loop drafts at most " +
                                            std::to_string(cuda::TurnEntry::kMostTokens - 1) +
                                            " deep and " + std::to_string(cuda::kMostCandidates) +
                                            " wide");
}

std::size_t DeviceLoop::Impl::bytes() {
  Arena sizes(nullptr);
  place(sizes);
  host_.place(sizes, options_);
  return sizes.used();
}

void DeviceLoop::Impl::allocate() {
  check_cuda(::cudaSetDevice(options_.device.index), "selecting the GPU");
  stream_ = options_.stream;
  if (stream_ == nullptr) {
    check_cuda(::cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "creating a stream");
    own_stream_.reset(stream_);
  }
  launch_.stream = stream_;
  launch_.device = options_.device;

  Arena sizes(nullptr);
  place(sizes);
  void* memory = nullptr;
  check_cuda(::cudaMalloc(&memory, sizes.used()), "allocating the loop's buffers");
  memory_.reset(static_cast<std::byte*>(memory));
  check_cuda(::cudaMemsetAsync(memory, 0, sizes.used(), stream_), "clearing the loop's buffers");
  Arena parts(memory_.get());
  place(parts);

  Arena entry_size(nullptr);
  host_.place(entry_size, options_);
  entry_bytes_ = entry_size.used();
  check_cuda(::cudaMalloc(&memory, entry_bytes_), "allocating the loop's buffers");
  entry_memory_.reset(static_cast<std::byte*>(memory));
  // The first passes are over padding, before any run was entered: block tables must name blocks.
  check_cuda(::cudaMemsetAsync(memory, 0, entry_bytes_, stream_), "clearing the loop's buffers");
  Arena entry_parts(entry_memory_.get());
  device_.place(entry_parts, options_);

  Arena pinned_size(nullptr);
  place_pinned(pinned_size);
  check_cuda(::cudaMallocHost(&memory, pinned_size.used()), "allocating pinned memory");
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
  const auto rows = sequences * static_cast<std::size_t>(rows_per_sequence(options_.depth));
  const auto frontier = sequences * static_cast<std::size_t>(options_.topk);
  const auto topk = static_cast<std::size_t>(options_.topk);
  const auto vocab = static_cast<std::size_t>(options_.vocab);
  const auto levels = static_cast<std::size_t>(options_.depth + 1);
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

  if (options_.rule) {
    arena.take(rule_probabilities_, rows * vocab);
    arena.take(rule_weights_, sequences * static_cast<std::size_t>(rule_levels()) * vocab);
  }

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
  const auto times_sequences = [&](int rows_each) {
    return static_cast<std::size_t>(rows_each) * sequences;
  };
  for (std::size_t i = 0; i < options_.depths.size(); ++i) {
    const int depth = options_.depths[i];
    const std::size_t target_rows = times_sequences(rows_per_sequence(depth));
    place_batch(target_batches_[i], target_rows, target_rows);
    target_batches_[i].has_paths = !with_chains() && depth > 0;
    if (with_passes()) place_batch(root_batches_[i], times_sequences(root_rows(depth)), frontier);
    root_batches_[i].has_paths = false;  // roots follow what is committed
  }
  place_batch(level_batch_, frontier, frontier);
  level_batch_.has_paths = !with_chains();
  arena.take(sources_, std::max(times_sequences(root_rows(options_.depth)), frontier));
}

// Which rows belong to which sequence never changes.
void DeviceLoop::Impl::fill_constants() {
  const int sequences = options_.max_sequences;
  const auto upload = [&](std::int32_t* to, const std::vector<std::int32_t>& values) {
    check_cuda(::cudaMemcpyAsync(to, values.data(), values.size() * sizeof(std::int32_t),
                                 cudaMemcpyHostToDevice, stream_),
               "writing the loop's buffers");
    check_cuda(::cudaStreamSynchronize(stream_), "writing the loop's buffers");
  };
  const auto fill = [&](const cuda::DeviceBatch& batch, int rows_each, int outputs_each,
                        bool at_roots) {
    std::vector<std::int32_t> row_sequences, begins, outputs;
    for (int i = 0; i < sequences; ++i) {
      begins.push_back(i * rows_each);
      row_sequences.insert(row_sequences.end(), static_cast<std::size_t>(rows_each), i);
      // The draft's roots: the last row of each sequence, for every place of its frontier.
      for (int j = 0; j < outputs_each; ++j)
        outputs.push_back(at_roots ? (i + 1) * rows_each - 1 : i * rows_each + j);
    }
    begins.push_back(sequences * rows_each);
    upload(batch.row_sequences, row_sequences);
    upload(batch.sequence_begins, begins);
    upload(batch.output_rows, outputs);
  };
  for (std::size_t i = 0; i < options_.depths.size(); ++i) {
    const int depth = options_.depths[i];
    fill(target_batches_[i], rows_per_sequence(depth), rows_per_sequence(depth), false);
    if (with_passes()) fill(root_batches_[i], root_rows(depth), options_.topk, true);
  }
  if (with_passes()) fill(level_batch_, options_.topk, options_.topk, false);
}

DeviceLoop::DeviceLoop(const DeviceLoopOptions& options, DeviceModel target, DeviceDraftModel draft,
                       DeviceHead head, SpreadLogits spread)
    : impl_(std::make_unique<Impl>(options, std::move(target), std::move(draft), std::move(head),
                                   std::move(spread))) {
  impl_->allocate();
}
DeviceLoop::~DeviceLoop() = default;

int DeviceLoop::slots_per_turn(int depth) const {
  return impl_->slots_per_turn(impl_->depth_of(depth));
}
std::size_t DeviceLoop::bytes(const DeviceLoopOptions& options) {
  return Impl(options, {}, {}, {}, {}).bytes();
}

const std::vector<int>& DeviceLoop::depths() const { return impl_->depths(); }
int DeviceLoop::depth_of(int depth) const { return impl_->depth_of(depth); }

void DeviceLoop::warm_up(std::span<const int> num_sequences, const cuda::SamplingNeeds& needs,
                         int context) {
  for (const int count : num_sequences)
    for (const bool loop : {false, true})
      impl_->graph(impl_->key_of(count, context, INT_MAX, loop, needs));
}

DeviceRunDone DeviceLoop::run(std::span<DeviceSequence> sequences, const cuda::SamplingNeeds& needs,
                              const DeviceRun& what, const OnTurn& on_turn) {
  return impl_->run(sequences, needs, what, on_turn);
}

}  // namespace specdec
