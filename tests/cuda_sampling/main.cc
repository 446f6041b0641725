#define DOCTEST_CONFIG_IMPLEMENT
#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cstdio>

// Exit code 77 is "skipped" to CTest: a machine without a GPU must not look like one that passed.
int main(int argc, char** argv) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::puts("SKIPPED: no CUDA device; nothing was tested");
    return 77;
  }
  return doctest::Context(argc, argv).run();
}
