#include "hash_model.h"

#include "kernels/cuda/device.cuh"

namespace specdec::cuda_test {
namespace {

using namespace kernels::cuda;

__device__ int place_of(const HashModel& model, const DeviceBatch& batch, int sequence, int slot) {
  return batch.block_tables[sequence * batch.table_stride + slot / model.block_size] *
             model.block_size +
         slot % model.block_size;
}

// grid: [rows], one thread each
__global__ void append(HashModel model, DeviceBatch batch) {
  wait_for_previous();
  let_next_start();
  const int row = static_cast<int>(blockIdx.x);
  if (batch.slots[row] < 0) return;
  const int place = place_of(model, batch, batch.row_sequences[row], batch.slots[row]);
  model.keys[place] = model.values[place] = kv_word(batch.tokens[row], batch.positions[row]);
}

// grid: [outputs]
__global__ void attend(HashModel model, DeviceBatch batch) {
  wait_for_previous();
  let_next_start();
  __shared__ std::uint32_t path;
  const int row = batch.output_rows[blockIdx.x];
  if (threadIdx.x == 0) {
    path = 0;
    const int sequence = batch.row_sequences[row];
    const int context = batch.context_lens[sequence];
    const int offset = batch.path_offsets[row];
    for (int position = 0; batch.slots[row] >= 0 && position <= batch.positions[row]; ++position) {
      const int slot = position < context || offset < 0
                           ? position
                           : batch.path_slots[offset + position - context];
      const int place = place_of(model, batch, sequence, slot);
      if (model.keys[place] != model.values[place]) path ^= 0xDEADu;
      path = mix(path, model.keys[place]);
    }
    if (model.features != nullptr)
      reinterpret_cast<std::uint32_t*>(model.features)[row * kHashWidth] = path;
  }
  __syncthreads();
  for (int token = static_cast<int>(threadIdx.x); token < model.vocab;
       token += static_cast<int>(blockDim.x))
    model.logits[static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(model.vocab) +
                 static_cast<std::size_t>(token)] = hash_logit(path, model.disagreement, token);
}

// grid: [rows], one thread each
__global__ void append_entry(HashModel head, DeviceBatch batch, HashHeadPass pass) {
  wait_for_previous();
  let_next_start();
  const int row = static_cast<int>(blockIdx.x);
  const auto* const states = reinterpret_cast<const std::uint32_t*>(pass.states);
  const std::uint32_t word = kv_word(batch.tokens[row], batch.positions[row]);
  const std::uint32_t path = mix(states[pass.state_rows[row] * kHashWidth], word);
  reinterpret_cast<std::uint32_t*>(pass.hidden)[row * kHashWidth] = path;
  if (batch.slots[row] < 0) return;
  const int place = place_of(head, batch, batch.row_sequences[row], batch.slots[row]);
  head.keys[place] = path;
  head.values[place] = word;
}

// grid: [outputs]
__global__ void attend_entries(HashModel head, DeviceBatch batch, HashHeadPass pass) {
  wait_for_previous();
  let_next_start();
  __shared__ std::uint32_t path;
  const int row = batch.output_rows[blockIdx.x];
  if (threadIdx.x == 0) {
    path = reinterpret_cast<const std::uint32_t*>(pass.hidden)[row * kHashWidth];
    const int sequence = batch.row_sequences[row];
    const int context = batch.context_lens[sequence];
    const int offset = batch.path_offsets[row];
    const int last = batch.positions[row];
    std::uint32_t before = 0;
    bool broken = false;
    for (int position = 1; batch.slots[row] >= 0 && position <= last; ++position) {
      const int slot = position < context || offset < 0
                           ? position
                           : batch.path_slots[offset + position - context];
      const int place = place_of(head, batch, sequence, slot);
      const std::uint32_t key = head.keys[place];
      broken |= position > 1 && key != mix(before, head.values[place]);
      broken |= position == last && key != path;
      before = key;
    }
    if (broken) path ^= 0xDEADu;
  }
  __syncthreads();
  for (int i = static_cast<int>(threadIdx.x); i < head.vocab; i += static_cast<int>(blockDim.x))
    head.logits[static_cast<std::size_t>(blockIdx.x) * static_cast<std::size_t>(head.vocab) +
                static_cast<std::size_t>(i)] =
        hash_logit(path, head.disagreement, pass.tokens == nullptr ? i : pass.tokens[i]);
}

}  // namespace

cudaError_t hash_forward(const HashModel& model, const DeviceBatch& batch, const Launch& to) {
  const cudaError_t error =
      launch(to, &append, dim3(static_cast<unsigned>(batch.num_rows)), 1, 0, model, batch);
  if (error != cudaSuccess) return error;
  return launch(to, &attend, dim3(static_cast<unsigned>(batch.num_outputs)), 64, 0, model, batch);
}

cudaError_t hash_head_forward(const HashModel& head, const DeviceBatch& batch,
                              const HashHeadPass& pass, const Launch& to) {
  const cudaError_t error = launch(to, &append_entry, dim3(static_cast<unsigned>(batch.num_rows)),
                                   1, 0, head, batch, pass);
  if (error != cudaSuccess) return error;
  return launch(to, &attend_entries, dim3(static_cast<unsigned>(batch.num_outputs)), 64, 0, head,
                batch, pass);
}

std::uint32_t path_hash(std::span<const std::int32_t> tokens) {
  std::uint32_t path = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    path = mix(path, kv_word(tokens[i], static_cast<std::int32_t>(i)));
  return path;
}

void hash_logits(std::span<const std::int32_t> tokens, std::uint32_t disagreement,
                 std::span<float> out) {
  const std::uint32_t path = path_hash(tokens);
  for (std::size_t i = 0; i < out.size(); ++i)
    out[i] = hash_logit(path, disagreement, static_cast<int>(i));
}

}  // namespace specdec::cuda_test
