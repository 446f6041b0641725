#include "engine/backend/cpu_backend.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

#include "engine/backend/row_pointers.h"
#include "kernels/cpu/row_format.h"
#include "specdec/error.h"

namespace specdec {

namespace {

void unmap(void* data, std::size_t bytes) noexcept { ::munmap(data, bytes); }

/// The type that the packed matrix has: the sources' own, or f32 where they differ.
kernels::DataType packed_type(const MatrixSource& source) {
  const kernels::DataType first = source.parts.front().type;
  const bool same = std::all_of(source.parts.begin(), source.parts.end(),
                                [&](const RowSource& part) { return part.type == first; });
  return same ? first : kernels::DataType::f32;
}

}  // namespace

CpuBackend::CpuBackend(kernels::Isa isa, int num_threads)
    : threads_(num_threads), ops_(isa, threads_) {}

std::string_view CpuBackend::name() const noexcept { return kernels::to_string(ops_.isa()); }

DeviceBuffer CpuBackend::allocate(std::size_t bytes, MemoryUse use) {
  // Straight from the system: zero-filled, page-aligned, resident only once touched.
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED)
    throw Error(ErrorCode::out_of_memory,
                "the system has no " + std::to_string(bytes) +
                    " bytes to give: lower kv_cache.memory_mb or use a smaller model");
  if (use == MemoryUse::weights) ::madvise(data, bytes, MADV_HUGEPAGE);
  return {data, bytes, &unmap};
}

const void* CpuBackend::read(const void* device, std::size_t /*bytes*/, Stream /*stream*/) {
  return device;
}

void CpuBackend::write(void* device, const void* host, std::size_t bytes, Stream /*stream*/) {
  std::memcpy(device, host, bytes);
}

std::size_t CpuBackend::packed_bytes(const MatrixSource& source) const {
  const std::size_t bytes =
      kernels::CpuOps::packed_bytes(packed_type(source), source.rows(), source.cols());
  return (bytes + kernels::kPackAlignment - 1) / kernels::kPackAlignment * kernels::kPackAlignment;
}

kernels::PackedMatrix CpuBackend::pack(const MatrixSource& source, void* destination) {
  const int rows = source.rows();
  const int cols = source.cols();
  const kernels::DataType type = packed_type(source);
  const std::vector<RowPointer> pointers = row_pointers(source);

  constexpr int kRowsPerTask = 16 * kernels::kTileRows;
  const int tasks = (rows + kRowsPerTask - 1) / kRowsPerTask;
  threads_.parallel_for(tasks, [&](int task) {
    const int first = task * kRowsPerTask;
    const int count = std::min(kRowsPerTask, rows - first);
    std::vector<const std::byte*> chunk;
    std::vector<float> converted;  // only where the file mixes types within one matrix
    for (int i = 0; i < count; ++i)
      chunk.push_back(pointers[static_cast<std::size_t>(first + i)].data);
    if (type != source.parts.front().type) {
      converted.resize(static_cast<std::size_t>(count) * static_cast<std::size_t>(cols));
      for (int i = 0; i < count; ++i) {
        const auto& [part, bytes] = pointers[static_cast<std::size_t>(first + i)];
        float* row = &converted[static_cast<std::size_t>(i) * static_cast<std::size_t>(cols)];
        kernels::convert_row_to_f32(part->type, cols, bytes, row);
        chunk[static_cast<std::size_t>(i)] = reinterpret_cast<const std::byte*>(row);
      }
    }
    ops_.pack_rows(type, cols, first, count, chunk.data(), destination);
  });
  return {.type = type,
          .rows = rows,
          .cols = cols,
          .data = destination,
          .pair_distance = source.pair_distance};
}

void CpuBackend::copy_block(std::span<const kernels::KvLayer> layers, int source, int destination,
                            Stream) {
  for (const kernels::KvLayer& layer : layers) {
    const std::size_t bytes =
        static_cast<std::size_t>(layer.num_kv_heads) * static_cast<std::size_t>(layer.head_dim) *
        static_cast<std::size_t>(layer.block_size) * kernels::kv_element_bytes(layer.type);
    for (void* half : {layer.keys, layer.values}) {
      auto* const base = static_cast<std::byte*>(half);
      std::memcpy(base + static_cast<std::size_t>(destination) * bytes,
                  base + static_cast<std::size_t>(source) * bytes, bytes);
    }
  }
}

}  // namespace specdec
