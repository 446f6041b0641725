#pragma once

// Quantised and float matrix products for any vector width; after simd_*.h, math_inl.h, rows_inl.h.
//
// Lanes are output rows and the loop over k ascends: every output element is one chain of
// f = fma(dw * dx, dot32, f) over the groups, whatever the panel's width.

#include "kernels/cpu/kernel_table.h"

namespace specdec::kernels {
namespace {

constexpr int kTile = 16;
/// Panels of at most so many rows take a gate and an up tile at a time.
constexpr int kPairRows = 6;

// Weights are fetched 20 (nibbles) or 12 (bytes) groups ahead, into the second-level cache:
// measured on Zen 4, 10 to 20 % faster than 6 and 4 ahead into the first level, for 1 and for 6
// rows.
inline void prefetch(const std::byte* at, int lines) {
  for (int i = 0; i < lines; ++i) {
    _mm_prefetch(reinterpret_cast<const char*>(at + 64 * i), _MM_HINT_T1);
  }
}

/// out[i][t][0..16) for T tiles, `apart` bytes from each other, and the R rows of a panel.
template <DataType type, int R, int T>
inline void nibble_tiles(const std::byte* tile, std::ptrdiff_t apart, int steps,
                         const ActivationGroup* x, float* out) {
  constexpr bool has_min = type == DataType::q4_1;
  constexpr int scale_bytes = has_min ? 64 : 32;
  constexpr int step_size = scale_bytes + 256;
  constexpr int vector_bytes = 4 * kLanes;
  for (int half = 0; half < kTile / kLanes; ++half) {
    F f[T][R];
    for (int i = 0; i < T; ++i)
      for (int t = 0; t < R; ++t) f[i][t] = zero();
    const std::byte* step = tile;
    const ActivationGroup* group = x;
    for (int s = 0; s < steps; ++s, step += step_size, group += R) {
      NibbleDot dot[T][R];
      SPECDEC_UNROLL
      for (int i = 0; i < T; ++i) {
        if (half == 0) prefetch(step + i * apart + 20 * step_size, (step_size + 63) / 64);
        SPECDEC_UNROLL
        for (int t = 0; t < R; ++t) dot[i][t].start(has_min ? 0 : group[t].q4_bias);
      }
      SPECDEC_UNROLL
      for (int j = 0; j < 4; ++j) {
        I low[T];
        I high[T];
        SPECDEC_UNROLL
        for (int i = 0; i < T; ++i) {
          const I both = load_bytes(step + i * apart + scale_bytes + 64 * j + half * vector_bytes);
          low[i] = low_nibbles(both);
          high[i] = high_nibbles(both);
        }
        SPECDEC_UNROLL
        for (int t = 0; t < R; ++t) {
          const I x_low = broadcast_4(group[t].q + 4 * j);
          SPECDEC_UNROLL
          for (int i = 0; i < T; ++i) dot[i][t].step(low[i], x_low);
          const I x_high = broadcast_4(group[t].q + 16 + 4 * j);
          SPECDEC_UNROLL
          for (int i = 0; i < T; ++i) dot[i][t].step(high[i], x_high);
        }
      }
      SPECDEC_UNROLL
      for (int i = 0; i < T; ++i) {
        const std::byte* scales = step + i * apart + 2 * kLanes * half;
        const F d = load_f16(scales);
        SPECDEC_UNROLL
        for (int t = 0; t < R; ++t)
          f[i][t] = fma(mul(d, set1(group[t].d)), dot[i][t].finish(), f[i][t]);
        if constexpr (has_min) {
          const F m = load_f16(scales + 32);
          SPECDEC_UNROLL
          for (int t = 0; t < R; ++t) f[i][t] = fma(m, set1(group[t].d_sum), f[i][t]);
        }
      }
    }
    for (int i = 0; i < T; ++i)
      for (int t = 0; t < R; ++t) store(out + kTile * (R * i + t) + kLanes * half, f[i][t]);
  }
}

template <int R>
inline void byte_tile(const std::byte* tile, int steps, const ActivationGroup* x, float* out) {
  constexpr int step_size = 32 + 512;
  constexpr int vector_bytes = 4 * kLanes;
  for (int half = 0; half < kTile / kLanes; ++half) {
    F f[R];
    for (int t = 0; t < R; ++t) f[t] = zero();
    const std::byte* step = tile;
    const ActivationGroup* group = x;
    for (int s = 0; s < steps; ++s, step += step_size, group += R) {
      if (half == 0) prefetch(step + 12 * step_size, (step_size + 63) / 64);
      ByteDot dot[R];
      SPECDEC_UNROLL
      for (int t = 0; t < R; ++t) dot[t].start(group[t].q8_bias);
      SPECDEC_UNROLL
      for (int j = 0; j < 8; ++j) {
        const I w = ByteDot::prepare(load_bytes(step + 32 + 64 * j + half * vector_bytes));
        SPECDEC_UNROLL
        for (int t = 0; t < R; ++t) dot[t].step(w, broadcast_4(group[t].q + 4 * j));
      }
      const F d = load_f16(step + 2 * kLanes * half);
      SPECDEC_UNROLL
      for (int t = 0; t < R; ++t) f[t] = fma(mul(d, set1(group[t].d)), dot[t].finish(), f[t]);
    }
    for (int t = 0; t < R; ++t) store(out + kTile * t + kLanes * half, f[t]);
  }
}

template <DataType type, int R>
inline void float_tile(const std::byte* tile, int steps, const float* x, float* out) {
  constexpr int element = type == DataType::f32 ? 4 : 2;
  constexpr int step_size = kTile * element;
  for (int half = 0; half < kTile / kLanes; ++half) {
    F f[R];
    for (int t = 0; t < R; ++t) f[t] = zero();
    const std::byte* step = tile + half * kLanes * element;
    for (int s = 0; s < steps; ++s, step += step_size, x += R) {
      if (half == 0) prefetch(step + 4096, 1);
      F w;
      if constexpr (type == DataType::f32) {
        w = load(reinterpret_cast<const float*>(step));
      } else if constexpr (type == DataType::f16) {
        w = load_f16(step);
      } else {
        w = load_bf16(step);
      }
      SPECDEC_UNROLL
      for (int t = 0; t < R; ++t) f[t] = fma(w, set1(x[t]), f[t]);
    }
    for (int t = 0; t < R; ++t) store(out + kTile * t + kLanes * half, f[t]);
    x -= static_cast<std::ptrdiff_t>(steps) * R;
  }
}

template <DataType type, int R>
inline void tile_product(const GemmJob& job, int tile, int row, float* out) {
  const std::byte* weights = job.weights + static_cast<std::size_t>(tile) * job.tile_bytes;
  const std::size_t at = static_cast<std::size_t>(row) * static_cast<std::size_t>(job.steps);
  if constexpr (type == DataType::q8_0) {
    byte_tile<R>(weights, job.steps, static_cast<const ActivationGroup*>(job.activations) + at,
                 out);
  } else if constexpr (type == DataType::q4_0 || type == DataType::q4_1) {
    nibble_tiles<type, R, 1>(weights, 0, job.steps,
                             static_cast<const ActivationGroup*>(job.activations) + at, out);
  } else {
    float_tile<type, R>(weights, job.steps, static_cast<const float*>(job.activations) + at, out);
  }
}

/// Writes y[R][16], the products of one tile, to the rows from `row` on.
template <int R>
inline void write_tile(const GemmJob& job, int tile, int row, const float* y) {
  const int columns = job.out_cols - kTile * tile;
  float* out = job.out + static_cast<std::size_t>(row) * static_cast<std::size_t>(job.out_cols) +
               kTile * tile;
  for (int t = 0; t < R; ++t, out += job.out_cols) {
    for (int i = 0; i < kTile; i += kLanes) {
      F v = load(y + t * kTile + i);
      if (job.epilogue == Epilogue::add) v = add(load_first(out + i, columns - i, 0.0f), v);
      store_first(out + i, columns - i, v);
    }
  }
}

inline void silu_mul_tile(const float* gate, const float* up, float* out, int floats) {
  for (int i = 0; i < floats; i += kLanes) {
    store(out + i, silu_mul(load(gate + i), load(up + i)));
  }
}

/// Writes y[2][stride], the R rows of two tiles, as the activations of the rows from `row` on.
template <int R>
inline void write_groups(const GemmJob& job, int tile, int row, const float* y, int stride) {
  const std::ptrdiff_t steps = job.out_cols / kGroup;
  ActivationGroup* out = job.groups + row * steps + static_cast<std::ptrdiff_t>(tile / 2) * R;
  for (int t = 0; t < R; ++t) {
    F v[kGroupVectors];
    for (int i = 0; i < kGroupVectors; ++i) {
      const int c = i * kLanes;
      v[i] = load(y + c / kTile * stride + t * kTile + c % kTile);
    }
    quantise_group(v, out + t);
  }
}

/// y[R][16] = silu(gate) * up of one tile.
template <DataType type, int R>
inline void silu_product(const GemmJob& job, int tile, int row, float* y) {
  alignas(64) float products[2 * R * kTile];
  // Two tiles at a time load the activations once for both. Wider panels would spill.
  if constexpr ((type == DataType::q4_0 || type == DataType::q4_1) && kVectorRegisters == 32 &&
                R <= kPairRows) {
    const auto bytes = static_cast<std::ptrdiff_t>(job.tile_bytes);
    const auto* x = static_cast<const ActivationGroup*>(job.activations) +
                    static_cast<std::ptrdiff_t>(row) * job.steps;
    nibble_tiles<type, R, 2>(job.weights + tile * bytes, job.pair_tiles * bytes, job.steps, x,
                             products);
  } else {
    tile_product<type, R>(job, tile, row, products);
    tile_product<type, R>(job, tile + job.pair_tiles, row, products + R * kTile);
  }
  silu_mul_tile(products, products + R * kTile, y, R * kTile);
}

/// One tile, or the two that make groups, against the panel that starts at `row`.
template <DataType type, int R>
void tile_panel(const GemmJob& job, int tile, int row) {
  alignas(64) float y[2 * R * kTile];
  if (job.epilogue != Epilogue::silu_mul) {
    tile_product<type, R>(job, tile, row, y);
    write_tile<R>(job, tile, row, y);
    return;
  }
  silu_product<type, R>(job, tile, row, y);
  if (job.groups == nullptr) {
    write_tile<R>(job, tile, row, y);
    return;
  }
  silu_product<type, R>(job, tile + 1, row, y + R * kTile);
  write_groups<R>(job, tile, row, y, R * kTile);
}

template <DataType type>
void gemm_typed(const GemmJob& job, int tile_begin, int tile_end, int row_begin, int row_end) {
  const int tiles = job.groups == nullptr ? 1 : 2;
  for (int tile = tile_begin; tile < tile_end; tile += tiles) {
    for (int row = row_begin; row < row_end; row += kPanelRows) {
      switch (row_end - row) {
        case 1:
          tile_panel<type, 1>(job, tile, row);
          break;
        case 2:
          tile_panel<type, 2>(job, tile, row);
          break;
        case 3:
          tile_panel<type, 3>(job, tile, row);
          break;
        case 4:
          tile_panel<type, 4>(job, tile, row);
          break;
        case 5:
          tile_panel<type, 5>(job, tile, row);
          break;
        case 6:
          tile_panel<type, 6>(job, tile, row);
          break;
        case 7:
          tile_panel<type, 7>(job, tile, row);
          break;
        default:
          tile_panel<type, 8>(job, tile, row);
          break;
      }
    }
  }
}

void gemm(const GemmJob& job, int tile_begin, int tile_end, int row_begin, int row_end) {
  switch (job.type) {
    case DataType::f32:
      return gemm_typed<DataType::f32>(job, tile_begin, tile_end, row_begin, row_end);
    case DataType::f16:
      return gemm_typed<DataType::f16>(job, tile_begin, tile_end, row_begin, row_end);
    case DataType::bf16:
      return gemm_typed<DataType::bf16>(job, tile_begin, tile_end, row_begin, row_end);
    case DataType::q8_0:
      return gemm_typed<DataType::q8_0>(job, tile_begin, tile_end, row_begin, row_end);
    case DataType::q4_0:
      return gemm_typed<DataType::q4_0>(job, tile_begin, tile_end, row_begin, row_end);
    case DataType::q4_1:
      return gemm_typed<DataType::q4_1>(job, tile_begin, tile_end, row_begin, row_end);
  }
}

}  // namespace
}  // namespace specdec::kernels
