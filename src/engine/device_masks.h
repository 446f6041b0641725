#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <unordered_map>
#include <vector>

#include "engine/backend/cuda_memory.h"
#include "kernels/cuda/sampling/params.h"
#include "specdec/grammar.h"

namespace specdec {

/// Masks of grammars in a GPU's memory, each once, under a number: a step sends the numbers of its
/// rows and the masks that it is the first to need. A grammar hands out the same mask for the same
/// state, so a pointer says which one it is. The least recently used make room for others.
///
/// For one thread.
class DeviceMasks {
 public:
  /// `capacity`: masks that are kept; `most_new`: that may come in between two sends.
  DeviceMasks(int vocab_size, int capacity, int most_new, cudaStream_t stream);

  /// The number of `mask`, which holds until `capacity` others have been asked for.
  std::int32_t number(const GrammarMask& mask);
  /// Enqueues the copies of what number() has taken in since the last time. What was sent before
  /// must have been copied by now.
  void send();

  const std::uint32_t* table() const noexcept {
    return reinterpret_cast<const std::uint32_t*>(memory_.get());
  }
  /// Masks that were copied so far.
  std::int64_t num_sent() const noexcept { return num_sent_; }

 private:
  struct Entry {
    GrammarMask mask;  // held, so that no other gets its address
    std::int32_t number = 0;
  };

  std::size_t bytes_each_;
  std::size_t capacity_;
  std::size_t most_new_;
  cudaStream_t stream_;
  DeviceMemory memory_;                // [capacity] masks
  PinnedMemory staged_;                // [most_new] masks
  std::vector<std::int32_t> arrived_;  // the numbers of what is staged
  std::list<Entry> entries_;           // the most recently used first
  std::unordered_map<const void*, std::list<Entry>::iterator> by_address_;
  std::int64_t num_sent_ = 0;
};

}  // namespace specdec
