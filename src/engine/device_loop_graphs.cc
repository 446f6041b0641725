#include <algorithm>

#include "engine/backend/cuda_graph.h"
#include "engine/device_loop_impl.h"
#include "kernels/cuda/draft/candidates.h"
#include "kernels/cuda/draft/chain.h"

namespace specdec {

cuda::TreeBuffers DeviceLoop::Impl::trees(const GraphKey& key) const {
  cuda::TreeBuffers trees = trees_;
  trees.num_sequences = key.sequences;
  trees.rows_per_sequence = rows_per_sequence(key.depth);
  return trees;
}

cuda::TargetRows DeviceLoop::Impl::target_rows(const GraphKey& key) const {
  const int rows = key.sequences * rows_per_sequence(key.depth);
  return {.batch = batch(target_batches_[depth_index(key.depth)], key, rows, rows),
          .path_stride = options_.depth + 1};
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

void DeviceLoop::Impl::propose(const GraphKey& key) {
  if (with_passes() && key.depth > 0) return grow(key);
  const char* const doing = "capturing a draft";
  check_cuda(cuda::propose_ngram({.trees = trees(key),  // max_depths 0: the root alone
                                  .sequences = device_.states,
                                  .history = device_.history,
                                  .history_stride = options_.max_context,
                                  .min_match = options_.ngram_min,
                                  .max_match = options_.ngram_max,
                                  .max_tokens = device_.max_depths,
                                  .limits = device_.limits},
                                 launch_),
             doing);
  check_cuda(cuda::fill_target_batch(trees(key), device_.states, target_rows(key), launch_), doing);
}

void DeviceLoop::Impl::grow(const GraphKey& key) {
  const char* const doing = "capturing a draft";
  const cuda::Launch& to = launch_;
  const int frontier = key.sequences * options_.topk;
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
  const cuda::LevelRows level{.batch = batch(level_batch_, key, frontier, frontier),
                              .path_stride = options_.depth + 1,
                              .sources = with_head() ? sources_ : nullptr,
                              .root_rows = root_rows(key.depth)};
  const cuda::GrownTrees grown{
      .trees = trees(key), .draft_slots = draft_slots_, .target = target_rows(key)};
  const bool greedy = !key.needs.sampled && !key.needs.edits && with_chains() && !scores_wanted();

  const cuda::DeviceBatch roots = batch(root_batches_[depth_index(key.depth)], key,
                                        root_rows(key.depth) * key.sequences, frontier);
  check_cuda(with_head()
                 ? cuda::fill_eagle_roots(grow, pending(device_.pending, key), roots, sources_, to)
                 : cuda::fill_draft_roots(grow, device_.draft_lengths, roots, to),
             doing);
  for (int depth = 0; depth < key.depth; ++depth) {
    const DraftLogits logits = run_draft(depth == 0 ? roots : level.batch, depth == 0);
    const bool last = depth + 1 == key.depth;
    if (greedy) {
      const cuda::ChainLevelParams chains{.grow = grow,
                                          .depth = depth,
                                          .vocab = logits.vocab,
                                          .logits = logits.logits,
                                          .tokens = logits.tokens,
                                          .states = scratch_.states};
      check_cuda(
          last ? cuda::finish_chains(chains, grown, to) : cuda::grow_chains(chains, level, to),
          doing);
      continue;
    }
    check_cuda(cuda::draft_candidates({.rows = {.vocab = options_.vocab,
                                                .tree = grow.growth.rows(),
                                                .logits = logits.tokens == nullptr
                                                              ? logits.logits
                                                              : spread_(logits, frontier, stream_),
                                                .options = device_.sampling,
                                                .sequences = device_.states,
                                                .scratch = scratch_},
                                       .k = options_.topk,
                                       .min_confidence = options_.min_confidence,
                                       .counts = candidate_counts_,
                                       .tokens = candidate_tokens_,
                                       .scores = candidate_scores_,
                                       .chunk_sums = candidate_sums_,
                                       .scores_wanted = scores_wanted()},
                                      key.needs, to),
               doing);
    check_cuda(last ? cuda::finish_growth(grow, depth, grown, to)
                    : cuda::grow_level(grow, depth, level, to),
               doing);
  }
}

cudaError_t DeviceLoop::Impl::accept(const cuda::SampleRowsParams& rows, const GraphKey& key,
                                     const cuda::Launch& to) const {
  if (!options_.rule || !key.needs.sampled)
    return cuda::sample_and_accept(rows, key.needs, paths_, to);
  return cuda::accept_by_rule({.rows = rows,
                               .rule = *options_.rule,
                               .drawn = cuda::DrawnChildren::deterministic,
                               .probabilities = rule_probabilities_,
                               .weights = rule_weights_,
                               .levels = rule_levels(),
                               .paths = paths_},
                              key.needs, to);
}

void DeviceLoop::Impl::enqueue_turn(const GraphKey& key, cudaGraphConditionalHandle condition) {
  const cuda::Launch& to = launch_;
  propose(key);
  const float* const logits = run_target(target_rows(key).batch, key);

  const cuda::SampleRowsParams sample_rows{.vocab = options_.vocab,
                                           .tree = trees(key).rows(),
                                           .logits = logits,
                                           .options = device_.sampling,
                                           .sequences = device_.states,
                                           .scratch = scratch_,
                                           .tokens = sampled_,
                                           .status = status_};
  check_cuda(accept(sample_rows, key, to), "capturing acceptance");
  if (key.logprobs)
    check_cuda(cuda::path_logprobs({.rows = sample_rows,
                                    .paths = paths_,
                                    .most = options_.most_logprobs,
                                    .logprobs = logprobs_,
                                    .top_tokens = top_tokens_,
                                    .top_logprobs = top_logprobs_,
                                    .turn = device_.turn,
                                    .turn_entries = options_.max_sequences * paths_.capacity},
                                   to),
               "capturing log-probabilities");
  if (key.depth > 0 && !with_chains())
    check_cuda(cuda::commit_kv({.num_sequences = key.sequences,
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
  check_cuda(cuda::advance(
                 {.num_sequences = key.sequences,
                  .sequences = device_.states,
                  .limits = device_.limits,
                  .token_counts = device_.token_counts,
                  .paths = paths_,
                  .tree_sizes = trees_.sizes,
                  .draft_slots = with_model() && key.depth > 0 ? draft_slots_ : nullptr,
                  .first_rows = trees_.first_rows,
                  .draft_lengths = with_model() && key.depth > 0 ? device_.draft_lengths : nullptr,
                  .history = device_.history,
                  .history_stride = options_.max_context,
                  .slots_per_turn = slots_per_turn(key.depth),
                  .ring = ring_,
                  .ring_stride = options_.max_sequences,
                  .turn = device_.turn,
                  .leave = const_cast<const std::int32_t*>(leave_),
                  .in_loop = key.loop,
                  .condition = condition,
                  .pending = with_head() && key.depth > 0 ? pending(device_.pending, key)
                                                          : cuda::PendingFeatures{}},
                 to),
             "capturing publication");
}

// One pass of each model over rows of padding, outside of any capture: scratch memory takes its
// place, and kernels are loaded.
void DeviceLoop::Impl::grow_workspace(const GraphKey& key) {
  const auto pass = [&](const cuda::DeviceBatch& buffers, int rows, int outputs, auto forward) {
    const cuda::DeviceBatch padding = batch(buffers, key, rows, outputs);
    const auto bytes = static_cast<std::size_t>(rows) * sizeof(std::int32_t);
    for (std::int32_t* part : {padding.tokens, padding.positions})
      check_cuda(::cudaMemsetAsync(part, 0, bytes, stream_), "warming up");
    for (std::int32_t* part : {padding.slots, padding.path_offsets})  // kPaddingSlot; no path
      check_cuda(::cudaMemsetAsync(part, 0xff, bytes, stream_), "warming up");
    if (with_head()) {
      const std::size_t all = std::max(root_rows(options_.depth), options_.topk) *
                              static_cast<std::size_t>(options_.max_sequences);
      check_cuda(::cudaMemsetAsync(sources_, 0, all * sizeof(std::int32_t), stream_), "warming up");
    }
    forward(padding);
  };
  const int rows = key.sequences * rows_per_sequence(key.depth);
  const std::size_t shape = depth_index(key.depth);
  pass(target_batches_[shape], rows, rows,
       [&](const cuda::DeviceBatch& batch) { run_target(batch, key); });
  if (!with_passes() || key.depth == 0) return;
  const int frontier = key.sequences * options_.topk;
  pass(root_batches_[shape], root_rows(key.depth) * key.sequences, frontier,
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
  const OwnedGraph whole = create_graph();
  cudaGraph_t body = whole.get();
  cudaGraphConditionalHandle condition = 0;
  if (key.loop) {
    check_cuda(
        ::cudaGraphConditionalHandleCreate(&condition, whole.get(), 1, cudaGraphCondAssignDefault),
        "creating a loop");
    cudaGraphNodeParams params{};
    params.type = cudaGraphNodeTypeConditional;
    params.conditional.handle = condition;
    params.conditional.type = cudaGraphCondTypeWhile;
    params.conditional.size = 1;
    cudaGraphNode_t node = nullptr;
#if CUDART_VERSION >= 13000
    check_cuda(::cudaGraphAddNode(&node, whole.get(), nullptr, nullptr, 0, &params),
               "creating a loop");
#else
    check_cuda(::cudaGraphAddNode(&node, whole.get(), nullptr, 0, &params), "creating a loop");
#endif
    body = params.conditional.phGraph_out[0];
  }
  capture_into(body, stream_, [&] { enqueue_turn(key, condition); });
  graphs_.emplace_front(key, instantiate(whole.get(), stream_));
  if (static_cast<int>(graphs_.size()) > options_.most_graphs) graphs_.pop_back();
  return graphs_.front().second;
}

}  // namespace specdec
