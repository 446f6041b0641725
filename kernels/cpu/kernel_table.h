#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

// What CpuOps calls in the files compiled per Isa: plain structs and function pointers. No inline
// functions and no library types here, so that nothing compiled for one Isa can be merged with
// another's.
namespace specdec::kernels {

/// Activation rows are processed in panels: the rows of a panel share each load of a weight.
inline constexpr int kPanelRows = 8;
/// Attention works through the context in units of 128 positions, aligned to absolute positions:
/// softmax and the sum over values are one pass inside a unit; units combine in ascending order.
inline constexpr int kUnit = 128;
/// Queries (row, head) of one KV head that attention takes at a time.
inline constexpr int kMaxQueries = 16;
inline constexpr int kMaxHeadDim = 256;

/// 32 activations of one row as int8: x = d * q, d = amax / 127 (as llama.cpp's q8_1).
struct ActivationGroup {
  std::int8_t q[32];
  float d;
  float d_sum;           // d * sum(q): what q4_1's minimum is multiplied by
  std::int32_t q4_bias;  // -8 * sum(q)
  std::int32_t q8_bias;  // -128 * sum(q)
};

// Activations of n rows lie panel by panel; a panel of r <= 8 rows is [steps][r], a step being an
// ActivationGroup for quantised weights and one float for float weights. What an operation leaves
// as DataType::q8_0 (ops.h: in_type) is that: groups in panels.

/// Normalises (when norm_weight is set) and lays out rows for gemm().
struct PrepareJob {
  const float* x = nullptr;               // [*, cols]
  const std::int32_t* row_ids = nullptr;  // [num_rows]; null: 0, 1, ...
  const float* norm_weight = nullptr;     // [cols]; null: no norm
  float norm_eps = 0;
  int num_rows = 0;
  int cols = 0;
  bool quantise = false;
  void* out = nullptr;
};

enum class Epilogue : std::uint8_t { store, add, silu_mul };

/// out = W x for ranges of tiles and rows; see packing.h for the weights' layout.
struct GemmJob {
  DataType type = DataType::f32;
  Epilogue epilogue = Epilogue::store;
  const std::byte* weights = nullptr;
  std::size_t tile_bytes = 0;
  int steps = 0;
  const void* activations = nullptr;
  int num_rows = 0;
  float* out = nullptr;  // [num_rows, out_cols]
  int out_cols = 0;
  int pair_tiles = 0;  // silu_mul: the up tile of gate tile t is t + pair_tiles
  /// silu_mul: results go here as activations, out_cols / 32 steps; null: to `out`. The ranges of
  /// tiles begin and end at even ones then: two tiles make a group.
  ActivationGroup* groups = nullptr;
};

/// RoPE and the KV append for heads of one row of W_qkv x: those of q, of k, then of v.
struct RopeAppendJob {
  int head_begin = 0;
  int head_end = 0;            // at most num_heads + 2 * kv.num_kv_heads
  const float* qkv = nullptr;  // [(num_heads + 2 * num_kv_heads) * head_dim]
  const float* cosines = nullptr;
  const float* sines = nullptr;
  int num_heads = 0;
  KvLayer kv;
  int block = 0;
  int offset = 0;
  float* q = nullptr;  // [num_heads * head_dim]
};

/// Keys or values of one KV head: blocks [i] hold positions [i * block_size, ...) of the unit.
struct KvUnit {
  DataType type = DataType::f16;
  int head_dim = 0;
  int block_size = 0;
  const void* const* blocks = nullptr;
  /// What will be read next, block for block: brought into the cache on the way; null: nothing.
  const void* const* next_blocks = nullptr;
};

/// The functions of one Isa. All are pure: outputs are bitwise functions of each row's inputs.
struct KernelTable {
  void (*prepare)(const PrepareJob&, int row_begin, int row_end);
  /// out[i * stride] = x[32 * i .. 32 * i + 32), i < groups.
  void (*quantise)(const float* x, int groups, ActivationGroup* out, int stride);
  /// row_begin is a multiple of kPanelRows; row_end too, or num_rows.
  void (*gemm)(const GemmJob&, int tile_begin, int tile_end, int row_begin, int row_end);
  /// out = x / rms(x) * weight; out may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, int cols, float* out);
  /// out[i] = silu(gate[i]) * up[i]
  void (*silu_mul)(const float* gate, const float* up, float* out, int count);
  void (*rope_append)(const RopeAppendJob&);

  /// scores[i][p] = q[i] . k[p] for unit positions [begin, end), begin a multiple of 16 that starts
  /// a block; writes up to the next multiple of 16 past end. q [queries][head_dim], scores
  /// [queries][kUnit].
  void (*scores)(const KvUnit& keys, int begin, int end, const float* q, int queries,
                 float* scores);
  /// Turns scores [queries][kUnit] in log2 units into weights 2^(score - top), 0 from counts[i] on;
  /// counts[i] >= 1.
  void (*softmax)(float* scores, int queries, const int* counts, float* top, float* sum);
  /// out[i] += sum over positions [begin, min(end, counts[i])) of weights[i][p] * v[p], ascending.
  /// begin starts a block. out [queries][head_dim].
  void (*weigh)(const KvUnit& values, int begin, int end, const float* weights, int queries,
                const int* counts, float* out);
  /// Folds one unit's partial result into the running one.
  void (*combine)(int queries, int head_dim, const float* top, const float* sum, const float* out,
                  float* running_top, float* running_sum, float* running_out);
  /// out[i] = in[i] / divisor
  void (*divide)(const float* in, float divisor, float* out, int count);
};

const KernelTable& avx2_kernels() noexcept;
const KernelTable& avx512_kernels() noexcept;
const KernelTable& amx_kernels() noexcept;

}  // namespace specdec::kernels
