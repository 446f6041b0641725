#include "kernels/cuda/sampling/rules.h"

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampling/probabilities.cuh"
#include "kernels/cuda/sampling/stages.h"
#include "kernels/cuda/sampling/walk.cuh"

namespace specdec::kernels::cuda {
namespace {

constexpr int kRuleThreads = kSelectThreads;

// grid: [rows]; the target's distribution at every node, and the greedy token.
__global__ void __launch_bounds__(kSelectThreads) target_rows(SampledRuleParams params) {
  wait_for_previous();
  let_next_start();
  __shared__ SelectShared shared;
  const SampleRowsParams& rows = params.rows;
  const int row = static_cast<int>(blockIdx.x);
  const RowView view = view_row(rows, row);
  if (!view.there()) return;
  const RowState state = rows.scratch.states[row];
  __syncthreads();
  const RowStatus status = status_of(state, view.edited);
  unsigned long long* const digits =
      rows.scratch.digits + static_cast<std::size_t>(row) * kDigitBins;
  if (status == RowStatus::ok && view.options->inverse_temperature > 0)
    write_probabilities(
        rows, view, key_of(state.best), digits,
        params.probabilities + static_cast<std::size_t>(row) * static_cast<std::size_t>(rows.vocab),
        shared);
  __syncthreads();
  if (is_nucleus(*view.options, rows.vocab))
    for (int i = static_cast<int>(threadIdx.x); i < kDigitBins; i += kSelectThreads) digits[i] = 0;
  if (threadIdx.x != 0) return;
  rows.tokens[row] = token_of(state.best);
  rows.status[row] = status;
  rows.scratch.states[row] = RowState{};
}

__device__ double positive(double value) { return value > 0 ? value : 0.0; }

/// One sequence's rule by one block. Control flow and every scalar are the same in all threads; a
/// loop over the vocabulary is shared out. The arithmetic is that of src/verify, sums in the order
/// of its sum_over().
class RuleBlock {
 public:
  struct Shared {
    double sums[kSelectThreads];
    double total;
    int token;
    int removed[kMostLevels][kMostSiblings];  // by level, ascending
    int num_removed[kMostLevels];
  };

  __device__ RuleBlock(const SampledRuleParams& params, int sequence, Shared& shared)
      : params_(params),
        tree_(params.rows.tree),
        sequence_(sequence),
        first_(tree_.first_rows[sequence]),
        size_(tree_.sizes[sequence]),
        vocab_(params.rows.vocab),
        seed_(params.rows.options[sequence].seed),
        position_(params.rows.sequences[sequence].length),
        shared_(shared) {}

  struct Verdict {
    int node;
    int token;
  };

  __device__ Verdict rejection() {
    int node = 0;
    double* const weights = weights_at(0);
    for (;;) {
      read(node, weights);
      Draft draft = draft_at(node, 0);
      int accepted = -1;
      for (int child = next_child(node, node); child >= 0; child = next_child(node, child)) {
        const double target_prob = weights[token_of_node(child)];
        const double draft_prob = probability(draft, child);
        const double ratio =
            draft_prob > 0 ? target_prob / draft_prob : (target_prob > 0 ? 1.0 : 0.0);
        if (accept(fmin(ratio, 1.0), child)) {
          accepted = child;
          break;
        }
        const double sum = residual_sum(draft, weights, 1.0, child);
        if (sum > 0) make_residual(draft, weights, 1.0, child, 1 / sum);
        remove(draft, child);
      }
      if (accepted < 0) return {node, draw(weights, node)};
      node = accepted;
    }
  }

  __device__ Verdict block() {
    const int length = size_ - 1;
    int accepted = 0;
    double reach = 1;
    double accepted_reach = 1;
    double* const weights = weights_at(0);
    read(0, weights);
    for (int node = 1; node <= length; ++node) {
      const Draft draft = draft_at(node - 1, 0);
      const double draft_prob = probability(draft, node);
      const double ratio = reach * weights[token_of_node(node)];
      reach = draft_prob > 0 ? fmin(ratio / draft_prob, 1.0) : (ratio > 0 ? 1.0 : 0.0);
      read(node, weights);
      double chance = reach;
      if (node < length) {
        const double sum = residual_sum(draft_at(node, 0), weights, reach, node + 1);
        const double denominator = sum + 1 - reach;
        chance = denominator > 0 ? sum / denominator : 1.0;
      }
      if (accept(chance, node)) {
        accepted = node;
        accepted_reach = reach;
      }
    }
    if (accepted < length) {
      read(accepted, weights);
      const Draft next = draft_at(accepted, 0);
      if (residual_sum(next, weights, accepted_reach, accepted + 1) > 0)
        make_residual(next, weights, accepted_reach, accepted + 1, 1.0);
    }
    return {accepted, draw(weights, accepted)};
  }

