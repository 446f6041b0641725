#pragma once

#include "kernels/cuda/batch.h"
#include "kernels/cuda/launch.h"
#include "kernels/ops.h"

namespace specdec::kernels::cuda {

/// What becomes of a product's sums.
enum class ProductOutput : std::uint8_t {
  add,    // out[token, row] += sum
  store,  // out[token, row] = sum
  gated,  // operand[token, i] = silu(sum[i]) * sum[i + rows / 2]
  qkv,    // heads rotated, q[token, row] = sum, keys and values to their slots
};

/// rms_norm(x[row]) * weight.
struct NormedRows {
  const float* x = nullptr;               // [rows, cols]
  const std::int32_t* row_ids = nullptr;  // [num_tokens] rows of x; null: 0, 1, ..
  const float* norm_weight = nullptr;     // [cols]
  float norm_eps = 0;
};

/// y = W x for `num_tokens` tokens. Every sum is a float accumulator that runs over the columns in
/// ascending steps of 16 (two mma steps a unit; of float32 weights 8, four a unit), whatever the
/// number of tokens: the k-order rule. With two chains one runs over the even steps and one over
/// the odd ones, and in the end they are added.
struct Product {
  PackedMatrix weight;
  /// Operand of weight.cols columns, in operand_type(weight); where that is f32, of TF32, or of
  /// floats as they are if the weight is of full precision.
  const std::byte* tokens = nullptr;
  int num_tokens = 0;
  /// With norm_weight set: these, normalised by the product itself, in the place of `tokens`.
  NormedRows normed;

  ProductOutput output = ProductOutput::store;
  float* out = nullptr;          // add, store: [num_tokens, weight.rows]
  std::byte* operand = nullptr;  // gated
  DataType gated_type =
      DataType::f16;  // of that operand; f32: floats [num_tokens, weight.rows / 2]

  // qkv
  DeviceBatch batch;
  KvLayer kv;
  int num_heads = 0;
  float* q = nullptr;  // [num_tokens, num_heads, head_dim]
  const float* rope_cos = nullptr;
  const float* rope_sin = nullptr;
};

/// Chains of a product's sums, by the matrix alone: two where so few warps have a share of it that
/// they wait for one step after the other and not for memory; one where the wide kernel's smaller
/// blocks (half as many tokens) would cost more than that, and of float32.
int num_chains(const PackedMatrix& weight) noexcept;

/// How the work is cut. Never shows in the bits; autotuned shapes stand in product_schedule.cc.
struct ProductSchedule {
  int tiles = 2;         // weight tiles that a block works on at a time
  int token_warps = 1;   // warps that share a weight tile
  int tiles_a_warp = 1;  // token tiles of a warp: 1, 2 or 4
  int chunk = 8;         // units of a stage
  int stages = 4;

  int token_tiles() const noexcept { return token_warps * tiles_a_warp; }
};
/// `spared`: bytes of shared memory that are left to another kernel's block.
ProductSchedule product_schedule(const PackedMatrix& weight, int num_tokens,
                                 const DeviceInfo& device, std::size_t spared = 0) noexcept;

cudaError_t multiply(const Product& product, const Launch& to);
inline constexpr int kMostNormedCols =
    1024;  // that a warp normalises; of more, a block does one row
/// Whether multiply() takes `normed` for so many tokens: each block then normalises all of them
/// again, which pays while they are few.
bool normalises(const PackedMatrix& weight, int num_tokens) noexcept;
/// The same, cut as `schedule` says (tests, tuning).
cudaError_t multiply(const Product& product, const ProductSchedule& schedule, const Launch& to);

}  // namespace specdec::kernels::cuda
