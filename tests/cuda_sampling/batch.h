#pragma once

#include <memory>
#include <optional>
#include <random>
#include <vector>

#include "device_array.h"
#include "draft/draft_tree.h"
#include "engine/row_sampling.h"
#include "kernels/cuda/sampling/accept.h"
#include "sampling/sampler.h"
#include "verify/verify.h"

namespace specdec::cuda_test {

/// One sequence of a test batch, as the host's sampler reads it.
struct TestSequence {
  SamplingOptions options;
  std::uint64_t seed = 0;
  int length = 1;  // committed tokens
  int num_output = 0;
  PenaltyState penalties;
  std::vector<TokenId> end_tokens;
  DraftTree tree;
};

/// A batch whose rows the host and the device sample, with `padding` empty rows after each tree.
class TestBatch {
 public:
  TestBatch(int vocab, std::vector<TestSequence> sequences, std::vector<float> logits,
            int padding = 0);

  int vocab() const { return vocab_; }
  int num_rows() const { return static_cast<int>(sequence_of_row_.size()); }
  const std::vector<TestSequence>& sequences() const { return sequences_; }
  std::vector<TestSequence>& sequences() { return sequences_; }
  int first_row(std::size_t sequence) const { return first_rows_[sequence]; }
  std::span<const float> row(int row) const {
    const auto width = static_cast<std::size_t>(vocab_);
    return std::span(logits_).subspan(static_cast<std::size_t>(row) * width, width);
  }

  kernels::cuda::SampleRowsParams params() const;
  kernels::cuda::SamplingNeeds needs() const;
  kernels::cuda::AcceptedPaths paths() const;
  /// `masks` [masks, mask_words(vocab)], and which of them each row is under.
  void set_masks(std::span<const std::uint32_t> masks, std::span<const std::int32_t> of_rows);

  /// What the host says, or the error that it throws.
  struct HostResult {
    AcceptedPath path;
    std::optional<Error> error;
  };
  HostResult host(std::size_t sequence, RowSampler& sampler,
                  VerifyMethod method = VerifyMethod::coupled) const;

  /// Runs sample_and_accept and path_logprobs.
  struct DeviceResult {
    std::vector<std::int32_t> lengths, nodes, tokens, top_tokens;
    std::vector<float> logprobs, top_logprobs;
    std::vector<kernels::cuda::RowStatus> status;
    int capacity = 0;
    int most = 0;
  };
  DeviceResult device(const kernels::cuda::Launch& to) const;
  /// The paths alone, as the last launch left them.
  DeviceResult read_paths() const;
  /// Compares host and device, sequence by sequence, bit by bit; also that scratch is left zero.
  void check(const kernels::cuda::Launch& to) const;

 private:
  int vocab_;
  int capacity_ = 1;
  std::vector<TestSequence> sequences_;
  std::vector<float> logits_;
  std::vector<std::int32_t> first_rows_, sequence_of_row_;

  DeviceArray<float> device_logits_;
  DeviceArray<kernels::cuda::RowSampling> options_;
  DeviceArray<kernels::cuda::SequenceState> states_;
  DeviceArray<std::int32_t> device_first_rows_, sizes_, device_sequence_of_row_, tree_tokens_,
      parents_, depths_;
  std::vector<DeviceArray<std::uint32_t>> counts_;
  std::vector<DeviceArray<std::int32_t>> ids_;
  std::vector<DeviceArray<float>> biases_;
  DeviceArray<std::uint32_t> masks_;
  DeviceArray<std::int32_t> mask_of_row_;

  DeviceArray<kernels::cuda::RowState> row_states_;
  DeviceArray<std::uint32_t> chunk_keys_, raw_chunk_keys_;
  DeviceArray<float> scores_;
  DeviceArray<unsigned long long> digits_;
  DeviceArray<kernels::cuda::SliceBest> slice_best_;
  DeviceArray<std::int32_t> tokens_;
  DeviceArray<kernels::cuda::RowStatus> status_;
  DeviceArray<std::int32_t> path_lengths_, path_nodes_, path_tokens_;
  DeviceArray<kernels::cuda::RowStatus> path_status_;
};

/// The device that tests run on.
kernels::cuda::Launch test_launch();

}  // namespace specdec::cuda_test