  // The recursion of src/verify/traversal.cc, unrolled: one entry per level of the path.
  __device__ Verdict traversal() {
    Draft drafts[kMostLevels];
    double reaches[kMostLevels];
    int nodes[kMostLevels];
    int children[kMostLevels];
    int level = 0;
    const auto enter = [&](int node, double reach) {
      nodes[level] = node;
      reaches[level] = reach;
      read(node, weights_at(level));
      drafts[level] = draft_at(node, level);
      children[level] = next_child(node, node);
    };
    enter(0, 1.0);
    for (;;) {
      double* const weights = weights_at(level);
      const int child = children[level];
      if (child >= 0) {
        const double draft_prob = probability(drafts[level], child);
        const double ratio = reaches[level] * weights[token_of_node(child)];
        const double reach =
            draft_prob > 0 ? fmin(ratio / draft_prob, 1.0) : (ratio > 0 ? 1.0 : 0.0);
        ++level;
        enter(child, reach);
        continue;
      }
      if (nodes[level] == 0 || accept(reaches[level], nodes[level]))
        return {nodes[level], draw(weights, nodes[level])};
      --level;  // rejected: the parent goes on with what is left
      const int rejected = children[level];
      double* const left = weights_at(level);
      const double sum = residual_sum(drafts[level], left, reaches[level], rejected);
      if (sum > 0) make_residual(drafts[level], left, reaches[level], rejected, 1 / sum);
      const double denominator = sum + 1 - reaches[level];
      reaches[level] = denominator > 0 ? sum / denominator : 1.0;
      remove(drafts[level], rejected);
      children[level] = next_child(nodes[level], rejected);
    }
  }

  __device__ int token_of_node(int node) const { return tree_.tokens[first_ + node]; }

 private:
  /// The distribution that a node's children were drawn from (DraftDistribution).
  struct Draft {
    const float* probs = nullptr;  // null: each child is certain
    double inverse_total = 1;
    int level = 0;
  };

  __device__ double* weights_at(int level) const {
    return params_.weights + (static_cast<std::size_t>(sequence_) * params_.levels + level) *
                                 static_cast<std::size_t>(vocab_);
  }
  __device__ int next_child(int node, int after) const {
    for (int child = after + 1; child < size_; ++child)
      if (tree_.parents[first_ + child] == node) return child;
    return -1;
  }

  // Half a warp is the 16 lanes of a chunk; one thread adds the chunks in order.
  template <typename Term>
  __device__ double sum_over(int begin, int end, const Term& term) {
    constexpr int kLanes = row_math::kSumLanes;
    constexpr int kGroups = kRuleThreads / kLanes;
    const int lane = static_cast<int>(threadIdx.x) % kLanes;
    const int group = static_cast<int>(threadIdx.x) / kLanes;
    const int last_chunk = num_chunks(end);
    __syncthreads();
    if (threadIdx.x == 0) shared_.total = 0;
    for (int first = begin / row_math::kChunk; first < last_chunk; first += kRuleThreads) {
      const int last = min(last_chunk, first + kRuleThreads);
      for (int base = first; base < last; base += kGroups) {
        const int chunk = base + group;
        double sum = 0;
        if (chunk < last)
          for (int i = 0; i < row_math::kChunk / kLanes; ++i) {
            const int token = chunk * row_math::kChunk + i * kLanes + lane;
            if (token >= begin && token < end) sum += term(token);
          }
#pragma unroll
        for (int width = kLanes / 2; width > 0; width /= 2)
          sum += __shfl_down_sync(kFullWarp, sum, static_cast<unsigned>(width), kLanes);
        if (chunk < last && lane == 0) shared_.sums[chunk - first] = sum;
      }
      __syncthreads();
      if (threadIdx.x == 0)
        for (int i = 0; i < last - first; ++i) shared_.total += shared_.sums[i];
      __syncthreads();
    }
    __syncthreads();
    const double total = shared_.total;
    __syncthreads();
    return total;
  }

