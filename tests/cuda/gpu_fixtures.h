#pragma once

#include <cuda_runtime_api.h>

#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "kernel_fixtures.h"
#include "kernels/cuda/batch_buffers.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/packing.h"

namespace specdec::kernels::test {

/// Tests say `* doctest::skip(!has_gpu())`: they are counted as skipped. Asks for the device alone,
/// since kernels may not be registered yet.
bool has_gpu();
const cuda::DeviceInfo& gpu();

/// Fails the running test with the runtime's message.
void require_ok(cudaError_t status);

/// Device memory of `T`s. Every byte starts as 0xff (NaN), so that what is never written shows.
template <class T>
class Device {
 public:
  explicit Device(std::size_t count) : count_(count) {
    void* memory = nullptr;
    require_ok(cudaMalloc(&memory, bytes() + 16));
    data_.reset(static_cast<T*>(memory));
    require_ok(cudaMemset(memory, 0xff, bytes()));
  }
  explicit Device(std::span<const T> values) : Device(values.size()) {
    require_ok(cudaMemcpy(get(), values.data(), bytes(), cudaMemcpyHostToDevice));
  }
  explicit Device(const std::vector<T>& values) : Device(std::span<const T>(values)) {}

  T* get() const { return data_.get(); }
  std::size_t bytes() const { return count_ * sizeof(T); }
  std::vector<T> host() const {
    require_ok(cudaDeviceSynchronize());
    std::vector<T> values(count_);
    require_ok(cudaMemcpy(values.data(), get(), bytes(), cudaMemcpyDeviceToHost));
    return values;
  }

 private:
  struct Free {
    void operator()(T* memory) const { cudaFree(memory); }
  };
  std::size_t count_;
  std::unique_ptr<T, Free> data_;
};

/// A launch on the default stream with scratch for anything these tests do.
class Scratch {
 public:
  Scratch();
  const cuda::Launch& launch() const { return launch_; }

 private:
  Device<std::byte> operand_;
  Device<std::byte> partials_;
  Device<int> counters_;
  cuda::Launch launch_;
};

/// A file's weight type and how it is kept on the device: float32 as f16, or as it is, to be
/// multiplied in TF32 or as float32.
struct Kept {
  DataType type;
  DataType packed;
  bool full_precision = false;

  explicit Kept(DataType of) : type(of), packed(cuda::packed_type(of)) {}
  Kept(DataType of, DataType as, bool full) : type(of), packed(as), full_precision(full) {}
};
inline const Kept kTf32(DataType::f32, DataType::f32, false);
inline const Kept kFloat32(DataType::f32, DataType::f32, true);
/// Every weight type, each way.
std::vector<Kept> kept_types();
std::string name(Kept kept);
/// cuda::operand_type
DataType operand_of(Kept kept);

/// A test matrix packed on the device.
class GpuMatrix {
 public:
  GpuMatrix(const TestMatrix& matrix, Kept kept, int pair_distance = 0);
  const PackedMatrix& packed() const { return packed_; }

 private:
  std::optional<Device<std::byte>> data_;
  PackedMatrix packed_;
};

/// The weights as the kernels multiply them: rounded to the operand's type.
reference::DenseMatrix rounded_weights(const TestMatrix& matrix, Kept kept);
/// A float as the tensor cores see it, and as an operand's type has it (f16, bf16).
float rounded(float value, Kept kept);
float rounded(float value, DataType operand_type);

/// `rows` x `cols` floats as the operand of a product with such weights.
Device<std::byte> make_operand(const std::vector<float>& values, int rows, int cols, Kept kept);
/// An operand's elements as floats; f32: rows of floats, as ops write them for a product of float32
/// weights.
std::vector<float> read_operand(const std::vector<std::byte>& operand, int rows, int cols,
                                DataType type);

/// The pool of a TestKv on the device, with keys and values the other way round (kernels/ops.h).
class GpuKv {
 public:
  explicit GpuKv(TestKv& host);
  const KvLayer& layer() const { return layer_; }
  /// The device's pool in the host's layout.
  void read(std::vector<std::byte>& keys, std::vector<std::byte>& values) const;

 private:
  std::optional<Device<std::byte>> keys_;
  std::optional<Device<std::byte>> values_;
  KvLayer layer_;
};

/// A batch in device memory.
class GpuBatch {
 public:
  explicit GpuBatch(const BatchView& host);
  const BatchView& view() const { return view_; }

 private:
  std::optional<Device<std::byte>> memory_;
  std::vector<std::byte> staging_;
  cuda::BatchBuffers buffers_;
  BatchView view_;
};

}  // namespace specdec::kernels::test
