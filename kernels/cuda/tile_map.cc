#include "kernels/cuda/tile_map.h"

#include <cstdint>

namespace specdec::kernels::cuda {
namespace {

decltype(&cuTensorMapEncodeTiled) find_encode() noexcept {
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
  constexpr unsigned kSince = 12000;
  const cudaError_t status = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found,
                                                              kSince, cudaEnableDefault, &result);
#else
  const cudaError_t status =
      cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &result);
#endif
  return status == cudaSuccess && result == cudaDriverEntryPointSuccess
             ? reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(found)
             : nullptr;
}

}  // namespace

cudaError_t map_tiles(const void* data, int tiles, int tile_bytes, int copy_tiles, int copy_bytes,
                      TileMap& map) noexcept {
  static const auto encode = find_encode();
  if (encode == nullptr) return cudaErrorNotSupported;
  const cuuint64_t size[] = {static_cast<cuuint64_t>(tile_bytes / kTileMapElement),
                             static_cast<cuuint64_t>(tiles)};
  const cuuint64_t stride[] = {static_cast<cuuint64_t>(tile_bytes)};
  const cuuint32_t box[] = {static_cast<cuuint32_t>(copy_bytes / kTileMapElement),
                            static_cast<cuuint32_t>(copy_tiles)};
  const cuuint32_t steps[] = {1, 1};
  static_assert(kTileMapElement == sizeof(double));
  const CUresult done =
      encode(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT64, 2, const_cast<void*>(data), size, stride, box,
             steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
             CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return done == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

}  // namespace specdec::kernels::cuda