  __device__ void read(int node, double* weights) {
    const float* const row = params_.probabilities + static_cast<std::size_t>(first_ + node) *
                                                         static_cast<std::size_t>(vocab_);
    const double factor =
        1 / sum_over(0, vocab_, [&](int i) { return static_cast<double>(row[i]); });
    for (int i = static_cast<int>(threadIdx.x); i < vocab_; i += kRuleThreads)
      weights[i] = row[i] * factor;
    __syncthreads();
  }

  __device__ Draft draft_at(int node, int level) {
    Draft draft;
    draft.level = level;
    __syncthreads();
    if (threadIdx.x == 0) shared_.num_removed[level] = 0;
    __syncthreads();
    if (params_.drawn == DrawnChildren::deterministic || next_child(node, node) < 0) return draft;
    draft.probs = params_.draft_probs +
                  static_cast<std::size_t>(first_ + node) * static_cast<std::size_t>(vocab_);
    draft.inverse_total =
        1 / sum_over(0, vocab_, [&](int i) { return static_cast<double>(draft.probs[i]); });
    return draft;
  }

  __device__ double probability(const Draft& draft, int child) const {
    if (params_.drawn == DrawnChildren::deterministic) return 1;
    const int token = token_of_node(child);
    for (int i = 0; i < shared_.num_removed[draft.level]; ++i)
      if (shared_.removed[draft.level][i] == token) return 0;
    return draft.probs[token] * draft.inverse_total;
  }

  __device__ double residual_sum(const Draft& draft, const double* weights, double scale,
                                 int child) {
    if (params_.drawn == DrawnChildren::deterministic) {
      const int token = token_of_node(child);
      const auto scaled = [&](int i) { return scale * weights[i]; };
      const double below = sum_over(0, token, scaled);
      const double above = sum_over(token + 1, vocab_, scaled);
      return below + above + positive(scaled(token) - 1);
    }
    double sum = sum_over(0, vocab_, [&](int i) {
      return positive(scale * weights[i] - draft.probs[i] * draft.inverse_total);
    });
    for (int i = 0; i < shared_.num_removed[draft.level]; ++i) {
      const int token = shared_.removed[draft.level][i];
      sum += scale * weights[token] -
             positive(scale * weights[token] - draft.probs[token] * draft.inverse_total);
    }
    return sum;
  }

  __device__ void make_residual(const Draft& draft, double* weights, double scale, int child,
                                double factor) {
    __syncthreads();
    if (params_.drawn == DrawnChildren::deterministic) {
      const int own = token_of_node(child);
      const double left = positive(scale * weights[own] - 1);
      __syncthreads();
      for (int i = static_cast<int>(threadIdx.x); i < vocab_; i += kRuleThreads)
        weights[i] = i == own ? left * factor : weights[i] * (scale * factor);
    } else {
      const int removed = shared_.num_removed[draft.level];
      for (int i = static_cast<int>(threadIdx.x); i < vocab_; i += kRuleThreads) {
        bool gone = false;
        for (int j = 0; j < removed; ++j) gone |= shared_.removed[draft.level][j] == i;
        weights[i] =
            gone ? scale * weights[i] * factor
                 : positive(scale * weights[i] - draft.probs[i] * draft.inverse_total) * factor;
      }
    }
    __syncthreads();
  }

  __device__ void remove(Draft& draft, int child) {
    if (params_.drawn != DrawnChildren::without_replacement) return;
    int* const removed = shared_.removed[draft.level];
    int& count = shared_.num_removed[draft.level];
    __syncthreads();
    if (threadIdx.x == 0) {
      const int token = token_of_node(child);
      int place = 0;
      while (place < count && removed[place] < token) ++place;
      if ((place == count || removed[place] != token) && count < kMostSiblings) {
        for (int i = count; i > place; --i) removed[i] = removed[i - 1];
        removed[place] = token;
        ++count;
      }
    }
    __syncthreads();
    const auto prob = [&](int i) { return static_cast<double>(draft.probs[i]); };
    double total = 0;
    int begin = 0;
    const int gaps = count;
    for (int i = 0; i < gaps; ++i) {
      total += sum_over(begin, removed[i], prob);
      begin = removed[i] + 1;
    }
    total += sum_over(begin, vocab_, prob);
    draft.inverse_total = total > 0 ? 1 / total : 0;
  }

  __device__ bool accept(double chance, int node) const {
    const RandomStream stream(seed_, position_, RandomPurpose::verify_accept, node);
    return stream.uniform(0) < chance;
  }

