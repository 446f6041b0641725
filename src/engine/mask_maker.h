#pragma once

#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

#include "engine/sequence.h"
#include "kernels/executor.h"

namespace specdec {

/// Makes the grammars' masks for every node of a step's draft trees on the host's threads, a tree
/// on each: while the target's pass runs when that leaves them idle, else before it. They are due
/// at `sample`.
///
/// For one thread.
class MaskMaker {
 public:
  /// Masks in the making: they are there after wait(), and so once this is gone.
  class Due {
   public:
    explicit Due(MaskMaker& maker) : maker_(maker) {}
    ~Due() { wait(); }
    Due(const Due&) = delete;
    Due& operator=(const Due&) = delete;
    void wait() { maker_.finish(); }

   private:
    MaskMaker& maker_;
  };

  /// `overlap`: the target's pass leaves the host's threads idle. Then a thread of the maker's own
  /// waits for work and shares it out to `executor`, which nobody else uses while masks are due.
  MaskMaker(kernels::Executor& executor, bool overlap);
  ~MaskMaker();
  MaskMaker(const MaskMaker&) = delete;
  MaskMaker& operator=(const MaskMaker&) = delete;

  /// Sets sequence.node_masks [nodes] of each sequence that samples under a grammar. A node whose
  /// mask is past the grammar's limits gets none: it may never be asked for.
  [[nodiscard]] Due begin(std::span<Sequence* const> batch);

 private:
  void finish();
  void make();
  void work();

  kernels::Executor& executor_;
  std::vector<Sequence*> trees_;  // of the step in progress

  std::mutex mutex_;
  std::condition_variable changed_;
  bool pending_ = false;  // guarded by mutex_, like stop_
  bool stop_ = false;
  std::thread worker_;  // when overlapping
};

}  // namespace specdec
