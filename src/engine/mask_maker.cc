#include "engine/mask_maker.h"

#include <algorithm>
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
  rows_.clear();
  for (Sequence* sequence : batch) {
    if (!sequence->grammar || !sequence->samples) continue;
    const std::size_t nodes = sequence->node_grammar.size();
    sequence->node_masks.assign(nodes, nullptr);
    for (std::size_t node = 0; node < nodes; ++node) rows_.push_back({sequence, node});
  }
  if (!worker_.joinable()) {
    make();
  } else if (!rows_.empty()) {
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

// A few neighbours go together: they are often of one grammar, whose matchers take turns.
void MaskMaker::make() {
  constexpr std::size_t kRowsATask = 8;
  const std::size_t tasks = (rows_.size() + kRowsATask - 1) / kRowsATask;
  executor_.parallel_for(static_cast<int>(tasks), [&](int task) {
    const std::size_t begin = static_cast<std::size_t>(task) * kRowsATask;
    const std::size_t end = std::min(begin + kRowsATask, rows_.size());
    for (const Row& row : std::span(rows_).subspan(begin, end - begin)) {
      const GrammarMatcher& grammar = row.sequence->node_grammar[row.node];
      try {
        // Behind the grammar's end nothing is kept: what is drawn there does not matter.
        if (row.node == 0 || !grammar.must_end())
          row.sequence->node_masks[row.node] = grammar.mask();
      } catch (const std::exception&) {  // left to sample(), if the walk comes here
      }
    }
  });
}

}  // namespace specdec
