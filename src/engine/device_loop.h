#pragma once

#include <climits>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernels/cuda/batch.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/sampling/params.h"
#include "kernels/cuda/sampling/rules.h"
#include "kernels/cuda/step/commit.h"
#include "specdec/types.h"

namespace specdec {

/// A model as the loop runs it.
struct DeviceModel {
  /// Enqueues the forward pass of `batch` on the stream (it is being captured: no allocation, no
  /// synchronisation) and returns where its logits [batch.num_outputs, vocab] will lie.
  std::function<const float*(const kernels::cuda::DeviceBatch& batch, cudaStream_t stream)> forward;
  kernels::cuda::KvPoolView pool;
};

/// Where a draft's pass leaves its logits, in device memory.
struct DraftLogits {
  const float* logits = nullptr;         // [outputs, vocab]
  const std::int32_t* tokens = nullptr;  // [vocab] the target's, ascending; null: the same numbers
  int vocab = 0;
};

/// A draft model as the loop runs it.
struct DeviceDraftModel {
  /// As DeviceModel's.
  std::function<DraftLogits(const kernels::cuda::DeviceBatch& batch, cudaStream_t stream)> forward;
  kernels::cuda::KvPoolView pool;
};

/// An EAGLE head as the loop runs it. Row i of a pass goes on from row sources[i] (device memory)
/// of the features of the target's last pass (the pass at the roots), or else of the head's outputs
/// of its own pass before.
struct DeviceHead {
  std::function<DraftLogits(const kernels::cuda::DeviceBatch& batch, const std::int32_t* sources,
                            bool at_roots, cudaStream_t stream)>
      forward;
  /// The target's pass that leaves these features; DeviceModel::forward leaves none.
  std::function<const float*(const kernels::cuda::DeviceBatch& batch, cudaStream_t stream)> target;
  /// A run begins: enqueues what puts the features of the sequences' feature_rows there. (Captures
  /// before it may have run passes over padding.)
  std::function<void(cudaStream_t stream)> enter;
};

/// Enqueues what puts a draft's logits of a reduced vocabulary under the target's numbers.
using SpreadLogits =
    std::function<const float*(const DraftLogits& logits, int outputs, cudaStream_t stream)>;

enum class DeviceDraft : std::uint8_t { none, ngram, draft_model, eagle };

struct DeviceLoopOptions {
  kernels::cuda::DeviceInfo device = {};
  cudaStream_t stream = nullptr;  // where the loop runs, the caller's; null: on one of its own
  int vocab = 0;
  int max_sequences = 1;
  int max_context = 0;          // tokens of the longest sequence
  int blocks_per_sequence = 0;  // of its block table
  int max_turns = 64;           // of one run
  DeviceDraft draft = DeviceDraft::none;
  int depth = 0;  // the longest draft
  /// Shorter ones for which there are graphs too, rising; a draft's depth goes up to the next.
  std::vector<int> depths = {};
  int nodes = 0;  // most draft tokens; for a chain, depth
  int topk = 1;   // children per node; 1: a chain
  float min_confidence = 0;
  int ngram_min = 1;
  int ngram_max = 1;
  /// How sequences with a temperature accept; none: coupled. Their drafts must be deterministic.
  std::optional<kernels::cuda::SampledRule> rule = {};
  int most_logprobs = 0;  // of the most likely tokens of a row; < 0: no log-probabilities at all
  int most_graphs = 8;    // shapes that are kept instantiated
};

/// One decoding sequence: all of its tokens but the last have KV.
struct DeviceSequence {
  const std::vector<TokenId>* tokens = nullptr;  // committed; read when the loop is entered
  int num_output = 0;
  int max_depth = INT_MAX;  // of its drafts, at most DeviceLoopOptions::depth
  int max_nodes = INT_MAX;  // likewise
  int draft_length = 0;     // draft KV in place, at least size - 2 if it drafts; kept up to date
  /// Of a sequence that an EAGLE head drafts for: where the features lie that the head has yet to
  /// run, one for each of the last committed tokens, at most the run's depth + 1. Afterwards: which
  /// rows of the target's last pass they are. Empty: the head has no part in this sequence.
  std::vector<std::int32_t> feature_rows = {};
  std::span<const std::int32_t> block_table;
  kernels::cuda::RowSampling sampling;   // its pointers are device memory of the caller
  kernels::cuda::SequenceLimits limits;  // likewise
};

/// What a run is to do.
struct DeviceRun {
  int turns = 1;        // at most; 1: one turn without a loop
  int depth = INT_MAX;  // of the drafts; 0: plain decoding. What sequences ask for is cut to it
};
/// What it did.
struct DeviceRunDone {
  int turns = 0;
  double seconds = 0;  // from its launch until the host had read the last turn
};

/// The step's stages on the device, in the order and under the names of Step: propose, forward,
/// sample, accept, commit, publish. Captured once per shape as a CUDA graph; the graph is the body
/// of a WHILE node, so that turn follows turn without the host, or stands alone for one step.
///
/// It serves batches whose sequences all decode, with a drafter that the device knows; what needs
/// the host between steps (stop strings, callbacks, grammar, prefill, other drafters) stays with
/// Step. One thread at a time.
class DeviceLoop {
 public:
  /// Bytes of the GPU's memory for the loop's buffers; its graphs take some beside. Throws
  /// Error(unsupported).
  static std::size_t bytes(const DeviceLoopOptions& options);

  /// `draft` is read when options.draft is draft_model, `head` when it is eagle, `spread` when
  /// either has a vocabulary of its own. Throws Error(out_of_memory, device, unsupported).
  DeviceLoop(const DeviceLoopOptions& options, DeviceModel target, DeviceDraftModel draft,
             DeviceHead head = {}, SpreadLogits spread = {});
  ~DeviceLoop();

  /// Slots beyond its tokens that a sequence needs reserved for one turn with drafts of `depth`.
  int slots_per_turn(int depth) const;
  /// The depths that runs are captured for, from 0, and which of them serves for `depth`.
  const std::vector<int>& depths() const;
  int depth_of(int depth) const;

  /// Captures and instantiates the graphs for these shapes, drafts of the full depth and sequences
  /// of up to `context` tokens, so that no run has to.
  void warm_up(std::span<const int> num_sequences, const kernels::cuda::SamplingNeeds& needs,
               int context);

  /// What one turn brought; valid until OnTurn returns.
  struct Turn {
    std::span<const kernels::cuda::TurnEntry> entries;  // [sequences]
    int path_capacity = 0;                              // tokens of a sequence's longest path
    int most_logprobs = 0;
    // Where the sequence's options ask for them; of its emitted tokens.
    const float* logprobs = nullptr;           // [sequences, path_capacity]
    const std::int32_t* top_tokens = nullptr;  // [sequences, path_capacity, most_logprobs]
    const float* top_logprobs = nullptr;       // the same
  };
  /// Called on the running thread for each turn in order, while later turns are under way. False:
  /// leave the loop after the turns that have begun; it is called for these too.
  using OnTurn = std::function<bool(const Turn& turn)>;

  /// Turns until a sequence ends or lacks slots, on_turn says so, or all are done. Throws
  /// Error(device), after which the engine has to be loaded anew.
  DeviceRunDone run(std::span<DeviceSequence> sequences, const kernels::cuda::SamplingNeeds& needs,
                    const DeviceRun& what, const OnTurn& on_turn);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace specdec
