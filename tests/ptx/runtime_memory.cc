// Device and pinned memory, copies, fills, symbols.
#include <cstring>

#include "tests/ptx/runtime.h"

namespace specdec::ptx {
namespace {

enum class Side { ours, pageable, outside };

/// Whose memory [pointer, pointer + bytes) is. `outside`: it begins in an allocation of ours and
/// does not end there.
Side side_of(const Runtime& runtime, const void* pointer, std::size_t bytes) {
  if (runtime.memory.find(pointer) == nullptr) return Side::pageable;
  return runtime.memory.contains(pointer, bytes) ? Side::ours : Side::outside;
}

bool is_device(const Runtime& runtime, const void* pointer) {
  const Memory::Region* const region = runtime.memory.find(pointer);
  return region != nullptr && region->kind != Memory::Kind::kPinned;
}

cudaError_t make_copy(const Runtime& runtime, void* to, const void* from, std::size_t bytes,
                      cudaMemcpyKind kind, Copy& copy) {
  if (to == nullptr || from == nullptr) return cudaErrorInvalidValue;
  if (kind < cudaMemcpyHostToHost || kind > cudaMemcpyDefault)
    return cudaErrorInvalidMemcpyDirection;
  const Side target = side_of(runtime, to, bytes);
  const Side source = side_of(runtime, from, bytes);
  if (target == Side::outside || source == Side::outside) return cudaErrorInvalidValue;
  const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
  const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
  // The direction is taken at its word: other than here, a wrong one may work on a GPU.
  if (kind != cudaMemcpyDefault &&
      (to_device != is_device(runtime, to) || from_device != is_device(runtime, from)))
    return cudaErrorInvalidValue;
  copy.to = to;
  copy.from = from;
  copy.bytes = bytes;
  copy.to_ours = target == Side::ours;
  copy.from_ours = source == Side::ours;
  return cudaSuccess;
}

bool is_capturing(const Runtime& runtime, cudaStream_t stream) {
  return stream != nullptr && runtime.is_stream(stream) && stream->capture != nullptr;
}

cudaError_t allocate(void** pointer, std::size_t bytes, Memory::Kind kind) {
  return call([&](Runtime& runtime) {
    if (pointer == nullptr) return cudaErrorInvalidValue;
    if (const cudaError_t refused = runtime.refuse_in_capture(); refused != cudaSuccess)
      return refused;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    const std::size_t used = runtime.memory.device_bytes();
    if (kind == Memory::Kind::kDevice && bytes > runtime.memory_limit - used)
      return cudaErrorMemoryAllocation;
    *pointer = runtime.memory.allocate(bytes, kind);
    return cudaSuccess;
  });
}

cudaError_t release(void* pointer, Memory::Kind kind) {
  return call([&](Runtime& runtime) {
    if (pointer == nullptr) return cudaSuccess;
    if (const cudaError_t refused = runtime.refuse_in_capture(); refused != cudaSuccess)
      return refused;
    runtime.finish_all();  // memory may be in use until then
    if (runtime.lost != cudaSuccess) return runtime.lost;
    return runtime.memory.release(pointer, kind) ? cudaSuccess : cudaErrorInvalidValue;
  });
}

}  // namespace
}  // namespace specdec::ptx

using namespace specdec::ptx;

extern "C" {

cudaError_t CUDARTAPI cudaMalloc(void** pointer, size_t bytes) {
  return allocate(pointer, bytes, Memory::Kind::kDevice);
}
cudaError_t CUDARTAPI cudaMallocHost(void** pointer, size_t bytes) {
  return allocate(pointer, bytes, Memory::Kind::kPinned);
}
// Flags make it portable or mapped, which all pinned memory is anyway.
cudaError_t CUDARTAPI cudaHostAlloc(void** pointer, size_t bytes, unsigned int flags) {
  if (flags > (cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined))
    return last_error() = cudaErrorInvalidValue;
  return allocate(pointer, bytes, Memory::Kind::kPinned);
}
cudaError_t CUDARTAPI cudaFree(void* pointer) { return release(pointer, Memory::Kind::kDevice); }
cudaError_t CUDARTAPI cudaFreeHost(void* pointer) {
  return release(pointer, Memory::Kind::kPinned);
}

cudaError_t CUDARTAPI cudaMemGetInfo(size_t* free, size_t* total) {
  return call([&](Runtime& runtime) {
    if (free == nullptr || total == nullptr) return cudaErrorInvalidValue;
    *total = runtime.memory_limit;
    *free = runtime.memory_limit - runtime.memory.device_bytes();
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return call([&](Runtime& runtime) {
    if (bytes == 0) return cudaSuccess;
    if (const cudaError_t refused = runtime.refuse_in_capture(); refused != cudaSuccess)
      return refused;
    Copy copy;
    const cudaError_t status = make_copy(runtime, to, from, bytes, kind, copy);
    if (status != cudaSuccess) return status;
    const cudaError_t queued = runtime.enqueue(nullptr, std::move(copy));
    return queued != cudaSuccess ? queued : runtime.lost;
  });
}

cudaError_t CUDARTAPI cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                                      cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    if (!runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
    if (bytes == 0) return cudaSuccess;
    Copy copy;
    const cudaError_t status = make_copy(runtime, to, from, bytes, kind, copy);
    if (status != cudaSuccess) return status;
    const bool capturing = is_capturing(runtime, stream);
    // From pageable memory the bytes are taken at the call, to it the call waits.
    if (runtime.late && !capturing && !copy.from_ours) {
      const auto* const first = static_cast<const std::byte*>(from);
      copy.held.assign(first, first + bytes);
      copy.is_held = true;
    }
    const bool waits = !copy.to_ours && !capturing;
    const cudaError_t queued = runtime.enqueue(stream, std::move(copy));
    if (queued == cudaSuccess && waits && stream != nullptr) runtime.finish(*stream);
    return queued;
  });
}

cudaError_t CUDARTAPI cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}

cudaError_t CUDARTAPI cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    if (!runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
    if (bytes == 0) return cudaSuccess;
    if (to == nullptr || !runtime.memory.contains(to, bytes)) return cudaErrorInvalidValue;
    return runtime.enqueue(stream, Fill{to, value, bytes});
  });
}

cudaError_t CUDARTAPI cudaMemcpyFromSymbol(void* to, const void* shadow, size_t bytes,
                                           size_t offset, cudaMemcpyKind kind) {
  return call([&](Runtime& runtime) {
    const auto found = runtime.symbols.find(shadow);
    if (found == runtime.symbols.end()) return cudaErrorInvalidSymbol;
    if (kind != cudaMemcpyDeviceToHost && kind != cudaMemcpyDeviceToDevice &&
        kind != cudaMemcpyDefault)
      return cudaErrorInvalidMemcpyDirection;
    const Symbol& symbol = found->second;
    const std::span<std::byte> variable = runtime.module(*symbol.binary).variable(symbol.name);
    if (variable.size() != symbol.bytes) return cudaErrorInvalidSymbol;
    if (offset > symbol.bytes || bytes > symbol.bytes - offset) return cudaErrorInvalidValue;
    if (const cudaError_t refused = runtime.refuse_in_capture(); refused != cudaSuccess)
      return refused;
    Copy copy;
    const cudaError_t status = make_copy(runtime, to, variable.data() + offset, bytes, kind, copy);
    if (status != cudaSuccess) return status;
    const cudaError_t queued = runtime.enqueue(nullptr, std::move(copy));
    return queued != cudaSuccess ? queued : runtime.lost;
  });
}

}  // extern "C"
