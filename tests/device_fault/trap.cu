#include <cuda_runtime.h>

#include "trap.h"

namespace specdec::testing {
namespace {

__global__ void trap() { __trap(); }

}  // namespace

void break_gpu() {
  cudaStream_t stream = nullptr;
  cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  trap<<<1, 1, 0, stream>>>();
}

}  // namespace specdec::testing
