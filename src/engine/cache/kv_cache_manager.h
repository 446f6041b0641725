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

/// What a cached prefix must hold to be of use to a sequence.
enum class PrefixHit : std::uint8_t {
  target,  ///< the target's KV; a draft that lags fills its slices itself
  /// Both: the draft's KV is made from the target's hidden states, which a hit does not give. The
  /// target goes over the last position again, for the first entry that is missing needs its
  /// hidden state.
  with_features,
};

struct KvCacheOptions {
  int num_blocks = 0;
  int block_size = 32;  ///< positions per block
  bool prefix_cache = true;
  /// Keys the prefix hashes: unpredictable, so that no prompt can be made to collide. A collision
  /// costs time, never a wrong hit: tokens are compared.
  std::uint64_t hash_key = 0;
  std::uint64_t hash_mask = ~std::uint64_t{0};  ///< bits of a hash that count; tests weaken it
};

struct KvCacheCounts {
  int free = 0;    ///< in no table, not in the prefix index
  int cached = 0;  ///< in the prefix index, owned by no sequence: evictable
  int held = 0;    ///< owned by at least one sequence
  int total = 0;
};

class KvCacheManager;
class KvReservation;

/// The block table of one sequence: logical block i holds positions [i * block_size, (i + 1) *
/// block_size). Move-only (also while it has a reservation); gives its blocks back on destruction:
/// published ones stay cached, so preempting a sequence is destroying it. Must not outlive its
/// manager.
class KvSequence {
 public:
  KvSequence() = default;
  KvSequence(KvSequence&&) noexcept;
  KvSequence& operator=(KvSequence&&) noexcept;
  ~KvSequence();

  /// Read it anew after each call on the manager or a reservation: copy-on-write and publish()
  /// replace entries.
  std::span<const BlockId> block_table() const noexcept { return table_; }
  /// Positions [0, length) are written and committed in that pool's slice. The draft may lag; its
  /// length also grows when another sequence fills blocks that both share.
  int length(KvPool pool) const noexcept { return length_[static_cast<int>(pool)]; }

 private:
  friend class KvCacheManager;
  friend class KvReservation;
  KvCacheManager* manager_ = nullptr;
  KvReservation* reservation_ = nullptr;
  std::vector<BlockId> table_;
  int num_published_ = 0;  // table_[0, num_published_) is a path of the prefix index
  int root_ = -1;          // of the prefix index: stands for cache_salt
  int length_[kNumKvPools] = {0, 0};
};

/// A copy of one block's slices that must happen before the block is written (copy-on-write).
struct BlockCopy {
  BlockId source = 0;
  BlockId destination = 0;
};

/// Slots for uncommitted tokens of one sequence: positions [begin, begin + count) of its block
/// table, in both pools. Rolls back on destruction unless committed. Becomes invalid when its
/// sequence is destroyed first.
class KvReservation {
 public:
  KvReservation() = default;
  KvReservation(KvReservation&&) noexcept;
  KvReservation& operator=(KvReservation&&) noexcept;
  ~KvReservation();

  bool valid() const noexcept { return sequence_ != nullptr; }
  int begin() const noexcept { return begin_; }
  int count() const noexcept { return count_; }
  /// Block copies the caller must carry out, in both pools, before it writes any slot of this step.
  /// A source stays as it is until this reservation ends.
  std::span<const BlockCopy> copies() const noexcept { return copies_; }
  /// The draft is about to write its slots from length(draft) on. False: another reservation is
  /// filling the draft slices of blocks that both sequences share; let this sequence go without the
  /// draft model in this step, its length(draft) grows when the other commits. Needed only when
  /// several sequences are written at the same time (in one batch or by several threads).
  bool claim_draft();
  /// The first `target_length` and `draft_length` positions of the sequence are now written in
  /// their pools (each at least what it was, at most begin + count); trailing blocks that hold no
  /// committed position go back. Ends the reservation. Throws Error(internal) for other lengths.
  void commit(int target_length, int draft_length);

 private:
  friend class KvCacheManager;
  friend class KvSequence;
  KvSequence* sequence_ = nullptr;
  int begin_ = 0;
  int count_ = 0;
  int table_size_ = 0;             // of the sequence before this reservation
  BlockId draft_claim_ = -1;       // shared block whose draft slice this reservation fills first
  std::vector<BlockCopy> copies_;  // at most one: only the block of `begin` can be shared
};

/// Hands out the blocks of one memory budget; knows nothing of their contents. Blocks are
/// reference-counted, shared through a prefix index (a keyed hash chain over full blocks of tokens
/// and the request's cache_salt), evicted least recently used first, leaves before parents.
/// Invariant after every call: free + cached + held = total, and a block's reference count is the
/// number of sequences that own it. Single-threaded: belongs to the stepping thread.
///
/// Two pools: KV content is a pure function of the tokens before it, so a shared block whose draft
/// slice is missing may be filled by any sequence that owns it.
class KvCacheManager {
 public:
  /// Throws Error(invalid_argument) for a block count or size that is not positive.
  explicit KvCacheManager(const KvCacheOptions& options);
  ~KvCacheManager();
  KvCacheManager(const KvCacheManager&) = delete;
  KvCacheManager& operator=(const KvCacheManager&) = delete;

  /// A sequence that shares the longest cached prefix of `tokens`, at most `tokens.size() - 1`
  /// positions of it (the last token must be computed). A partly usable last block is shared too
  /// and copied on the first write. length(target) is the hit; length(draft) is as much of it as
  /// the draft's slices hold. Never fails for want of blocks.
  KvSequence open(std::span<const TokenId> tokens, std::string_view cache_salt,
                  PrefixHit hit = PrefixHit::target);

  /// Slots for `count` >= 1 tokens after the committed target positions. Evicts cached blocks as
  /// needed. Invalid (valid() == false, nothing changed) when blocks run out. One reservation per
  /// sequence at a time; throws Error(internal) for a second one.
  KvReservation reserve(KvSequence& sequence, int count);

  /// Enters the sequence's full blocks into the prefix index: those whose target positions are all
  /// committed. `tokens` are the sequence's tokens from 0, at least length(target) of them. The
  /// draft's part of a block becomes usable for hits once it is committed as well. Where an equal
  /// block is there already the sequence takes that one and gives its own back (equal tokens have
  /// equal KV). Not during a reservation of this sequence: throws Error(internal).
  void publish(KvSequence& sequence, std::span<const TokenId> tokens);

  /// publish(), and the last block as well, though it is only partly full: for a sequence that is
  /// about to end and whose tokens a later prompt is likely to continue (a chat's next turn).
  void publish_all(KvSequence& sequence, std::span<const TokenId> tokens);

  /// Drops every block that no sequence holds.
  void clear_prefix_index();

  int block_size() const noexcept;
  KvCacheCounts counts() const noexcept;
  /// Blocks that reserve() could hand out now: free + cached.
  int available() const noexcept;
  /// Blocks that `count` more tokens would take for this sequence now, a copy-on-write included.
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
