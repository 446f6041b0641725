#pragma once

#include <cfloat>

#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/operand.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/product.h"
#include "kernels/cuda/ring.cuh"
#include "kernels/cuda/weights.cuh"

namespace specdec::kernels::cuda {

struct ProductArgs {
  Product product;
  int units;        // of a row
  int tiles;        // of the matrix
  int token_tiles;  // of the operand
  int block_tiles;  // weight tiles a block works on at a time
  int token_warps;  // warps that share a weight tile
  int chunk;        // units of a stage
  int stages;
  int weight_groups;  // ceil(tiles / block_tiles)
  int token_groups;   // ceil(token_tiles / (token_warps * kTokenTiles))
  bool single;        // one token, in a row of its own, in memory or as the block normalises it
  int workers;        // warps beside the one that fills the ring; block_tiles * token_warps use it
  int normed_offset;  // of the tokens that the block normalises, in shared memory
};

__device__ __forceinline__ float silu(float x) { return __fdividef(x, 1.0f + __expf(-x)); }

/// Where a row of the batch stands and where its keys and values go: what qkv looks up.
struct TokenPlace {
  int position = 0;
  int offset = 0;           // within the block
  std::int64_t block = -1;  // the block's first element in the pool; -1: the row goes nowhere

  /// `appends`: the block is wanted too.
  __device__ static TokenPlace of(const Product& product, int token, bool appends) {
    TokenPlace place{.position = product.batch.positions[token]};
    const int slot = appends ? product.batch.slots[token] : kPaddingSlot;
    if (slot >= 0) {
      const KvLayer& kv = product.kv;
      const std::int32_t* table = product.batch.block_tables +
                                  product.batch.row_sequences[token] * product.batch.table_stride;
      place.offset = slot % kv.block_size;
      place.block = static_cast<std::int64_t>(table[slot / kv.block_size]) *
                    (kv.num_kv_heads * kv.block_size * kv.head_dim);
    }
    return place;
  }
};

/// Where a pair of rows' sums go: ProductOutput with the heads of qkv told apart.
enum class Sink : std::uint8_t { add, store, gated, query, key, value };

template <Sink kSink>
struct SinkConstant {
  static constexpr Sink kValue = kSink;
};
/// Calls body(SinkConstant) for the matrix row `row`: the choice is made once, not per sum.
template <class Body>
__device__ __forceinline__ void with_sink(const Product& product, int row, Body body) {
  switch (product.output) {
    case ProductOutput::add:
      return body(SinkConstant<Sink::add>{});
    case ProductOutput::store:
      return body(SinkConstant<Sink::store>{});
    case ProductOutput::gated:
      return body(SinkConstant<Sink::gated>{});
    case ProductOutput::qkv:
      break;
  }
  const int queries = product.num_heads * product.kv.head_dim;
  if (row < queries) return body(SinkConstant<Sink::query>{});
  if (row < queries + product.kv.num_kv_heads * product.kv.head_dim)
    return body(SinkConstant<Sink::key>{});
  return body(SinkConstant<Sink::value>{});
}

/// What putting a sum and its partner away takes from memory, loaded before the sums are there.
struct Inputs {
  float row = 0;         // add: what is there; query, key: the angle's cosine
  float partner = 0;     // ... sine
  std::int64_t at = -1;  // key, value: the element in the pool; -1: nowhere
};

/// Keys: [block][kv head][position][dimension]; values: [block][kv head][dimension][position].
/// `place_of(token, appends)` is its TokenPlace.
template <Sink kSink, class PlaceOf>
__device__ __forceinline__ Inputs load_inputs(const Product& product, int token, int row,
                                              int partner, const PlaceOf& place_of) {
  Inputs in;
  if constexpr (kSink == Sink::add) {
    const float* out = product.out + static_cast<std::size_t>(token) * product.weight.rows;
    if (row < product.weight.rows) in.row = out[row];
    if (partner < product.weight.rows) in.partner = out[partner];
  } else if constexpr (kSink == Sink::query || kSink == Sink::key || kSink == Sink::value) {
    const KvLayer& kv = product.kv;
    const int i = row % kv.head_dim;
    const TokenPlace place = place_of(token, kSink != Sink::query);
    if constexpr (kSink != Sink::value) {
      const std::size_t at = static_cast<std::size_t>(place.position) * (kv.head_dim / 2) + i;
      in.row = product.rope_cos[at];
      in.partner = product.rope_sin[at];
    }
    if (kSink != Sink::query && place.block >= 0) {
      const int head = row / kv.head_dim - product.num_heads;
      in.at = place.block +
              (kSink == Sink::key
                   ? (head * kv.block_size + place.offset) * kv.head_dim + i
                   : ((head - kv.num_kv_heads) * kv.head_dim + i) * kv.block_size + place.offset);
    }
  }
  return in;
}

template <class T>
__device__ __forceinline__ T to_cache(float value) {
  return to_operand<T>(value);
}
template <>
__device__ __forceinline__ float to_cache<float>(float value) {
  return isinf(value) ? copysignf(FLT_MAX, value) : value;
}

/// Two elements of keys or values, `distance` apart.
__device__ __forceinline__ void append(DataType type, void* pool, std::int64_t at, int distance,
                                       float a, float b) {
  const auto write = [&](auto* to) {
    using T = std::remove_pointer_t<decltype(to)>;
    to[at] = to_cache<T>(a);
    to[at + distance] = to_cache<T>(b);
  };
  if (type == DataType::f32)
    write(static_cast<float*>(pool));
  else
    write(static_cast<__half*>(pool));
}

/// Puts a sum and its partner (packing.h's TileRows) of one token away. What is stored as a value
/// is finite (attention multiplies masked ones by 0); a key that is NaN makes NaN of every row that
/// sees it.
template <Sink kSink>
__device__ __forceinline__ void put(const Product& product, const Inputs& in, int token, int row,
                                    int partner, float sum, float partner_sum) {
  const int rows = product.weight.rows;
  if constexpr (kSink == Sink::add || kSink == Sink::store) {
    float* out = product.out + static_cast<std::size_t>(token) * rows;
    constexpr bool kAdds = kSink == Sink::add;
    if (row < rows) out[row] = kAdds ? in.row + sum : sum;
    if (partner < rows) out[partner] = kAdds ? in.partner + partner_sum : partner_sum;
  } else if constexpr (kSink == Sink::gated) {
    const float value = silu(sum) * partner_sum;
    const std::size_t at = operand_index(token, row, rows / 2, product.num_tokens);
    if (product.gated_type == DataType::f32)
      reinterpret_cast<float*>(
          product.operand)[static_cast<std::size_t>(token) * (rows / 2) + row] = value;
    else if (product.gated_type == DataType::bf16)
      reinterpret_cast<__nv_bfloat16*>(product.operand)[at] = to_operand<__nv_bfloat16>(value);
    else
      reinterpret_cast<__half*>(product.operand)[at] = to_operand<__half>(value);
  } else if constexpr (kSink == Sink::value) {
    if (in.at < 0) return;
    const KvLayer& kv = product.kv;
    append(kv.type, kv.values, in.at, kv.head_dim / 2 * kv.block_size, isnan(sum) ? 0.0f : sum,
           isnan(partner_sum) ? 0.0f : partner_sum);
  } else {
    const int half = product.kv.head_dim / 2;
    const float a = sum * in.row - partner_sum * in.partner;
    const float b = partner_sum * in.row + sum * in.partner;
    if constexpr (kSink == Sink::query) {
      float* q = product.q + static_cast<std::size_t>(token) * product.num_heads * half * 2 + row;
      q[0] = a;
      q[half] = b;
    } else if (in.at >= 0) {
      append(product.kv.type, product.kv.keys, in.at, half, a, b);
    }
  }
}

/// Makes a product's sums of its chains, in the place of the first.
template <int kChains, int kTiles>
__device__ __forceinline__ void add_chains(float (&chains)[kChains][kTiles][4]) {
  if constexpr (kChains == 2)
#pragma unroll
    for (int i = 0; i < kTiles * 4; ++i) chains[0][i / 4][i % 4] += chains[1][i / 4][i % 4];
}

/// Registers of a thread: of one token tile, what leaves room beside the block for blocks of the
/// next two kernels (eight more cost one token of an 8B shape 3 %).
template <int kTokenTiles>
inline constexpr int kMostRegisters = kTokenTiles == 1 ? 112 : 128;

/// One block a processor, persistent over (weight group, token group) items. The last warp fills a
/// ring of stages, weights before the dependency wait; the others, (tile, token warp), use it up:
/// each owns one weight tile x kTokenTiles token tiles. Few tokens the block normalises by itself,
/// a warp a token, while the weights are on their way.
template <class Format, int kTokenTiles, int kChains>
__global__ void __maxnreg__(kMostRegisters<kTokenTiles>)
    product_kernel(const __grid_constant__ ProductArgs args) {
  using Operand = typename Format::Operand;
  constexpr int kElement = sizeof(Operand);
  constexpr int kSteps = kUnitSteps<Operand>;
  constexpr int kTokenBytes = kTokenUnitOf<kElement>;
  extern __shared__ __align__(128) std::byte shared[];
  __shared__ std::uint64_t filled[32];
  __shared__ std::uint64_t used[32];
  __shared__ float part_sums[kNormParts];

  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int warp = static_cast<int>(threadIdx.x) / 32;
  const int consumers = args.block_tiles * args.token_warps;
  const int group_tokens = args.token_warps * kTokenTiles;   // token tiles of an item
  const int weight_bytes = args.chunk * Format::kUnitBytes;  // of one tile in a stage
  const int chunks = ceil_div(args.units, args.chunk);
  const int items = args.weight_groups * args.token_groups;
  const NormedRows& normed = args.product.normed;
  const bool norms = normed.norm_weight != nullptr;
  const bool single = args.single;
  const int token_unit = single ? kUnitCols * kElement : kTokenBytes;
  const int stage_bytes = args.block_tiles * weight_bytes + group_tokens * args.chunk * token_unit;
  if (threadIdx.x == 0) {
    for (int i = 0; i < args.stages; ++i) {
      Barrier::init(&filled[i], Barrier::kFillArrivals);
      Barrier::init(&used[i], consumers);
    }
#if __CUDA_ARCH__ >= 900
    asm volatile("fence.mbarrier_init.release.cluster;");
#endif
  }
  __syncthreads();
  let_next_start();

  const auto units_of = [&](int chunk) { return min(args.chunk, args.units - chunk * args.chunk); };
  if (warp == args.workers) {
    // Each lane copies one tile, of weights or of tokens, of every stage. What it needs is carried
    // along: this warp's way from a stage used up to its next copies is what the ring's depth has
    // to cover.
    const int token_tile = lane - args.block_tiles;
    const bool copies_weights = token_tile < 0;
    const bool copies_tokens = !norms && !copies_weights && token_tile < group_tokens;
    const int unit_bytes = copies_weights ? Format::kUnitBytes : token_unit;
    const int offset = copies_weights
                           ? lane * weight_bytes
                           : args.block_tiles * weight_bytes + token_tile * args.chunk * token_unit;
    const int all_bytes =
        args.block_tiles * Format::kUnitBytes + (norms ? 0 : group_tokens * token_unit);
    const auto tile_of = [&](int item) {
      const int tile =
          copies_weights
              ? min(item / args.token_groups * args.block_tiles + lane, args.tiles - 1)
              : min(item % args.token_groups * group_tokens + token_tile, args.token_tiles - 1);
      const std::byte* const from = copies_weights
                                        ? static_cast<const std::byte*>(args.product.weight.data)
                                        : args.product.tokens;
      return from + static_cast<std::size_t>(tile) * args.units * unit_bytes;
    };
    struct Step {
      int item;
      const std::byte* tile;
      int first_unit = 0;
      int stage = 0;
      int phase = 0;
    };
    const auto advance = [&](Step& at) {
      at.first_unit += args.chunk;
      if (at.first_unit >= args.units) {
        at.first_unit = 0;
        at.item += static_cast<int>(gridDim.x);
        at.tile = tile_of(at.item);
      }
      if (++at.stage == args.stages) {
        at.stage = 0;
        at.phase ^= 1;
      }
    };
    const auto fill = [&](const Step& at, bool weights, bool tokens) {
      const int units = min(args.chunk, args.units - at.first_unit);
      const Fill stage{&filled[at.stage], lane};
      if (weights) stage.expect(units * all_bytes);
      const bool copies = copies_weights ? weights : copies_tokens && tokens;
      stage.copy(shared + at.stage * stage_bytes + offset, at.tile + at.first_unit * unit_bytes,
                 copies ? units * unit_bytes : 0);
      if (tokens) stage.done();
    };
    const int first = static_cast<int>(blockIdx.x);
    Step at{first, tile_of(first)};
    Step ahead = at;
    for (int i = 0; i < args.stages && ahead.item < items; ++i, advance(ahead))
      fill(ahead, true, false);
    wait_for_previous();
    for (int i = 0; i < args.stages && at.item < items; ++i, advance(at)) fill(at, false, true);
    for (; at.item < items; advance(at)) {
      Barrier::wait(&used[at.stage], at.phase ^ 1);
      fill(at, true, true);
    }
    return;
  }

  const int own_tile = warp % args.block_tiles;
  const int own_tokens = warp / args.block_tiles * kTokenTiles;
  struct Place {
    int tile_row;  // the tile's first
    int row;
    int partner;
    int first_token;
    bool has_rows;
  };
  const auto place_of_item = [&](int item) -> Place {
    const int tile = item / args.token_groups * args.block_tiles + own_tile;
    const TileRows rows = TileRows::of(tile, args.product.weight.pair_distance);
    const int row = rows.first + lane / 4;
    return {rows.first, row, row + rows.distance,
            (item % args.token_groups * group_tokens + own_tokens) * kTokenTile + lane % 4 * 2,
            tile < args.tiles && lane / 4 < rows.valid};
  };
  // What comes behind the dependency wait is kept short: what can be worked out is, before.
  const int first_item = static_cast<int>(blockIdx.x);
  Inputs inputs[kTokenTiles][2];
  Place place = place_of_item(first_item);
  const auto look_up = [&] {
    with_sink(args.product, place.tile_row, [&](auto sink) {
#pragma unroll
      for (int i = 0; i < kTokenTiles * 2; ++i) {
        const int token = place.first_token + i / 2 * kTokenTile + i % 2;
        if (place.has_rows && token < args.product.num_tokens)
          inputs[i / 2][i % 2] = load_inputs<decltype(sink)::kValue>(
              args.product, token, place.row, place.partner,
              [&](int of, bool appends) { return TokenPlace::of(args.product, of, appends); });
      }
    });
  };
  // What qkv looks up lay there before the pass began (embed_kernel sees to that).
  const bool early =
      args.product.output == ProductOutput::qkv && first_item < items && warp < consumers;
  if (early) look_up();

  if (norms) {
    const int cols = args.product.weight.cols;
    const auto sync = [&] { asm volatile("bar.sync 1, %0;" ::"r"(args.workers * 32) : "memory"); };
    const auto place_of = [&](int token) {
      return [&, token](int col) {
        const std::size_t at = operand_index<kElement>(token, col, cols, args.product.num_tokens);
        return reinterpret_cast<uint4*>(shared + args.normed_offset + at * kElement);
      };
    };
    const auto row_of = [&](int token) {
      const int row = normed.row_ids == nullptr ? token : normed.row_ids[token];
      return normed.x + static_cast<std::size_t>(row) * cols;
    };
    if (cols <= kMostNormedCols) {
      const WarpNorm<Operand> norm(normed.norm_weight, cols, lane);
      wait_for_previous();
      if (warp < args.product.num_tokens) norm.write(row_of(warp), normed.norm_eps, place_of(warp));
    } else {
      const BlockNorm norm(normed.norm_weight, cols, static_cast<int>(threadIdx.x));
      wait_for_previous();
      norm.write<Operand>(row_of(0), normed.norm_eps, part_sums, sync, place_of(0));
    }
    sync();
    if (warp >= consumers) return;
  } else {
    wait_for_previous();
  }
  int stage = 0;
  int phase = 0;
  for (int item = first_item; item < items; item += static_cast<int>(gridDim.x)) {
    if (item != first_item) place = place_of_item(item);
    if (!early || item != first_item) look_up();
    float chains[kChains][kTokenTiles][4] = {};
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const int units = units_of(chunk);
      Barrier::wait(&filled[stage], phase);
      const std::byte* weights = shared + stage * stage_bytes + own_tile * weight_bytes;
      const std::byte* const operand =
          norms ? shared + args.normed_offset + chunk * args.chunk * token_unit
                : shared + stage * stage_bytes + args.block_tiles * weight_bytes +
                      own_tokens * args.chunk * token_unit;
      const std::uint32_t tokens =
          shared_address(operand) + static_cast<std::uint32_t>(single ? lane / 8 : lane) * 16;
      // Weights of 16 bits are loaded a unit ahead, so that they are not between two steps of which
      // one waits for the other. (Others would take registers twice: slower, where they are
      // dequantised.)
      constexpr bool kAhead = Format::kUnitBytes == kTileRows * kUnitCols * 2;
      std::uint32_t a[kSteps][4];
      if constexpr (kAhead) Format::load(weights, lane, a);
#pragma unroll 4
      for (int unit = 0; unit < units; ++unit) {
        std::uint32_t next[kSteps][4];
        if constexpr (kAhead)
          Format::load(weights + min(unit + 1, units - 1) * Format::kUnitBytes, lane, next);
        else
          Format::load(weights + unit * Format::kUnitBytes, lane, a);
#pragma unroll
        for (int i = 0; i < kTokenTiles; ++i)
#pragma unroll
          for (int step = 0; step < kSteps; step += 2) {
            std::uint32_t b[4];
            const int at = (i * args.chunk + unit) * token_unit + step * token_unit / kSteps;
            asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                         : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                         : "r"(tokens + static_cast<std::uint32_t>(at)));
            mma<Operand>(chains[0][i], a[step], b[0], b[1]);
            mma<Operand>(chains[kChains - 1][i], a[step + 1], b[2], b[3]);
          }
        if constexpr (kAhead)
#pragma unroll
          for (int i = 0; i < kSteps * 4; ++i) a[i / 4][i % 4] = next[i / 4][i % 4];
      }
      __syncwarp();
      if (lane == 0) Barrier::arrive(&used[stage]);
      if (++stage == args.stages) {
        stage = 0;
        phase ^= 1;
      }
    }
    add_chains(chains);
    const float(&sums)[kTokenTiles][4] = chains[0];
    if (!place.has_rows) continue;
    with_sink(args.product, place.tile_row, [&](auto sink) {
#pragma unroll
      for (int i = 0; i < kTokenTiles * 2; ++i) {
        const int token = place.first_token + i / 2 * kTokenTile + i % 2;
        if (token < args.product.num_tokens)
          put<decltype(sink)::kValue>(args.product, inputs[i / 2][i % 2], token, place.row,
                                      place.partner, sums[i / 2][i % 2], sums[i / 2][i % 2 + 2]);
      }
    });
  }
}

template <class Format, int kTokenTiles>
auto* product_kernel_of(const PackedMatrix& weight) {
  if constexpr (sizeof(typename Format::Operand) == 2)
    if (num_chains(weight) == 2) return product_kernel<Format, kTokenTiles, 2>;
  return product_kernel<Format, kTokenTiles, 1>;
}

/// Instantiated once per weight type, in product_TYPE.cu; of floats once more, for products of full
/// precision.
template <DataType kType, class Format = Weights<kType>>
cudaError_t launch_product(const ProductArgs& args, int tiles_a_warp, int blocks, int threads,
                           std::size_t shared_bytes, const Launch& to) {
  const PackedMatrix& weight = args.product.weight;
  const auto kernel = tiles_a_warp == 1   ? product_kernel_of<Format, 1>(weight)
                      : tiles_a_warp == 2 ? product_kernel_of<Format, 2>(weight)
                                          : product_kernel_of<Format, 4>(weight);
  const cudaError_t status = allow_shared(to, kernel);
  if (status != cudaSuccess) return status;
  return launch(to, kernel, dim3(static_cast<unsigned>(blocks)), threads, shared_bytes, args);
}

}  // namespace specdec::kernels::cuda
