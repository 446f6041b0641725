#pragma once

#include <cstddef>
#include <utility>

namespace specdec {

/// Owns a range of a backend's memory. Move-only. Freed through the function that allocated it.
class DeviceBuffer {
 public:
  using Free = void (*)(void* data, std::size_t bytes) noexcept;

  DeviceBuffer() = default;
  DeviceBuffer(void* data, std::size_t bytes, Free free) noexcept
      : data_(data), bytes_(bytes), free_(free) {}
  DeviceBuffer(DeviceBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        free_(other.free_) {}
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(free_, other.free_);
    return *this;
  }
  ~DeviceBuffer() {
    if (data_ != nullptr) free_(data_, bytes_);
  }

  std::size_t bytes() const noexcept { return bytes_; }
  template <class T>
  T* as() const noexcept {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
  Free free_ = nullptr;
};

}  // namespace specdec
