#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <span>

#include "kernels/cuda/batch.h"
#include "kernels/cuda/launch.h"

namespace specdec::cuda_test {

/// A language model that is nothing but a hash, for tests of everything around a model: a row's KV
/// is one word, its logits are a function of the words on its path, in order. One wrong slot, path
/// or stale word anywhere changes every logit after it.
struct HashModel {
  std::int32_t vocab = 0;
  std::int32_t block_size = 0;
  std::uint32_t disagreement = 0;   // of a draft: how much of each logit is its own, in 1/256
  std::uint32_t* keys = nullptr;    // [blocks, block_size]
  std::uint32_t* values = nullptr;  // the same words again
  float* logits = nullptr;          // [outputs, vocab]
  float* features = nullptr;  // [rows, kHashWidth] the path's hash, for outputs; null: not wanted
};
constexpr int kHashWidth = 4;  // floats of a feature; the first holds the hash

#ifdef __CUDACC__
#define SPECDEC_BOTH __host__ __device__
#else
#define SPECDEC_BOTH
#endif
SPECDEC_BOTH inline std::uint32_t mix(std::uint32_t a, std::uint32_t b) {
  std::uint32_t h = a * 0x9E3779B1u ^ (b + 0x7F4A7C15u + (a << 6) + (a >> 2));
  h ^= h >> 16;
  h *= 0x85EBCA6Bu;
  h ^= h >> 13;
  h *= 0xC2B2AE35u;
  return h ^ h >> 16;
}
SPECDEC_BOTH inline std::uint32_t kv_word(std::int32_t token, std::int32_t position) {
  return mix(static_cast<std::uint32_t>(token), static_cast<std::uint32_t>(position));
}
/// A draft that disagrees a little finds most of the target's tokens.
SPECDEC_BOTH inline float hash_logit(std::uint32_t path, std::uint32_t disagreement, int token) {
  const std::uint32_t common = mix(path, static_cast<std::uint32_t>(token)) >> 12;
  const std::uint32_t own = mix(path ^ 0x55555555u, static_cast<std::uint32_t>(token)) >> 12;
  const float sum = static_cast<float>(common) * (256.0f - static_cast<float>(disagreement)) +
                    static_cast<float>(own) * static_cast<float>(disagreement);
  return sum * (8.0f / (256.0f * 1048576.0f));
}

/// Enqueues a forward pass.
cudaError_t hash_forward(const HashModel& model, const kernels::cuda::DeviceBatch& batch,
                         const kernels::cuda::Launch& to);
/// An EAGLE head that is nothing but a hash.
struct HashHeadPass {
  const float* states = nullptr;             // [.., kHashWidth]
  const std::int32_t* state_rows = nullptr;  // [rows]
  float* hidden = nullptr;                   // out [rows, kHashWidth]
  /// [head.vocab] what its logits are of; null: 0, 1, ...
  const std::int32_t* tokens = nullptr;
};
/// A row's output is the path's hash if its state is that of the path without it. Its KV is such a
/// hash and the row's word: what does not go on from entry to entry, from the second one on,
/// changes the logits.
cudaError_t hash_head_forward(const HashModel& head, const kernels::cuda::DeviceBatch& batch,
                              const HashHeadPass& pass, const kernels::cuda::Launch& to);
/// The hash of a path.
std::uint32_t path_hash(std::span<const std::int32_t> tokens);
/// The logits after `tokens`, on the host.
void hash_logits(std::span<const std::int32_t> tokens, std::uint32_t disagreement,
                 std::span<float> out);

}  // namespace specdec::cuda_test
