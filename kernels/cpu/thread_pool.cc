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

std::uint32_t job_of(std::uint64_t ticket) noexcept {
  return static_cast<std::uint32_t>(ticket >> 32);
}
std::uint32_t left_of(std::uint64_t ticket) noexcept { return static_cast<std::uint32_t>(ticket); }

}  // namespace

ThreadPool::ThreadPool(int threads) : shares_(static_cast<std::size_t>(threads)) {
  for (std::size_t own = 1; own < shares_.size(); ++own)
    workers_.emplace_back([this, own] { work(own); });
}

ThreadPool::~ThreadPool() {
  stop_.store(true, std::memory_order_relaxed);
  publish(0);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::publish(std::uint32_t count) noexcept {
  const std::uint64_t job = job_of(shares_[0].ticket.load(std::memory_order_relaxed)) + 1U;
  const std::uint64_t threads = shares_.size();
  std::uint32_t begin = 0;
  for (std::uint64_t i = 0; i < threads; ++i) {
    const auto end = static_cast<std::uint32_t>(count * (i + 1) / threads);
    shares_[i].end.store(end, std::memory_order_relaxed);
    // Sequentially consistent, as is the worker's side: either this thread sees the sleeper, or the
    // sleeper sees the ticket before it sleeps.
    shares_[i].ticket.store(job << 32 | (end - begin), std::memory_order_seq_cst);
    begin = end;
  }
  if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
  alarm_.fetch_add(1, std::memory_order_seq_cst);
  alarm_.notify_all();
}

std::uint32_t ThreadPool::run_share(Share& share, std::uint32_t job) noexcept {
  std::uint32_t ran = 0;
  std::uint64_t ticket = share.ticket.load(std::memory_order_acquire);
  while (job_of(ticket) == job && left_of(ticket) > 0) {
    if (!share.ticket.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel,
                                            std::memory_order_acquire)) {
      continue;
    }
    const std::uint32_t index = share.end.load(std::memory_order_relaxed) - left_of(ticket);
    (*body_.load(std::memory_order_relaxed))(static_cast<int>(index));
    ++ran;
    ticket = share.ticket.load(std::memory_order_acquire);
  }
  return ran;
}

std::uint32_t ThreadPool::run_job(std::size_t own) noexcept {
  const std::uint32_t job = job_of(shares_[own].ticket.load(std::memory_order_acquire));
  std::uint32_t ran = 0;
  for (std::size_t i = 0; i < shares_.size(); ++i)
    ran += run_share(shares_[(own + i) % shares_.size()], job);
  if (ran == 0) return job;
  const std::uint32_t count = count_.load(std::memory_order_relaxed);
  if (done_.fetch_add(ran, std::memory_order_acq_rel) + ran == count) done_.notify_one();
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
  run_job(0);
  for (int spin = 0; spin < kSpins; ++spin) {
    if (done_.load(std::memory_order_acquire) == all) return;
    pause();
  }
  for (std::uint32_t done = done_.load(std::memory_order_acquire); done != all;
       done = done_.load(std::memory_order_acquire)) {
    done_.wait(done, std::memory_order_acquire);
  }
}

void ThreadPool::work(std::size_t own) noexcept {
  std::uint32_t seen = 0;
  const auto is_new = [&](std::memory_order order) {
    return job_of(shares_[own].ticket.load(order)) != seen;
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
    seen = run_job(own);
    // After the job, which may be a later one than was found above: then it would be the last.
    if (stop_.load(std::memory_order_relaxed)) return;
  }
}

}  // namespace specdec::kernels
