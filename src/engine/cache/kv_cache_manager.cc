#include "engine/cache/kv_cache_manager.h"

#include <algorithm>
#include <string>
#include <utility>

#include "engine/cache/block_allocator.h"
#include "engine/cache/prefix_index.h"
#include "specdec/error.h"

namespace specdec {
namespace {

constexpr int kTarget = static_cast<int>(KvPool::target);
constexpr int kDraft = static_cast<int>(KvPool::draft);

std::size_t index(std::int32_t i) noexcept { return static_cast<std::size_t>(i); }

void require(bool condition, const char* what) {
  if (!condition) throw Error(ErrorCode::internal, std::string("KV cache: ") + what);
}

const KvCacheOptions& checked(const KvCacheOptions& options) {
  if (options.num_blocks < 1)
    throw Error(ErrorCode::invalid_argument,
                "KV cache of " + std::to_string(options.num_blocks) +
                    " blocks; give it at least one (more kv_cache.memory_mb)");
  if (options.block_size < 1)
    throw Error(ErrorCode::invalid_argument,
                "KV cache blocks of " + std::to_string(options.block_size) +
                    " positions; give kv_cache.block_size 16, 32 or 64");
  return options;
}

}  // namespace

// Ownership is closed under prefixes: whoever owns the block of a node owns the blocks of all its
// ancestors. open() takes paths from the root, publish() extends one, release goes tail first. So a
// node without owners has no owned descendants, a parent loses its last owner after its children
// did, and the least recently used cached block is always a leaf: plain LRU is leaf-first.
struct KvCacheManager::Impl {
  explicit Impl(const KvCacheOptions& o)
      : options(o),
        blocks(o.num_blocks),
        prefixes(o.num_blocks, o.block_size, o.hash_key, o.hash_mask),
        draft_filled(index(o.num_blocks), 0),
        draft_claimed(index(o.num_blocks), 0) {}

  int blocks_for(int positions) const noexcept {
    return (positions + options.block_size - 1) / options.block_size;
  }

  BlockId take() noexcept {
    if (blocks.num_free() == 0) {
      const BlockId oldest = blocks.oldest_cached();
      if (oldest == BlockAllocator::kNone) return oldest;
      evict(oldest);
    }
    return blocks.take_free();
  }

  void evict(BlockId block) noexcept {
    prefixes.erase_leaf(prefixes.node_of(block));
    blocks.drop_cached(block);
  }

  void release(BlockId block) noexcept {
    blocks.remove_owner(block, prefixes.node_of(block) != PrefixIndex::kNotFound);
  }

  void shrink(KvSequence& sequence, int num_blocks) noexcept {
    while (static_cast<int>(sequence.table_.size()) > num_blocks) {
      release(sequence.table_.back());
      sequence.table_.pop_back();
    }
  }

  PrefixNode parent_of_next(const KvSequence& sequence) const noexcept {
    return sequence.num_published_ == 0
               ? ~sequence.root_
               : prefixes.node_of(sequence.table_[index(sequence.num_published_ - 1)]);
  }

  struct Need {
    int fresh = 0;           // blocks past the end of the table
    bool copy = false;       // the block of `begin` must be copied
    bool unpublish = false;  // ... or, for want of one block, taken out of the index
    int total() const noexcept { return fresh + (copy ? 1 : 0); }
  };

  /// What it takes to write positions [begin, begin + count). The block that holds `begin` is
  /// copied when somebody else reads it, or when the index vouches for what is to be overwritten.
  Need need(const KvSequence& sequence, int begin, int count) const noexcept {
    Need result;
    const auto table_size = static_cast<int>(sequence.table_.size());
    result.fresh = std::max(0, blocks_for(begin + count) - table_size);
    const int i = begin / options.block_size;
    if (i >= table_size || count <= 0) return result;
    const BlockId block = sequence.table_[index(i)];
    const PrefixNode node = prefixes.node_of(block);
    const bool shared = blocks.owners(block) > 1;
    const bool vouched =
        node != PrefixIndex::kNotFound && prefixes.num_tokens(node) > begin % options.block_size;
    // A lone sequence that fills the whole cache must still run: then the index lets go. Every
    // cached block is evicted by that time, so the node has no children left.
    result.unpublish =
        vouched && !shared && result.fresh == blocks.num_free() + blocks.num_cached();
    result.copy = (shared || vouched) && !result.unpublish;
    return result;
  }

