#include "kernels/cpu/attention_plan.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <limits>

#include "kernels/cpu/row_format.h"

namespace specdec::kernels {
namespace {

constexpr std::size_t size(int n) { return static_cast<std::size_t>(n); }

// Queries that share one pass over the keys. Twelve fill the registers of the score kernel; more
// would only lengthen the tasks.
constexpr int kTileQueries = 12;
constexpr int kMaxBlockSize = 64;
constexpr int kMinBlockSize = 16;

const std::byte* block_head(const KvLayer& kv, const void* base, int block, int head) {
  const std::size_t head_bytes =
      size(kv.head_dim) * size(kv.block_size) * kv_element_bytes(kv.type);
  return static_cast<const std::byte*>(base) +
         (size(block) * size(kv.num_kv_heads) + size(head)) * head_bytes;
}

/// A row's keys or values of one block in position order, copied from wherever its path has them.
class GatheredBlock {
 public:
  GatheredBlock(const BatchView& batch, const SequenceRows& sequence, const KvLayer& kv, int row,
                int head)
      : sequence_(sequence),
        kv_(kv),
        path_(batch.path_slots + batch.path_offsets[row]),
        count_(batch.positions[row] + 1),
        head_(head) {}

  /// Positions [begin, begin + block_size) as [head_dim][block_size]; those past the row's own keep
  /// whatever the buffer held.
  const void* keys(int begin) {
    const std::size_t element = kv_element_bytes(kv_.type);
    const std::size_t stride = size(kv_.block_size) * element;
    const int end = std::min(count_, begin + kv_.block_size);
    if (begin < sequence_.context_len) {
      std::memcpy(buffer_, block_head(kv_, kv_.keys, block_of(begin), head_),
                  size(kv_.head_dim) * stride);
    }
    for (int p = std::max(begin, sequence_.context_len); p < end; ++p) {
      const int slot = path_[p - sequence_.context_len];
      const std::byte* from =
          block_head(kv_, kv_.keys, block_of(slot), head_) + size(slot % kv_.block_size) * element;
      std::byte* to = buffer_ + size(p - begin) * element;
      for (int d = 0; d < kv_.head_dim; ++d, from += stride, to += stride) {
        if (element == 2) {
          std::memcpy(to, from, 2);
        } else {
          std::memcpy(to, from, 4);
        }
      }
    }
    return buffer_;
  }

  /// The same for values, [block_size][head_dim].
  const void* values(int begin) {
    const std::size_t row_size = size(kv_.head_dim) * kv_element_bytes(kv_.type);
    const int end = std::min(count_, begin + kv_.block_size);
    for (int p = begin; p < end; ++p) {
      const int slot = p < sequence_.context_len ? p : path_[p - sequence_.context_len];
      std::memcpy(buffer_ + size(p - begin) * row_size,
                  block_head(kv_, kv_.values, block_of(slot), head_) +
                      size(slot % kv_.block_size) * row_size,
                  row_size);
    }
    return buffer_;
  }

 private:
  int block_of(int slot) const { return sequence_.block_table[slot / kv_.block_size]; }

  const SequenceRows& sequence_;
  const KvLayer& kv_;
  const std::int32_t* path_;
  int count_;
  int head_;
  alignas(64) std::byte buffer_[size(kMaxBlockSize) * size(kMaxHeadDim) * 4];
};

/// Whether every slot of the row's path is its position, as in prefill and in a chain.
bool is_linear(const BatchView& batch, const SequenceRows& sequence, int row) {
  if (batch.path_offsets == nullptr || batch.path_offsets[row] < 0) return true;
  const std::int32_t* path = batch.path_slots + batch.path_offsets[row];
  for (int p = sequence.context_len; p <= batch.positions[row]; ++p) {
    if (path[p - sequence.context_len] != p) return false;
  }
  return true;
}

}  // namespace

/// Softmax state of an item's queries.
struct CpuOps::AttentionPlan::Result {
  float* top;  // [queries] in log2 units
  float* sum;  // [queries]
  float* out;  // [queries, head_dim], not yet divided by sum

