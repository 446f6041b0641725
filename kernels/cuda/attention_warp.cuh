#pragma once

#include "kernels/cuda/attention.cuh"

namespace specdec::kernels::cuda {

/// 16 bytes from global to shared memory; zeros where they are not `there`.
__device__ __forceinline__ void copy_async(uint4* to, const __half* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from),
               "r"(there ? 16 : 0)
               : "memory");
}
__device__ __forceinline__ void commit_copies() {
  asm volatile("cp.async.commit_group;" ::: "memory");
}
/// Until all but the last kPending groups are there.
template <int kPending>
__device__ __forceinline__ void wait_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

/// A warp's keys and values of 64 positions, as its lanes read them: keys [8 eights of positions]
/// [kChunks][32 lanes], values [kChunks * 4 dimension tiles][2 halves][32 lanes]. A lane reads only
/// what it wrote, at its own place modulo 32, so values may also take the place of the keys.
template <int kChunks>
struct KvStage {
  static constexpr int kPart = 8 * kChunks * 32;  // of keys, of values; 16 bytes each
  uint4* keys;
  uint4* values;

  __device__ uint4& key(int eight, int chunk, int lane) const {
    return keys[(eight * kChunks + chunk) * 32 + lane];
  }
  __device__ uint4& value(int d, int half, int lane) const {
    return values[(d * 2 + half) * 32 + lane];
  }
  __device__ bool tight() const { return keys == values; }
};

/// Two adjacent weights as one word. From 0 to 1: nothing to clamp.
__device__ __forceinline__ std::uint32_t weight_pair(float a, float b) {
  const __half2 pair = __floats2half2_rn(a, b);
  return reinterpret_cast<const std::uint32_t&>(pair);
}

/// Scores of kCount eights of positions, whose keys are key_at(eight, chunk); get_query(step, a)
/// has the queries' 16 dimensions of a step. Side by side: each is a chain of products that wait
/// for one another.
template <int kChunks, int kCount, class GetQuery, class KeyAt>
__device__ __forceinline__ void score_keys(GetQuery get_query, KeyAt key_at,
                                           float (&sums)[kCount][4]) {
#pragma unroll
  for (int n = 0; n < kCount; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[n][i] = 0.0f;
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    uint4 k[kCount];
#pragma unroll
    for (int n = 0; n < kCount; ++n) k[n] = key_at(n, chunk);
    std::uint32_t a[2][4];
    get_query(chunk * 2, a[0]);
    get_query(chunk * 2 + 1, a[1]);
#pragma unroll
    for (int n = 0; n < kCount; ++n) mma<__half>(sums[n], a[0], k[n].x, k[n].y);
#pragma unroll
    for (int n = 0; n < kCount; ++n) mma<__half>(sums[n], a[1], k[n].z, k[n].w);
  }
}

/// Weighted values of kCount dimension tiles, value_at(n, half), summed over 64 positions.
template <int kCount, class ValueAt>
__device__ __forceinline__ void weigh_values(const std::uint32_t (&weights)[4][4], ValueAt value_at,
                                             float (&sums)[kCount][4]) {
#pragma unroll
  for (int n = 0; n < kCount; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) sums[n][i] = 0.0f;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    uint4 v[kCount];
#pragma unroll
    for (int n = 0; n < kCount; ++n) v[n] = value_at(n, half);
#pragma unroll
    for (int n = 0; n < kCount; ++n) mma<__half>(sums[n], weights[half * 2], v[n].x, v[n].y);
#pragma unroll
    for (int n = 0; n < kCount; ++n) mma<__half>(sums[n], weights[half * 2 + 1], v[n].z, v[n].w);
  }
}

/// One warp's arithmetic. kChunks: the head size in 32s, rounded up; dimensions beyond the head
/// size are zeros. Within 32 dimensions (positions) the order of the mma's k index is permuted so
/// that a thread's share is 16 contiguous bytes, the same way in both operands.
template <int kChunks>
struct AttentionWarp {
  static constexpr int kDimTiles = kChunks * 4;