  /// Takes over what other owners of the same blocks have written for the draft.
  void catch_up_draft(KvSequence& sequence) const noexcept {
    int& length = sequence.length_[kDraft];
    while (length < sequence.length_[kTarget]) {
      const int i = length / options.block_size;
      if (i >= sequence.num_published_) return;
      const int filled = i * options.block_size + draft_filled[index(sequence.table_[index(i)])];
      if (filled <= length) return;
      length = std::min(filled, sequence.length_[kTarget]);
    }
  }

  void publish_full(KvSequence& sequence, std::span<const TokenId> tokens);
  void publish_tail(KvSequence& sequence, std::span<const TokenId> tokens);

  void end(KvReservation& reservation) noexcept {
    if (reservation.draft_claim_ >= 0) draft_claimed[index(reservation.draft_claim_)] = 0;
    reservation.draft_claim_ = -1;
    reservation.copies_.clear();
    reservation.sequence_->reservation_ = nullptr;
    reservation.sequence_ = nullptr;
  }

  /// The table is again what it was; a block that was to be copied comes back uncopied.
  void roll_back(KvReservation& reservation) noexcept {
    KvSequence& sequence = *reservation.sequence_;
    shrink(sequence, reservation.table_size_);
    for (const BlockCopy& copy : reservation.copies_) {
      release(copy.destination);
      sequence.table_[index(reservation.begin_ / options.block_size)] = copy.source;
    }
    end(reservation);
  }

  void close(KvSequence& sequence) noexcept {
    if (sequence.reservation_ != nullptr) roll_back(*sequence.reservation_);
    shrink(sequence, 0);
    prefixes.release_root(sequence.root_);
    sequence.manager_ = nullptr;
  }

