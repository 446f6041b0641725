// Which cut of a product (ProductSchedule) is fastest, by shape and width: graphs of the same
// product over matrices that together exceed the second-level cache, medians over device events.
//   tune_products [--shapes 4096x14336:bf16,..] [--tokens 16,64]
#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/cuda/packing.h"
#include "kernels/cuda/product.h"
#include "random_weights.h"

using namespace specdec::kernels;

namespace {

void require(cudaError_t status) {
  if (status != cudaSuccess) throw std::runtime_error(cudaGetErrorString(status));
}

std::byte* allocate(std::size_t bytes) {
  void* memory = nullptr;
  require(cudaMalloc(&memory, bytes));
  return static_cast<std::byte*>(memory);
}

struct Shape {
  const char* name;
  int rows;
  int cols;
  DataType type;
};

constexpr Shape kShapes[] = {
    {"8b qkv", 6144, 4096, DataType::bf16},         {"8b output", 4096, 4096, DataType::bf16},
    {"8b gate_up", 28672, 4096, DataType::bf16},    {"8b down", 4096, 14336, DataType::bf16},
    {"8b head", 128256, 4096, DataType::bf16},      {"smol qkv", 960, 576, DataType::bf16},
    {"smol output", 576, 576, DataType::bf16},      {"smol gate_up", 3072, 576, DataType::bf16},
    {"smol down", 576, 1536, DataType::bf16},       {"smol head", 49152, 576, DataType::bf16},
    {"smol q8 head", 49152, 576, DataType::q8_0},   {"draft q8 head", 49152, 256, DataType::q8_0},
    {"smol q4 gate_up", 3072, 576, DataType::q4_1}, {"smol q4 down", 576, 1536, DataType::q4_1},
};

constexpr int kMostTokens = 256;

class Tuner {
 public:
  Tuner(const Shape& shape, const cuda::DeviceInfo& device) : shape_(shape) {
    const std::size_t bytes = cuda::packed_bytes(shape.type, shape.rows, shape.cols, 0);
    count_ = static_cast<int>(std::clamp<std::size_t>((std::size_t{300} << 20) / bytes + 1, 2, 24));
    for (int i = 0; i < count_; ++i) {
      weights_.push_back(allocate(bytes));
      require(bench::fill_random(weights_.back(), bytes, shape.type, static_cast<unsigned>(i)));
    }
    const std::size_t operand = cuda::operand_bytes(kMostTokens, shape.cols);
    tokens_ = allocate(operand);
    require(bench::fill_random(tokens_, operand, DataType::bf16, 99));
    out_ = reinterpret_cast<float*>(
        allocate(sizeof(float) * kMostTokens * static_cast<std::size_t>(shape.rows)));
    require(cudaStreamCreateWithFlags(&launch_.stream, cudaStreamNonBlocking));
    require(cudaEventCreate(&begin_));
    require(cudaEventCreate(&end_));
    launch_.device = device;
  }
  ~Tuner() {
    for (std::byte* memory : weights_) cudaFree(memory);
    cudaFree(tokens_);
    cudaFree(out_);
    cudaStreamDestroy(launch_.stream);
    cudaEventDestroy(begin_);
    cudaEventDestroy(end_);
  }

  cuda::ProductSchedule default_schedule(int tokens) const {
    return cuda::product_schedule(product(0, tokens).weight, tokens, launch_.device);
  }

  /// Microseconds of one product, cut like that, or as it is usually; 0 where it does not fit.
  double measure(int tokens, const cuda::ProductSchedule* schedule) {
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t runnable = nullptr;
    const int launches = std::max(count_, shape_.rows > 20000 ? 4 : 12);
    require(cudaStreamBeginCapture(launch_.stream, cudaStreamCaptureModeGlobal));
    cudaError_t status = cudaSuccess;
    for (int i = 0; i < launches && status == cudaSuccess; ++i)
      status = schedule != nullptr ? cuda::multiply(product(i % count_, tokens), *schedule, launch_)
                                   : cuda::multiply(product(i % count_, tokens), launch_);
    require(cudaStreamEndCapture(launch_.stream, &graph));
    if (status != cudaSuccess) {
      cudaGraphDestroy(graph);
      cudaGetLastError();
      return 0;
    }
    require(cudaGraphInstantiate(&runnable, graph, 0));
    std::vector<double> times;
    for (int i = 0; i < 7; ++i) {
      require(cudaEventRecord(begin_, launch_.stream));
      require(cudaGraphLaunch(runnable, launch_.stream));
      require(cudaEventRecord(end_, launch_.stream));
      require(cudaStreamSynchronize(launch_.stream));
      float milliseconds = 0;
      require(cudaEventElapsedTime(&milliseconds, begin_, end_));
      if (i >= 2) times.push_back(milliseconds * 1e3 / launches);
    }
    cudaGraphExecDestroy(runnable);
    cudaGraphDestroy(graph);
    std::sort(times.begin(), times.end());
    return times[times.size() / 2];
  }

