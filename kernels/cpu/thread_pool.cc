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
  jobs_.fetch_add(1, std::memory_order_release);
  jobs_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run_job() noexcept {
  std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (true) {
    const auto left = static_cast<std::uint32_t>(ticket);
    if (left == 0) return;
    if (!ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    const auto count = static_cast<std::uint32_t>(count_.load(std::memory_order_relaxed));
    (*body_.load(std::memory_order_relaxed))(static_cast<int>(count - left));
    if (done_.fetch_add(1, std::memory_order_acq_rel) + 1 == count) {
      done_.notify_one();
      return;
    }
    ticket = ticket_.load(std::memory_order_acquire);
  }
}

void ThreadPool::parallel_for(int count, const std::function<void(int)>& body) {
  if (workers_.empty() || count <= 1) {
    for (int i = 0; i < count; ++i) body(i);
    return;
  }
  done_.store(0, std::memory_order_relaxed);
  count_.store(count, std::memory_order_relaxed);
  body_.store(&body, std::memory_order_relaxed);
  const std::uint64_t job = (ticket_.load(std::memory_order_relaxed) >> 32) + 1;
  ticket_.store(job << 32 | static_cast<std::uint32_t>(count), std::memory_order_release);
  jobs_.fetch_add(1, std::memory_order_release);
  jobs_.notify_all();
  run_job();
  const auto all = static_cast<std::uint32_t>(count);
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
  while (true) {
    for (int spin = 0; spin < kSpins && jobs_.load(std::memory_order_acquire) == seen; ++spin) {
      pause();
    }
    jobs_.wait(seen, std::memory_order_acquire);
    seen = jobs_.load(std::memory_order_acquire);
    if (stop_.load(std::memory_order_relaxed)) return;
    run_job();
  }
}

}  // namespace specdec::kernels