  KvCacheOptions options;
  BlockAllocator blocks;
  PrefixIndex prefixes;
  // [num_blocks] leading positions written in the draft's slice; of indexed blocks only
  std::vector<std::int32_t> draft_filled;
  std::vector<std::uint8_t> draft_claimed;  // [num_blocks] see KvReservation::claim_draft
};

// ---- KvSequence

KvSequence::KvSequence(KvSequence&& other) noexcept { *this = std::move(other); }

KvSequence& KvSequence::operator=(KvSequence&& other) noexcept {
  if (this == &other) return *this;
  if (manager_ != nullptr) manager_->impl_->close(*this);
  manager_ = std::exchange(other.manager_, nullptr);
  reservation_ = std::exchange(other.reservation_, nullptr);
  if (reservation_ != nullptr) reservation_->sequence_ = this;
  table_ = std::exchange(other.table_, {});
  num_published_ = std::exchange(other.num_published_, 0);
  root_ = std::exchange(other.root_, -1);
  for (int pool = 0; pool < kNumKvPools; ++pool)
    length_[pool] = std::exchange(other.length_[pool], 0);
  return *this;
}

KvSequence::~KvSequence() {
  if (manager_ != nullptr) manager_->impl_->close(*this);
}

// ---- KvReservation

KvReservation::KvReservation(KvReservation&& other) noexcept { *this = std::move(other); }

KvReservation& KvReservation::operator=(KvReservation&& other) noexcept {
  if (this == &other) return *this;
  if (valid()) sequence_->manager_->impl_->roll_back(*this);
  sequence_ = std::exchange(other.sequence_, nullptr);
  if (sequence_ != nullptr) sequence_->reservation_ = this;
  begin_ = other.begin_;
  count_ = other.count_;
  table_size_ = other.table_size_;
  draft_claim_ = std::exchange(other.draft_claim_, -1);
  copies_ = std::exchange(other.copies_, {});
  return *this;
}

KvReservation::~KvReservation() {
  if (valid()) sequence_->manager_->impl_->roll_back(*this);
}

bool KvReservation::claim_draft() {
  require(valid(), "claim_draft() without a reservation");
  if (draft_claim_ >= 0) return true;
  KvCacheManager::Impl& impl = *sequence_->manager_->impl_;
  impl.catch_up_draft(*sequence_);
  const int i = sequence_->length(KvPool::draft) / impl.options.block_size;
  if (i >= sequence_->num_published_) return true;  // from here on the blocks are its own
  const BlockId block = sequence_->table_[index(i)];
  if (impl.draft_claimed[index(block)] != 0) return false;
  impl.draft_claimed[index(block)] = 1;
  draft_claim_ = block;
  return true;
}

void KvReservation::commit(int target_length, int draft_length) {
  require(valid(), "commit() without a reservation");
  KvSequence& sequence = *sequence_;
  KvCacheManager::Impl& impl = *sequence.manager_->impl_;
  const int end = begin_ + count_;
  require(target_length >= begin_ && target_length <= end,
          "committed target length outside the reservation");
  require(draft_length >= sequence.length_[kDraft] && draft_length <= end,
          "committed draft length outside the reservation");
  const int old_draft = std::exchange(sequence.length_[kDraft], draft_length);
  sequence.length_[kTarget] = target_length;
  const int block_size = impl.options.block_size;
  const int last = std::min(impl.blocks_for(draft_length), sequence.num_published_);
  for (int i = old_draft / block_size; i < last; ++i) {
    std::int32_t& filled = impl.draft_filled[index(sequence.table_[index(i)])];
    filled = std::max(filled, std::min(block_size, draft_length - i * block_size));
  }
  for (const BlockCopy& copy : copies_) impl.release(copy.source);
  impl.shrink(sequence, impl.blocks_for(std::max(target_length, draft_length)));
  impl.end(*this);
}

// ---- KvCacheManager

KvCacheManager::KvCacheManager(const KvCacheOptions& options)
    : impl_(std::make_unique<Impl>(checked(options))) {}

KvCacheManager::~KvCacheManager() = default;

KvSequence KvCacheManager::open(std::span<const TokenId> tokens, std::string_view cache_salt,
                                PrefixHit hit) {
  const int block_size = impl_->options.block_size;
  KvSequence sequence;
  sequence.root_ = impl_->prefixes.acquire_root(cache_salt);
  sequence.manager_ = this;
  if (!impl_->options.prefix_cache || tokens.empty()) return sequence;

  const std::span<const TokenId> usable = tokens.first(tokens.size() - 1);
  const auto share = [&](PrefixNode node, int num_tokens) {
    const BlockId block = impl_->prefixes.block(node);
    sequence.table_.push_back(block);
    impl_->blocks.add_owner(block);
    const int begin = sequence.length_[kTarget];
    if (sequence.length_[kDraft] == begin)
      sequence.length_[kDraft] += std::min(num_tokens, impl_->draft_filled[index(block)]);
    sequence.length_[kTarget] += num_tokens;
  };
  PrefixNode node = ~sequence.root_;
  std::span<const TokenId> rest = usable;
  while (rest.size() >= index(block_size)) {
    const PrefixNode child = impl_->prefixes.find(node, rest.first(index(block_size)));
    if (child == PrefixIndex::kNotFound) break;
    share(child, block_size);
    ++sequence.num_published_;
    node = child;
    rest = rest.subspan(index(block_size));
  }
  const auto partial =
      impl_->prefixes.find_partial(node, rest.first(std::min(rest.size(), index(block_size))));
  if (partial.num_tokens > 0) share(partial.node, partial.num_tokens);
  if (hit == PrefixHit::with_features) {
    const int draft = sequence.length_[kDraft];
    sequence.length_[kTarget] = std::max(0, draft - 1);
    sequence.num_published_ =
        std::min(sequence.num_published_, sequence.length_[kTarget] / block_size);
    impl_->shrink(sequence, impl_->blocks_for(draft));
  }
  return sequence;
}

KvReservation KvCacheManager::reserve(KvSequence& sequence, int count) {
  require(sequence.manager_ == this, "reserve() for a sequence of another manager");
  require(sequence.reservation_ == nullptr, "a second reservation for one sequence");
  require(count >= 1, "a reservation for no tokens");
  impl_->catch_up_draft(sequence);
  KvReservation reservation;
  const int begin = sequence.length(KvPool::target);
  const Impl::Need need = impl_->need(sequence, begin, count);
  if (need.total() > available()) return reservation;

  const auto table_size = static_cast<int>(sequence.table_.size());
  // Everything that can throw, first.
  sequence.table_.reserve(index(table_size + need.fresh));
  if (need.copy) reservation.copies_.resize(1);

  const int first = begin / impl_->options.block_size;
  if (need.copy) {
    const BlockId destination = impl_->take();
    // The sequence stays an owner of the source until the copy is known to have happened.
    reservation.copies_.front() = {std::exchange(sequence.table_[index(first)], destination),
                                   destination};
  }
  for (int i = 0; i < need.fresh; ++i) sequence.table_.push_back(impl_->take());
  if (need.unpublish)
    impl_->prefixes.erase_leaf(impl_->prefixes.node_of(sequence.table_[index(first)]));
  reservation.sequence_ = &sequence;
  reservation.begin_ = begin;
  reservation.count_ = count;
  reservation.table_size_ = table_size;
  sequence.reservation_ = &reservation;
  return reservation;
}

void KvCacheManager::Impl::publish_full(KvSequence& sequence, std::span<const TokenId> tokens) {
  const int block_size = options.block_size;
  const int num_full = sequence.length(KvPool::target) / block_size;
  const int draft_length = sequence.length(KvPool::draft);
  while (sequence.num_published_ < num_full) {
    const int i = sequence.num_published_;
    BlockId& entry = sequence.table_[index(i)];
    const auto block_tokens = tokens.subspan(index(i * block_size), index(block_size));
    const PrefixNode parent = parent_of_next(sequence);
    const PrefixNode node = prefixes.find(parent, block_tokens);
    const int filled = std::clamp(draft_length - i * block_size, 0, block_size);
    if (node == PrefixIndex::kNotFound) {
      // The block may still stand in the index as somebody's tail that this sequence went on with.
      if (const PrefixNode tail = prefixes.node_of(entry); tail != PrefixIndex::kNotFound)
        prefixes.erase_leaf(tail);
      prefixes.insert(parent, block_tokens, entry);
      draft_filled[index(entry)] = filled;
    } else if (const BlockId known = prefixes.block(node); known != entry) {
      if (draft_filled[index(known)] >= filled) {
        blocks.add_owner(known);
        release(std::exchange(entry, known));
      } else if (blocks.owners(known) == 0) {
        // Nobody reads the known block, and ours has more of the draft: ours takes its place.
        if (const PrefixNode tail = prefixes.node_of(entry); tail != PrefixIndex::kNotFound)
          prefixes.erase_leaf(tail);
        prefixes.replace_block(node, entry);
        blocks.drop_cached(known);
        draft_filled[index(entry)] = filled;
      } else {
        return;  // taking the known one would lose draft KV; try again when its owners are gone
      }
    }
    ++sequence.num_published_;
  }
  catch_up_draft(sequence);
}

void KvCacheManager::Impl::publish_tail(KvSequence& sequence, std::span<const TokenId> tokens) {
  const int length = sequence.length(KvPool::target);
  const int i = length / options.block_size;
  const int tail = length % options.block_size;
  if (tail == 0 || sequence.num_published_ != i) return;
  const BlockId block = sequence.table_[index(i)];
  const auto tail_tokens = tokens.subspan(index(i * options.block_size), index(tail));
  const PrefixNode parent = parent_of_next(sequence);
  if (prefixes.find_partial(parent, tail_tokens).num_tokens == tail) return;
  if (const PrefixNode older = prefixes.node_of(block); older != PrefixIndex::kNotFound)
    prefixes.erase_leaf(older);  // a shorter tail that this sequence went on with
  prefixes.insert(parent, tail_tokens, block);
  draft_filled[index(block)] =
      std::clamp(sequence.length(KvPool::draft) - i * options.block_size, 0, tail);
}

void KvCacheManager::publish(KvSequence& sequence, std::span<const TokenId> tokens) {
  require(sequence.manager_ == this, "publish() for a sequence of another manager");
  require(sequence.reservation_ == nullptr, "publish() during a reservation");
  require(tokens.size() >= index(sequence.length(KvPool::target)),
          "publish() with fewer tokens than are committed");
  if (impl_->options.prefix_cache) impl_->publish_full(sequence, tokens);
}

void KvCacheManager::publish_all(KvSequence& sequence, std::span<const TokenId> tokens) {
  publish(sequence, tokens);
  if (impl_->options.prefix_cache) impl_->publish_tail(sequence, tokens);
}

void KvCacheManager::clear_prefix_index() {
  while (impl_->blocks.oldest_cached() != BlockAllocator::kNone)
    impl_->evict(impl_->blocks.oldest_cached());
}

int KvCacheManager::block_size() const noexcept { return impl_->options.block_size; }

KvCacheCounts KvCacheManager::counts() const noexcept {
  const BlockAllocator& blocks = impl_->blocks;
  return {blocks.num_free(), blocks.num_cached(),
          blocks.num_blocks() - blocks.num_free() - blocks.num_cached(), blocks.num_blocks()};
}

int KvCacheManager::available() const noexcept {
  return impl_->blocks.num_free() + impl_->blocks.num_cached();
}

int KvCacheManager::blocks_needed(const KvSequence& sequence, int count) const noexcept {
  return impl_->need(sequence, sequence.length(KvPool::target), count).total();
}

void KvCacheManager::check_invariants(std::span<const KvSequence* const> sequences) const {
  const BlockAllocator& blocks = impl_->blocks;
  const PrefixIndex& prefixes = impl_->prefixes;
  const int total = blocks.num_blocks();
  const auto fail = [](const std::string& what) {
    throw Error(ErrorCode::internal, "KV cache: " + what);
  };
  const auto at = [](BlockId block) { return "block " + std::to_string(block); };

  std::vector<int> owners(index(total), 0);
  for (const KvSequence* sequence : sequences) {
    if (sequence->manager_ == nullptr) continue;
    const KvReservation* reservation = sequence->reservation_;
    for (BlockId block : sequence->table_) {
      if (block < 0 || block >= total) fail(at(block) + " in a table does not exist");
      ++owners[index(block)];
    }
    if (reservation != nullptr) {
      if (reservation->sequence_ != sequence) fail("a reservation belongs to another sequence");
      for (const BlockCopy& copy : reservation->copies_) ++owners[index(copy.source)];
    }
    const int target = sequence->length(KvPool::target);
    const int longest = std::max(target, sequence->length(KvPool::draft));
    const int positions = reservation == nullptr
                              ? longest
                              : std::max(longest, reservation->begin_ + reservation->count_);
    if (static_cast<int>(sequence->table_.size()) != impl_->blocks_for(positions))
      fail("a table of " + std::to_string(sequence->table_.size()) + " blocks for " +
           std::to_string(positions) + " positions");
    if (sequence->num_published_ * impl_->options.block_size > target)
      fail("a block was published before it was written");
    PrefixNode parent = ~sequence->root_;
    for (int i = 0; i < sequence->num_published_; ++i) {
      const PrefixNode node = prefixes.node_of(sequence->table_[index(i)]);
      if (node == PrefixIndex::kNotFound || prefixes.parent(node) != parent)
        fail("published blocks of a sequence are not a path of the prefix index");
      parent = node;
    }
  }
  std::vector<char> unowned(index(total), 0);
  const auto cached = blocks.cached_blocks();
  if (static_cast<int>(cached.size()) != blocks.num_cached()) fail("cached blocks are miscounted");
  const auto list = [&](std::span<const BlockId> ids, bool in_index) {
    for (BlockId block : ids) {
      if (unowned[index(block)]++ != 0) fail(at(block) + " is listed twice");
      if (blocks.owners(block) != 0) fail(at(block) + " is listed and owned");
      if ((prefixes.node_of(block) != PrefixIndex::kNotFound) != in_index)
        fail(at(block) + (in_index ? " is cached but not indexed" : " is free but indexed"));
    }
  };
  list(blocks.free_blocks(), false);
  list(cached, true);
  for (BlockId block = 0; block < total; ++block) {
    if (owners[index(block)] != blocks.owners(block))
      fail(at(block) + " has " + std::to_string(owners[index(block)]) + " owners and counts " +
           std::to_string(blocks.owners(block)));
    if ((owners[index(block)] == 0) != (unowned[index(block)] != 0))
      fail(at(block) + " is lost: neither owned nor listed");
    const PrefixNode node = prefixes.node_of(block);
    if (node == PrefixIndex::kNotFound || prefixes.parent(node) < 0) continue;
    if (owners[index(block)] > 0 && owners[index(prefixes.block(prefixes.parent(node)))] == 0)
      fail(at(block) + " is owned without its prefix");
  }
  // Eviction in list order must meet every child before its parent.
  std::vector<int> age(index(total), total);
  for (std::size_t i = 0; i < cached.size(); ++i) age[index(cached[i])] = static_cast<int>(i);
  for (BlockId block : cached) {
    const PrefixNode parent = prefixes.parent(prefixes.node_of(block));
    if (parent >= 0 && age[index(prefixes.block(parent))] < age[index(block)])
      fail(at(block) + " would be evicted after its prefix");
  }
  prefixes.check();
}

}  // namespace specdec
