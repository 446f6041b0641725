// Streams, events, capture.
#include <chrono>

#include "tests/ptx/runtime.h"

namespace specdec::ptx {

bool Runtime::is_stream(cudaStream_t stream) const {
  return stream == nullptr || streams.count(stream) != 0;
}

cudaError_t Runtime::enqueue(cudaStream_t stream, Work work) {
  if (stream != nullptr && stream->capture != nullptr) {
    if (stream->invalidated) return cudaErrorStreamCaptureInvalidated;
    stream->capture->nodes.push_back(std::move(work));
    return cudaSuccess;
  }
  if (stream == nullptr) {
    // The default stream comes after all that blocking streams have, and they after it.
    for (const auto& [each, owned] : streams)
      if (each->capture != nullptr && !each->non_blocking) {
        each->invalidated = true;
        return cudaErrorStreamCaptureImplicit;
      }
    finish_blocking();
  } else if (late) {
    stream->queue.push_back(std::move(work));
    return cudaSuccess;
  }
  if (lost == cudaSuccess) execute(work);
  return cudaSuccess;
}

bool Runtime::run_next(CUstream_st& stream) {
  if (stream.queue.empty()) return false;
  const Work work = std::move(stream.queue.front());
  stream.queue.pop_front();
  if (lost == cudaSuccess) execute(work);
  return true;
}
void Runtime::finish(CUstream_st& stream) {
  while (run_next(stream)) {
  }
}
void Runtime::finish_blocking() {
  for (const auto& [stream, owned] : streams)
    if (!stream->non_blocking) finish(*stream);
}
void Runtime::finish_all() {
  for (const auto& [stream, owned] : streams) finish(*stream);
}

cudaError_t Runtime::refuse_in_capture() {
  bool refused = false;
  for (const auto& [stream, owned] : streams) {
    if (stream->capture == nullptr) continue;
    const bool mine = stream->capturing_thread == std::this_thread::get_id();
    if (stream->mode == cudaStreamCaptureModeGlobal ||
        (stream->mode == cudaStreamCaptureModeThreadLocal && mine))
      refused = stream->invalidated = true;
  }
  return refused ? cudaErrorStreamCaptureUnsupported : cudaSuccess;
}

namespace {

cudaError_t begin_capture(Runtime& runtime, cudaStream_t stream, cudaStreamCaptureMode mode,
                          CUgraph_st* into) {
  if (stream == nullptr) return cudaErrorStreamCaptureUnsupported;
  if (!runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
  if (mode < cudaStreamCaptureModeGlobal || mode > cudaStreamCaptureModeRelaxed)
    return cudaErrorInvalidValue;
  if (stream->capture != nullptr) return cudaErrorIllegalState;
  if (into == nullptr) {
    stream->own_graph = new_graph();
    into = stream->own_graph.get();
  }
  stream->graph = into;
  stream->capture = into->graph;
  stream->mode = mode;
  stream->capturing_thread = std::this_thread::get_id();
  stream->invalidated = false;
  return cudaSuccess;
}

cudaError_t end_capture(Runtime& runtime, cudaStream_t stream, cudaGraph_t* graph) {
  if (stream == nullptr || !runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
  if (stream->capture == nullptr) return cudaErrorIllegalState;
  if (stream->mode != cudaStreamCaptureModeRelaxed &&
      stream->capturing_thread != std::this_thread::get_id())
    return cudaErrorStreamCaptureWrongThread;
  const bool void_capture = stream->invalidated;
  std::unique_ptr<CUgraph_st> own = std::exchange(stream->own_graph, nullptr);
  stream->capture = nullptr;
  *graph = void_capture ? nullptr : stream->graph;
  if (own != nullptr && !void_capture) runtime.graphs.emplace(stream->graph, std::move(own));
  return void_capture ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

cudaError_t create_stream(cudaStream_t* stream, unsigned flags) {
  return call([&](Runtime& runtime) {
    if (stream == nullptr || (flags != cudaStreamDefault && flags != cudaStreamNonBlocking))
      return cudaErrorInvalidValue;
    auto made = std::make_unique<CUstream_st>();
    made->non_blocking = flags == cudaStreamNonBlocking;
    *stream = made.get();
    runtime.streams[made.get()] = std::move(made);
    return cudaSuccess;
  });
}

cudaError_t create_event(cudaEvent_t* event, unsigned flags) {
  return call([&](Runtime& runtime) {
    if (event == nullptr || (flags & ~(cudaEventBlockingSync | cudaEventDisableTiming)) != 0)
      return cudaErrorInvalidValue;
    auto made = std::make_unique<CUevent_st>();
    made->timed = (flags & cudaEventDisableTiming) == 0;
    *event = made.get();
    runtime.events[made.get()] = std::move(made);
    return cudaSuccess;
  });
}

}  // namespace
}  // namespace specdec::ptx

using namespace specdec::ptx;

extern "C" {

cudaError_t CUDARTAPI cudaStreamCreate(cudaStream_t* stream) {
  return create_stream(stream, cudaStreamDefault);
}
cudaError_t CUDARTAPI cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned int flags) {
  return create_stream(stream, flags);
}

cudaError_t CUDARTAPI cudaStreamDestroy(cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    if (stream == nullptr || !runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
    runtime.finish(*stream);
    runtime.streams.erase(stream);
    return cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaStreamSynchronize(cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    if (!runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t refused = runtime.refuse_in_capture(); refused != cudaSuccess)
      return refused;
    if (stream != nullptr && stream->capture != nullptr) {
      stream->invalidated = true;
      return cudaErrorStreamCaptureUnsupported;
    }
    if (stream != nullptr)
      runtime.finish(*stream);
    else
      runtime.finish_blocking();
    return runtime.lost;
  });
}

cudaError_t CUDARTAPI cudaStreamQuery(cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    if (!runtime.is_stream(stream)) return cudaErrorInvalidResourceHandle;
    if (stream == nullptr) return cudaSuccess;
    if (stream->capture != nullptr) {
      stream->invalidated = true;
      return cudaErrorStreamCaptureUnsupported;
    }
    const bool ran = runtime.run_next(*stream);
    if (runtime.lost != cudaSuccess) return runtime.lost;
    return ran ? cudaErrorNotReady : cudaSuccess;
  });
}

cudaError_t CUDARTAPI cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  return call([&](Runtime& runtime) { return begin_capture(runtime, stream, mode, nullptr); });
}

