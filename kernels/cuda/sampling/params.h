#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "kernels/sampling/row_numbers.h"

/// Sampling and acceptance on the device: the params structs. All pointers are device memory.
///
/// Launchers enqueue on the stream and return cudaGetLastError(); they neither allocate nor
/// synchronise, so they can be captured. Given equal logits, tokens and log-probabilities have the
/// bits of src/sampling and src/verify.
namespace specdec::kernels::cuda {

/// How one sequence's tokens are chosen: SamplingOptions as the device reads it.
struct RowSampling {
  std::uint64_t seed = 0;
  double inverse_temperature = 0;  // 1 / double(temperature); 0: greedy
  double top_p = 1;                // 1: off
  double min_p = 0;                // 0: off
  std::int32_t top_k = 0;          // 0: off
  std::int32_t logprobs = -1;      // -1: off, 0: of the chosen token, n: also the n most likely
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  std::int32_t min_tokens = 0;
  /// [vocab] occurrences of each token in the committed output, plus kInPrompt; null: no penalties.
  const std::uint32_t* token_counts = nullptr;
  const std::int32_t* bias_tokens = nullptr;  // [num_bias], distinct
  const float* bias_values = nullptr;         // [num_bias]
  std::int32_t num_bias = 0;
  std::int32_t num_end_tokens = 0;
  const std::int32_t* end_tokens = nullptr;  // banned while fewer than min_tokens are out

  static constexpr std::uint32_t kInPrompt = 0x80000000u;
};

/// Where a sequence stands. Read by every stage, advanced by commit alone.
struct SequenceState {
  std::int32_t length = 0;      // committed tokens; the last is the root of the tree
  std::int32_t num_output = 0;  // of them generated
};

/// The draft trees of a batch, a row per node (or, with node_of_row, rows of some nodes: then
/// tokens, parents and depths are indexed by first_rows[sequence] + node alone). Node 0 of a
/// sequence is its root, parents come before children, siblings in drawing order. Capacities are
/// those of the launch; what is there is what `sizes` says.
struct TreeRows {
  std::int32_t num_sequences = 0;
  std::int32_t num_rows = 0;                      // capacity: rows of the launch
  const std::int32_t* first_rows = nullptr;       // [sequences] place of the root
  const std::int32_t* sizes = nullptr;            // [sequences] nodes; 0: no tree this step
  const std::int32_t* sequence_of_row = nullptr;  // [rows]; -1: nothing in this row
  const std::int32_t* node_of_row = nullptr;      // [rows]; null: row - first row
  const std::int32_t* tokens = nullptr;           // [rows]
  const std::int32_t* parents = nullptr;          // [rows] node; -1 for a root
  const std::int32_t* depths = nullptr;           // [rows]
};

/// What is wrong with a row: the errors of LogitsPipeline.
enum class RowStatus : std::int32_t {
  ok = 0,
  bad_logits = 1,  // NaN or +infinity
  no_logits = 2,   // every logit is -infinity
  bad_edits = 3,   // penalties or bias make NaN or +infinity
  all_banned = 4,  // bias, bans and mask leave no token
};

/// One row between the kernels. All zero before the first and after the last.
struct RowState {
  unsigned long long best = 0;      // order_key(score) << 32 | ~token, the largest, after edits
  unsigned long long raw_best = 0;  // the same before edits
  std::uint32_t flags = 0;          // kRawNan | kEditedNan
  std::uint32_t dense = 0;          // 1: the survivors are too many for one block
  std::uint32_t cutoff_key = 0;     // survivors: key > cutoff, or equal and token <= cutoff_token
  std::int32_t cutoff_token = 0;
  double lowest = 0;          // ... and relative score >= lowest
  std::uint32_t arrived = 0;  // blocks whose part of the row is in `best` (draft/chain.h)

  static constexpr std::uint32_t kRawNan = 1;
  static constexpr std::uint32_t kEditedNan = 2;
};

/// One of the largest exact score + noise of a slice of a row.
struct SliceBest {
  double score;
  std::int32_t token;
};

constexpr int kSliceChunks = 16;     // chunks that one block of a row-wide kernel handles
constexpr int kDigitBins = 2048;     // of the first radix digit: the top 11 bits of a key
constexpr int kMostSelected = 4096;  // tokens that one block selects and draws from

constexpr int kMostCandidates = 16;  // of one draft row

/// Of one mask: as many as the host's words of 64 bits hold.
constexpr int mask_words(int vocab) { return (vocab + 63) / 64 * 2; }
constexpr int num_chunks(int vocab) { return (vocab + row_math::kChunk - 1) / row_math::kChunk; }
constexpr int num_slices(int vocab) {
  return (num_chunks(vocab) + kSliceChunks - 1) / kSliceChunks;
}

/// Scratch of a launch, [rows]-shaped; zeroed once when it is allocated, left zero where that
/// matters.
struct SamplingScratch {
  RowState* states = nullptr;               // [rows]
  std::uint32_t* chunk_keys = nullptr;      // [rows, chunks] order_key of each chunk's best
  std::uint32_t* raw_chunk_keys = nullptr;  // [rows, chunks] before edits; only of edited rows
  float* scores = nullptr;                  // [rows, vocab] edited rows; null: no sequence edits
  unsigned long long* digits = nullptr;     // [rows, kDigitBins] masses by first digit
  SliceBest* slice_best = nullptr;          // [rows, slices, candidates wanted]
};

struct SampleRowsParams {
  int vocab = 0;
  TreeRows tree;
  const float* logits = nullptr;             // [rows, vocab]
  const RowSampling* options = nullptr;      // [sequences]
  const SequenceState* sequences = nullptr;  // [sequences]
  /// Which of `masks` each row is under; -1: none. Null: no row is under one.
  const std::int32_t* mask_of_row = nullptr;  // [rows]
  /// Tokens that a grammar allows, bit t % 32 of word t / 32.
  const std::uint32_t* masks = nullptr;  // [masks, mask_words(vocab)]
  SamplingScratch scratch;
  std::int32_t* tokens = nullptr;  // out [rows]; undefined where status is not ok
  RowStatus* status = nullptr;     // out [rows]
};

/// Which stages a batch needs; part of a graph's key.
struct SamplingNeeds {
  bool edits = false;    // some sequence has penalties, bias, min_tokens or a mask
  bool sampled = false;  // some sequence has temperature > 0
  bool nucleus = false;  // some sequence has top_p without top_k
  bool dense = false;    // some sequence may keep more than kMostSelected tokens
};

}  // namespace specdec::kernels::cuda
