#pragma once

#include <functional>

namespace specdec::kernels {

/// Splits independent work over threads. How the work is split never shows in its result.
class Executor {
 public:
  virtual ~Executor() = default;

  virtual int num_threads() const noexcept = 0;
  /// Runs body(i) for every i in [0, count), on the calling thread and others; returns when all are
  /// done. `body` must not throw. One caller at a time.
  virtual void parallel_for(int count, const std::function<void(int)>& body) = 0;
};

/// Everything on the calling thread.
class SerialExecutor final : public Executor {
 public:
  int num_threads() const noexcept override { return 1; }
  void parallel_for(int count, const std::function<void(int)>& body) override {
    for (int i = 0; i < count; ++i) body(i);
  }
};

}  // namespace specdec::kernels
