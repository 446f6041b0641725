#include <cuda_runtime_api.h>
#include <doctest/doctest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include <sys/wait.h>
#include <unistd.h>

#include "tests/ptx/runtime_test_kernels.h"

// The CUDA runtime on the PTX machine. Expected values are what CUDA's own documentation says, not
// what this runtime happens to do.

using namespace specdec::ptx::test;

extern "C" {
void** __cudaRegisterFatBinary(void* wrapper);
void __cudaRegisterFunction(void** handle, const char* stub, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*);
}

namespace {

bool streams_are_late() {
  const char* const text = std::getenv("SPECDEC_PTX_STREAMS");
  return text != nullptr && std::string_view(text) == "late";
}

struct Freed {
  void operator()(int* memory) const { cudaFree(memory); }
};
using DeviceInts = std::unique_ptr<int, Freed>;

DeviceInts device_ints(const std::vector<int>& values) {
  void* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, values.size() * sizeof(int)) == cudaSuccess);
  DeviceInts made(static_cast<int*>(memory));
  REQUIRE(cudaMemcpy(memory, values.data(), values.size() * sizeof(int), cudaMemcpyHostToDevice) ==
          cudaSuccess);
  return made;
}

std::vector<int> host(const DeviceInts& values, std::size_t count) {
  std::vector<int> read(count);
  REQUIRE(cudaMemcpy(read.data(), values.get(), count * sizeof(int), cudaMemcpyDeviceToHost) ==
          cudaSuccess);
  return read;
}

/// A stream that does not wait for the default one.
class Stream {
 public:
  Stream() { REQUIRE(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking) == cudaSuccess); }
  ~Stream() { cudaStreamDestroy(stream_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  operator cudaStream_t() const { return stream_; }
  void wait() const { REQUIRE(cudaStreamSynchronize(stream_) == cudaSuccess); }

 private:
  cudaStream_t stream_ = nullptr;
};

/// What `body` did in a process of its own, since a fault is the end of a process's device.
template <class Body>
int exit_code_of(const Body& body) {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(99);  // the fault is meant
    _exit(body());
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  REQUIRE(WIFEXITED(status));
  return WEXITSTATUS(status);
}

cudaError_t add_conditional(cudaGraph_t graph, cudaGraphConditionalHandle handle,
                            cudaGraphConditionalNodeType type, unsigned size,
                            std::vector<cudaGraph_t>& bodies) {
  cudaGraphNodeParams params{};
  params.type = cudaGraphNodeTypeConditional;
  params.conditional.handle = handle;
  params.conditional.type = type;
  params.conditional.size = size;
  cudaGraphNode_t node = nullptr;
#if CUDART_VERSION >= 13000
  const cudaError_t status = cudaGraphAddNode(&node, graph, nullptr, nullptr, 0, &params);
#else
  const cudaError_t status = cudaGraphAddNode(&node, graph, nullptr, 0, &params);
#endif
  if (status == cudaSuccess)
    bodies.assign(params.conditional.phGraph_out, params.conditional.phGraph_out + size);
  return status;
}

template <class Enqueue>
void capture_into(cudaGraph_t graph, cudaStream_t stream, const Enqueue& enqueue) {
  REQUIRE(cudaStreamBeginCaptureToGraph(stream, graph, nullptr, nullptr, 0,
                                        cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  enqueue();
  cudaGraph_t ended = nullptr;
  REQUIRE(cudaStreamEndCapture(stream, &ended) == cudaSuccess);
  CHECK(ended == graph);
}

}  // namespace

TEST_CASE("the device is an sm_80 with what the library reads") {
  int count = 0;
  REQUIRE(cudaGetDeviceCount(&count) == cudaSuccess);
  CHECK(count == 1);
  cudaDeviceProp properties{};
  REQUIRE(cudaGetDeviceProperties(&properties, 0) == cudaSuccess);
  CHECK(properties.major == 8);
  CHECK(properties.minor == 0);
  CHECK(properties.sharedMemPerBlockOptin == 163 * 1024);
  CHECK(properties.multiProcessorCount > 0);
  int major = 0;
  CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, 0) == cudaSuccess);
  CHECK(major == 8);
  CHECK(cudaGetDeviceProperties(&properties, 1) == cudaErrorInvalidDevice);
  CHECK(cudaSetDevice(1) == cudaErrorInvalidDevice);
  CHECK(cudaSetDevice(0) == cudaSuccess);
  CHECK(cudaGetLastError() == cudaErrorInvalidDevice);
  CHECK(cudaGetLastError() == cudaSuccess);
  CHECK(std::string(cudaGetErrorString(cudaErrorMemoryAllocation)) == "out of memory");
}

