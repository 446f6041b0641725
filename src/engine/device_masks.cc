#include "engine/device_masks.h"

#include <cstring>

#include "engine/backend/cuda_error.h"

namespace specdec {

DeviceMasks::DeviceMasks(int vocab_size, int capacity, int most_new, cudaStream_t stream)
    : bytes_each_(static_cast<std::size_t>(kernels::cuda::mask_words(vocab_size)) *
                  sizeof(std::uint32_t)),
      capacity_(static_cast<std::size_t>(capacity)),
      most_new_(static_cast<std::size_t>(most_new)),
      stream_(stream) {
  void* memory = nullptr;
  check_cuda(::cudaMalloc(&memory, capacity_ * bytes_each_), "allocating the grammars' masks");
  memory_.reset(static_cast<std::byte*>(memory));
  check_cuda(::cudaMallocHost(&memory, most_new_ * bytes_each_), "allocating pinned memory");
  staged_.reset(static_cast<std::byte*>(memory));
}

std::int32_t DeviceMasks::number(const GrammarMask& mask) {
  if (const auto found = by_address_.find(mask.get()); found != by_address_.end()) {
    entries_.splice(entries_.begin(), entries_, found->second);
    return found->second->number;
  }
  if (mask->size() * sizeof(std::uint64_t) != bytes_each_ || arrived_.size() == most_new_)
    throw Error(ErrorCode::internal, "a grammar's mask does not fit the device's table");
  if (entries_.size() < capacity_) {
    entries_.push_front({mask, static_cast<std::int32_t>(entries_.size())});
  } else {
    by_address_.erase(entries_.back().mask.get());
    entries_.splice(entries_.begin(), entries_, std::prev(entries_.end()));
    entries_.front().mask = mask;
  }
  by_address_[mask.get()] = entries_.begin();
  std::memcpy(staged_.get() + arrived_.size() * bytes_each_, mask->data(), bytes_each_);
  arrived_.push_back(entries_.front().number);
  return entries_.front().number;
}

void DeviceMasks::send() {
  for (std::size_t i = 0; i < arrived_.size(); ++i)
    check_cuda(::cudaMemcpyAsync(
                   memory_.get() + static_cast<std::size_t>(arrived_[i]) * bytes_each_,
                   staged_.get() + i * bytes_each_, bytes_each_, cudaMemcpyHostToDevice, stream_),
               "copying the grammars' masks");
  num_sent_ += static_cast<std::int64_t>(arrived_.size());
  arrived_.clear();
}

}  // namespace specdec
