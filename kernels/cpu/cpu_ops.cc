#include "kernels/cpu/cpu_ops.h"

#include <algorithm>
#include <cstring>
#include <functional>

#include "kernels/cpu/attention_plan.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/packing.h"

namespace specdec::kernels {
namespace {

constexpr std::size_t size(int n) { return static_cast<std::size_t>(n); }

constexpr int tiles_of(int rows) { return (rows + kTileRows - 1) / kTileRows; }

// Up to this many rows a weight matrix is read once, split over threads by tiles alone.
constexpr int kNarrowRows = 32;
// Wider products go through blocks of rows whose activations stay in the second-level cache.
constexpr int kRowBlock = 128;
constexpr int kTilesPerTask = 6;

const KernelTable& kernels_for(Isa isa) noexcept {
  switch (isa) {
    case Isa::avx2:
      return avx2_kernels();
    case Isa::avx512_vnni:
      return avx512_kernels();
    case Isa::amx:
      break;
  }
  return amx_kernels();
}

}  // namespace

void* CpuOps::Scratch::reserve(std::size_t bytes) {
  constexpr std::size_t kAlignment = 64;
  if (bytes_.size() < bytes + kAlignment) bytes_ = std::vector<std::byte>(bytes + kAlignment);
  void* start = bytes_.data();
  std::size_t space = bytes_.size();
  return std::align(kAlignment, bytes, start, space);
}

CpuOps::CpuOps(Isa isa, Executor& executor)
    : isa_(isa),
      executor_(&executor),
      kernels_(&kernels_for(isa)),
      plan_(std::make_unique<AttentionPlan>()) {}
CpuOps::~CpuOps() = default;

std::size_t CpuOps::packed_bytes(DataType type, int rows, int cols) noexcept {
  return size(tiles_of(rows)) * tile_bytes(type, cols);
}

DataType CpuOps::operand_type(DataType weight) noexcept {
  return is_quantised(weight) ? DataType::q8_0 : DataType::f32;
}

void CpuOps::pack_rows(DataType type, int cols, int first_row, int count,
                       const std::byte* const* row_pointers, void* packed) const noexcept {
  std::byte* tile =
      static_cast<std::byte*>(packed) + size(first_row / kTileRows) * tile_bytes(type, cols);
  for (int i = 0; i < count; i += kTileRows, tile += tile_bytes(type, cols)) {
    pack_tile(type, cols, std::min(count - i, kTileRows), row_pointers + i, tile);
  }
}

template <typename Body>
void CpuOps::parallel(int count, const Body& body) {
  if (count <= 1) {
    if (count == 1) body(0);
    return;
  }
  executor_->parallel_for(count, std::ref(body));  // a reference fits without an allocation
}

const void* CpuOps::prepare(const float* x, const std::int32_t* row_ids, const float* norm_weight,
                            float norm_eps, int num_rows, const PackedMatrix& matrix) {
  PrepareJob job = {.x = x,
                    .row_ids = row_ids,
                    .norm_weight = norm_weight,
                    .norm_eps = norm_eps,
                    .num_rows = num_rows,
                    .cols = matrix.cols,
                    .quantise = is_quantised(matrix.type)};
  const std::size_t row_size = job.quantise
                                   ? size(matrix.cols / kGroupSize) * sizeof(ActivationGroup)
                                   : size(matrix.cols) * sizeof(float);
  job.out = activations_.get<std::byte>(size(num_rows) * row_size);
  prepare(job);
  return job.out;
}

void CpuOps::prepare(const PrepareJob& job) {
  // A few rows take less time than handing them out.
  constexpr int kSerialElements = 6000;
  const int n = job.num_rows;
  const int chunk = n * job.cols <= kSerialElements ? n : n <= 32 ? 2 : 8;
  parallel((n + chunk - 1) / chunk,
           [&](int i) { kernels_->prepare(job, i * chunk, std::min(n, (i + 1) * chunk)); });
}

template <class Params>
void CpuOps::through_floats(Params params, int num_rows, int cols,
                            void (CpuOps::*op)(const Params&)) {
  float* const out = params.out;
  params.out = product_.get<float>(size(num_rows) * size(cols));
  params.out_type = DataType::f32;
  (this->*op)(params);
  prepare({.x = params.out, .num_rows = num_rows, .cols = cols, .quantise = true, .out = out});
}

void CpuOps::multiply(const GemmJob& job, int tiles) {
  const int threads = executor_->num_threads();
  if (job.num_rows <= kNarrowRows) {
    const int unit = job.groups == nullptr ? 1 : 2;
    const int units = tiles / unit;
    const int tasks = threads == 1 ? 1 : std::min(units, 8 * threads);
    parallel(tasks, [&](int i) {
      kernels_->gemm(job, units * i / tasks * unit, units * (i + 1) / tasks * unit, 0,
                     job.num_rows);
    });
    return;
  }
  static_assert(kTilesPerTask % 2 == 0);
  const int row_blocks = (job.num_rows + kRowBlock - 1) / kRowBlock;
  const int tile_blocks = (tiles + kTilesPerTask - 1) / kTilesPerTask;
  parallel(row_blocks * tile_blocks, [&](int i) {
    const int row = i / tile_blocks * kRowBlock;
    const int tile = i % tile_blocks * kTilesPerTask;
    kernels_->gemm(job, tile, std::min(tiles, tile + kTilesPerTask), row,
                   std::min(job.num_rows, row + kRowBlock));
  });
}

namespace {

GemmJob gemm_job(const PackedMatrix& matrix, const void* activations, int num_rows,
                 Epilogue epilogue, float* out) {
  return {.type = matrix.type,
          .epilogue = epilogue,
          .weights = static_cast<const std::byte*>(matrix.data),
          .tile_bytes = tile_bytes(matrix.type, matrix.cols),
          .steps = steps(matrix.type, matrix.cols),
          .activations = activations,
          .num_rows = num_rows,
          .out = out,
          .out_cols = matrix.rows};
}

}  // namespace

void CpuOps::embed_rows(const EmbedRowsParams& params) {
  constexpr int kChunk = 16;
  parallel((params.num_rows + kChunk - 1) / kChunk, [&](int i) {
    const int end = std::min(params.num_rows, (i + 1) * kChunk);
    for (int r = i * kChunk; r < end; ++r) {
      unpack_row(params.table, params.tokens[r], params.out + size(r) * size(params.table.cols));
    }
  });
}

void CpuOps::norm_qkv_rope_append(const NormQkvRopeAppendParams& params) {
  const int n = params.batch.num_rows;
  const KvLayer& kv = params.kv;
  const void* activations =
      params.x_type == DataType::f32
          ? prepare(params.x, nullptr, params.norm_weight, params.norm_eps, n, params.qkv)
          : params.x;
  float* qkv = product_.get<float>(size(n) * size(params.qkv.rows));
  const GemmJob job = gemm_job(params.qkv, activations, n, Epilogue::store, qkv);
  const int heads = params.num_heads + 2 * kv.num_kv_heads;
  const auto append = [&](int begin, int end, int head_begin, int head_end) {
    for (const SequenceRows& sequence : params.batch.sequences) {
      const int first = std::max(begin, sequence.row_begin);
      const int last = std::min(end, sequence.row_begin + sequence.num_rows);
      for (int r = first; r < last; ++r) {
        const int slot = params.batch.slots[r];
        const std::size_t angles = size(params.batch.positions[r]) * size(kv.head_dim / 2);
        kernels_->rope_append({.head_begin = head_begin,
                               .head_end = head_end,
                               .qkv = qkv + size(r) * size(params.qkv.rows),
                               .cosines = params.rope_cos + angles,
                               .sines = params.rope_sin + angles,
                               .num_heads = params.num_heads,
                               .kv = kv,
                               .block = sequence.block_table[slot / kv.block_size],
                               .offset = slot % kv.block_size,
                               .q = params.q + size(r) * size(params.num_heads * kv.head_dim)});
      }
    }
  };
  if (n <= kNarrowRows && kv.head_dim % kTileRows == 0 && heads >= 4 * executor_->num_threads()) {
    // Few rows: whoever multiplied a head rotates and appends it, while it is in his cache.
    const int tiles = kv.head_dim / kTileRows;
    parallel(heads, [&](int h) {
      kernels_->gemm(job, h * tiles, (h + 1) * tiles, 0, n);
      append(0, n, h, h + 1);
    });
    return;
  }
  multiply(job, tiles_of(params.qkv.rows));
  constexpr int kChunk = 4;
  parallel((n + kChunk - 1) / kChunk,
           [&](int i) { append(i * kChunk, std::min(n, (i + 1) * kChunk), 0, heads); });
}

void CpuOps::tree_attention(const TreeAttentionParams& params) {
  if (params.out_type != DataType::f32 && params.kv.head_dim % kGroupSize != 0) {
    // A group has values of two heads.
    return through_floats(params, params.batch.num_rows, params.num_heads * params.kv.head_dim,
                          &CpuOps::tree_attention);
  }
  plan_->build(params, executor_->num_threads());
  float* partials = partials_.get<float>(plan_->partial_floats());
  parallel(plan_->num_tasks(), [&](int i) { plan_->run(*kernels_, params, i, partials); });
}

void CpuOps::project(const ProjectParams& params) {
  project_rows(params.weight, params.in, DataType::f32, params.num_rows, Epilogue::store,
               params.out);
}

void CpuOps::project_residual(const ProjectResidualParams& params) {
  project_rows(params.weight, params.in, params.in_type, params.num_rows, Epilogue::add, params.x);
}

void CpuOps::project_rows(const PackedMatrix& weight, const float* in, DataType in_type,
                          int num_rows, Epilogue epilogue, float* out) {
  const void* activations =
      in_type == DataType::f32 ? prepare(in, nullptr, nullptr, 0.0f, num_rows, weight) : in;
  multiply(gemm_job(weight, activations, num_rows, epilogue, out), tiles_of(weight.rows));
}

void CpuOps::norm_gate_up(const NormGateUpParams& params) {
  const int n = params.num_rows;
  const int ffn = params.gate_up.rows / 2;
  const void* activations =
      prepare(params.x, nullptr, params.norm_weight, params.norm_eps, n, params.gate_up);
  if (ffn % kTileRows == 0) {
    GemmJob job = gemm_job(params.gate_up, activations, n, Epilogue::silu_mul, params.out);
    job.out_cols = ffn;
    job.pair_tiles = ffn / kTileRows;
    if (params.out_type != DataType::f32)
      job.groups = reinterpret_cast<ActivationGroup*>(params.out);
    multiply(job, job.pair_tiles);
    return;
  }
  // Gate and up rows share a tile (so the rows are no operand of quantised weights): take the
  // product first.
  float* both = product_.get<float>(size(n) * size(2 * ffn));
  multiply(gemm_job(params.gate_up, activations, n, Epilogue::store, both), tiles_of(2 * ffn));
  parallel(n, [&](int r) {
    const float* gate = both + size(r) * size(2 * ffn);
    kernels_->silu_mul(gate, gate + ffn, params.out + size(r) * size(ffn), ffn);
  });
}

void CpuOps::norm_head(const NormHeadParams& params) {
  const void* activations = prepare(params.x, params.row_ids, params.norm_weight, params.norm_eps,
                                    params.num_outputs, params.head);
  multiply(gemm_job(params.head, activations, params.num_outputs, Epilogue::store, params.logits),
           tiles_of(params.head.rows));
}

void CpuOps::join_entries(const JoinEntriesParams& params) {
  if (params.out_type != DataType::f32)
    return through_floats(params, params.num_rows, 2 * params.table.cols, &CpuOps::join_entries);
  constexpr int kChunk = 8;
  parallel((params.num_rows + kChunk - 1) / kChunk, [&](int i) {
    const int end = std::min(params.num_rows, (i + 1) * kChunk);
    const int hidden = params.table.cols;
    for (int r = i * kChunk; r < end; ++r) {
      float* const token = params.out + size(r) * 2 * size(hidden);
      float* const joined = token + hidden;
      const int state_row = params.state_rows == nullptr ? r : params.state_rows[r];
      const float* const state = params.states + size(state_row) * size(hidden);
      unpack_row(params.table, params.tokens[r], token);
      kernels_->rms_norm(token, params.token_norm_weight, params.norm_eps, hidden, token);
      kernels_->rms_norm(state, params.state_norm_weight, params.norm_eps, hidden, joined);
      const float* const residual = params.normed_residual ? joined : state;
      float* const to = params.residual + size(r) * size(hidden);
      if (params.residual != nullptr && to != residual) std::copy_n(residual, hidden, to);
    }
  });
}

void CpuOps::copy_rows(const CopyRowsParams& params) {
  const auto row = [](const std::int32_t* ids, int i) { return size(ids == nullptr ? i : ids[i]); };
  const std::size_t cols = size(params.cols);
  for (int i = 0; i < params.num_rows; ++i) {
    std::copy_n(params.source + row(params.source_rows, i) * cols, cols,
                params.destination + row(params.destination_rows, i) * cols);
  }
}

void CpuOps::move_kv(const MoveKvParams& params) {
  for (const KvLayer& layer : params.layers) move_layer(layer, params);
}

void CpuOps::move_layer(const KvLayer& kv, const MoveKvParams& params) {
  const std::size_t element = kv_element_bytes(kv.type);
  const std::size_t head_bytes = size(kv.head_dim) * size(kv.block_size) * element;
  const std::size_t row_size = size(kv.head_dim) * element;
  const std::size_t key_stride = size(kv.block_size) * element;
  for (const KvMove& move : params.moves) {
    if (move.source_slot == move.destination_slot) continue;
    const auto base = [&](int slot) {
      return size(params.block_table[slot / kv.block_size]) * size(kv.num_kv_heads) * head_bytes;
    };
    const std::size_t from = base(move.source_slot);
    const std::size_t to = base(move.destination_slot);
    const std::size_t from_offset = size(move.source_slot % kv.block_size);
    const std::size_t to_offset = size(move.destination_slot % kv.block_size);
    auto* values = static_cast<std::byte*>(kv.values);
    auto* keys = static_cast<std::byte*>(kv.keys);
    for (int h = 0; h < kv.num_kv_heads; ++h) {
      const std::size_t head = size(h) * head_bytes;
      std::memcpy(values + to + head + to_offset * row_size,
                  values + from + head + from_offset * row_size, row_size);
      for (int d = 0; d < kv.head_dim; ++d) {
        const std::size_t row = head + size(d) * key_stride;
        std::memcpy(keys + to + row + to_offset * element,
                    keys + from + row + from_offset * element, element);
      }
    }
  }
}

}  // namespace specdec::kernels
