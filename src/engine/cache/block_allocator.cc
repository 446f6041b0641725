#include "engine/cache/block_allocator.h"

namespace specdec {

BlockAllocator::BlockAllocator(int num_blocks) : slots_(static_cast<std::size_t>(num_blocks)) {
  free_.reserve(slots_.size());
  for (BlockId block = num_blocks - 1; block >= 0; --block) free_.push_back(block);
}

BlockId BlockAllocator::take_free() noexcept {
  if (free_.empty()) return kNone;
  const BlockId block = free_.back();
  free_.pop_back();
  slots_[index(block)].owners = 1;
  return block;
}

void BlockAllocator::drop_cached(BlockId block) noexcept {
  unlink(block);
  free_.push_back(block);  // never reallocates: reserved for all blocks
}

void BlockAllocator::add_owner(BlockId block) noexcept {
  Slot& slot = slots_[index(block)];
  if (slot.owners == 0) unlink(block);
  ++slot.owners;
}

void BlockAllocator::remove_owner(BlockId block, bool cache) noexcept {
  Slot& slot = slots_[index(block)];
  if (--slot.owners > 0) return;
  if (!cache) {
    free_.push_back(block);
    return;
  }
  slot.older = newest_;
  slot.newer = kNone;
  if (newest_ != kNone) {
    slots_[index(newest_)].newer = block;
  } else {
    oldest_ = block;
  }
  newest_ = block;
  ++num_cached_;
}

void BlockAllocator::unlink(BlockId block) noexcept {
  Slot& slot = slots_[index(block)];
  (slot.older != kNone ? slots_[index(slot.older)].newer : oldest_) = slot.newer;
  (slot.newer != kNone ? slots_[index(slot.newer)].older : newest_) = slot.older;
  slot.older = slot.newer = kNone;
  --num_cached_;
}

std::vector<BlockId> BlockAllocator::cached_blocks() const {
  std::vector<BlockId> blocks;
  for (BlockId block = oldest_; block != kNone && blocks.size() <= slots_.size();
       block = slots_[index(block)].newer)
    blocks.push_back(block);
  return blocks;
}

}  // namespace specdec
