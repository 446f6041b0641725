#include "engine/device_forward_graphs.h"

#include <algorithm>
#include <cstdint>
#include <utility>

#include "engine/backend/cuda_error.h"
#include "engine/backend/cuda_graph.h"
#include "engine/device_eagle.h"
#include "engine/log.h"

namespace specdec {

namespace cuda = kernels::cuda;

namespace {

constexpr int kShortestContext = 256;  // a multiple of every block size
constexpr int kTileRows = 8;           // that products take at a time
constexpr int kLongestPath = 64;       // slots of a row's path, on average

int doubled(int from, int least) {
  while (from < least) from *= 2;
  return from;
}

/// Up to a whole tile, rows cost products the same.
int padded_rows(int rows) {
  return rows <= kTileRows ? doubled(1, rows) : (rows + kTileRows - 1) / kTileRows * kTileRows;
}

int most_rows(const GraphedModel& model) {
  int rows = std::min(ForwardGraphs::kMostRows, model.max_rows);
  while (padded_rows(rows) != rows) --rows;
  return rows;
}

int most_context(const ForwardGraphs::Options& options) {
  // A tree's slots may lie behind the last position.
  return doubled(kShortestContext, options.max_context + ForwardGraphs::kMostRows);
}

std::size_t logits_bytes(const GraphedModel& model) {
  return static_cast<std::size_t>(most_rows(model)) * static_cast<std::size_t>(model.num_logits) *
         sizeof(float);
}

cuda::BatchShape largest(const GraphedModel& model, const ForwardGraphs::Options& options) {
  const int rows = most_rows(model);
  return {.rows = rows,
          .outputs = rows,
          .sequences = doubled(1, std::min(options.max_sequences, rows)),
          .max_context = most_context(options),
          .has_paths = true};
}

}  // namespace

cuda::BatchCapacity ForwardGraphs::capacity(const cuda::BatchShape& shape, const Options& options) {
  return {.rows = shape.rows,
          .sequences = shape.sequences,
          .path_slots = shape.has_paths ? shape.rows * kLongestPath : 0,
          .blocks_per_sequence = shape.max_context / options.block_size};
}

std::size_t ForwardGraphs::bytes(const GraphedModel& model, const Options& options) {
  return cuda::BatchBuffers::bytes(capacity(largest(model, options), options)) +
         logits_bytes(model);
}

GraphedModel GraphedModel::of(Transformer& model) {
  return {
      .max_rows = model.max_rows(),
      .num_logits = model.num_logits(),
      .enqueue = [&model](float* logits, const kernels::BatchView& batch, Stream stream,
                          HiddenStateTap* tap) { model.enqueue_to(logits, batch, stream, tap); }};
}

GraphedModel GraphedModel::of(EagleHead& head) {
  return {.max_rows = head.max_rows(),
          .num_logits = head.draft_vocab_size(),
          .enqueue = [&head](float* logits, const kernels::BatchView& batch, Stream stream,
                             HiddenStateTap*) {
            head.enqueue_to(logits, batch, {head.hidden()}, head.hidden(), stream);
          }};
}

ForwardGraphs::ForwardGraphs(CudaBackend& backend, GraphedModel model, const Options& options)
    : backend_(backend),
      model_(std::move(model)),
      options_(options),
      largest_(largest(model_, options)) {
  const std::size_t bytes = cuda::BatchBuffers::bytes(capacity(largest_, options));
  batch_memory_ = backend.allocate(bytes, MemoryUse::scratch);
  logits_ = backend.allocate(logits_bytes(model_), MemoryUse::scratch);
  void* memory = nullptr;
  check_cuda(::cudaMallocHost(&memory, bytes), "allocating pinned memory");
  batch_pinned_.reset(static_cast<std::byte*>(memory));
  cudaEvent_t event = nullptr;
  check_cuda(::cudaEventCreateWithFlags(&event, cudaEventDisableTiming), "creating an event");
  staged_.reset(event);
}

std::optional<PassShape> ForwardGraphs::shape_of(const kernels::BatchView& batch,
                                                 HiddenStateTap* tap) const {
  // Graphs make logits of all rows, and a prompt's rows want none. Within a tile they cost nothing.
  const bool wants_them = batch.num_outputs > 0 &&
                          (batch.num_rows <= kTileRows || 2 * batch.num_outputs >= batch.num_rows);
  if (!wants_them || batch.num_rows > largest_.rows ||
      static_cast<int>(batch.sequences.size()) > largest_.sequences)
    return std::nullopt;
  PassShape shape{.batch = cuda::BatchBuffers::shape_of(batch), .tap = tap};
  cuda::BatchShape& padded = shape.batch;
  const cuda::BatchCapacity needed = cuda::BatchBuffers::capacity_of(batch);
  // How much of its block tables it touches. A reservation, and a table, may be much longer.
  int reach = padded.max_context;  // a row without a path lies in the slot of its position
  for (int i = 0; i < needed.path_slots; ++i) reach = std::max(reach, batch.path_slots[i] + 1);
  if (reach > largest_.max_context) return std::nullopt;
  padded.rows = padded.outputs = padded_rows(padded.rows);
  padded.sequences = doubled(1, padded.sequences);
  padded.max_context = doubled(kShortestContext, reach);
  if (needed.path_slots > capacity(padded, options_).path_slots) return std::nullopt;
  return shape;
}

ForwardGraphs::Shape& ForwardGraphs::find(const PassShape& key) {
  const auto known = std::find_if(shapes_.begin(), shapes_.end(),
                                  [&](const Shape& shape) { return shape.key == key; });
  if (known != shapes_.end()) {
    shapes_.splice(shapes_.begin(), shapes_, known);
    return shapes_.front();
  }
  shapes_.emplace_front();
  shapes_.front().key = key;
  shapes_.front().buffers = cuda::BatchBuffers(capacity(key.batch, options_),
                                               batch_memory_.as<std::byte>(), batch_pinned_.get());
  if (static_cast<int>(shapes_.size()) > options_.most_shapes) shapes_.pop_back();
  return shapes_.front();
}

std::optional<std::span<const float>> ForwardGraphs::forward(const ForwardBatch& batch,
                                                             Stream stream, HiddenStateTap* tap) {
  const kernels::BatchView view = batch.view();
  const std::optional<PassShape> key = usable_ ? shape_of(view, tap) : std::nullopt;
  if (!key) return std::nullopt;
  run(find(*key), view,
      stream.handle == nullptr ? backend_.stream() : static_cast<cudaStream_t>(stream.handle));
  return std::span<const float>(
      logits_.as<float>(),
      static_cast<std::size_t>(batch.num_outputs()) * static_cast<std::size_t>(model_.num_logits));
}

void ForwardGraphs::run(Shape& shape, const kernels::BatchView& batch, cudaStream_t stream) {
  check_cuda(::cudaSetDevice(backend_.device().index), "selecting the GPU");
  if (!shape.graph && shape.launched && usable_) capture(shape, stream);
  check_cuda(::cudaEventSynchronize(staged_.get()), "waiting for a copy");
  check_cuda(shape.buffers.stage(batch, shape.key.batch, stream), "copying a batch");
  check_cuda(::cudaEventRecord(staged_.get(), stream), "copying a batch");
  if (shape.graph) {
    check_cuda(::cudaGraphLaunch(shape.graph.get(), stream), "starting a step");
    ++num_runs_;
    return;
  }
  launch(shape, stream);
  shape.launched = true;
}

void ForwardGraphs::launch(const Shape& shape, cudaStream_t stream) {
  model_.enqueue(logits_.as<float>(), view_of(shape.buffers.batch()), Stream{stream},
                 shape.key.tap);
}

void ForwardGraphs::capture(Shape& shape, cudaStream_t stream) {
  try {
    const OwnedGraph graph = create_graph();
    capture_into(graph.get(), stream, [&] { launch(shape, stream); });
    shape.graph = instantiate(graph.get(), stream);
  } catch (const Error& error) {
    // A device that has failed says so again.
    check_cuda(::cudaStreamSynchronize(stream), "capturing a step");
    usable_ = false;
    log_warn("single steps are launched kernel by kernel: {}", error.what());
  }
}

void ForwardGraphs::warm_up(std::span<const int> rows, bool has_paths, HiddenStateTap* tap) {
  for (const int count : rows) {
    if (count > largest_.rows) continue;
    const int padded = padded_rows(count);
    Shape& shape = find({.batch = {.rows = padded,
                                   .outputs = padded,
                                   .sequences = 1,
                                   .max_context = kShortestContext,
                                   .has_paths = has_paths},
                         .tap = tap});
    if (!usable_ || shape.graph) continue;
    run(shape, {}, backend_.stream());  // padding alone
    capture(shape, backend_.stream());
  }
}

int ForwardGraphs::num_graphs() const noexcept {
  return static_cast<int>(std::count_if(shapes_.begin(), shapes_.end(),
                                        [](const Shape& shape) { return shape.graph != nullptr; }));
}

}  // namespace specdec
