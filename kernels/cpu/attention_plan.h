#pragma once

#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/kernel_table.h"

namespace specdec::kernels {

/// How one tree_attention call is cut into tasks.
///
/// A tile is a run of rows of one sequence that read the same number of units. An item is a tile x
/// a KV head x a run of its query heads. A task is an item, or, when there are too few items for
/// the threads, a run of an item's units; then the last task of an item to end folds its units.
/// Both ways run the same functions in the same order on the same numbers, so the choice does not
/// show in the result.
struct CpuOps::AttentionPlan {
  void build(const TreeAttentionParams& params, int threads);

  int num_tasks() const noexcept { return static_cast<int>(tasks_.size()); }
  /// Floats of the partial results that tasks hand each other.
  std::size_t partial_floats() const noexcept { return split_ ? partial_floats_ : 0; }

  /// Each task once, on any thread, after build().
  void run(const KernelTable& kernels, const TreeAttentionParams& params, int task,
           float* partials);

 private:
  struct Tile {
    const SequenceRows* sequence;
    int row_begin;
    int num_rows;
    int units;
    bool linear;  // slot = position for all its rows
  };
  struct Item {
    int tile;
    int kv_head;
    int head_begin;  // within the KV head's group
    int num_heads;
    std::size_t partial;  // where the item's partial results start: [units][queries][2 + head_dim]
    int tasks_left = 0;   // counted down by threads
  };
  struct Task {
    int item;
    int unit_begin;
    int unit_end;
  };
  struct Ahead {
    const Item* item = nullptr;  // null: nothing
    int unit = 0;
  };
  struct Result;

  void add_tiles(const TreeAttentionParams& params, const SequenceRows& sequence, int max_rows);
  void run_unit(const KernelTable& kernels, const TreeAttentionParams& params, const Item& item,
                int unit, const Ahead& ahead, const float* q, const Result& result) const;
  void combine(const KernelTable& kernels, const TreeAttentionParams& params, const Item& item,
               float* partials) const;
  void write(const KernelTable& kernels, const TreeAttentionParams& params, const Item& item,
             const Result& result) const;

  std::vector<Tile> tiles_;
  std::vector<Item> items_;
  std::vector<Task> tasks_;
  std::size_t partial_floats_ = 0;
  bool split_ = false;
};

}  // namespace specdec::kernels
