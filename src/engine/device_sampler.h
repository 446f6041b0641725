#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "engine/arena.h"
#include "engine/backend/cuda_backend.h"
#include "engine/device_masks.h"
#include "engine/device_requests.h"
#include "engine/step_sampler.h"
#include "kernels/cuda/sampling/accept.h"

namespace specdec {

/// Draws the tokens of single steps on a GPU under the coupled rule, grammars included. Trees go
/// through buffers of a fixed size, some at a time.
class DeviceSampler final : public StepSampler {
 public:
  /// `most_rows`: nodes of the trees that are drawn at a time; a larger tree is the host's.
  /// `coupled`: the rule of requests with a temperature is the coupled one, else they are the
  /// host's too. Throws Error(out_of_memory, device).
  DeviceSampler(CudaBackend& backend, int vocab_size, int max_sequences, int most_rows,
                bool coupled);

  bool begin(std::span<Sequence* const> batch) override;
  std::vector<Sequence*> draw(const float* logits) override;

 private:
  struct Tree {
    Sequence* sequence = nullptr;
    kernels::cuda::RowSampling sampling;
  };
  struct Shape {
    int trees = 0;
    int rows = 0;
    int capacity = 0;        // tokens of the longest path
    int most_logprobs = -1;  // of the most likely tokens; < 0: no log-probabilities at all
  };
  /// What the host fills and copies in one piece.
  struct Entry {
    kernels::cuda::RowSampling* sampling = nullptr;  // [trees]
    kernels::cuda::SequenceState* states = nullptr;  // [trees]
    std::int32_t* first_rows = nullptr;              // [trees]
    std::int32_t* sizes = nullptr;                   // [trees]
    std::int32_t* sequence_of_row = nullptr;         // [rows]
    std::int32_t* tokens = nullptr;                  // [rows]
    std::int32_t* parents = nullptr;                 // [rows]
    std::int32_t* depths = nullptr;                  // [rows]
    std::int32_t* masks = nullptr;                   // [rows]

    static Entry of(Arena& arena, std::size_t trees, std::size_t rows);
  };
  /// What comes back in one piece.
  struct Result {
    kernels::cuda::AcceptedPaths paths;
    std::int32_t* tokens = nullptr;              // [rows]
    kernels::cuda::RowStatus* status = nullptr;  // [rows]
    float* logprobs = nullptr;                   // [trees, capacity]
    std::int32_t* top_tokens = nullptr;          // [trees, capacity, most_logprobs]
    float* top_logprobs = nullptr;               // the same

    static Result of(Arena& arena, const Shape& shape);
  };
  struct Buffers {
    Entry entry;  // on the device, and so the result
    Result result;
    Entry host_entry;  // pinned
    Result host_result;
    std::size_t entry_bytes = 0;
    std::size_t result_bytes = 0;
  };

  void place_scratch(Arena& arena);
  Buffers reserve(const Shape& shape);
  bool serves(const Sequence& sequence) const;
  bool find_masks(const Sequence& sequence, std::span<std::int32_t> numbers);
  void draw_group(std::span<const Tree> trees, const float* logits, std::vector<Sequence*>& left);
  static bool take(const Result& result, const Shape& shape, std::size_t index, int first_row,
                   Sequence& sequence);

  CudaBackend& backend_;
  int vocab_size_;
  int most_rows_;
  bool coupled_;
  DeviceRequests requests_;
  DeviceMasks masks_;
  std::vector<Tree> trees_;  // of the step in progress
  DeviceBuffer scratch_memory_;
  kernels::cuda::SamplingScratch scratch_;
  DeviceBuffer device_;  // an entry, then a result
  PinnedMemory pinned_;  // likewise
};

}  // namespace specdec
