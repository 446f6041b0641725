#pragma once

#include <cuda_runtime_api.h>

#include "engine/backend/cuda_error.h"
#include "engine/backend/cuda_memory.h"

namespace specdec {

/// Captures what `enqueue()` puts on the stream, behind the nodes that `into` has. Meanwhile this
/// thread must neither allocate nor synchronise. What enqueue() throws ends the capture. Throws
/// Error as check_cuda does.
template <class Enqueue>
void capture_into(cudaGraph_t into, cudaStream_t stream, const Enqueue& enqueue) {
  constexpr const char* kDoing = "capturing a step";
  check_cuda(::cudaStreamBeginCaptureToGraph(stream, into, nullptr, nullptr, 0,
                                             cudaStreamCaptureModeThreadLocal),
             kDoing);
  cudaGraph_t captured = nullptr;
  try {
    enqueue();
  } catch (...) {
    ::cudaStreamEndCapture(stream, &captured);
    ::cudaGetLastError();
    throw;
  }
  check_cuda(::cudaStreamEndCapture(stream, &captured), kDoing);
}

inline OwnedGraph create_graph() {
  cudaGraph_t made = nullptr;
  check_cuda(::cudaGraphCreate(&made, 0), "creating a graph");
  return OwnedGraph(made);
}

/// The graph as `stream` can launch it without further ado.
inline OwnedExecutable instantiate(cudaGraph_t graph, cudaStream_t stream) {
  cudaGraphExec_t made = nullptr;
  check_cuda(::cudaGraphInstantiate(&made, graph, 0), "instantiating a graph");
  OwnedExecutable executable(made);
  check_cuda(::cudaGraphUpload(made, stream), "uploading a graph");
  return executable;
}

}  // namespace specdec
