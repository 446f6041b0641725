#include "synthetic_model.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda_ops.h"
#include "kernels/cuda/packing.h"
#include "kernels/cuda/rows.h"
#include "random_weights.h"

namespace specdec::kernels::bench {
namespace {

constexpr int kBlockSize = 64;

}  // namespace

void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

std::byte* SyntheticModel::take(std::size_t bytes) {
  void* memory = nullptr;
  require(cudaMalloc(&memory, bytes));
  require(cudaMemset(memory, 0, bytes));
  memory_.push_back(static_cast<std::byte*>(memory));
  return memory_.back();
}

PackedMatrix SyntheticModel::matrix(DataType type, int rows, int cols, int pair_distance) {
  const std::size_t bytes = cuda::packed_bytes(type, rows, cols, pair_distance);
  std::byte* data = take(bytes);
  require(fill_random(data, bytes, type, static_cast<std::uint32_t>(memory_.size())));
  weight_bytes_ += bytes;
  return {type, rows, cols, data, pair_distance};
}

float* SyntheticModel::floats(std::size_t rows, int cols) {
  return reinterpret_cast<float*>(take((rows + 7) * static_cast<std::size_t>(cols + 31) * 4));
}

KvLayer SyntheticModel::kv_layer() {
  const std::size_t half = static_cast<std::size_t>(max_positions_) *
                           static_cast<std::size_t>(shape_.kv_heads) *
                           static_cast<std::size_t>(shape_.head_dim) * 2;
  std::byte* const keys = take(half);
  std::byte* const values = take(half);
  require(fill_random(keys, half, DataType::f16, 1));
  require(fill_random(values, half, DataType::f16, 2));
  return {keys, values, DataType::f16, shape_.kv_heads, shape_.head_dim, kBlockSize};
}

SyntheticModel::SyntheticModel(const ModelShape& shape, const cuda::DeviceInfo& device,
                               int max_rows, int max_positions)
    : shape_(shape), max_positions_(max_positions) {
  const int qkv_rows = (shape.heads + 2 * shape.kv_heads) * shape.head_dim;
  for (int i = 0; i < shape.layers; ++i) {
    Layer layer;
    layer.qkv = matrix(shape.type, qkv_rows, shape.hidden, shape.head_dim / 2);
    layer.output = matrix(shape.type, shape.hidden, shape.heads * shape.head_dim, 0);
    layer.gate_up = matrix(shape.type, 2 * shape.ffn, shape.hidden, shape.ffn);
    layer.down = matrix(shape.type, shape.hidden, shape.ffn, 0);
    layer.kv = kv_layer();
    layers_.push_back(layer);
  }
  head_ = matrix(shape.head_type, shape.vocab, shape.hidden, 0);

  const auto rows = static_cast<std::size_t>(max_rows);
  const std::vector<float> ones(static_cast<std::size_t>(shape.hidden), 1.0f);
  norm_ = floats(1, shape.hidden);
  require(cudaMemcpy(norm_, ones.data(), ones.size() * 4, cudaMemcpyHostToDevice));
  const std::vector<float> angles(
      static_cast<std::size_t>(max_positions) * static_cast<std::size_t>(shape.head_dim / 2),
      0.7071f);
  rope_ = reinterpret_cast<float*>(take(angles.size() * 4));
  require(cudaMemcpy(rope_, angles.data(), angles.size() * 4, cudaMemcpyHostToDevice));
  x_ = floats(rows, shape.hidden);
  q_ = floats(rows, shape.heads * shape.head_dim);
  attention_ = floats(rows, shape.heads * shape.head_dim);
  ffn_ = floats(rows, shape.ffn);
  logits_ = floats(kMostOutputs, shape.vocab);

  launch_.device = device;
  cuda::Workspace& scratch = launch_.workspace;
  scratch.operand_bytes = cuda::operand_bytes(max_rows, shape.hidden);
  scratch.operand = take(scratch.operand_bytes);
  scratch.partial_bytes = std::size_t{256} << 20;
  scratch.partials = reinterpret_cast<float*>(take(scratch.partial_bytes));
  scratch.num_counters = 1 << 16;
  scratch.counters = reinterpret_cast<int*>(take(sizeof(int) << 16));

  capacity_ = {.rows = max_rows,
               .sequences = 64,
               .path_slots = 64 * 64,
               .blocks_per_sequence = max_positions / kBlockSize};
  void* pinned = nullptr;
  require(cudaMallocHost(&pinned, cuda::BatchBuffers::bytes(capacity_)));
  pinned_ = static_cast<std::byte*>(pinned);
  batch_ = cuda::BatchBuffers(capacity_, take(cuda::BatchBuffers::bytes(capacity_)), pinned_);
}

SyntheticModel::~SyntheticModel() {
  for (std::byte* memory : memory_) cudaFree(memory);
  cudaFreeHost(pinned_);
}

void SyntheticModel::stage(const Workload& work) {
  std::vector<std::int32_t> tokens, positions, slots, offsets, paths, outputs, table;
  std::vector<SequenceRows> sequences;
  const int blocks = (work.context + work.rows + kBlockSize - 1) / kBlockSize;
  for (int i = 0; i < work.sequences * blocks; ++i) table.push_back(i);
  for (int s = 0; s < work.sequences; ++s) {
    sequences.push_back(
        {static_cast<int>(tokens.size()), work.rows, work.context, &table[s * blocks], blocks});
    for (int r = 0; r < work.rows; ++r) {
      const int row = static_cast<int>(tokens.size());
      tokens.push_back(row * 37 % shape_.vocab);
      slots.push_back(work.context + r);
      if (work.tree) {
        std::vector<std::int32_t> path;
        for (int at = r; at >= 0; at = at == 0 ? -1 : (at - 1) / 2)
          path.insert(path.begin(), work.context + at);
        positions.push_back(work.context + static_cast<int>(path.size()) - 1);
        offsets.push_back(static_cast<std::int32_t>(paths.size()));
        paths.insert(paths.end(), path.begin(), path.end());
      } else {
        positions.push_back(work.context + r);
        offsets.push_back(-1);
      }
      if (work.all_logits || r + 1 == work.rows) outputs.push_back(row);
    }
  }
  if (outputs.size() > kMostOutputs) throw std::runtime_error("a pass of too many outputs");
  view_ = {.num_rows = static_cast<int>(tokens.size()),
           .positions = positions.data(),
           .slots = slots.data(),
           .path_offsets = offsets.data(),
           .path_slots = paths.data(),
           .sequences = sequences,
           .tokens = tokens.data(),
           .num_outputs = static_cast<int>(outputs.size()),
           .output_rows = outputs.data()};
  require(batch_.stage(view_, nullptr));
  require(cudaDeviceSynchronize());
  // What it pointed to on the host ends here.
  const BatchView host = view_;
  view_ = BatchView{};
  view_.num_rows = host.num_rows;
  view_.num_outputs = host.num_outputs;
  view_.device = &batch_.batch();
}

std::size_t SyntheticModel::kv_bytes(const Workload& work) const {
  return static_cast<std::size_t>(work.sequences) * static_cast<std::size_t>(work.context) *
         static_cast<std::size_t>(shape_.layers) * static_cast<std::size_t>(shape_.kv_heads) *
         static_cast<std::size_t>(shape_.head_dim) * 4;
}

cuda::KvPoolView SyntheticModel::pool() {
  std::vector<void*> pointers;
  for (const Layer& layer : layers_) pointers.push_back(layer.kv.keys);
  for (const Layer& layer : layers_) pointers.push_back(layer.kv.values);
  const std::size_t bytes = pointers.size() * sizeof(void*);
  auto* const on_device = reinterpret_cast<void**>(take(bytes));
  require(cudaMemcpy(on_device, pointers.data(), bytes, cudaMemcpyHostToDevice));
  const std::int64_t dims = shape_.head_dim;
  const cuda::KvHalf keys{.layers = on_device,
                          .block_stride = dims * kBlockSize * shape_.kv_heads,
                          .head_stride = dims * kBlockSize,
                          .dim_stride = 1,
                          .position_stride = dims};
  cuda::KvHalf values = keys;
  values.layers = on_device + layers_.size();
  values.dim_stride = kBlockSize;
  values.position_stride = 1;
  return {.num_layers = shape_.layers,
          .num_kv_heads = shape_.kv_heads,
          .head_dim = shape_.head_dim,
          .block_size = kBlockSize,
          .element_bytes = 2,
          .keys = keys,
          .values = values};
}

void SyntheticModel::forward(const BatchView& batch, cudaStream_t stream, int parts,
                             const Observe& observe) {
  launch_.stream = stream;
  const int rows = batch.num_rows;
  const DataType operand = cuda::operand_type(shape_.type);
  if (parts & embed) require(cuda::embed_rows({rows, batch.device->tokens, head_, x_}, launch_));
  for (const Layer& layer : layers_) {
    if (observe) observe(static_cast<int>(&layer - layers_.data()), x_);
    if (parts & qkv)
      require(cuda::norm_qkv_rope_append({.batch = batch,
                                          .x = x_,
                                          .norm_weight = norm_,
                                          .norm_eps = 1e-5f,
                                          .qkv = layer.qkv,
                                          .num_heads = shape_.heads,
                                          .rope_cos = rope_,
                                          .rope_sin = rope_,
                                          .kv = layer.kv,
                                          .q = q_},
                                         launch_));
    if (parts & attention)
      require(cuda::tree_attention({.batch = batch,
                                    .q = q_,
                                    .num_heads = shape_.heads,
                                    .scale = 1.0f / std::sqrt(static_cast<float>(shape_.head_dim)),
                                    .kv = layer.kv,
                                    .out = attention_,
                                    .out_type = operand},
                                   launch_));
    if (parts & output)
      require(cuda::project_residual({rows, attention_, layer.output, x_, operand}, launch_));
    if (parts & gate_up)
      require(cuda::norm_gate_up({rows, x_, norm_, 1e-5f, layer.gate_up, ffn_, operand}, launch_));
    if (parts & down)
      require(cuda::project_residual({rows, ffn_, layer.down, x_, operand}, launch_));
  }
  if (parts & head)
    require(cuda::norm_head({.num_outputs = batch.num_outputs,
                             .row_ids = batch.device->output_rows,
                             .x = x_,
                             .norm_weight = norm_,
                             .norm_eps = 1e-5f,
                             .head = head_,
                             .logits = logits_},
                            launch_));
}

}  // namespace specdec::kernels::bench
