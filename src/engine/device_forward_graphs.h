#pragma once

#include <cstddef>
#include <functional>
#include <list>
#include <optional>
#include <span>

#include "engine/backend/cuda_backend.h"
#include "engine/backend/cuda_memory.h"
#include "engine/model/eagle_head.h"
#include "engine/model/pass_graphs.h"
#include "engine/model/transformer.h"
#include "kernels/cuda/batch_buffers.h"

namespace specdec {

/// What a graph of a pass was captured for. Launches depend on nothing else of a batch.
struct PassShape {
  kernels::cuda::BatchShape batch;
  HiddenStateTap* tap = nullptr;

  bool operator==(const PassShape&) const = default;
};

/// A model as graphs run it.
struct GraphedModel {
  int max_rows = 0;
  int num_logits = 0;  // of a row
  /// Enqueues the pass of `batch`, which is the backend's memory, and leaves logits at `logits`
  /// [batch.num_outputs, num_logits]. Neither allocates nor synchronises, once a batch of as many
  /// rows, outputs and sequences and the same context has run.
  std::function<void(float* logits, const kernels::BatchView& batch, Stream stream,
                     HiddenStateTap* tap)>
      enqueue;

  /// `model` must outlive what these return.
  static GraphedModel of(Transformer& model);
  static GraphedModel of(EagleHead& head);
};

/// The passes of single steps and of host drafters on a GPU: decoding and verification, a few rows
/// of some sequences that nearly all want logits. A batch is padded to the next shape, goes over in
/// one copy, and runs as one graph.
///
/// A shape's first pass is launched op by op, which makes room for its scratch; its second one is
/// captured. So shapes that come once cost what they did without graphs. Where a capture fails,
/// there are no graphs from then on.
///
/// For the stepping thread.
class ForwardGraphs final : public PassGraphs {
 public:
  struct Options {
    int max_sequences = 1;
    int max_context = 0;  // tokens of the longest sequence
    int block_size = 0;
    int most_shapes = 32;  // that are remembered, the most recently used
  };
  static constexpr int kMostRows = 64;  // an estimate: kernels of more take longer than launches
  /// Set aside for the graphs of a model.
  static constexpr std::size_t kGraphBytes = std::size_t{64} << 20;

  /// Bytes of the GPU's memory for the buffers; the graphs take some beside.
  static std::size_t bytes(const GraphedModel& model, const Options& options);
  /// Throws Error(out_of_memory, device).
  ForwardGraphs(CudaBackend& backend, GraphedModel model, const Options& options);

  std::optional<std::span<const float>> forward(const ForwardBatch& batch, Stream stream,
                                                HiddenStateTap* tap) override;
  std::int64_t num_runs() const noexcept override { return num_runs_; }

  /// Captures graphs for single sequences of `rows` rows at the shortest contexts, so that no step
  /// has to. Throws as forward() does.
  void warm_up(std::span<const int> rows, bool has_paths, HiddenStateTap* tap);

  /// The shape that a batch is padded to; none: graphs do not serve it.
  std::optional<PassShape> shape_of(const kernels::BatchView& batch, HiddenStateTap* tap) const;
  /// Graphs that are kept.
  int num_graphs() const noexcept;
  /// False: a capture has failed.
  bool usable() const noexcept { return usable_; }

 private:
  struct Shape {
    PassShape key;
    kernels::cuda::BatchBuffers buffers;  // in memory that all shapes share
    bool launched = false;                // its scratch is there
    OwnedExecutable graph;                // null: not captured
  };

  static kernels::cuda::BatchCapacity capacity(const kernels::cuda::BatchShape& shape,
                                               const Options& options);
  Shape& find(const PassShape& key);
  void run(Shape& shape, const kernels::BatchView& batch, cudaStream_t stream);
  void capture(Shape& shape, cudaStream_t stream);
  void launch(const Shape& shape, cudaStream_t stream);

  CudaBackend& backend_;
  GraphedModel model_;
  Options options_;
  kernels::cuda::BatchShape largest_;
  DeviceBuffer batch_memory_;
  PinnedMemory batch_pinned_;
  OwnedEvent staged_;        // the copy out of batch_pinned_
  DeviceBuffer logits_;      // [most_rows_, the model's logits of a row]
  std::list<Shape> shapes_;  // the most recently used first
  bool usable_ = true;
  std::int64_t num_runs_ = 0;
};

}  // namespace specdec
