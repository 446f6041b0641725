#include "engine/model/row_buffers.h"

namespace specdec {

DeviceBuffer allocate_rows(Backend& backend, int max_rows, int width) {
  return backend.allocate(
      static_cast<std::size_t>(max_rows + 7) * static_cast<std::size_t>(width + 31) * sizeof(float),
      MemoryUse::scratch);
}

std::span<const float> make_logits(Backend& backend, kernels::NormHeadParams params,
                                   DeviceBuffer& buffer, Stream stream) {
  const std::size_t count =
      static_cast<std::size_t>(params.num_outputs) * static_cast<std::size_t>(params.head.rows);
  if (buffer.bytes() < count * sizeof(float)) {
    buffer = DeviceBuffer();  // give the old one back before asking for the larger one
    buffer = backend.allocate(count * sizeof(float), MemoryUse::scratch);
  }
  params.logits = buffer.as<float>();
  backend.norm_head(params, stream);
  return {params.logits, count};
}

std::span<const float> read_rows(Backend& backend, std::span<const float> rows, Stream stream) {
  if (rows.empty()) return {};
  const void* const host = backend.read(rows.data(), rows.size_bytes(), stream);
  return {static_cast<const float*>(host), rows.size()};
}

}  // namespace specdec