 private:
  cuda::Product product(int index, int tokens) const {
    cuda::Product product;
    product.weight = {shape_.type, shape_.rows, shape_.cols, weights_[index], 0};
    product.tokens = tokens_;
    product.num_tokens = tokens;
    product.out = out_;
    return product;
  }

  Shape shape_;
  int count_ = 0;
  std::vector<std::byte*> weights_;
  std::byte* tokens_ = nullptr;
  float* out_ = nullptr;
  cuda::Launch launch_;
  cudaEvent_t begin_ = nullptr;
  cudaEvent_t end_ = nullptr;
};

struct Timed {
  double us;
  cuda::ProductSchedule schedule;
};

void print(const char* name, const Timed& timed) {
  const cuda::ProductSchedule& s = timed.schedule;
  std::printf("  %s %7.2f us (tiles %d, %d warps x %d token tiles, %d stages of %d)", name,
              timed.us, s.tiles, s.token_warps, s.tiles_a_warp, s.stages, s.chunk);
}

void tune(const Shape& shape, const std::vector<int>& widths, const cuda::DeviceInfo& device) {
  Tuner tuner(shape, device);
  const int units = cuda::ceil_div(shape.cols, cuda::kUnitCols);
  for (const int tokens : widths) {
    const Timed usual = {tuner.measure(tokens, nullptr), tuner.default_schedule(tokens)};
    const int token_tiles = cuda::ceil_div(tokens, cuda::kTokenTile);
    std::vector<Timed> all;
    for (const int tiles : {1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14})
      for (const int a_warp : {1, 2, 4})
        for (const int chunk : {2, 4, 8, 16, 18})
          for (const int kilobytes : {110, 224}) {
            if (token_tiles % a_warp != 0 || chunk > units || (chunk == 18 && units % 18 != 0))
              continue;
            const std::size_t stage =
                static_cast<std::size_t>(chunk) *
                (static_cast<std::size_t>(tiles) * cuda::unit_bytes(shape.type) +
                 static_cast<std::size_t>(token_tiles) * 512);
            const int stages =
                std::min(32, static_cast<int>(static_cast<std::size_t>(kilobytes) * 1024 / stage));
            if (stages < 1) continue;
            const cuda::ProductSchedule schedule = {tiles, token_tiles / a_warp, a_warp, chunk,
                                                    stages};
            if (tiles * schedule.token_warps > 14) continue;
            if (const double us = tuner.measure(tokens, &schedule); us > 0)
              all.push_back({us, schedule});
          }
    std::sort(all.begin(), all.end(), [](const Timed& a, const Timed& b) { return a.us < b.us; });
    std::printf("%-16s %2d tokens", shape.name, tokens);
    print("now", usual);
    std::printf("\n");
    for (std::size_t i = 0; i < std::min<std::size_t>(4, all.size()); ++i) {
      print("   ", all[i]);
      std::printf("\n");
    }
    std::fflush(stdout);
  }
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Cuts of products on a GPU");
  std::vector<int> widths = {8, 16, 32, 64};
  std::string filter;
  app.add_option("--tokens", widths, "widths")->delimiter(',');
  app.add_option("--shapes", filter, "only shapes whose name begins so");
  CLI11_PARSE(app, argc, argv);
  cudaDeviceProp properties{};
  if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
    std::fprintf(stderr, "tune_products: no GPU\n");
    return 1;
  }
  try {
    cuda::DeviceInfo device;
    require(cuda::describe_device(0, properties, device));
    for (const Shape& shape : kShapes)
      if (std::string_view(shape.name).starts_with(filter)) tune(shape, widths, device);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "tune_products: %s\n", error.what());
    return 1;
  }
  return 0;
}
