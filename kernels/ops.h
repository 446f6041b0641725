#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

/// The contract that every backend fulfils: one params struct per fused operation, with shapes.
///
/// Row invariance holds for all of them: row i of an output is a bitwise function of row i's
/// inputs, whatever other rows ride along and however many threads run. Sums over k run in one
/// fixed order that depends on the weight matrix alone.
namespace specdec::kernels {

namespace cuda {
struct DeviceBatch;
}

enum class DataType : std::uint8_t { f32, f16, bf16, q8_0, q4_0, q4_1 };

/// A weight matrix [rows, cols] in a backend's packed layout; y = W x has `rows` outputs.
struct PackedMatrix {
  DataType type = DataType::f32;
  int rows = 0;
  int cols = 0;
  const void* data = nullptr;
  /// Rows i and i + pair_distance of each 2 * pair_distance rows are used together (the halves of a
  /// rotated head, gate and up); 0: none are. A backend may lay them side by side.
  int pair_distance = 0;
  /// Of floats on a GPU: products have float32's accuracy, not TF32's.
  bool full_precision = false;
};

/// Bytes of one K or V value in a pool of that type (f16 or f32).
constexpr std::size_t kv_element_bytes(DataType type) { return type == DataType::f32 ? 4 : 2; }

/// One layer of one model's KV pool. A block is `block_size` positions of one sequence.
///   keys   [num_blocks][num_kv_heads][head_dim][block_size]   a SIMD lane is a position
///   values [num_blocks][num_kv_heads][block_size][head_dim]
/// On a GPU the two are the other way round: a thread loads 8 dimensions of a key, 8 positions of a
/// value, as the tensor cores want them.
struct KvLayer {
  void* keys = nullptr;
  void* values = nullptr;
  DataType type = DataType::f16;  // f16 or f32
  int num_kv_heads = 0;
  int head_dim = 0;
  int block_size = 0;
};

/// The rows of one sequence inside a ragged batch.
///
/// Positions [0, context_len) are committed: position t lies in slot t (block_table[t /
/// block_size], t % block_size). A row at position t sees positions 0..t of its own path, itself
/// included. If path_offsets[row] < 0, slot = position all the way (prefill, plain decoding, a
/// chain). Else the slots of positions context_len..t are path_slots[path_offsets[row] + (position
/// - context_len)]: the row's ancestors in a draft tree, wherever their KV lies. Keys are always
/// visited in order of absolute position, so a tree node has the bits that plain decoding would
/// give it.
struct SequenceRows {
  int row_begin = 0;
  int num_rows = 0;
  int context_len = 0;
  const std::int32_t* block_table = nullptr;
  int num_blocks = 0;  // entries of block_table (for backends that copy it)
};

struct BatchView {
  int num_rows = 0;
  const std::int32_t* positions = nullptr;  // [num_rows] absolute position, for RoPE and attention
  const std::int32_t* slots = nullptr;      // [num_rows] where the row's own K and V are written
  const std::int32_t* path_offsets = nullptr;  // [num_rows] see SequenceRows
  const std::int32_t* path_slots = nullptr;    // concatenated paths
  std::span<const SequenceRows> sequences;     // cover all rows, in order
  const std::int32_t* tokens = nullptr;        // [num_rows]
  int num_outputs = 0;
  const std::int32_t* output_rows = nullptr;  // [num_outputs] rows that want logits, ascending
  const cuda::DeviceBatch* device = nullptr;  // the same on a GPU, once its backend staged it
};

/// out[r] = table[tokens[r]], dequantised.
struct EmbedRowsParams {
  int num_rows = 0;
  const std::int32_t* tokens = nullptr;  // [num_rows]
  PackedMatrix table;                    // [vocab, hidden]
  float* out = nullptr;                  // [num_rows, hidden]
};

/// q, k, v = RoPE(W_qkv * rms_norm(x)); k and v go to the rows' slots, q to `q`. RoPE in the halves
/// layout: (i, i + d/2). Without norm_weight, x is taken as it is.
struct NormQkvRopeAppendParams {
  BatchView batch;
  const float* x = nullptr;            // [num_rows, hidden]
  DataType x_type = DataType::f32;     // f32 if there is a norm; see ProjectResidualParams::in_type
  const float* norm_weight = nullptr;  // [hidden]; null: no norm
  float norm_eps = 0;
  PackedMatrix qkv;  // [(num_heads + 2 * num_kv_heads) * head_dim, hidden]: q rows, k rows, v rows
  int num_heads = 0;
  const float* rope_cos = nullptr;  // [positions, head_dim / 2]: the batch's positions pick rows
  const float* rope_sin = nullptr;  // [positions, head_dim / 2]
  KvLayer kv;
  float* q = nullptr;  // [num_rows, num_heads, head_dim]
};

/// out = softmax(scale * q k^T) v over each row's path. Head h reads KV head h / (num_heads /
/// num_kv_heads).
struct TreeAttentionParams {
  BatchView batch;
  const float* q = nullptr;  // [num_rows, num_heads, head_dim]
  int num_heads = 0;
  float scale = 0;
  KvLayer kv;
  float* out = nullptr;               // [num_rows, num_heads * head_dim]
  DataType out_type = DataType::f32;  // see ProjectResidualParams::in_type
  /// Positions below it get weight 0 (an EAGLE head has no entry at position 0); what their slots
  /// hold must be finite. At most 127 and at most the position of any row.
  int first_position = 0;
};

/// out = W * in
struct ProjectParams {
  int num_rows = 0;
  const float* in = nullptr;  // [num_rows, weight.cols]
  PackedMatrix weight;
  float* out = nullptr;  // [num_rows, weight.rows]
};

/// x += W * in
struct ProjectResidualParams {
  int num_rows = 0;
  const float* in = nullptr;  // [num_rows, weight.cols]
  PackedMatrix weight;        // [hidden, weight.cols]
  float* x = nullptr;         // [num_rows, hidden]
  /// What `in` holds: floats (f32), or what the op before wrote when its out_type was the backend's
  /// operand_type(weight): on a GPU operand tiles (kernels/cuda/operand.h).
  DataType in_type = DataType::f32;
};

/// out = silu(gate) * up with (gate, up) = W * rms_norm(x)
struct NormGateUpParams {
  int num_rows = 0;
  const float* x = nullptr;            // [num_rows, hidden]
  const float* norm_weight = nullptr;  // [hidden]
  float norm_eps = 0;
  PackedMatrix gate_up;               // [2 * ffn, hidden]: gate rows, then up rows
  float* out = nullptr;               // [num_rows, ffn]
  DataType out_type = DataType::f32;  // see ProjectResidualParams::in_type
};

/// logits[i] = W * rms_norm(x[row_ids[i]])
struct NormHeadParams {
  int num_outputs = 0;
  const std::int32_t* row_ids = nullptr;  // [num_outputs]
  const float* x = nullptr;               // [num_rows, hidden]
  const float* norm_weight = nullptr;     // [hidden]
  float norm_eps = 0;
  PackedMatrix head;        // [vocab, hidden]
  float* logits = nullptr;  // [num_outputs, vocab]
};

/// out[r] = rms_norm(table[tokens[r]]) followed by rms_norm(states[state_rows[r]]): what an EAGLE
/// head attends with.
struct JoinEntriesParams {
  int num_rows = 0;
  const std::int32_t* tokens = nullptr;      // [num_rows]
  PackedMatrix table = {};                   // [vocab, hidden]
  const float* states = nullptr;             // [rows, hidden]
  const std::int32_t* state_rows = nullptr;  // [num_rows]; null: 0, 1, ...
  const float* token_norm_weight = nullptr;  // [hidden]
  const float* state_norm_weight = nullptr;  // [hidden]
  float norm_eps = 0;
  float* out = nullptr;          // [num_rows, 2 * hidden]
  float* residual = nullptr;     // [num_rows, hidden]: the states once more; `states` itself only
                                 // without state_rows; null: not wanted
  bool normed_residual = false;  // ... as they are joined
  DataType out_type = DataType::f32;  // of `out`; see ProjectResidualParams::in_type
};

/// destination[destination_rows[i]] = source[source_rows[i]] for rows of `cols` floats; null row
/// ids stand for 0, 1, ... The two do not overlap. Row ids are host memory, read before the call
/// returns; a destination is given once.
struct CopyRowsParams {
  int num_rows = 0;
  int cols = 0;
  const float* source = nullptr;
  const std::int32_t* source_rows = nullptr;
  float* destination = nullptr;
  const std::int32_t* destination_rows = nullptr;
};

/// Copies K and V between slots of one sequence, in the order given (a destination may be a later
/// source's neighbour, never a source still to be read).
struct KvMove {
  std::int32_t source_slot = 0;
  std::int32_t destination_slot = 0;
};
struct MoveKvParams {
  std::span<const KvLayer> layers;  // of one pool: all of one shape
  const std::int32_t* block_table = nullptr;
  std::span<const KvMove> moves;
};

}  // namespace specdec::kernels
