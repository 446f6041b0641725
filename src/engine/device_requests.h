#pragma once

#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/sequence.h"
#include "kernels/cuda/sampling/params.h"

namespace specdec {

/// What requests ask of sampling, in a GPU's memory: a place for each sequence of a batch, which
/// keeps what it holds while the same request comes back to it.
class DeviceRequests {
 public:
  DeviceRequests(Backend& backend, int vocab_size, int max_sequences);

  /// The options of `sequence` as place `index` of the batch; its pointers hold until the place is
  /// given to another request.
  kernels::cuda::RowSampling place(std::size_t index, const Sequence& sequence);
  /// The request at `index` has as many output tokens now, and the device has counted them.
  void counted(std::size_t index, int num_output) { places_[index].num_output = num_output; }

  /// Which stages of sampling the batch needs.
  static kernels::cuda::SamplingNeeds needs(std::span<Sequence* const> batch, int vocab_size);

 private:
  struct Place {
    RequestId id = 0;    // 0: nobody
    int num_output = 0;  // output tokens that its counts hold
    DeviceBuffer memory;
    kernels::cuda::RowSampling sampling;
  };

  Backend& backend_;
  int vocab_size_;
  std::vector<Place> places_;
};

}  // namespace specdec