  const AttentionArgs& args;
  const QueryTile& tile;
  KvStage<kChunks> stage;
  int kv_head;
  int lane;
  std::uint32_t q[kChunks * 2][4];
  int first_token;  // of the queries, within the tile
  int end_token;
  int positions[2];  // of the thread's two rows; -1: no such row
  int tokens[2];     // their tokens within the tile

  __device__ AttentionWarp(const AttentionArgs& arguments, const QueryTile& queries,
                           KvStage<kChunks> own_stage, int head, int own_lane)
      : args(arguments), tile(queries), stage(own_stage), kv_head(head), lane(own_lane) {
    select(0);
  }

  /// From now on the queries are those of up to tile_tokens tokens from `first` on.
  __device__ void select(int first) {
    first_token = first;
    end_token = min(first + args.tile_tokens, tile.tokens);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      tokens[i] = first + args.group.quotient(lane / 4 + i * 8);
      positions[i] = tokens[i] < end_token ? args.batch.positions[tile.row + tokens[i]] : -1;
    }
  }

  __device__ void load_queries() {
    const int dim = args.kv.head_dim;
    float4 loaded[2][kChunks][2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane / 4 + i * 8;
      const bool valid = positions[i] >= 0;
      const int at_head = kv_head * args.group.value + args.group.remainder(row);
      const float* from =
          args.q +
          (static_cast<std::size_t>(tile.row + tokens[i]) * args.num_heads + at_head) * dim;
#pragma unroll
      for (int chunk = 0; chunk < kChunks; ++chunk) {
        const int first = chunk * 32 + lane % 4 * 8;
        const bool inside = valid && first < dim;
#pragma unroll
        for (int half = 0; half < 2; ++half)
          loaded[i][chunk][half] = inside
                                       ? *reinterpret_cast<const float4*>(from + first + half * 4)
                                       : float4{0.0f, 0.0f, 0.0f, 0.0f};
      }
    }
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk)
#pragma unroll
      for (int step = 0; step < 2; ++step)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const float4 v = loaded[i][chunk][step];
          q[chunk * 2 + step][i] = operand_pair<__half>(v.x, v.y);
          q[chunk * 2 + step][i + 2] = operand_pair<__half>(v.z, v.w);
        }
  }

  __device__ SlotMap map_of(int token, bool shared) const {
    if (shared) return {tile.table, nullptr, tile.context, tile.last};
    const int row = tile.row + token;
    const int offset = args.batch.path_offsets[row];
    return {tile.table, offset < 0 ? nullptr : args.batch.path_slots + offset, tile.context,
            args.batch.positions[row]};
  }

  __device__ std::int64_t block_base(const SlotMap& map, int slot) const {
    const int block = map.table[args.block.quotient(slot)];
    return static_cast<std::int64_t>(block * args.kv.num_kv_heads + kv_head) * args.block_elements;
  }

  /// Enqueues the copies of the keys of the 64 positions from `base` on, as `map` has them: each
  /// lane fetches what it will read back itself, so no other lane has to wait.
  __device__ void fetch_keys(const SlotMap& map, int base) const {
    const auto* keys = static_cast<const __half*>(args.kv.keys);
    const int dim = args.kv.head_dim;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int eight = base + half * 32 + lane / 8 * 8;  // 8 positions never straddle a block
      const bool by_path = map.path != nullptr && eight + 8 > map.context;
      const std::int64_t in_place = by_path || eight > map.limit ? 0 : block_base(map, eight);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        const int position = eight + n * 2 + lane / 4 % 2;
        const bool there = position <= map.limit;
        const int slot = there && by_path ? map.slot(position) : position;
        const __half* key = keys;
        if (there)
          key += (by_path ? block_base(map, slot) : in_place) + args.block.remainder(slot) * dim;
#pragma unroll
        for (int chunk = 0; chunk < kChunks; ++chunk) {
          const int first = chunk * 32 + lane % 4 * 8;
          copy_async(&stage.key(half * 4 + n, chunk, lane), key + first, there && first < dim);
        }
      }
    }
    commit_copies();
  }

  /// The same for values: dimension tile d, positions base + 32 half + 8 (lane % 4) .. + 7.
  __device__ void fetch_values(const SlotMap& map, int base) const {
    const auto* values = static_cast<const __half*>(args.kv.values);
    const int size = args.kv.block_size;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int first = base + half * 32 + lane % 4 * 8;
      const bool there = first <= map.limit;
      if (map.path == nullptr || first + 8 <= map.context) {
        const __half* value =
            values +
            (there ? block_base(map, first) + lane / 4 * size + args.block.remainder(first) : 0);
#pragma unroll
        for (int d = 0; d < kDimTiles; ++d)
          copy_async(&stage.value(d, half, lane), value + d * 8 * size,
                     there && d * 8 + lane / 4 < args.kv.head_dim);
        continue;
      }
#pragma unroll
      for (int d = 0; d < kDimTiles; ++d) stage.value(d, half, lane) = {0, 0, 0, 0};
      for (int i = 0; i < 8 && first + i <= map.limit; ++i) {
        const int slot = map.slot(first + i);
        const __half* value = values + block_base(map, slot) + lane / 4 * size + slot % size;
#pragma unroll
        for (int d = 0; d < kDimTiles; ++d)
          if (d * 8 + lane / 4 < args.kv.head_dim)
            reinterpret_cast<__half*>(&stage.value(d, half, lane))[i] = value[d * 8 * size];
      }
    }
    commit_copies();
  }

  /// Whether the tile's queries all find the 64 positions from `base` on in the same slots.
  __device__ bool is_shared(int base) const {
    return !tile.has_paths || base + kAttentionTile <= tile.context;
  }
  /// Starts the copies of a shared tile, keys first; in a tight stage the keys alone.
  __device__ void begin(int base) const {
    const SlotMap map = map_of(0, true);
    fetch_keys(map, base);
    if (stage.tight())
      commit_copies();
    else
      fetch_values(map, base);
  }

  /// Scores of kCount eights of positions, whose keys are key_at(eight, chunk).
  template <int kCount, class KeyAt>
  __device__ void score(KeyAt key_at, float (&sums)[kCount][4]) const {
    score_keys<kChunks>(
        [&](int step, std::uint32_t(&a)[4]) {
#pragma unroll
          for (int i = 0; i < 4; ++i) a[i] = q[step][i];
        },
        key_at, sums);
  }
  /// Scores of the stage's 64 positions.
  __device__ void score_stage(float (&sums)[8][4]) const {
    score([&](int n, int chunk) { return stage.key(n, chunk, lane); }, sums);
  }

  /// Turns scores of the 64 positions from `base` on into weights, in steps of 16 positions.
  /// kAllSeen: by every row (those that are none come to nothing anyway).
  template <bool kAllSeen = false>
  __device__ void softmax(int base, float (&scores)[8][4], RowState& state,
                          std::uint32_t (&weights)[4][4]) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float top = -INFINITY;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const int position = base + n / 4 * 32 + lane % 4 * 8 + n % 4 * 2 + e;
          float& score = scores[n][i * 2 + e];
          const bool seen =
              kAllSeen || (position <= positions[i] && position >= args.first_position);
          score = seen ? score * args.scale_log2 : -INFINITY;
          top = fmaxf(top, score);
        }
      top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 1));
      top = fmaxf(top, __shfl_xor_sync(kFullWarp, top, 2));
      float total = 0.0f;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& score = scores[n][i * 2 + e];
          score = !kAllSeen && top == -INFINITY ? 0.0f : exp2_fast(score - top);
          total += score;
        }
      total += __shfl_xor_sync(kFullWarp, total, 1);
      total += __shfl_xor_sync(kFullWarp, total, 2);
      state.top[i] = top;
      state.total[i] = total;
    }