  // KeyedChance::draw.
  __device__ int draw(const double* weights, int node) {
    const RandomStream stream(seed_, position_, RandomPurpose::verify_token, node);
    const auto weight = [&](int i) { return weights[i]; };
    double rest = stream.uniform(0) * sum_over(0, vocab_, weight);
    const int chunks = num_chunks(vocab_);
    int chosen = 0;
    bool settled = false;
    for (int first = 0; first < chunks && !settled; first += kRuleThreads) {
      // The sums of these chunks, one by one; sum_over() leaves them in shared memory.
      sum_over(first * row_math::kChunk, min(vocab_, (first + kRuleThreads) * row_math::kChunk),
               weight);
      for (int chunk = first; chunk < min(chunks, first + kRuleThreads); ++chunk) {
        const double sum = shared_.sums[chunk - first];
        if (!(sum > 0)) continue;
        chosen = chunk;
        if (rest < sum) {
          settled = true;
          break;
        }
        rest -= sum;
      }
    }
    int last = 0;
    const int end = min((chosen + 1) * row_math::kChunk, vocab_);
    for (int token = chosen * row_math::kChunk; token < end; ++token) {
      if (!(weights[token] > 0)) continue;
      last = token;
      if (rest < weights[token]) break;
      rest -= weights[token];
    }
    return last;
  }

  const SampledRuleParams& params_;
  const TreeRows& tree_;
  int sequence_;
  int first_;
  int size_;
  int vocab_;
  std::uint64_t seed_;
  std::int64_t position_;
  Shared& shared_;
};

// grid: [sequences]; a block judges one tree.
__global__ void __launch_bounds__(kRuleThreads) judge_trees(SampledRuleParams params) {
  wait_for_previous();
  let_next_start();
  __shared__ union {
    RuleBlock::Shared rule;
    SharedTree tree;
  } shared;
  const int sequence = static_cast<int>(blockIdx.x);
  const TreeRows& tree = params.rows.tree;
  const int size = tree.sizes[sequence];
  const int first = tree.first_rows[sequence];
  if (size == 0 || !(params.rows.options[sequence].inverse_temperature > 0)) {
    const WalkTree own(tree, sequence);
    fill_shared(params.rows, own, shared.tree);
    walk_coupled(params.rows, sequence, own, params.paths, shared.tree);
    return;
  }
  RowStatus fault = RowStatus::ok;  // of the first row that has one
  for (int node = size - 1; node >= 0; --node)
    if (params.rows.status[first + node] != RowStatus::ok) fault = params.rows.status[first + node];
  if (fault != RowStatus::ok) {
    if (threadIdx.x == 0) {
      params.paths.status[sequence] = fault;
      params.paths.lengths[sequence] = 0;
    }
    return;
  }
  RuleBlock rule(params, sequence, shared.rule);
  const RuleBlock::Verdict verdict = params.rule == SampledRule::rejection ? rule.rejection()
                                     : params.rule == SampledRule::block   ? rule.block()
                                                                           : rule.traversal();
  if (threadIdx.x != 0) return;
  std::int32_t* const nodes = params.paths.nodes + sequence * params.paths.capacity;
  std::int32_t* const tokens = params.paths.tokens + sequence * params.paths.capacity;
  const int length = min(tree.depths[first + verdict.node] + 1, params.paths.capacity);
  int token = verdict.token;
  for (int i = length - 1, node = verdict.node; i >= 0; --i) {
    nodes[i] = node;
    tokens[i] = token;
    token = rule.token_of_node(node);
    node = tree.parents[first + node];
  }
  params.paths.lengths[sequence] = length;
  params.paths.status[sequence] = RowStatus::ok;
}

}  // namespace

cudaError_t accept_by_rule(const SampledRuleParams& params, const SamplingNeeds& needs,
                           const Launch& to) {
  SampledRuleParams judged = params;
  if (!needs.edits) judged.rows.scratch.scores = nullptr;
  cudaError_t error = launch_scan(judged.rows, needs, to);
  if (error == cudaSuccess && needs.nucleus) error = launch_digits(judged.rows, to);
  if (error == cudaSuccess)
    error = launch(to, &target_rows, dim3(static_cast<unsigned>(params.rows.tree.num_rows)),
                   kSelectThreads, 0, judged);
  if (error == cudaSuccess)
    error = launch(to, &judge_trees, dim3(static_cast<unsigned>(params.rows.tree.num_sequences)),
                   kRuleThreads, 0, judged);
  return error;
}

}  // namespace specdec::kernels::cuda
