#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "specdec/types.h"

namespace specdec {

using BlockId = std::int32_t;

/// Target and draft share blocks; each has its own slice of every block.
enum class KvPool : std::uint8_t { target = 0, draft = 1 };
inline constexpr int kNumKvPools = 2;

struct KvCacheOptions {
  int num_blocks = 0;
  int block_size = 32;
  bool prefix_cache = true;
  std::uint64_t hash_key =
      0;  ///< keys the prefix hashes: unpredictable, so that no prompt can collide on purpose
};

struct KvCacheCounts {
  int free = 0;    ///< in no table, not in the prefix index
  int cached = 0;  ///< in the prefix index, owned by no sequence: evictable
  int held = 0;    ///< in at least one sequence's table
  int total = 0;
};

class KvCacheManager;

/// The block table of one sequence: logical block i holds positions [i * block_size, (i + 1) *
/// block_size). Move-only; gives its blocks back on destruction.
class KvSequence {
 public:
  KvSequence() = default;
  KvSequence(KvSequence&&) noexcept;
  KvSequence& operator=(KvSequence&&) noexcept;
  ~KvSequence();

  std::span<const BlockId> block_table() const noexcept { return table_; }
  /// Positions [0, length) are written and committed in that pool's slice.
  int length(KvPool pool) const noexcept { return length_[static_cast<int>(pool)]; }

 private:
  friend class KvCacheManager;
  friend class KvReservation;
  KvCacheManager* manager_ = nullptr;
  std::vector<BlockId> table_;
  std::vector<std::uint64_t> hashes_;  // chain hash of each full, published block
  std::uint64_t salt_hash_ = 0;
  int length_[kNumKvPools] = {0, 0};
};

/// A copy of one block's slices that must happen before the block is written (copy-on-write).
struct BlockCopy {
  BlockId source = 0;
  BlockId destination = 0;
};

/// Slots for uncommitted tokens of one sequence: [begin, begin + count). Rolls back on destruction
/// unless committed.
class KvReservation {
 public:
  KvReservation() = default;
  KvReservation(KvReservation&&) noexcept;
  KvReservation& operator=(KvReservation&&) noexcept;
  ~KvReservation();

  bool valid() const noexcept { return sequence_ != nullptr; }
  int begin() const noexcept { return begin_; }
  int count() const noexcept { return count_; }
  /// Block copies the caller must carry out, in both pools, before it writes any slot.
  std::span<const BlockCopy> copies() const noexcept { return copies_; }
  /// The first `target_length` and `draft_length` positions of the sequence are now written in
  /// their pools (each at least what it was, at most begin + count); trailing blocks that hold no
  /// committed position go back.
  void commit(int target_length, int draft_length);

 private:
  friend class KvCacheManager;
  KvSequence* sequence_ = nullptr;
  int begin_ = 0;
  int count_ = 0;
  std::vector<BlockCopy> copies_;
};

/// Hands out the blocks of one memory budget; knows nothing of their contents. Blocks are
/// reference-counted, shared through a prefix index (a keyed hash chain over full blocks of tokens
/// and the request's cache_salt), evicted least recently used first. Invariant after every call:
/// free + cached + held = total, and a block's reference count is the number of tables that hold
/// it. Single-threaded: belongs to the stepping thread.
class KvCacheManager {
 public:
  explicit KvCacheManager(const KvCacheOptions& options);
  ~KvCacheManager();
  KvCacheManager(const KvCacheManager&) = delete;
  KvCacheManager& operator=(const KvCacheManager&) = delete;

  /// A sequence that shares the longest cached prefix of `tokens`, at most `tokens.size() - 1`
  /// positions of it (the last token must be computed). A partly usable last block is shared too
  /// and copied on the first write. length(target) is the hit; length(draft) is as much of it as
  /// the draft's slices hold.
  KvSequence open(std::span<const TokenId> tokens, std::string_view cache_salt);

  /// Slots for `count` tokens after the committed target positions. Evicts cached blocks as needed.
  /// Invalid (valid() == false, nothing changed) when blocks run out. One reservation per sequence
  /// at a time.
  KvReservation reserve(KvSequence& sequence, int count);

  /// Enters the sequence's full blocks into the prefix index: those whose target positions are all
  /// committed. `tokens` are the sequence's tokens from 0. The draft's part of a block becomes
  /// usable for hits once it is committed as well.
  void publish(KvSequence& sequence, std::span<const TokenId> tokens);

  /// Drops every block that no sequence holds.
  void clear_prefix_index();

  int block_size() const noexcept;
  KvCacheCounts counts() const noexcept;
  /// Blocks that reserve() could hand out now: free + cached.
  int available() const noexcept;
  /// Blocks that `count` more tokens would take for this sequence.
  int blocks_needed(const KvSequence& sequence, int count) const noexcept;
  /// Recounts everything from scratch; throws Error(internal) naming the first contradiction. For
  /// debug builds and tests; `sequences` are all that are open.
  void check_invariants(std::span<const KvSequence* const> sequences) const;

 private:
  friend class KvSequence;
  friend class KvReservation;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace specdec
