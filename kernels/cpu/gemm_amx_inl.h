#pragma once

// Quantised products of whole panels on AMX tiles; after gemm_inl.h over simd_avx512.h.
//
// A tile register multiplies 8 activation rows x 32 columns by 32 columns x 16 weight rows: the
// exact 32-bit dot products of one group. What follows is done as in gemm_inl.h, one operation for
// one operation, so the bits are those of the AVX-512 kernels.

#include "kernels/cpu/kernel_table.h"

namespace specdec::kernels {
namespace {

constexpr int kMaxPanels = 16;     // rows of one call / kPanelRows: see CpuOps::multiply
constexpr int kStepsAtOnce = 32;   // groups whose weights wait as bytes, in the first-level cache
constexpr int kGroupBytes = 512;   // 32 columns of 16 weight rows
constexpr int kTilesInFlight = 4;  // accumulator registers
constexpr int kPanelDots = kPanelRows * kTile;

/// Palette 1 of Intel's SDM, volume 1, section 18: rows and bytes per row of each register.
struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {};
  std::uint8_t rows[16] = {};
};

/// Registers 0 to 3: dot products [8 rows][16]. 4 and 5: activations [8 rows][32 columns]. 6 and 7:
/// weights [8][16 rows][4 columns].
inline void configure_tiles() {
  TileConfig config;
  for (int i = 0; i < 8; ++i) {
    config.rows[i] = 8;
    config.row_bytes[i] = i == 4 || i == 5 ? 32 : 64;
  }
  _tile_loadconfig(&config);
}

/// The weights of one group as unsigned bytes, four columns of each row beside each other.
template <DataType type>
inline void expand_group(const std::byte* step, std::byte* out) {
  if constexpr (type == DataType::q8_0) {
    for (int j = 0; j < 8; ++j) {
      _mm512_store_si512(out + 64 * j, load_bytes(step + 32 + 64 * j));
    }
  } else {
    constexpr int scale_bytes = type == DataType::q4_1 ? 64 : 32;
    for (int j = 0; j < 4; ++j) {
      const I both = load_bytes(step + scale_bytes + 64 * j);
      _mm512_store_si512(out + 64 * j, low_nibbles(both));
      _mm512_store_si512(out + 64 * (4 + j), high_nibbles(both));
    }
  }
}

/// dots[i] = group i of the panel, for kTilesInFlight groups; `group` at the first row of each.
inline void multiply_groups(const ActivationGroup* group, const std::byte* weights,
                            std::int32_t* dots) {
  constexpr std::size_t stride = sizeof(ActivationGroup);
  _tile_zero(0);
  _tile_loadd(4, group, stride);
  _tile_loadd(6, weights, 64);
  _tile_dpbsud(0, 4, 6);
  _tile_zero(1);
  _tile_loadd(5, group + kPanelRows, stride);
  _tile_loadd(7, weights + kGroupBytes, 64);
  _tile_dpbsud(1, 5, 7);
  _tile_zero(2);
  _tile_loadd(4, group + 2 * kPanelRows, stride);
  _tile_loadd(6, weights + 2 * kGroupBytes, 64);
  _tile_dpbsud(2, 4, 6);
  _tile_zero(3);
  _tile_loadd(5, group + 3 * kPanelRows, stride);
  _tile_loadd(7, weights + 3 * kGroupBytes, 64);
  _tile_dpbsud(3, 5, 7);
  _tile_stored(0, dots, 64);
  _tile_stored(1, dots + kPanelDots, 64);
  _tile_stored(2, dots + 2 * kPanelDots, 64);
  _tile_stored(3, dots + 3 * kPanelDots, 64);
}

/// The same for one group.
inline void multiply_group(const ActivationGroup* group, const std::byte* weights,
                           std::int32_t* dots) {
  _tile_zero(0);
  _tile_loadd(4, group, sizeof(ActivationGroup));
  _tile_loadd(6, weights, 64);
  _tile_dpbsud(0, 4, 6);
  _tile_stored(0, dots, 64);
}

/// f[t] = fma(dw * dx, dot, f[t]) and, for q4_1, the minimum's part: what nibble_tile and byte_tile
/// do with a group's dot products.
template <DataType type>
inline void add_group(const std::byte* step, const ActivationGroup* group, const std::int32_t* dots,
                      F* f) {
  const F d = load_f16(step);
  SPECDEC_UNROLL
  for (int t = 0; t < kPanelRows; ++t) {
    I dot = _mm512_load_si512(dots + kTile * t);
    if constexpr (type == DataType::q4_0) {
      dot = _mm512_add_epi32(dot, _mm512_set1_epi32(group[t].q4_bias));
    }
    if constexpr (type == DataType::q8_0) {
      dot = _mm512_add_epi32(dot, _mm512_set1_epi32(group[t].q8_bias));
    }
    f[t] = fma(mul(d, set1(group[t].d)), _mm512_cvtepi32_ps(dot), f[t]);
  }
  if constexpr (type == DataType::q4_1) {
    const F m = load_f16(step + 32);
    SPECDEC_UNROLL
    for (int t = 0; t < kPanelRows; ++t) f[t] = fma(m, set1(group[t].d_sum), f[t]);
  }
}

/// y[panel][8][16] of one weight tile against whole panels from `row_begin` on.
template <DataType type>
void amx_product(const GemmJob& job, int tile, int row_begin, int panels, float* y) {
  constexpr int step_size = type == DataType::q8_0 ? 544 : type == DataType::q4_1 ? 320 : 288;
  alignas(64) std::byte weights[kStepsAtOnce * kGroupBytes];
  alignas(64) std::int32_t dots[kTilesInFlight * kPanelDots];
  const std::byte* steps = job.weights + static_cast<std::size_t>(tile) * job.tile_bytes;
  const auto* activations =
      static_cast<const ActivationGroup*>(job.activations) +
      static_cast<std::size_t>(row_begin) * static_cast<std::size_t>(job.steps);
  for (int begin = 0; begin < job.steps; begin += kStepsAtOnce, steps += kStepsAtOnce * step_size) {
    const int count = job.steps - begin < kStepsAtOnce ? job.steps - begin : kStepsAtOnce;
    for (int s = 0; s < count; ++s) {
      prefetch(steps + (s + 20) * step_size, (step_size + 63) / 64);
      expand_group<type>(steps + s * step_size, weights + s * kGroupBytes);
    }
    for (int p = 0; p < panels; ++p) {
      const ActivationGroup* group =
          activations + (static_cast<std::size_t>(p) * static_cast<std::size_t>(job.steps) +
                         static_cast<std::size_t>(begin)) *
                            kPanelRows;
      float* out = y + p * kPanelDots;
      F f[kPanelRows];
      SPECDEC_UNROLL
      for (int t = 0; t < kPanelRows; ++t) f[t] = begin == 0 ? zero() : load(out + kTile * t);
      int s = 0;
      for (; s + kTilesInFlight <= count;
           s += kTilesInFlight, group += kTilesInFlight * kPanelRows) {
        multiply_groups(group, weights + s * kGroupBytes, dots);
        SPECDEC_UNROLL
        for (int i = 0; i < kTilesInFlight; ++i) {
          add_group<type>(steps + (s + i) * step_size, group + i * kPanelRows,
                          dots + i * kPanelDots, f);
        }
      }
      for (; s < count; ++s, group += kPanelRows) {
        multiply_group(group, weights + s * kGroupBytes, dots);
        add_group<type>(steps + s * step_size, group, dots, f);
      }
      SPECDEC_UNROLL
      for (int t = 0; t < kPanelRows; ++t) store(out + kTile * t, f[t]);
    }
  }
}

template <DataType type>
void amx_panels(const GemmJob& job, int tile_begin, int tile_end, int row_begin, int panels) {
  constexpr int kFloats = kMaxPanels * kPanelDots;
  alignas(64) float y[2 * kFloats];
  alignas(64) float up[kFloats];
  const int tiles = job.groups == nullptr ? 1 : 2;
  for (int tile = tile_begin; tile < tile_end; tile += tiles) {
    for (int i = 0; i < tiles; ++i) {
      amx_product<type>(job, tile + i, row_begin, panels, y + i * kFloats);
      if (job.epilogue != Epilogue::silu_mul) continue;
      amx_product<type>(job, tile + i + job.pair_tiles, row_begin, panels, up);
      silu_mul_tile(y + i * kFloats, up, y + i * kFloats, panels * kPanelDots);
    }
    for (int p = 0; p < panels; ++p) {
      const int row = row_begin + p * kPanelRows;
      if (job.groups == nullptr) {
        write_tile<kPanelRows>(job, tile, row, y + p * kPanelDots);
      } else {
        write_groups<kPanelRows>(job, tile, row, y + p * kPanelDots, kFloats);
      }
    }
  }
}

/// Whole panels of quantised products on tiles, everything else as on AVX-512.
void gemm_amx(const GemmJob& job, int tile_begin, int tile_end, int row_begin, int row_end) {
  const bool quantised =
      job.type == DataType::q8_0 || job.type == DataType::q4_0 || job.type == DataType::q4_1;
  const int panels = quantised ? (row_end - row_begin) / kPanelRows : 0;
  if (panels > 0) {
    configure_tiles();
    for (int first = 0; first < panels; first += kMaxPanels) {
      const int count = panels - first < kMaxPanels ? panels - first : kMaxPanels;
      const int row = row_begin + first * kPanelRows;
      if (job.type == DataType::q8_0) {
        amx_panels<DataType::q8_0>(job, tile_begin, tile_end, row, count);
      } else if (job.type == DataType::q4_0) {
        amx_panels<DataType::q4_0>(job, tile_begin, tile_end, row, count);
      } else {
        amx_panels<DataType::q4_1>(job, tile_begin, tile_end, row, count);
      }
    }
    _tile_release();
  }
  const int rest = row_begin + panels * kPanelRows;
  if (rest < row_end) gemm(job, tile_begin, tile_end, rest, row_end);
}

}  // namespace
}  // namespace specdec::kernels