  static std::size_t floats(int queries, int head_dim) {
    return size(queries) * (2 + size(head_dim));
  }
  static Result at(float* base, int queries) { return {base, base + queries, base + 2 * queries}; }
};

void CpuOps::AttentionPlan::add_tiles(const TreeAttentionParams& params,
                                      const SequenceRows& sequence, int max_rows) {
  const std::size_t first = tiles_.size();
  for (int r = sequence.row_begin; r < sequence.row_begin + sequence.num_rows; ++r) {
    const int units = params.batch.positions[r] / kUnit + 1;
    const bool linear = is_linear(params.batch, sequence, r);
    if (tiles_.size() > first) {
      Tile& last = tiles_.back();
      if (last.num_rows < max_rows && last.units == units && last.linear == linear) {
        ++last.num_rows;
        continue;
      }
    }
    tiles_.push_back({&sequence, r, 1, units, linear});
  }
}

void CpuOps::AttentionPlan::build(const TreeAttentionParams& params, int threads) {
  tiles_.clear();
  items_.clear();
  tasks_.clear();
  const int group = params.num_heads / params.kv.num_kv_heads;
  const int heads = std::min(group, kMaxQueries);
  for (const SequenceRows& sequence : params.batch.sequences) {
    add_tiles(params, sequence, std::max(1, kTileQueries / heads));
  }
  partial_floats_ = 0;
  for (int t = 0; t < static_cast<int>(tiles_.size()); ++t) {
    for (int kv_head = 0; kv_head < params.kv.num_kv_heads; ++kv_head) {
      for (int head = 0; head < group; head += heads) {
        const int n = std::min(heads, group - head);
        items_.push_back({t, kv_head, head, n, partial_floats_});
        partial_floats_ += size(tiles_[size(t)].units) *
                           Result::floats(tiles_[size(t)].num_rows * n, params.kv.head_dim);
      }
    }
  }
  const int num_items = static_cast<int>(items_.size());
  split_ = threads > 1 && num_items < 4 * threads &&
           std::any_of(tiles_.begin(), tiles_.end(), [](const Tile& t) { return t.units > 1; });
  for (int i = 0; i < num_items; ++i) {
    const int units = tiles_[size(items_[size(i)].tile)].units;
    if (!split_) {
      tasks_.push_back({i, 0, units});
      continue;
    }
    // Long runs prefetch better, short ones spread better: about six tasks a thread.
    const int run = std::max(1, units * num_items / (6 * threads));
    for (int unit = 0; unit < units; unit += run) {
      tasks_.push_back({i, unit, std::min(units, unit + run)});
      ++items_[size(i)].tasks_left;
    }
  }
  // Long tasks first: what a thread takes from another one at the end is short then.
  const auto work = [&](const Task& task) {
    const Tile& tile = tiles_[size(items_[size(task.item)].tile)];
    const int end = std::min(task.unit_end * kUnit, params.batch.positions[tile.row_begin] + 1);
    return (end - task.unit_begin * kUnit) * tile.num_rows;
  };
  if (split_) {
    std::stable_sort(tasks_.begin(), tasks_.end(),
                     [&](const Task& a, const Task& b) { return work(a) > work(b); });
  }
}

void CpuOps::AttentionPlan::run_unit(const KernelTable& kernels, const TreeAttentionParams& params,
                                     const Item& item, int unit, const Ahead& ahead, const float* q,
                                     const Result& result) const {
  const Tile& tile = tiles_[size(item.tile)];
  const SequenceRows& sequence = *tile.sequence;
  const KvLayer& kv = params.kv;
  const int start = unit * kUnit;
  const int queries = tile.num_rows * item.num_heads;
  int counts[kMaxQueries];
  int most = 0;
  for (int i = 0; i < queries; ++i) {
    const int row = tile.row_begin + i / item.num_heads;
    counts[i] = std::min(kUnit, params.batch.positions[row] + 1 - start);
    most = std::max(most, counts[i]);
  }
  // Positions of the unit that lie in the same place for all rows; whole blocks where paths differ.
  const int shared =
      tile.linear
          ? most
          : std::clamp(sequence.context_len / kv.block_size * kv.block_size - start, 0, most);
  const void* keys[kUnit / kMinBlockSize];
  const void* values[kUnit / kMinBlockSize];
  for (int p = 0; p < shared; p += kv.block_size) {
    const int block = sequence.block_table[(start + p) / kv.block_size];
    keys[p / kv.block_size] = block_head(kv, kv.keys, block, item.kv_head);
    values[p / kv.block_size] = block_head(kv, kv.values, block, item.kv_head);
  }
  KvUnit key_unit = {kv.type, kv.head_dim, kv.block_size, keys, nullptr};
  KvUnit value_unit = {kv.type, kv.head_dim, kv.block_size, values, nullptr};
  // Fetch the values while the keys are read, the keys that come next while the values are.
  const void* later[kUnit / kMinBlockSize] = {};
  key_unit.next_blocks = values;
  if (ahead.item != nullptr) {
    const SequenceRows& of = *tiles_[size(ahead.item->tile)].sequence;
    const int next = ahead.unit * kUnit / kv.block_size;
    const int limit = (of.context_len + kv.block_size - 1) / kv.block_size;
    for (int b = 0; b < kUnit / kv.block_size && next + b < limit; ++b)
      later[b] = block_head(kv, kv.keys, of.block_table[next + b], ahead.item->kv_head);
  }
  value_unit.next_blocks = later;
  alignas(64) float scores[kMaxQueries * kUnit];
  kernels.scores(key_unit, 0, shared, q, queries, scores);
  const auto for_gathered = [&](auto&& body) {
    if (shared == most) return;
    for (int r = 0; r < tile.num_rows; ++r) {
      const int first = r * item.num_heads;
      GatheredBlock gathered(params.batch, sequence, kv, tile.row_begin + r, item.kv_head);
      for (int p = shared; p < counts[first]; p += kv.block_size) {
        body(gathered, first, p, std::min(counts[first], p + kv.block_size));
      }
    }
  };
  for_gathered([&](GatheredBlock& gathered, int first, int begin, int end) {
    keys[begin / kv.block_size] = gathered.keys(start + begin);
    values[begin / kv.block_size] = nullptr;
    kernels.scores(key_unit, begin, end, q + first * kv.head_dim, item.num_heads,
                   scores + first * kUnit);
  });
  for (int i = 0; i < queries; ++i)
    for (int p = start; p < params.first_position; ++p)
      scores[i * kUnit + p - start] = -std::numeric_limits<float>::infinity();
  kernels.softmax(scores, queries, counts, result.top, result.sum);
  std::memset(result.out, 0, size(queries * kv.head_dim) * sizeof(float));
  kernels.weigh(value_unit, 0, shared, scores, queries, counts, result.out);
  for_gathered([&](GatheredBlock& gathered, int first, int begin, int end) {
    values[begin / kv.block_size] = gathered.values(start + begin);
    kernels.weigh(value_unit, begin, end, scores + first * kUnit, item.num_heads, counts + first,
                  result.out + first * kv.head_dim);
  });
}

void CpuOps::AttentionPlan::write(const KernelTable& kernels, const TreeAttentionParams& params,
                                  const Item& item, const Result& result) const {
  const Tile& tile = tiles_[size(item.tile)];
  const int d = params.kv.head_dim;
  const int group = params.num_heads / params.kv.num_kv_heads;
  for (int i = 0; i < tile.num_rows * item.num_heads; ++i) {
    const int row = tile.row_begin + i / item.num_heads;
    const int head = item.kv_head * group + item.head_begin + i % item.num_heads;
    if (params.out_type == DataType::f32) {
      kernels.divide(result.out + i * d, result.sum[i],
                     params.out + (size(row) * size(params.num_heads) + size(head)) * size(d), d);
      continue;
    }
    alignas(64) float values[kMaxHeadDim];
    kernels.divide(result.out + i * d, result.sum[i], values, d);
    const int first = row / kPanelRows * kPanelRows;
    const int panel_rows = std::min(kPanelRows, params.batch.num_rows - first);
    const int groups = d / kGroupSize;
    kernels.quantise(values, groups,
                     reinterpret_cast<ActivationGroup*>(params.out) +
                         size(first) * size(params.num_heads * groups) +
                         size(head * groups * panel_rows + row - first),
                     panel_rows);
  }
}

void CpuOps::AttentionPlan::run(const KernelTable& kernels, const TreeAttentionParams& params,
                                int task_index, float* partials) {
  const Task& task = tasks_[size(task_index)];
  Item& item = items_[size(task.item)];
  const Tile& tile = tiles_[size(item.tile)];
  const int d = params.kv.head_dim;
  const int group = params.num_heads / params.kv.num_kv_heads;
  const int queries = tile.num_rows * item.num_heads;
  const float scale = params.scale * 1.4426950408889634f;  // scores in log2 units
  alignas(64) float q[kMaxQueries * kMaxHeadDim];
  for (int i = 0; i < queries; ++i) {
    const int row = tile.row_begin + i / item.num_heads;
    const int head = item.kv_head * group + item.head_begin + i % item.num_heads;
    const float* from = params.q + (size(row) * size(params.num_heads) + size(head)) * size(d);
    for (int k = 0; k < d; ++k) q[i * d + k] = from[k] * scale;
  }
  const std::size_t result_floats = Result::floats(queries, d);
  const auto ahead = [&](int unit) {
    if (unit + 1 < task.unit_end) return Ahead{&item, unit + 1};
    if (task_index + 1 == num_tasks()) return Ahead{};
    const Task& next = tasks_[size(task_index + 1)];  // most likely this thread's
    return Ahead{&items_[size(next.item)], next.unit_begin};
  };
  if (split_) {
    for (int unit = task.unit_begin; unit < task.unit_end; ++unit) {
      run_unit(kernels, params, item, unit, ahead(unit), q,
               Result::at(partials + item.partial + size(unit) * result_floats, queries));
    }
    // Release what this task wrote, acquire what the others did.
    const std::atomic_ref<int> left(item.tasks_left);
    if (left.fetch_sub(1, std::memory_order_acq_rel) == 1) combine(kernels, params, item, partials);
    return;
  }
  alignas(64) float running_floats[kMaxQueries * (2 + kMaxHeadDim)];
  alignas(64) float unit_floats[kMaxQueries * (2 + kMaxHeadDim)];
  const Result running = Result::at(running_floats, queries);
  const Result part = Result::at(unit_floats, queries);
  run_unit(kernels, params, item, 0, ahead(0), q, running);
  for (int unit = 1; unit < task.unit_end; ++unit) {
    run_unit(kernels, params, item, unit, ahead(unit), q, part);
    kernels.combine(queries, d, part.top, part.sum, part.out, running.top, running.sum,
                    running.out);
  }
  write(kernels, params, item, running);
}

void CpuOps::AttentionPlan::combine(const KernelTable& kernels, const TreeAttentionParams& params,
                                    const Item& item, float* partials) const {
  const Tile& tile = tiles_[size(item.tile)];
  const int queries = tile.num_rows * item.num_heads;
  const std::size_t result_floats = Result::floats(queries, params.kv.head_dim);
  const Result running = Result::at(partials + item.partial, queries);
  for (int unit = 1; unit < tile.units; ++unit) {
    const Result part = Result::at(partials + item.partial + size(unit) * result_floats, queries);
    kernels.combine(queries, params.kv.head_dim, part.top, part.sum, part.out, running.top,
                    running.sum, running.out);
  }
  write(kernels, params, item, running);
}

}  // namespace specdec::kernels