#pragma unroll
    for (int step = 0; step < 4; ++step)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int n = step * 2 + i / 2;
        weights[step][i] = weight_pair(scores[n][i % 2 * 2], scores[n][i % 2 * 2 + 1]);
      }
  }

  /// Weighted values of dimension tiles d .. d + 3, summed over the stage's 64 positions.
  __device__ void weigh(int d, const std::uint32_t (&weights)[4][4], float (&sums)[4][4]) const {
    weigh_values(
        weights, [&](int n, int half) { return stage.value(d + n, half, lane); }, sums);
  }

  /// Softmax and weighted values of the 64 positions from `base` on. Shared tiles were begun; the
  /// copies of the next one, at `next` (-1: none), start as soon as there is room. Positions whose
  /// keys depend on the token (uncommitted ones, in a tree) are gone through once per token.
  __device__ void attend(int base, int next, RowState& state, float (&out)[kDimTiles][4]) const {
    const bool shared = is_shared(base);
    const int end = shared ? first_token + 1 : end_token;
    const SlotMap next_map = map_of(0, true);
    float scores[8][4];
    if (!shared) fetch_keys(map_of(first_token, false), base);
    for (int pass = first_token; pass < end; ++pass) {
      if (shared)
        wait_copies<1>();  // the values may still be on their way
      else
        wait_copies<0>();
      float sums[8][4];
      score_stage(sums);
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 4; ++i)
          if (shared || tokens[i / 2] == pass) scores[n][i] = sums[n][i];
      if (!shared && pass + 1 < end) fetch_keys(map_of(pass + 1, false), base);
    }
    if (!shared)
      fetch_values(map_of(first_token, false), base);
    else if (stage.tight())
      fetch_values(next_map, base);
    else if (next >= 0)
      fetch_keys(next_map, next);
    else
      commit_copies();
    std::uint32_t weights[4][4];
    softmax(base, scores, state, weights);
    for (int pass = first_token; pass < end; ++pass) {
      if (shared && !stage.tight())
        wait_copies<1>();  // the next keys may still be on their way
      else
        wait_copies<0>();
#pragma unroll
      for (int d = 0; d < kDimTiles; d += 4) {
        float sums[4][4];
        weigh(d, weights, sums);
#pragma unroll
        for (int n = 0; n < 4; ++n)
#pragma unroll
          for (int i = 0; i < 4; ++i)
            if (shared || tokens[i / 2] == pass) out[d + n][i] = sums[n][i];
      }
      if (!shared && pass + 1 < end) fetch_values(map_of(pass + 1, false), base);
    }
    if (shared && next >= 0) fetch_values(next_map, next);
  }

  /// Writes dimension tile `d` of the two rows, or of the first of them.
  template <int kRows = 2>
  __device__ void write(int d, const float (&sum)[4], const RowState& state) const {
    const int dim = d * 8 + lane % 4 * 2;
    if (dim >= args.kv.head_dim) return;
    const int cols = args.num_heads * args.kv.head_dim;
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      if (positions[i] < 0) continue;
      const int in_token = lane / 4 + i * 8 - (tokens[i] - first_token) * args.group.value;
      const int head = kv_head * args.group.value + in_token;
      const int token = tile.row + tokens[i];
      const int col = head * args.kv.head_dim + dim;
      const float whole = __frcp_rn(state.total[i]);
      const float a = sum[i * 2] * whole;
      const float b = sum[i * 2 + 1] * whole;
      if (args.out_type == DataType::f32) {
        float* out = static_cast<float*>(args.out) + static_cast<std::size_t>(token) * cols + col;
        out[0] = a;
        out[1] = b;
      } else {
        static_cast<std::uint32_t*>(
            args.out)[operand_index(token, col, cols, args.batch.num_rows) / 2] =
            args.out_type == DataType::bf16 ? operand_pair<__nv_bfloat16>(a, b)
                                            : operand_pair<__half>(a, b);
      }
    }
  }
};

}  // namespace specdec::kernels::cuda
