#include "engine/device_eagle.h"

#include "engine/model/row_buffers.h"

namespace specdec {

namespace cuda = kernels::cuda;

kernels::BatchView view_of(const cuda::DeviceBatch& batch) {
  kernels::BatchView view;
  view.num_rows = batch.num_rows;
  view.tokens = batch.tokens;
  view.num_outputs = batch.num_outputs;
  view.output_rows = batch.output_rows;
  view.device = &batch;
  return view;
}

DeviceEagle::DeviceEagle(CudaBackend& backend, EagleAdapter& adapter, int rows, int outputs)
    : adapter_(adapter), head_(adapter.head()) {
  head_.reserve(outputs, Stream{});
  for (DeviceBuffer& hidden : hidden_) hidden = allocate_rows(backend, rows, head_.hidden_size());
}

const float* DeviceEagle::forward(const cuda::DeviceBatch& batch, const std::int32_t* sources,
                                  bool at_roots, cudaStream_t stream) {
  const float* const from = at_roots ? head_.features() : hidden_[last_].as<float>();
  last_ = 1 - last_;
  float* const hidden = hidden_[last_].as<float>();
  return head_.enqueue(view_of(batch), {from, sources}, hidden, Stream{stream});
}

}  // namespace specdec
