#pragma once

#include <cuda_runtime.h>
#include <doctest/doctest.h>

#include <cstddef>
#include <span>
#include <utility>
#include <vector>

namespace specdec::cuda_test {

/// Zero-filled device memory that the tests fill and read back. Synchronous.
template <typename T>
class DeviceArray {
 public:
  explicit DeviceArray(std::size_t size = 0) : size_(size) {
    REQUIRE(cudaMalloc(&data_, bytes() + 1) == cudaSuccess);
    REQUIRE(cudaMemset(data_, 0, bytes() + 1) == cudaSuccess);
  }
  explicit DeviceArray(std::span<const T> values) : DeviceArray(values.size()) { write(values); }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(std::span<const T>(values)) {}
  DeviceArray(const DeviceArray&) = delete;
  DeviceArray& operator=(const DeviceArray&) = delete;
  DeviceArray(DeviceArray&& other) noexcept
      : size_(std::exchange(other.size_, 0)), data_(std::exchange(other.data_, nullptr)) {}
  DeviceArray& operator=(DeviceArray&& other) noexcept {
    std::swap(size_, other.size_);
    std::swap(data_, other.data_);
    return *this;
  }
  ~DeviceArray() { cudaFree(data_); }

  T* get() const { return data_; }
  std::size_t size() const { return size_; }
  std::size_t bytes() const { return size_ * sizeof(T); }
  void write(std::span<const T> values) {
    REQUIRE(values.size() <= size_);
    REQUIRE(cudaMemcpy(data_, values.data(), values.size_bytes(), cudaMemcpyHostToDevice) ==
            cudaSuccess);
  }
  std::vector<T> read() const {
    std::vector<T> values(size_);
    REQUIRE(cudaDeviceSynchronize() == cudaSuccess);
    REQUIRE(cudaMemcpy(values.data(), data_, bytes(), cudaMemcpyDeviceToHost) == cudaSuccess);
    return values;
  }
  void fill(int byte) { REQUIRE(cudaMemset(data_, byte, bytes()) == cudaSuccess); }

 private:
  std::size_t size_ = 0;
  T* data_ = nullptr;
};

}  // namespace specdec::cuda_test
