#pragma once

#include <cstdint>
#include <vector>

#include "engine/cache/kv_cache_manager.h"

namespace specdec {

/// Reference counts and the two lists of blocks without owners: free ones (a stack, so that memory
/// touched last is used first) and cached ones, least recently used first. Every operation is O(1).
class BlockAllocator {
 public:
  static constexpr BlockId kNone = -1;

  explicit BlockAllocator(int num_blocks);

  /// A free block, now with one owner; kNone when there is none.
  BlockId take_free() noexcept;
  /// The cached block that went longest without an owner; kNone when there is none.
  BlockId oldest_cached() const noexcept { return oldest_; }
  /// A cached block becomes free.
  void drop_cached(BlockId block) noexcept;
  /// One owner more; a cached block becomes held.
  void add_owner(BlockId block) noexcept;
  /// One owner less; without any the block is cached, as the most recent one, or free.
  void remove_owner(BlockId block, bool cache) noexcept;

  int owners(BlockId block) const noexcept { return slots_[index(block)].owners; }
  int num_blocks() const noexcept { return static_cast<int>(slots_.size()); }
  int num_free() const noexcept { return static_cast<int>(free_.size()); }
  int num_cached() const noexcept { return num_cached_; }

  /// Blocks of either list, for check_invariants: free ones in any order, cached ones oldest first.
  const std::vector<BlockId>& free_blocks() const noexcept { return free_; }
  std::vector<BlockId> cached_blocks() const;

 private:
  struct Slot {
    std::int32_t owners = 0;
    BlockId newer = kNone;  // neighbours in the list of cached blocks
    BlockId older = kNone;
  };

  static std::size_t index(BlockId block) noexcept { return static_cast<std::size_t>(block); }
  void unlink(BlockId block) noexcept;

  std::vector<Slot> slots_;
  std::vector<BlockId> free_;
  BlockId oldest_ = kNone;
  BlockId newest_ = kNone;
  int num_cached_ = 0;
};

}  // namespace specdec
