#include "kernels/cpu/thread_pool.h"

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <vector>

using specdec::kernels::ThreadPool;

TEST_CASE("thread pool: every index runs exactly once, in any number of jobs of any size") {
  for (const int threads : {1, 2, 3, 5}) {
    ThreadPool pool(threads);
    CHECK(pool.num_threads() == threads);
    std::vector<int> runs(300);
    int expected_total = 0;
    for (int job = 0; job < 3000; ++job) {
      const int count = job % 7 == 0 ? 0 : job % 299 + 1;
      pool.parallel_for(count, [&](int i) { ++runs[i]; });
      expected_total += count;
      if (job % 100 == 0) {
        int total = 0;
        for (const int r : runs) total += r;
        REQUIRE(total == expected_total);
      }
    }
    int expected_first = 0;
    for (int job = 0; job < 3000; ++job) expected_first += job % 7 != 0;
    CHECK(runs[0] == expected_first);
  }
}

TEST_CASE("thread pool: what a job wrote is visible to its caller and to the next job") {
  ThreadPool pool(4);
  std::vector<int> a(64);
  std::vector<int> b(64);
  for (int job = 1; job <= 2000; ++job) {
    pool.parallel_for(64, [&](int i) { a[i] = job * 64 + i; });
    pool.parallel_for(64, [&](int i) { b[i] = a[63 - i]; });
    int wrong = 0;
    for (int i = 0; i < 64; ++i) wrong += b[i] != job * 64 + 63 - i;
    REQUIRE(wrong == 0);
  }
}

TEST_CASE("thread pool: workers that fell asleep wake up, and a pool can end while they sleep") {
  for (int round = 0; round < 20; ++round) {
    ThreadPool pool(3);
    std::atomic<int> sum{0};
    pool.parallel_for(10, [&](int i) { sum += i; });
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    pool.parallel_for(10, [&](int i) {
      if (i == 9) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      sum += i;
    });
    CHECK(sum == 90);
  }
}

TEST_CASE("thread pool: pools are independent of each other and of who calls them") {
  std::atomic<int> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 3; ++c) {
    callers.emplace_back([&total] {
      ThreadPool pool(2);
      for (int job = 0; job < 500; ++job) pool.parallel_for(16, [&](int) { ++total; });
    });
  }
  for (std::thread& caller : callers) caller.join();
  CHECK(total == 3 * 500 * 16);
}

// A worker may find a job, lose its processor, and read its ticket when the pool is already ending:
// what it reads then is the last that it is told. Many more threads than processors bring it about.
TEST_CASE("thread pool: a pool that ends right behind a job takes all of its workers along") {
  std::atomic<int> sum{0};
  constexpr int kRounds = 4000;
  for (int round = 0; round < kRounds; ++round) {
    ThreadPool pool(8);
    pool.parallel_for(2, [&](int) { ++sum; });
  }
  CHECK(sum == 2 * kRounds);
}
