// The CUDA runtime on the PTX machine: the functions that the library and nvcc's host code call,
// with the names of libcudart, for one pretended device of compute capability 8.0. Linked in place
// of libcudart (cmake/SpecdecCuda.cmake). A function that is not defined here does not link.
//
// Work runs on the calling thread. A stream's work runs in the order in which it was enqueued:
// either at once (the default), or, with SPECDEC_PTX_STREAMS=late, as late as the host allows:
// when it synchronises with the stream. Late work finds hosts that read results, or write pinned
// memory again, before the device is done. One lock makes all of it safe to call from any thread.
//
// Environment, read once: SPECDEC_PTX_STREAMS, SPECDEC_PTX_MEMORY_MB (the device's memory, 2048),
// SPECDEC_PTX_PROCESSORS (its processors, 8), SPECDEC_PTX_PROFILE (print each kernel's launches and
// time at the end).
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/ptx/machine.h"
#include "tests/ptx/runtime_work.h"

namespace specdec::ptx {
struct Binary;
}

/// A registered function. The runtime's own handle of it, cudaKernel_t, points here.
struct CUkern_st {
  specdec::ptx::Binary* binary = nullptr;
  std::string name;
  const specdec::ptx::Kernel* kernel = nullptr;  // null: its binary has not been read yet
  std::size_t static_shared = 0;
  int max_dynamic_shared = -1;  // below 0: what is left of the default
};

struct CUstream_st {
  bool non_blocking = false;
  std::deque<specdec::ptx::Work> queue;  // late work
  // While capturing:
  std::shared_ptr<specdec::ptx::Graph> capture;
  std::unique_ptr<CUgraph_st> own_graph;  // cudaStreamBeginCapture's
  CUgraph_st* graph = nullptr;            // what cudaStreamEndCapture returns
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  std::thread::id capturing_thread;
  bool invalidated = false;
};

struct CUevent_st {
  bool timed = true;
  std::shared_ptr<specdec::ptx::EventState> state = std::make_shared<specdec::ptx::EventState>();
};

namespace specdec::ptx {

inline constexpr std::size_t kDefaultShared = 48u << 10u;  // per block, without asking
inline constexpr std::size_t kMostShared = 163u << 10u;    // per block, for functions that ask
inline constexpr unsigned kMostThreads = 1024;             // per block
inline constexpr std::uint64_t kMostTurns = std::uint64_t{1} << 16;  // of a WHILE node

/// A fat binary without PTX that can be run.
struct NoImage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// A fat binary: its PTX, read when one of its functions or variables is first asked for.
struct Binary {
  std::string text;
  std::string wrong;  // why there is no text
  std::unique_ptr<Module> module;
};

struct Symbol {
  Binary* binary = nullptr;
  std::string name;
  std::size_t bytes = 0;
};

/// Everything that the runtime knows. Never destroyed: static objects of other files end with it.
class Runtime {
 public:
  static Runtime& get();

  std::mutex lock;
  Memory memory;
  std::size_t memory_limit = 0;  // bytes of device memory
  int processors = 0;
  bool late = false;
  cudaError_t lost = cudaSuccess;              // a fault: every later call returns it
  std::map<const void*, CUkern_st> functions;  // by the host's stub
  std::map<const void*, Symbol> symbols;       // by the host's shadow
  std::vector<std::unique_ptr<Binary>> binaries;
  std::map<CUstream_st*, std::unique_ptr<CUstream_st>> streams;
  std::map<CUevent_st*, std::unique_ptr<CUevent_st>> events;
  std::map<CUgraph_st*, std::unique_ptr<CUgraph_st>> graphs;
  std::map<CUgraphExec_st*, std::unique_ptr<CUgraphExec_st>> executables;

  /// Null: no such function. Reads its binary; throws NoImage, or std::runtime_error at text that
  /// the machine does not know.
  CUkern_st* function(const void* stub);
  Module& module(Binary& binary);

  /// The default stream is null. False: no stream.
  bool is_stream(cudaStream_t stream) const;
  /// Runs, keeps or records `work`, as the stream is.
  cudaError_t enqueue(cudaStream_t stream, Work work);
  /// Runs what is late on a stream, on those that wait for the default stream, on all.
  void finish(CUstream_st& stream);
  void finish_blocking();
  void finish_all();
  bool run_next(CUstream_st& stream);  // false: nothing was left

  /// `wanted`, if it is a live graph or the body of a node in one; null: it is not.
  CUgraph_st* find_graph(const CUgraph_st* wanted);

  /// What would wait for a capture, or escape it: cudaErrorStreamCaptureUnsupported, and the
  /// capture is void. Asked of the calling thread.
  cudaError_t refuse_in_capture();

  /// Runs work now (runtime_execute.cc). A fault makes the device lost.
  void execute(const Work& work);

 private:
  Runtime();
};

/// Without nodes.
std::unique_ptr<CUgraph_st> new_graph();

/// What this thread's last error is (cudaGetLastError).
cudaError_t& last_error();
/// Prints once what a fault or a broken binary says.
void complain(const std::string& what);
/// The current exception as an error code.
cudaError_t error_of_exception();

/// A call of the runtime: under the lock, refused on a lost device, its failure remembered.
template <class Body>
cudaError_t call(const Body& body) noexcept {
  cudaError_t status = cudaSuccess;
  try {
    Runtime& runtime = Runtime::get();
    const std::lock_guard<std::mutex> hold(runtime.lock);
    status = runtime.lost != cudaSuccess ? runtime.lost : body(runtime);
  } catch (...) {
    status = error_of_exception();
  }
  if (status != cudaSuccess) last_error() = status;
  return status;
}

}  // namespace specdec::ptx
