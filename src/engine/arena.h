#pragma once

#include <cstddef>

namespace specdec {

/// Hands out parts of one allocation. A first pass without memory counts, a second one assigns.
class Arena {
 public:
  explicit Arena(std::byte* memory) : memory_(memory) {}
  template <typename T>
  void take(T*& part, std::size_t count) {
    if (memory_ != nullptr) part = reinterpret_cast<T*>(memory_ + used_);
    constexpr std::size_t kAlignment = 256;
    used_ += (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  }
  std::size_t used() const { return used_; }

 private:
  std::byte* memory_;
  std::size_t used_ = 0;
};

}  // namespace specdec
