#pragma once

#include <cuda_runtime_api.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "synthetic_model.h"

namespace specdec::kernels::bench {

inline constexpr int kRepeats = 21;

double median(std::vector<double> values);

/// Times what is enqueued on its stream, by device events.
class Timer {
 public:
  Timer();
  ~Timer();
  Timer(const Timer&) = delete;
  Timer& operator=(const Timer&) = delete;

  cudaStream_t stream() const { return stream_; }

  /// Microseconds of one `enqueue`, which is captured into a graph and replayed.
  template <class Enqueue>
  double measure(Enqueue enqueue, int repeats = kRepeats) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t runnable = nullptr;
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal));
    enqueue(stream_);
    require(cudaStreamEndCapture(stream_, &graph));
    require(cudaGraphInstantiate(&runnable, graph, 0));
    const double us = measure_call([&] { require(cudaGraphLaunch(runnable, stream_)); }, repeats);
    require(cudaGraphExecDestroy(runnable));
    require(cudaGraphDestroy(graph));
    return us;
  }
  /// ... of what one `call` enqueues.
  template <class Call>
  double measure_call(Call call, int repeats = kRepeats) {
    std::vector<double> times;
    for (int i = 0; i < repeats + 3; ++i) {
      require(cudaEventRecord(begin_, stream_));
      call();
      require(cudaEventRecord(end_, stream_));
      require(cudaStreamSynchronize(stream_));
      float milliseconds = 0;
      require(cudaEventElapsedTime(&milliseconds, begin_, end_));
      if (i >= 3) times.push_back(milliseconds * 1e3);
    }
    return median(times);
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

/// GB/s of a device-to-device copy, bytes read and written.
double copy_rate(Timer& timer);
/// cuda::describe_device() that throws.
cuda::DeviceInfo describe_device(const cudaDeviceProp& properties);

/// Prints and returns what belongs beside every figure: device, driver, clock, copy, command.
nlohmann::json describe_run(const cudaDeviceProp& properties, double copy_gb_s, int argc,
                            const char* const* argv);

}  // namespace specdec::kernels::bench
