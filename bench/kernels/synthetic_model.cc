#include "synthetic_model.h"

#include <sys/mman.h>

#include <cmath>
#include <cstdlib>
#include <cstring>
#include <new>

#include "kernels/cpu/row_format.h"

namespace specdec::kernels::bench {
namespace {

std::uint32_t next_random(std::uint32_t& state) {
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

}  // namespace

Pages::Pages(std::size_t bytes) {
  constexpr std::size_t kHuge = std::size_t{2} << 20;
  const std::size_t rounded = (bytes + kHuge - 1) / kHuge * kHuge;
  void* at = std::aligned_alloc(kHuge, rounded);
  if (at == nullptr) throw std::bad_alloc();
  madvise(at, rounded, MADV_HUGEPAGE);
  data_.reset(static_cast<std::byte*>(at));
}

void Pages::Free::operator()(std::byte* at) const noexcept { std::free(at); }

PackedMatrix SyntheticModel::add(DataType type, int rows, int cols) {
  const std::size_t bytes = CpuOps::packed_bytes(type, rows, cols);
  weight_bytes_ += bytes;
  memory_.emplace_back(bytes);
  SerialExecutor serial;
  const CpuOps ops(best_isa(), serial);
  // Sixteen random rows, in changing order: fresh enough, and quick to make.
  const std::size_t size = row_bytes(type, cols);
  const std::size_t group = is_quantised(type) ? size / (static_cast<std::size_t>(cols) / 32) : 2;
  std::vector<std::byte> file(16 * size);
  std::uint32_t state = 12345u + static_cast<std::uint32_t>(memory_.size());
  for (std::byte& b : file) b = static_cast<std::byte>(next_random(state) & 255u);
  for (std::size_t at = 0; at < file.size(); at += group) {
    const std::uint16_t d = static_cast<std::uint16_t>(0x1400 + next_random(state) % 512);
    std::memcpy(&file[at], &d, 2);
    const std::uint16_t m = static_cast<std::uint16_t>(0xa000 + next_random(state) % 512);
    if (type == DataType::q4_1) std::memcpy(&file[at + 2], &m, 2);
  }
  for (int r = 0; r < rows; r += 16) {
    const std::byte* rows16[16];
    for (int i = 0; i < 16; ++i) rows16[i] = &file[(next_random(state) % 16) * size];
    ops.pack_rows(type, cols, r, 16, rows16, memory_.back().data());
  }
  return {type, rows, cols, memory_.back().data()};
}

SyntheticModel::SyntheticModel(DataType layer_type, int max_positions, int max_rows) {
  const int blocks = (max_positions + kBlockSize - 1) / kBlockSize;
  const std::size_t kv_bytes =
      static_cast<std::size_t>(blocks) * kKvHeads * kHeadDim * kBlockSize * 2;
  for (int l = 0; l < kLayers; ++l) {
    Layer layer;
    layer.qkv = add(layer_type, (kHeads + 2 * kKvHeads) * kHeadDim, kHidden);
    layer.output = add(layer_type, kHidden, kHeads * kHeadDim);
    layer.gate_up = add(layer_type, 2 * kFfn, kHidden);
    layer.down = add(layer_type, kHidden, kFfn);
    Pages keys(kv_bytes);
    Pages values(kv_bytes);
    std::uint32_t state = 99;
    for (Pages* pages : {&keys, &values}) {
      auto* half = reinterpret_cast<std::uint16_t*>(pages->data());
      for (std::size_t i = 0; i < kv_bytes / 2; ++i) {
        half[i] = static_cast<std::uint16_t>(0x3000 + (next_random(state) & 0x8fff));
      }
    }
    layer.kv = {keys.data(), values.data(), DataType::f16, kKvHeads, kHeadDim, kBlockSize};
    memory_.push_back(std::move(keys));
    memory_.push_back(std::move(values));
    layers_.push_back(layer);
  }
  head_ = add(DataType::q8_0, kVocab, kHidden);
  const auto rows = static_cast<std::size_t>(max_rows);
  norm_.assign(kFfn, 1.0f);
  cos_.assign(static_cast<std::size_t>(max_positions) * kHeadDim / 2, 0.8f);
  sin_.assign(static_cast<std::size_t>(max_positions) * kHeadDim / 2, 0.6f);
  x_.resize(rows * kHidden);
  q_.resize(rows * kHeads * kHeadDim);
  attention_.resize(rows * kHeads * kHeadDim);
  ffn_.resize(rows * kFfn);
  logits_.resize((rows < 64 ? rows : 64) * kVocab);
  for (int i = 0; i < max_rows; ++i) {
    tokens_.push_back(i * 37 % kVocab);
    row_ids_.push_back(i);
  }
  for (int p = 0; p < max_positions; ++p) positions_.push_back(p);
  for (int b = 0; b < blocks; ++b) block_table_.push_back((b * 7 + 3) % blocks);
  if (blocks % 7 == 0) {
    for (int b = 0; b < blocks; ++b) block_table_[static_cast<std::size_t>(b)] = b;
  }
}

BatchView SyntheticModel::batch(int context, int rows) {
  sequence_ = {0, rows, context, block_table_.data()};
  return {rows,
          &positions_[static_cast<std::size_t>(context)],
          &positions_[static_cast<std::size_t>(context)],
          nullptr,
          nullptr,
          {&sequence_, 1}};
}

void SyntheticModel::embed(CpuOps& ops, int rows) {
  ops.embed_rows({rows, tokens_.data(), head_, x_.data()});
}

void SyntheticModel::qkv(CpuOps& ops, int layer, int context, int rows) {
  const Layer& l = layers_[static_cast<std::size_t>(layer)];
  NormQkvRopeAppendParams params;
  params.batch = batch(context, rows);
  params.x = x_.data();
  params.norm_weight = norm_.data();
  params.norm_eps = 1e-5f;
  params.qkv = l.qkv;
  params.num_heads = kHeads;
  params.rope_cos = cos_.data();
  params.rope_sin = sin_.data();
  params.kv = l.kv;
  params.q = q_.data();
  ops.norm_qkv_rope_append(params);
}

void SyntheticModel::attention(CpuOps& ops, int layer, int context, int rows) {
  const Layer& l = layers_[static_cast<std::size_t>(layer)];
  ops.tree_attention({batch(context, rows), q_.data(), kHeads, 0.125f, l.kv, attention_.data(),
                      CpuOps::operand_type(l.output.type)});
}

void SyntheticModel::output(CpuOps& ops, int layer, int rows) {
  const PackedMatrix& weight = layers_[static_cast<std::size_t>(layer)].output;
  ops.project_residual(
      {rows, attention_.data(), weight, x_.data(), CpuOps::operand_type(weight.type)});
}

void SyntheticModel::gate_up(CpuOps& ops, int layer, int rows) {
  const Layer& l = layers_[static_cast<std::size_t>(layer)];
  ops.norm_gate_up({rows, x_.data(), norm_.data(), 1e-5f, l.gate_up, ffn_.data(),
                    CpuOps::operand_type(l.down.type)});
}

void SyntheticModel::down(CpuOps& ops, int layer, int rows) {
  const PackedMatrix& weight = layers_[static_cast<std::size_t>(layer)].down;
  ops.project_residual({rows, ffn_.data(), weight, x_.data(), CpuOps::operand_type(weight.type)});
}

void SyntheticModel::head(CpuOps& ops, int rows, bool all_logits) {
  const int outputs = all_logits ? rows : 1;
  ops.norm_head({outputs, row_ids_.data() + (rows - outputs), x_.data(), norm_.data(), 1e-5f, head_,
                 logits_.data()});
}

void SyntheticModel::forward(CpuOps& ops, int context, int rows, bool all_logits) {
  embed(ops, rows);
  for (int l = 0; l < kLayers; ++l) {
    qkv(ops, l, context, rows);
    attention(ops, l, context, rows);
    output(ops, l, rows);
    gate_up(ops, l, rows);
    down(ops, l, rows);
  }
  head(ops, rows, all_logits);
}

}  // namespace specdec::kernels::bench
