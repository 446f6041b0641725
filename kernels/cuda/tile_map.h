#pragma once

#include <cuda.h>
#include <cuda_runtime_api.h>

namespace specdec::kernels::cuda {

/// How the tensor memory accelerator (sm_90) finds tiles that lie one after the other: as a matrix,
/// a row a tile.
using TileMap = CUtensorMap;
/// Bytes of what the maps count in: a copy has at most 256 of them a tile.
inline constexpr int kTileMapElement = 8;

/// A copy takes `copy_tiles` tiles of `tiles`, `copy_bytes` of the `tile_bytes` of each, and puts
/// them side by side; tiles past the last are zeros. Bytes are multiples of 16, copy_bytes at most
/// 2048. cudaErrorNotSupported: the driver has no such maps.
cudaError_t map_tiles(const void* data, int tiles, int tile_bytes, int copy_tiles, int copy_bytes,
                      TileMap& map) noexcept;

}  // namespace specdec::kernels::cuda
