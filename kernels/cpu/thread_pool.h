#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <vector>

#include "kernels/executor.h"

namespace specdec::kernels {

/// `threads - 1` workers beside the calling thread, for many short jobs: about 150 a token.
///
/// Each thread has its own run of a job's indices, on a cache line of its own, and helps others
/// when that is used up. So claiming an index costs no traffic between cores until the end of a
/// job, and a worker that the system has not scheduled delays nobody: the others do its share.
/// Whoever waits spins for some microseconds and then sleeps on a futex; a pool that only spins
/// collapses when anything else wants the core.
class ThreadPool final : public Executor {
 public:
  /// `threads` >= 1, the caller included.
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const noexcept override { return static_cast<int>(shares_.size()); }
  void parallel_for(int count, const std::function<void(int)>& body) override;

 private:
  // A ticket is (job number << 32 | indices left). An index is claimed by a compare-exchange on the
  // whole, so a late thread can never claim from a job other than the one it has read. `end`,
  // `body_` and `count_` stand still from a successful claim until the claimed index is counted in
  // `done_`. A waiting worker polls the ticket of its own share: the line that tells it also
  // carries the job.
  struct alignas(64) Share {
    std::atomic<std::uint64_t> ticket{0};
    std::atomic<std::uint32_t> end{0};  // one past the last index of the share
  };

  void work(std::size_t own) noexcept;
  /// Runs indices of the current job, of share `own` first, until none is left; returns the job's
  /// number.
  std::uint32_t run_job(std::size_t own) noexcept;
  /// Runs what is left of one share; returns how many indices that were.
  std::uint32_t run_share(Share& share, std::uint32_t job) noexcept;
  void publish(std::uint32_t count) noexcept;

  std::vector<Share> shares_;  // the caller's, then the workers'
  alignas(64) std::atomic<std::uint32_t> count_{0};
  std::atomic<const std::function<void(int)>*> body_{nullptr};
  alignas(64) std::atomic<std::uint32_t> done_{0};
  alignas(64) std::atomic<std::uint32_t> sleepers_{0};
  std::atomic<std::uint32_t> alarm_{0};  // what sleeping workers wait on
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace specdec::kernels
