#include "kernels/cpu/thread_pool.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace specdec::kernels {
namespace {

// A pause takes 40 to 140 cycles: the spin lasts 15 to 60 microseconds. Within one forward the next
// job follows sooner than that.
constexpr int kSpins = 1000;

void pause() noexcept {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads) {
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this] { work(); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  publish(0);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::publish(std::uint32_t count) noexcept {
  const std::uint64_t job = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  // Sequentially consistent, as is the worker's side: either this thread sees the sleeper, or the
  // sleeper sees the ticket before it sleeps.
  ticket_.store(job << 32 | count, std::memory_order_seq_cst);
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  alarm_.fetch_add(1, std::memory_order_seq_cst);
  alarm_.notify_all();
}

std::uint32_t ThreadPool::run_job() noexcept {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  const auto job = static_cast<std::uint32_t>(ticket >> 32);
  while (static_cast<std::uint32_t>(ticket >> 32) == job) {
    const auto left = static_cast<std::uint32_t>(ticket);
    if (left == 0) break;
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    const std::uint32_t count = count_.load(std::memory_order_relaxed);
    (*body_.load(std::memory_order_relaxed))(static_cast<int>(count - left));
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
      done_.notify_one();
      break;
    }
    ticket = ticket_.load(std::memory_order_acquire);
  }
  return job;
}

void ThreadPool::parallel_for(int count, const std::function<void(int)>& body) {
  if (workers_.empty() || count <= 1) {
    for (int i = 0; i < count; ++i) body(i);
    return;
  }
  const auto all = static_cast<std::uint32_t>(count);
  done_.store(0, std::memory_order_relaxed);
  count_.store(all, std::memory_order_relaxed);
  body_.store(&body, std::memory_order_relaxed);
  publish(all);
  run_job();
  for (int spin = 0; spin < kSpins; ++spin) {
    if (done_.load(std::memory_order_acquire) == all) return;
    pause();
  }
  for (std::uint32_t done = done_.load(std::memory_order_acquire); done != all;
       done = done_.load(std::memory_order_acquire)) {
    done_.wait(done, std::memory_order_acquire);
  }
}

void ThreadPool::work() noexcept {
  std::uint32_t seen = 0;
  const auto is_new = [&](std::memory_order order) {
    return static_cast<std::uint32_t>(ticket_.load(order) >> 32) != seen;
  };
  while (true) {
    bool found = false;
    for (int spin = 0; spin < kSpins && !found; ++spin) {
      found = is_new(std::memory_order_acquire);
      if (!found) pause();
    }
    if (!found) {
      sleepers_.fetch_add(1, std::memory_order_seq_cst);
      const std::uint32_t alarm = alarm_.load(std::memory_order_seq_cst);
      if (!is_new(std::memory_order_seq_cst)) alarm_.wait(alarm, std::memory_order_acquire);
      sleepers_.fetch_sub(1, std::memory_order_relaxed);
      continue;
    }
    if (stop_.load(std::memory_order_relaxed)) return;
    seen = run_job();
  }
}

}  // namespace specdec::kernels
