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
/// Indices are handed out one by one through an atomic ticket, so a worker that the system has not
/// scheduled delays nobody: the caller does its share. Whoever waits spins for some microseconds
/// and then sleeps on a futex; a pool that only spins collapses when anything else wants the core.
class ThreadPool final : public Executor {
 public:
  /// `threads` >= 1, the caller included.
  explicit ThreadPool(int threads);
  ~ThreadPool() override;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int num_threads() const noexcept override { return static_cast<int>(workers_.size()) + 1; }
  void parallel_for(int count, const std::function<void(int)>& body) override;

 private:
  void work() noexcept;
  /// Runs indices of the current job until none is left; returns the job's number.
  std::uint32_t run_job() noexcept;
  void publish(std::uint32_t count) noexcept;

  // A ticket is (job number << 32 | indices left). An index is claimed by a compare-exchange on the
  // whole, so a late worker can never claim from a job other than the one it has read. `count_` and
  // `body_` stand still from a successful claim until the claimed index is counted in `done_`.
  // Waiting workers poll the ticket itself: the line that tells them also carries the job.
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  std::atomic<std::uint32_t> count_{0};
  std::atomic<const std::function<void(int)>*> body_{nullptr};
  alignas(64) std::atomic<std::uint32_t> done_{0};
  alignas(64) std::atomic<std::uint32_t> sleepers_{0};
  std::atomic<std::uint32_t> alarm_{0};  // what sleeping workers wait on
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace specdec::kernels
