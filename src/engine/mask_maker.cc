#include "engine/mask_maker.h"

#include <exception>

namespace specdec {

MaskMaker::MaskMaker(kernels::Executor& executor, bool overlap) : executor_(executor) {
  if (overlap) worker_ = std::thread([this] { work(); });
}

MaskMaker::~MaskMaker() {
  if (!worker_.joinable()) return;
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  worker_.join();
}

MaskMaker::Due MaskMaker::begin(std::span<Sequence* const> batch) {
  trees_.clear();
  for (Sequence* sequence : batch) {
    if (!sequence->grammar || !sequence->samples) continue;
    sequence->node_masks.assign(sequence->node_grammar.size(), nullptr);
    trees_.push_back(sequence);
  }
  if (!worker_.joinable()) {
    make();
  } else if (!trees_.empty()) {
    {
      const std::lock_guard lock(mutex_);
      pending_ = true;
    }
    changed_.notify_all();
  }
  return Due(*this);
}

void MaskMaker::finish() {
  if (!worker_.joinable()) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !pending_; });
}

void MaskMaker::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return pending_ || stop_; });
    if (!pending_) return;
    lock.unlock();
    make();
    lock.lock();
    pending_ = false;
    changed_.notify_all();
  }
}

// A tree's nodes go together: its matchers take turns in their grammar, and what one of them finds
// out the next one has.
void MaskMaker::make() {
  executor_.parallel_for(static_cast<int>(trees_.size()), [&](int tree) {
    Sequence& sequence = *trees_[static_cast<std::size_t>(tree)];
    for (std::size_t node = 0; node < sequence.node_grammar.size(); ++node) {
      const GrammarMatcher& grammar = sequence.node_grammar[node];
      try {
        // Behind the grammar's end nothing is kept: what is drawn there does not matter.
        if (node == 0 || !grammar.must_end()) sequence.node_masks[node] = grammar.mask();
      } catch (const std::exception&) {  // left to sample(), if the walk comes here
      }
    }
  });
}

}  // namespace specdec
