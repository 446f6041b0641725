#include "engine/model/row_buffers.h"

namespace specdec {

DeviceBuffer allocate_rows(Backend& backend, int max_rows, int width) {
  return backend.allocate(
      static_cast<std::size_t>(max_rows + 7) * static_cast<std::size_t>(width + 31) * sizeof(float),
      MemoryUse::scratch);
}

namespace {

std::size_t num_logits(const kernels::NormHeadParams& params) {
  return static_cast<std::size_t>(params.num_outputs) * static_cast<std::size_t>(params.head.rows);
}

}  // namespace

const float* make_logits(Backend& backend, kernels::NormHeadParams params, DeviceBuffer& buffer,
                         Stream stream) {
  const std::size_t count = num_logits(params);
  if (buffer.bytes() < count * sizeof(float)) {
    buffer = DeviceBuffer();  // give the old one back before asking for the larger one
    buffer = backend.allocate(count * sizeof(float), MemoryUse::scratch);
  }
  params.logits = buffer.as<float>();
  backend.norm_head(params, stream);
  return params.logits;
}

std::span<const float> read_logits(Backend& backend, kernels::NormHeadParams params,
                                   DeviceBuffer& buffer, Stream stream) {
  const std::size_t count = num_logits(params);
  const void* host =
      backend.read(make_logits(backend, params, buffer, stream), count * sizeof(float), stream);
  return {static_cast<const float*>(host), count};
}

}  // namespace specdec
