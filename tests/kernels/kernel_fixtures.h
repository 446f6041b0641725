#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/reference/reference_ops.h"

namespace specdec::kernels::test {

/// Deterministic numbers (splitmix64).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next();
  /// In [0, n).
  int below(int n) { return static_cast<int>(next() % static_cast<std::uint64_t>(n)); }
  /// In [low, high).
  float uniform(float low, float high);
  /// Roughly normal.
  float normal();

 private:
  std::uint64_t state_;
};

std::vector<Isa> isas();
std::vector<DataType> weight_types();
std::string name(DataType type);

/// A random weight matrix: rows as a model file holds them, their exact values, the packed form.
/// Scales are mixed: ordinary, large, subnormal, zero and negative ones, whole rows of zeros.
class TestMatrix {
 public:
  TestMatrix(Random& random, DataType type, int rows, int cols);

  const reference::DenseMatrix& dense() const { return dense_; }
  PackedMatrix packed() const;
  const std::byte* row(int r) const { return file_.data() + r * row_bytes_; }
  /// Changes an element of a float32 matrix: its exact value and its row, not packed().
  void set(int r, int c, float value);

 private:
  std::size_t row_bytes_;
  std::vector<std::byte> file_;
  reference::DenseMatrix dense_;
  std::vector<std::byte> packed_;
  DataType type_;
};

/// Activations with outlier columns, tiny and zero stretches, one row of zeros now and then.
std::vector<float> activations(Random& random, int rows, int cols);
/// Norm weights around 1.
std::vector<float> norm_weights(Random& random, int cols);

/// Pools of one layer whose every element starts as NaN, so that a read of an unwritten slot shows.
class TestKv {
 public:
  TestKv(DataType type, int num_blocks, int num_kv_heads, int head_dim, int block_size);

  KvLayer& layer() { return layer_; }
  /// Writes random K and V to slot `slot` behind `table`.
  void fill_slot(Random& random, const std::vector<std::int32_t>& table, int slot);
  const std::vector<std::byte>& key_bytes() const { return keys_; }
  const std::vector<std::byte>& value_bytes() const { return values_; }

 private:
  std::vector<std::byte> keys_;
  std::vector<std::byte> values_;
  KvLayer layer_;
};

/// A random permutation of [0, n), as a block table.
std::vector<std::int32_t> shuffled_blocks(Random& random, int n);

bool same_bits(const float* a, const float* b, std::size_t count);

}  // namespace specdec::kernels::test
