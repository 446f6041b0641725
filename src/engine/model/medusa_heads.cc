#include "engine/model/medusa_heads.h"

#include <algorithm>
#include <cmath>

#include "engine/model/row_buffers.h"

namespace specdec {

MedusaHeads::MedusaHeads(Backend& backend, const MedusaSource& source, const ModelConfig& target,
                         std::span<const float> output_norm)
    : backend_(backend),
      num_layers_(target.num_layers),
      hidden_size_(target.hidden_size),
      vocab_size_(target.vocab_size),
      norm_eps_(target.norm_eps),
      output_norm_(output_norm.begin(), output_norm.end()) {
  std::size_t bytes = 0;
  for (const MedusaSource::Head& head : source.heads) {
    for (const MedusaSource::Block& block : head.blocks)
      bytes += backend.packed_bytes(block.weight);
    bytes += backend.packed_bytes(head.output);
  }
  weights_ = backend.allocate(bytes, MemoryUse::weights);
  std::byte* next = weights_.as<std::byte>();
  const auto pack = [&](const MatrixSource& matrix) {
    const kernels::PackedMatrix packed = backend.pack(matrix, next);
    next += backend.packed_bytes(matrix);
    return packed;
  };
  for (const MedusaSource::Head& from : source.heads) {
    Head& head = heads_.emplace_back();
    for (const MedusaSource::Block& block : from.blocks)
      head.blocks.push_back({.weight = pack(block.weight), .bias = block.bias});
    head.output = pack(from.output);
  }
}

void MedusaHeads::observe(int layer, const float* x, int /*num_rows*/, Stream /*stream*/) {
  if (layer == num_layers_) features_ = x;
}

void MedusaHeads::normalise(std::span<float> row) const {
  double squares = 0;
  for (const float value : row) squares += double{value} * double{value};
  const double scale = 1 / std::sqrt(squares / static_cast<double>(row.size()) + double{norm_eps_});
  for (std::size_t i = 0; i < row.size(); ++i)
    row[i] = static_cast<float>(double{row[i]} * scale) * output_norm_[i];
}

std::span<const float> MedusaHeads::forward(int head, const float* source,
                                            std::span<const std::int32_t> rows, Stream stream) {
  const auto width = static_cast<std::size_t>(hidden_size_);
  const auto count = static_cast<int>(rows.size());
  const std::size_t size = rows.size() * width;
  if (count > max_rows_) {
    max_rows_ = count;
    x_ = allocate_rows(backend_, count, hidden_size_);
    out_ = allocate_rows(backend_, count, std::max(hidden_size_, vocab_size_));
  }
  backend_.copy_rows({.num_rows = count,
                      .cols = hidden_size_,
                      .source = source,
                      .source_rows = rows.data(),
                      .destination = x_.as<float>()},
                     stream);
  const void* const gathered = backend_.read(x_.as<void>(), size * sizeof(float), stream);
  hidden_.assign(static_cast<const float*>(gathered), static_cast<const float*>(gathered) + size);
  for (std::size_t row = 0; row < rows.size(); ++row)
    normalise(std::span(hidden_).subspan(row * width, width));

  const Head& from = heads_[static_cast<std::size_t>(head)];
  for (const Block& block : from.blocks) {
    const std::span<const float> inner = project(block.weight, count, stream);
    for (std::size_t i = 0; i < size; ++i) {
      const float value = inner[i] + (block.bias.empty() ? 0.0f : block.bias[i % width]);
      hidden_[i] += value / (1 + std::exp(-value));  // silu
    }
  }
  return project(from.output, count, stream);
}

/// What `weight` makes of hidden_, in host memory.
std::span<const float> MedusaHeads::project(const kernels::PackedMatrix& weight, int rows,
                                            Stream stream) {
  backend_.write(x_.as<void>(), hidden_.data(), hidden_.size() * sizeof(float), stream);
  backend_.project(
      {.num_rows = rows, .in = x_.as<float>(), .weight = weight, .out = out_.as<float>()}, stream);
  const std::size_t count = static_cast<std::size_t>(rows) * static_cast<std::size_t>(weight.rows);
  const void* const out = backend_.read(out_.as<void>(), count * sizeof(float), stream);
  return {static_cast<const float*>(out), count};
}

}  // namespace specdec
