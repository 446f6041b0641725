#include "timer.h"

#include <algorithm>
#include <cstdio>

#include "random_weights.h"

namespace specdec::kernels::bench {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

Timer::Timer() {
  require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  require(cudaEventCreate(&begin_));
  require(cudaEventCreate(&end_));
}

Timer::~Timer() {
  cudaEventDestroy(begin_);
  cudaEventDestroy(end_);
  cudaStreamDestroy(stream_);
}

double copy_rate(Timer& timer) {
  const std::size_t bytes = std::size_t{2} << 30;
  void* from = nullptr;
  void* to = nullptr;
  require(cudaMalloc(&from, bytes));
  require(cudaMalloc(&to, bytes));
  require(cudaMemset(from, 0x5a, bytes));
  const double us = timer.measure(
      [&](cudaStream_t stream) { require(copy_on_processors(to, from, bytes, stream)); });
  cudaFree(from);
  cudaFree(to);
  return 2.0 * static_cast<double>(bytes) / us / 1e3;
}

cuda::DeviceInfo describe_device(const cudaDeviceProp& properties) {
  cuda::DeviceInfo device;
  require(cuda::describe_device(0, properties, device));
  return device;
}

nlohmann::json describe_run(const cudaDeviceProp& properties, double copy_gb_s, int argc,
                            const char* const* argv) {
  int driver = 0;
  int clock_khz = 0;
  cudaDriverGetVersion(&driver);
  cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, 0);
  std::printf("%s, CUDA driver %d, clock up to %d MHz, copy %.0f GB/s\n", properties.name, driver,
              clock_khz / 1000, copy_gb_s);
  nlohmann::json report = {{"device", properties.name},
                           {"cuda_driver_version", driver},
                           {"clock_mhz_max", clock_khz / 1000},
                           {"copy_gb_s", copy_gb_s}};
  for (int i = 0; i < argc; ++i) report["command"].push_back(argv[i]);
  return report;
}

}  // namespace specdec::kernels::bench
