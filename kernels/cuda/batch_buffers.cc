#include "kernels/cuda/batch_buffers.h"

#include <algorithm>
#include <cstring>

namespace specdec::kernels::cuda {
namespace {

/// The arrays of a DeviceBatch in the order in which they lie; block tables, the largest, last, so
/// that a copy of what is used brings all of them over.
struct Array {
  std::int32_t* DeviceBatch::*pointer;
  int count;
};

void for_each_array(const BatchCapacity& capacity, const auto& body) {
  const int rows = capacity.rows;
  const int sequences = capacity.sequences;
  const Array arrays[] = {
      {&DeviceBatch::tokens, rows},
      {&DeviceBatch::positions, rows},
      {&DeviceBatch::slots, rows},
      {&DeviceBatch::row_sequences, rows},
      {&DeviceBatch::path_offsets, rows},
      {&DeviceBatch::output_rows, rows},
      {&DeviceBatch::sequence_begins, sequences + 1},
      {&DeviceBatch::context_lens, sequences},
      {&DeviceBatch::path_slots, capacity.path_slots},
      {&DeviceBatch::block_tables, sequences * capacity.blocks_per_sequence},
  };
  std::size_t at = 0;
  for (const Array& array : arrays) {
    body(array, at);
    at += static_cast<std::size_t>(array.count + 3) / 4 * 16;
  }
}

}  // namespace

BatchBuffers::BatchBuffers(const BatchCapacity& capacity, std::byte* device,
                           std::byte* pinned) noexcept
    : capacity_(capacity), device_(device), pinned_(pinned) {
  for_each_array(capacity, [&](const Array& array, std::size_t at) {
    batch_.*array.pointer = reinterpret_cast<std::int32_t*>(device + at);
  });
  batch_.table_stride = capacity.blocks_per_sequence;
}

std::size_t BatchBuffers::bytes(const BatchCapacity& capacity) noexcept {
  std::size_t end = 0;
  for_each_array(capacity, [&](const Array& array, std::size_t at) {
    end = at + static_cast<std::size_t>(array.count + 3) / 4 * 16;
  });
  return end;
}

BatchCapacity BatchBuffers::capacity_of(const BatchView& batch) noexcept {
  BatchCapacity needed{.rows = batch.num_rows,
                       .sequences = static_cast<int>(batch.sequences.size())};
  for (const SequenceRows& sequence : batch.sequences) {
    needed.blocks_per_sequence = std::max(needed.blocks_per_sequence, sequence.num_blocks);
    if (batch.path_offsets == nullptr) continue;
    for (int row = sequence.row_begin; row < sequence.row_begin + sequence.num_rows; ++row)
      if (const int offset = batch.path_offsets[row]; offset >= 0)
        needed.path_slots =
            std::max(needed.path_slots, offset + batch.positions[row] - sequence.context_len + 1);
  }
  return needed;
}

bool BatchBuffers::holds(const BatchCapacity& needed) const noexcept {
  return needed.rows <= capacity_.rows && needed.sequences <= capacity_.sequences &&
         needed.path_slots <= capacity_.path_slots &&
         needed.blocks_per_sequence <= capacity_.blocks_per_sequence;
}

BatchShape BatchBuffers::shape_of(const BatchView& batch) noexcept {
  BatchShape shape{.rows = batch.num_rows,
                   .outputs = batch.num_outputs,
                   .sequences = static_cast<int>(batch.sequences.size()),
                   .max_context = 1};
  for (int row = 0; row < batch.num_rows; ++row) {
    shape.max_context = std::max(shape.max_context, batch.positions[row] + 1);
    shape.has_paths |= batch.path_offsets != nullptr && batch.path_offsets[row] >= 0;
  }
  return shape;
}

cudaError_t BatchBuffers::stage(const BatchView& batch, cudaStream_t stream) noexcept {
  return stage(batch, shape_of(batch), stream);
}

cudaError_t BatchBuffers::stage(const BatchView& batch, const BatchShape& shape,
                                cudaStream_t stream) noexcept {
  const auto array = [&](std::int32_t* device) {
    return reinterpret_cast<std::int32_t*>(pinned_ +
                                           (reinterpret_cast<std::byte*>(device) - device_));
  };
  const auto put = [&](std::int32_t* device, const std::int32_t* from, int count) {
    if (count > 0)
      std::memcpy(array(device), from, static_cast<std::size_t>(count) * sizeof(std::int32_t));
  };
  const int rows = batch.num_rows;
  const auto pad = [&](std::int32_t* device, int from, int to, std::int32_t value) {
    std::fill(array(device) + from, array(device) + to, value);
  };
  put(batch_.tokens, batch.tokens, batch.tokens == nullptr ? 0 : rows);
  put(batch_.positions, batch.positions, rows);
  put(batch_.slots, batch.slots, rows);
  if (batch.path_offsets != nullptr)
    put(batch_.path_offsets, batch.path_offsets, rows);
  else
    pad(batch_.path_offsets, 0, rows, -1);
  put(batch_.output_rows, batch.output_rows, batch.num_outputs);
  put(batch_.path_slots, batch.path_slots, capacity_of(batch).path_slots);
  pad(batch_.tokens, rows, shape.rows, 0);
  pad(batch_.positions, rows, shape.rows, 0);
  pad(batch_.slots, rows, shape.rows, kPaddingSlot);
  pad(batch_.row_sequences, rows, shape.rows, 0);
  pad(batch_.path_offsets, rows, shape.rows, -1);
  pad(batch_.output_rows, batch.num_outputs, shape.outputs, 0);

  const int sequences = static_cast<int>(batch.sequences.size());
  const int stride = capacity_.blocks_per_sequence;
  for (int i = 0; i < sequences; ++i) {
    const SequenceRows& sequence = batch.sequences[static_cast<std::size_t>(i)];
    std::fill_n(array(batch_.row_sequences) + sequence.row_begin, sequence.num_rows, i);
    array(batch_.sequence_begins)[i] = sequence.row_begin;
    array(batch_.context_lens)[i] = sequence.context_len;
    const int blocks = std::min(sequence.num_blocks, stride);
    put(batch_.block_tables + i * stride, sequence.block_table, blocks);
    // Whatever lay there before may be no block's number.
    pad(batch_.block_tables, i * stride + blocks, (i + 1) * stride, 0);
  }
  // Sequences without rows, and then the padding.
  pad(batch_.sequence_begins, sequences, shape.sequences + 1, rows);
  pad(batch_.context_lens, sequences, shape.sequences, 0);

  batch_.num_rows = shape.rows;
  batch_.num_outputs = shape.outputs;
  batch_.num_sequences = shape.sequences;
  batch_.max_context = shape.max_context;
  batch_.has_paths = shape.has_paths;
  const std::size_t used =
      static_cast<std::size_t>(reinterpret_cast<std::byte*>(batch_.block_tables) - device_) +
      static_cast<std::size_t>(sequences * stride) * sizeof(std::int32_t);
  return cudaMemcpyAsync(device_, pinned_, used, cudaMemcpyHostToDevice, stream);
}

}  // namespace specdec::kernels::cuda