cudaError_t CUDARTAPI cudaStreamBeginCaptureToGraph(cudaStream_t stream, cudaGraph_t graph,
                                                    const cudaGraphNode_t* dependencies,
                                                    const cudaGraphEdgeData* /*edges*/,
                                                    size_t num_dependencies,
                                                    cudaStreamCaptureMode mode) {
  return call([&](Runtime& runtime) {
    if (runtime.find_graph(graph) == nullptr) return cudaErrorInvalidValue;
    if (num_dependencies > 0 && dependencies == nullptr) return cudaErrorInvalidValue;
    return begin_capture(runtime, stream, mode, graph);
  });
}

cudaError_t CUDARTAPI cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  return call([&](Runtime& runtime) {
    return graph == nullptr ? cudaErrorInvalidValue : end_capture(runtime, stream, graph);
  });
}

cudaError_t CUDARTAPI cudaEventCreate(cudaEvent_t* event) {
  return create_event(event, cudaEventDefault);
}
cudaError_t CUDARTAPI cudaEventCreateWithFlags(cudaEvent_t* event, unsigned int flags) {
  return create_event(event, flags);
}

cudaError_t CUDARTAPI cudaEventDestroy(cudaEvent_t event) {
  return call([&](Runtime& runtime) {
    return runtime.events.erase(event) != 0 ? cudaSuccess : cudaErrorInvalidResourceHandle;
  });
}

cudaError_t CUDARTAPI cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return call([&](Runtime& runtime) {
    if (runtime.events.count(event) == 0 || !runtime.is_stream(stream))
      return cudaErrorInvalidResourceHandle;
    const std::shared_ptr<EventState>& state = event->state;
    // Forks and joins of captures are not made: nothing waits for an event in a graph.
    if (stream != nullptr && stream->capture != nullptr) return cudaErrorNotSupported;
    state->recorded = true;
    state->pending = stream;
    return runtime.enqueue(stream, Stamp{state, ++state->records});
  });
}

cudaError_t CUDARTAPI cudaEventSynchronize(cudaEvent_t event) {
  return call([&](Runtime& runtime) {
    if (runtime.events.count(event) == 0) return cudaErrorInvalidResourceHandle;
    if (const cudaError_t refused = runtime.refuse_in_capture(); refused != cudaSuccess)
      return refused;
    while (event->state->pending != nullptr && runtime.run_next(*event->state->pending)) {
    }
    return runtime.lost;
  });
}

cudaError_t CUDARTAPI cudaEventElapsedTime(float* milliseconds, cudaEvent_t from, cudaEvent_t to) {
  return call([&](Runtime& runtime) {
    if (milliseconds == nullptr) return cudaErrorInvalidValue;
    for (const cudaEvent_t event : {from, to})
      if (runtime.events.count(event) == 0 || !event->timed || !event->state->recorded)
        return cudaErrorInvalidResourceHandle;
    if (from->state->pending != nullptr || to->state->pending != nullptr) return cudaErrorNotReady;
    *milliseconds =
        std::chrono::duration<float, std::milli>(to->state->time - from->state->time).count();
    return cudaSuccess;
  });
}

}  // extern "C"