TEST_CASE("parameters of mixed sizes arrive") {
  void* memory = nullptr;
  REQUIRE(cudaMalloc(&memory, 4 * sizeof(std::int64_t)) == cudaSuccess);
  launch_parameters(static_cast<std::int64_t*>(memory), -7, {-300, 1e15}, {1.0f, 2.0f, -9.0f},
                    nullptr);
  std::vector<std::int64_t> values(4);
  REQUIRE(cudaMemcpy(values.data(), memory, 32, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(values == std::vector<std::int64_t>{-7, -300, 1'000'000'000'000'000, -9});
  CHECK(cudaFree(memory) == cudaSuccess);
}

TEST_CASE("grids, constants and device variables") {
  int scale = 0;
  REQUIRE(read_scale(&scale) == cudaSuccess);
  CHECK(scale == 5);
  int before[2] = {};
  REQUIRE(read_added(before, sizeof before, 0) == cudaSuccess);
  CHECK(before[1] == 77);
  const DeviceInts values = device_ints(std::vector<int>(1000, 3));
  REQUIRE(launch_add(values.get(), 990, 10, nullptr) == cudaSuccess);
  const std::vector<int> after = host(values, 1000);
  CHECK(std::count(after.begin(), after.begin() + 990, 18) == 990);
  CHECK(std::count(after.begin() + 990, after.end(), 3) == 10);
  int added = 0;
  REQUIRE(read_added(&added, sizeof added, 0) == cudaSuccess);
  CHECK(added == before[0] + 990);
  CHECK(read_added(&added, sizeof added, sizeof added) == cudaSuccess);
  CHECK(added == 77);
  CHECK(read_added(before, sizeof before, sizeof(int)) == cudaErrorInvalidValue);
  CHECK(read_unknown(&added) == cudaErrorInvalidSymbol);
  cudaGetLastError();
}

TEST_CASE("a launch asks for no more than its function may have") {
  std::vector<int> numbers(256);
  std::iota(numbers.begin(), numbers.end(), 0);
  const DeviceInts values = device_ints(numbers);
  const Stream stream;
  CHECK(launch_reverse(values.get(), 256, 1024, stream) == cudaSuccess);
  stream.wait();
  std::reverse(numbers.begin(), numbers.end());
  CHECK(host(values, 256) == numbers);
  CHECK(launch_reverse(values.get(), 256, 100 << 10, stream) == cudaErrorInvalidValue);
  CHECK(allow_reverse(164 << 10) == cudaErrorInvalidValue);
  CHECK(allow_reverse(100 << 10) == cudaSuccess);
  CHECK(launch_reverse(values.get(), 256, 100 << 10, stream) == cudaSuccess);
  CHECK(launch_reverse(values.get(), 0, 1024, stream) == cudaErrorInvalidConfiguration);
  CHECK(launch_reverse(values.get(), 1025, 8192, stream) == cudaErrorInvalidConfiguration);
  stream.wait();
  cudaGetLastError();
  CHECK(launch_bounded(values.get(), 128, nullptr) == cudaSuccess);
  CHECK(launch_bounded(values.get(), 129, nullptr) == cudaErrorInvalidValue);
  CHECK(launch_in_clusters(values.get(), nullptr) == cudaErrorNotSupported);
  cudaFuncAttributes attributes{};
  REQUIRE(bounded_attributes(&attributes) == cudaSuccess);
  CHECK(attributes.sharedSizeBytes == 1024);
  CHECK(attributes.maxThreadsPerBlock == 128);
  cudaGetLastError();
}

TEST_CASE("fat binaries that hold nothing to run are refused when they are used") {
  // One entry behind the header: kind (1 PTX, 2 machine code), sizes, architecture, flags.
  struct Image {
    std::uint32_t magic = 0xBA55ED50;
    std::uint16_t version = 1, header_size = 16;
    std::uint64_t size = 64;
    std::uint16_t kind = 1, entry_version = 0x101;
    std::uint32_t entry_header = 48;
    std::uint64_t entry_size = 16;
    std::uint32_t compressed = 0, options = 0, ptx_version = 0x90000, architecture = 80,
                  name[2] = {};
    std::uint64_t flags = 0x11;
    char text[16] = "nonsense;";
  };
  struct Wrapper {
    int magic = 0x466243B1, version = 1;
    const Image* data = nullptr;
    void* prelinked = nullptr;
  };
  static Image images[6];  // registered for good
  static Wrapper wrappers[6];
  static const char stubs[6] = {};
  images[0].magic = 1;
  images[1].kind = 2;
  images[2].architecture = 90;
  images[3].flags |= 0x2000;
  images[4].entry_size = 17;
  for (int i = 0; i < 6; ++i) {
    CAPTURE(i);
    wrappers[i].data = &images[i];
    void** const binary = __cudaRegisterFatBinary(&wrappers[i]);
    __cudaRegisterFunction(binary, &stubs[i], nullptr, "none", -1, nullptr, nullptr, nullptr,
                           nullptr, nullptr);
    CHECK(cudaLaunchKernel(&stubs[i], dim3{1, 1, 1}, dim3{1, 1, 1}, nullptr, 0, nullptr) ==
          (i < 5 ? cudaErrorNoKernelImageForDevice : cudaErrorInvalidPtx));
  }
  CHECK(cudaLaunchKernel(&wrappers, dim3{1, 1, 1}, dim3{1, 1, 1}, nullptr, 0, nullptr) ==
        cudaErrorInvalidDeviceFunction);
  cudaGetLastError();
}

TEST_CASE("device memory is limited, and only what was allocated can be used or freed") {
  std::size_t free = 0;
  std::size_t total = 0;
  REQUIRE(cudaMemGetInfo(&free, &total) == cudaSuccess);
  CHECK(free <= total);
  void* memory = nullptr;
  CHECK(cudaMalloc(&memory, free + 1) == cudaErrorMemoryAllocation);
  CHECK(cudaGetLastError() == cudaErrorMemoryAllocation);
  CHECK(memory == nullptr);
  REQUIRE(cudaMalloc(&memory, 1000) == cudaSuccess);
  std::size_t left = 0;
  REQUIRE(cudaMemGetInfo(&left, &total) == cudaSuccess);
  CHECK(left <= free - 1000);

  // Nobody has written it: not zeros.
  std::vector<unsigned char> bytes(1000);
  REQUIRE(cudaMemcpy(bytes.data(), memory, 1000, cudaMemcpyDeviceToHost) == cudaSuccess);
  CHECK(std::count(bytes.begin(), bytes.end(), 0) == 0);
  auto* const inside = static_cast<unsigned char*>(memory) + 1;
  CHECK(cudaMemcpy(bytes.data(), inside, 1000, cudaMemcpyDeviceToHost) == cudaErrorInvalidValue);
  CHECK(cudaMemset(inside, 0, 1000) == cudaErrorInvalidValue);
  CHECK(cudaMemset(inside, 0, 999) == cudaSuccess);
  CHECK(cudaMemcpy(bytes.data(), bytes.data(), 10, cudaMemcpyDeviceToHost) ==
        cudaErrorInvalidValue);
  CHECK(cudaFree(inside) == cudaErrorInvalidValue);
  CHECK(cudaFreeHost(memory) == cudaErrorInvalidValue);
  CHECK(cudaFree(memory) == cudaSuccess);
  CHECK(cudaFree(memory) == cudaErrorInvalidValue);
  CHECK(cudaFree(nullptr) == cudaSuccess);
  CHECK(cudaMalloc(nullptr, 1) == cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST_CASE("streams, pinned memory and events") {
  const Stream stream;
  void* pinned = nullptr;
  REQUIRE(cudaMallocHost(&pinned, sizeof(int)) == cudaSuccess);
  auto* const value = static_cast<int*>(pinned);
  const DeviceInts values = device_ints({0});
  cudaEvent_t from = nullptr;
  cudaEvent_t to = nullptr;
  cudaEvent_t untimed = nullptr;
  REQUIRE(cudaEventCreate(&from) == cudaSuccess);
  REQUIRE(cudaEventCreate(&to) == cudaSuccess);
  REQUIRE(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming) == cudaSuccess);
  float milliseconds = -1;
  CHECK(cudaEventElapsedTime(&milliseconds, from, to) == cudaErrorInvalidResourceHandle);
  CHECK(cudaGetLastError() == cudaErrorInvalidResourceHandle);
  CHECK(cudaEventSynchronize(untimed) == cudaSuccess);  // never recorded: nothing to wait for

  *value = 40;
  REQUIRE(cudaEventRecord(from, stream) == cudaSuccess);
  REQUIRE(cudaMemcpyAsync(values.get(), value, sizeof(int), cudaMemcpyHostToDevice, stream) ==
          cudaSuccess);
  REQUIRE(cudaEventRecord(untimed, stream) == cudaSuccess);
  REQUIRE(launch_add(values.get(), 1, -3, stream) == cudaSuccess);
  REQUIRE(cudaEventSynchronize(untimed) == cudaSuccess);
  *value = 0;  // the copy is done
  REQUIRE(cudaMemcpyAsync(value, values.get(), sizeof(int), cudaMemcpyDeviceToHost, stream) ==
          cudaSuccess);
  if (streams_are_late()) CHECK(*value == 0);
  REQUIRE(cudaEventRecord(to, stream) == cudaSuccess);
  REQUIRE(cudaEventSynchronize(to) == cudaSuccess);
  CHECK(*value == 42);
  CHECK(cudaEventElapsedTime(&milliseconds, from, to) == cudaSuccess);
  CHECK(milliseconds > 0);
  CHECK(cudaEventElapsedTime(&milliseconds, from, untimed) == cudaErrorInvalidResourceHandle);

  // From memory that is not pinned the bytes are taken at the call.
  int pageable = 7;
  REQUIRE(cudaMemcpyAsync(values.get(), &pageable, sizeof(int), cudaMemcpyHostToDevice, stream) ==
          cudaSuccess);
  pageable = 8;
  REQUIRE(cudaMemcpyAsync(&pageable, values.get(), sizeof(int), cudaMemcpyDeviceToHost, stream) ==
          cudaSuccess);
  CHECK(pageable == 7);
  int queries = 0;
  while (cudaStreamQuery(stream) == cudaErrorNotReady && queries < 10) ++queries;
  CHECK(cudaStreamQuery(stream) == cudaSuccess);
  for (cudaEvent_t event : {from, to, untimed}) CHECK(cudaEventDestroy(event) == cudaSuccess);
  CHECK(cudaEventDestroy(to) == cudaErrorInvalidResourceHandle);
  CHECK(cudaFreeHost(pinned) == cudaSuccess);
  cudaGetLastError();
}

TEST_CASE("a captured graph runs when it is launched, with its parameters of then") {
  const Stream stream;
  const DeviceInts values = device_ints({1, 2, 3, 4});
  REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
  CHECK(launch_add(values.get(), 4, 5, stream) == cudaSuccess);
  CHECK(launch_reverse(values.get(), 4, 16, stream) == cudaSuccess);
  CHECK(cudaMemsetAsync(values.get(), 0, sizeof(int), stream) == cudaSuccess);
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaStreamEndCapture(stream, &graph) == cudaSuccess);
  CHECK(host(values, 4) == std::vector<int>{1, 2, 3, 4});
  cudaGraphExec_t executable = nullptr;
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  CHECK(cudaGraphUpload(executable, stream) == cudaSuccess);
  CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
  stream.wait();
  CHECK(host(values, 4) == std::vector<int>{0, 13, 12, 11});
  CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
  stream.wait();
  CHECK(host(values, 4) == std::vector<int>{0, 22, 23, 10});
  CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
  CHECK(cudaGraphLaunch(executable, stream) == cudaErrorInvalidValue);
  cudaGetLastError();
}

TEST_CASE("what a capture cannot hold is refused and makes it void") {
  const Stream stream;
  const auto refused = [&](cudaError_t expected, const auto& forbidden) {
    REQUIRE(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal) == cudaSuccess);
    CHECK(forbidden() == expected);
    cudaGraph_t graph = nullptr;
    CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorStreamCaptureInvalidated);
    CHECK(graph == nullptr);
    cudaGetLastError();
  };
  const DeviceInts values = device_ints({0});
  void* memory = nullptr;
  int read = 0;
  refused(cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamSynchronize(stream); });
  refused(cudaErrorStreamCaptureUnsupported, [&] { return cudaStreamQuery(stream); });
  refused(cudaErrorStreamCaptureUnsupported, [&] { return cudaDeviceSynchronize(); });
  refused(cudaErrorStreamCaptureUnsupported, [&] { return cudaMalloc(&memory, 16); });
  refused(cudaErrorStreamCaptureUnsupported,
          [&] { return cudaMemcpy(&read, values.get(), 4, cudaMemcpyDeviceToHost); });
  cudaGraph_t graph = nullptr;
  CHECK(cudaStreamEndCapture(stream, &graph) == cudaErrorIllegalState);
  CHECK(cudaStreamBeginCapture(nullptr, cudaStreamCaptureModeGlobal) ==
        cudaErrorStreamCaptureUnsupported);
  cudaGetLastError();
}

TEST_CASE("a WHILE node runs its body as long as the condition says") {
  const Stream stream;
  for (const int turns : {1, 7, 100}) {
    CAPTURE(turns);
    const DeviceInts left = device_ints({turns});
    const DeviceInts done = device_ints({0});
    cudaGraph_t graph = nullptr;
    REQUIRE(cudaGraphCreate(&graph, 0) == cudaSuccess);
    cudaGraphConditionalHandle handle = 0;
    REQUIRE(cudaGraphConditionalHandleCreate(&handle, graph, 1, cudaGraphCondAssignDefault) ==
            cudaSuccess);
    std::vector<cudaGraph_t> bodies;
    REQUIRE(add_conditional(graph, handle, cudaGraphCondTypeWhile, 1, bodies) == cudaSuccess);
    capture_into(bodies[0], stream,
                 [&] { launch_count_down(left.get(), done.get(), handle, stream); });
    cudaGraphExec_t executable = nullptr;
    REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
    // Too late for the executable:
    capture_into(bodies[0], stream, [&] { launch_add(done.get(), 1, 1000, stream); });
    CHECK(cudaGraphDestroy(graph) == cudaSuccess);
    // The second launch starts from the default value again: one turn, below 0 at once.
    for (const int expected : {turns, turns + 1}) {
      CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
      stream.wait();
      CHECK(host(done, 1) == std::vector<int>{expected});
    }
    CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
  }
}

TEST_CASE("an IF node runs one of its bodies, by what a kernel before it set") {
  const Stream stream;
  const DeviceInts choice = device_ints({0});
  const DeviceInts values = device_ints({0});
  cudaGraph_t graph = nullptr;
  REQUIRE(cudaGraphCreate(&graph, 0) == cudaSuccess);
  cudaGraphConditionalHandle handle = 0;
  REQUIRE(cudaGraphConditionalHandleCreate(&handle, graph, 0, 0) == cudaSuccess);
  cudaGraphExec_t executable = nullptr;
  CHECK(cudaGraphInstantiate(&executable, graph, 0) == cudaErrorInvalidValue);  // no node has it
  capture_into(graph, stream, [&] { launch_set(choice.get(), handle, stream); });
  std::vector<cudaGraph_t> bodies;
  CHECK(add_conditional(graph, handle, cudaGraphCondTypeWhile, 2, bodies) == cudaErrorInvalidValue);
  REQUIRE(add_conditional(graph, handle, cudaGraphCondTypeIf, 2, bodies) == cudaSuccess);
  capture_into(bodies[0], stream, [&] { launch_add(values.get(), 1, 95, stream); });
  capture_into(bodies[1], stream, [&] { launch_add(values.get(), 1, -4, stream); });
  REQUIRE(cudaGraphInstantiate(&executable, graph, 0) == cudaSuccess);
  int sum = 0;
  for (const int chosen : {0, 1, 3, 0}) {
    REQUIRE(cudaMemcpy(choice.get(), &chosen, sizeof chosen, cudaMemcpyHostToDevice) ==
            cudaSuccess);
    CHECK(cudaGraphLaunch(executable, stream) == cudaSuccess);
    stream.wait();
    sum += chosen != 0 ? 100 : 1;
    CHECK(host(values, 1) == std::vector<int>{sum});
  }
  CHECK(cudaGraphExecDestroy(executable) == cudaSuccess);
  CHECK(cudaGraphDestroy(graph) == cudaSuccess);
  cudaGetLastError();
}

TEST_CASE("a fault is the end of the process's device") {
  const auto after = [](cudaError_t expected, const auto& fail) {
    return exit_code_of([&] {
      const Stream stream;
      fail(stream);
      if (cudaGetLastError() != cudaSuccess) return 1;  // the launch itself was fine
      if (cudaStreamSynchronize(stream) != expected) return 2;
      void* memory = nullptr;
      if (cudaMalloc(&memory, 16) != expected) return 3;
      if (cudaDeviceSynchronize() != expected) return 4;
      return cudaGetLastError() == expected ? 0 : 5;
    });
  };
  const DeviceInts values = device_ints({1, 2, 3});
  int* freed = nullptr;
  {
    const DeviceInts gone = device_ints({1});
    freed = gone.get();
  }
  const auto poke = [](int* at) { return [at](cudaStream_t on) { launch_poke(at, on); }; };
  CHECK(after(cudaErrorLaunchFailure, [](cudaStream_t on) { launch_trap(on); }) == 0);
  CHECK(after(cudaErrorIllegalAddress, poke(nullptr)) == 0);
  CHECK(after(cudaErrorIllegalAddress, poke(values.get() + 3)) == 0);
  CHECK(after(cudaErrorIllegalAddress, poke(values.get() - 1)) == 0);
  CHECK(after(cudaErrorIllegalAddress, poke(freed)) == 0);
  CHECK(after(cudaErrorMisalignedAddress,
              poke(reinterpret_cast<int*>(reinterpret_cast<char*>(values.get()) + 2))) == 0);
  CHECK(launch_add(values.get(), 3, 0, nullptr) == cudaSuccess);  // this process's is unharmed
  CHECK(host(values, 3) == std::vector<int>{6, 7, 8});
}

TEST_CASE("a WHILE node without an end is a launch failure") {
  CHECK(exit_code_of([] {
          const Stream stream;
          cudaGraph_t graph = nullptr;
          cudaGraphConditionalHandle handle = 0;
          cudaGraphCreate(&graph, 0);
          cudaGraphConditionalHandleCreate(&handle, graph, 1, cudaGraphCondAssignDefault);
          std::vector<cudaGraph_t> bodies;
          add_conditional(graph, handle, cudaGraphCondTypeWhile, 1, bodies);
          cudaGraphExec_t executable = nullptr;
          if (cudaGraphInstantiate(&executable, graph, 0) != cudaSuccess) return 1;
          if (cudaGraphLaunch(executable, stream) != cudaSuccess) return 2;
          return cudaStreamSynchronize(stream) == cudaErrorLaunchFailure ? 0 : 3;
        }) == 0);
}
