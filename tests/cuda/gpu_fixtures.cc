#include "gpu_fixtures.h"

#include <algorithm>
#include <cmath>

#include <doctest/doctest.h>

#include "kernels/cpu/row_format.h"
#include "kernels/cuda/operand.h"
#include "kernels/reference/kv_access.h"

namespace specdec::kernels::test {

bool has_gpu() {
  static const bool found = [] {
    cudaDeviceProp properties{};
    int count = 0;
    return cudaGetDeviceCount(&count) == cudaSuccess && count > 0 &&
           cudaGetDeviceProperties(&properties, 0) == cudaSuccess && properties.major >= 8;
  }();
  return found;
}

const cuda::DeviceInfo& gpu() {
  static const cuda::DeviceInfo described = [] {
    cudaDeviceProp properties{};
    require_ok(cudaGetDeviceProperties(&properties, 0));
    cuda::DeviceInfo info;
    require_ok(cuda::describe_device(0, properties, info));
    return info;
  }();
  return described;
}

void require_ok(cudaError_t status) {
  INFO(cudaGetErrorString(status));
  REQUIRE(status == cudaSuccess);
}

Scratch::Scratch()
    : operand_(std::size_t{32} << 20), partials_(std::size_t{256} << 20), counters_(1 << 16) {
  require_ok(cudaMemset(counters_.get(), 0, counters_.bytes()));
  launch_.device = gpu();
  launch_.workspace = {.operand = operand_.get(),
                       .operand_bytes = operand_.bytes(),
                       .partials = reinterpret_cast<float*>(partials_.get()),
                       .partial_bytes = partials_.bytes(),
                       .counters = counters_.get(),
                       .num_counters = 1 << 16};
}

std::vector<Kept> kept_types() {
  std::vector<Kept> kept = {kTf32, kFloat32};
  for (const DataType type : weight_types()) kept.emplace_back(type);
  return kept;
}

std::string name(Kept kept) {
  if (kept.packed == DataType::f32) return kept.full_precision ? "f32" : "f32 in TF32";
  return kept.packed == kept.type ? name(kept.type) : name(kept.type) + " as " + name(kept.packed);
}

DataType operand_of(Kept kept) { return cuda::operand_type(kept.packed); }

GpuMatrix::GpuMatrix(const TestMatrix& matrix, Kept kept, int pair_distance) {
  const int rows = matrix.dense().rows;
  const int cols = matrix.dense().cols;
  const int tiles = cuda::num_tiles(rows, pair_distance);
  const std::size_t tile_bytes = static_cast<std::size_t>(cuda::ceil_div(cols, cuda::kUnitCols)) *
                                 cuda::unit_bytes(kept.packed);
  std::vector<std::byte> packed(static_cast<std::size_t>(tiles) * tile_bytes);
  for (int tile = 0; tile < tiles; ++tile) {
    const cuda::TileRows of = cuda::TileRows::of(tile, pair_distance);
    const std::byte* pointers[cuda::kTileRows] = {};
    for (int i = 0; i < cuda::kTileRows; ++i) {
      const int row = of.first + i % 8 + i / 8 * of.distance;
      if (i % 8 < of.valid && row < rows) pointers[i] = matrix.row(row);
    }
    cuda::pack_tile(kept.type, kept.packed, cols, pointers,
                    packed.data() + static_cast<std::size_t>(tile) * tile_bytes);
  }
  data_.emplace(packed);
  packed_ = {kept.packed, rows, cols, data_->get(), pair_distance, kept.full_precision};
}

float rounded(float value, Kept kept) {
  if (operand_of(kept) != DataType::f32) return rounded(value, operand_of(kept));
  if (kept.full_precision || value == 0 || !std::isfinite(value)) return value;
  // To whole units of the tenth bit of fraction; std::round takes ties away from zero.
  const int last = std::max(std::ilogb(value), -126) - 10;
  return static_cast<float>(
      std::ldexp(std::round(std::ldexp(static_cast<double>(value), -last)), last));
}

float rounded(float value, DataType type) {
  if (type == DataType::f16) {
    std::uint16_t bits = 0;
    reference::store_element(&bits, DataType::f16, 0,
                             std::fmin(std::fmax(static_cast<double>(value), -65504.0), 65504.0));
    return static_cast<float>(reference::load_element(&bits, DataType::f16, 0));
  }
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  bits += 0x7fff + (bits >> 16 & 1);
  bits &= 0xffff0000u;
  std::memcpy(&value, &bits, sizeof bits);
  return value;
}

reference::DenseMatrix rounded_weights(const TestMatrix& matrix, Kept kept) {
  reference::DenseMatrix dense = matrix.dense();
  for (float& value : dense.data) value = rounded(value, kept);
  return dense;
}

Device<std::byte> make_operand(const std::vector<float>& values, int rows, int cols, Kept kept) {
  const DataType type = operand_of(kept);
  const bool floats = type == DataType::f32;
  std::vector<std::byte> bytes(cuda::operand_bytes(rows, cols, floats ? 4 : 2));
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c) {
      const float value = rounded(values[static_cast<std::size_t>(r) * cols + c], kept);
      if (floats) {
        std::memcpy(bytes.data() + cuda::operand_index<4>(r, c, cols, rows) * 4, &value, 4);
        continue;
      }
      std::byte* at = bytes.data() + cuda::operand_index(r, c, cols, rows) * 2;
      if (type == DataType::f16) {
        reference::store_element(at, DataType::f16, 0, value);
      } else {
        std::uint32_t bits;
        std::memcpy(&bits, &value, sizeof bits);
        const auto high = static_cast<std::uint16_t>(bits >> 16);
        std::memcpy(at, &high, sizeof high);
      }
    }
  return Device<std::byte>(bytes);
}

std::vector<float> read_operand(const std::vector<std::byte>& operand, int rows, int cols,
                                DataType type) {
  std::vector<float> values(static_cast<std::size_t>(rows) * cols);
  for (int r = 0; r < rows; ++r)
    for (int c = 0; c < cols; ++c) {
      const std::size_t at = static_cast<std::size_t>(r) * cols + c;
      if (type == DataType::f32) {
        std::memcpy(&values[at], operand.data() + at * 4, 4);
        continue;
      }
      std::uint16_t bits;
      std::memcpy(&bits, operand.data() + cuda::operand_index(r, c, cols, rows) * 2, sizeof bits);
      values[at] = type == DataType::f16 ? f16_to_f32(bits) : bf16_to_f32(bits);
    }
  return values;
}

namespace {

/// Swaps positions and dimensions in every head of every block: [a][b] becomes [b][a].
template <class Element>
std::vector<std::byte> transposed_elements(const std::vector<std::byte>& bytes, int a, int b) {
  const auto* from = reinterpret_cast<const Element*>(bytes.data());
  std::vector<std::byte> out(bytes.size());
  auto* to = reinterpret_cast<Element*>(out.data());
  const std::size_t head = static_cast<std::size_t>(a) * b;
  for (std::size_t begin = 0; begin < bytes.size() / sizeof(Element); begin += head)
    for (int i = 0; i < a; ++i)
      for (int j = 0; j < b; ++j) to[begin + j * a + i] = from[begin + i * b + j];
  return out;
}
std::vector<std::byte> transposed(const KvLayer& layer, const std::vector<std::byte>& bytes, int a,
                                  int b) {
  return layer.type == DataType::f32 ? transposed_elements<std::uint32_t>(bytes, a, b)
                                     : transposed_elements<std::uint16_t>(bytes, a, b);
}

template <class Element>
void replace_elements(std::vector<std::byte>& bytes, Element from, Element to) {
  auto* elements = reinterpret_cast<Element*>(bytes.data());
  std::replace(elements, elements + bytes.size() / sizeof(Element), from, to);
}
/// Unwritten values are finite by contract, but not small: the largest number shows when it is
/// used.
void make_finite(DataType type, std::vector<std::byte>& values) {
  if (type == DataType::f32)
    replace_elements<std::uint32_t>(values, 0xffffffff, 0x7f7fffff);
  else
    replace_elements<std::uint16_t>(values, 0xffff, 0x7bff);
}
void make_nan(DataType type, std::vector<std::byte>& values) {
  if (type == DataType::f32)
    replace_elements<std::uint32_t>(values, 0x7f7fffff, 0xffffffff);
  else
    replace_elements<std::uint16_t>(values, 0x7bff, 0xffff);
}

}  // namespace

GpuKv::GpuKv(TestKv& host) : layer_(host.layer()) {
  keys_.emplace(transposed(layer_, host.key_bytes(), layer_.head_dim, layer_.block_size));
  auto values = transposed(layer_, host.value_bytes(), layer_.block_size, layer_.head_dim);
  make_finite(layer_.type, values);
  values_.emplace(values);
  layer_.keys = keys_->get();
  layer_.values = values_->get();
}

void GpuKv::read(std::vector<std::byte>& keys, std::vector<std::byte>& values) const {
  keys = transposed(layer_, keys_->host(), layer_.block_size, layer_.head_dim);
  values = transposed(layer_, values_->host(), layer_.head_dim, layer_.block_size);
  make_nan(layer_.type, values);
}

GpuBatch::GpuBatch(const BatchView& host) : view_(host) {
  const cuda::BatchCapacity capacity = cuda::BatchBuffers::capacity_of(host);
  memory_.emplace(cuda::BatchBuffers::bytes(capacity));
  staging_.resize(cuda::BatchBuffers::bytes(capacity));
  buffers_ = cuda::BatchBuffers(capacity, memory_->get(), staging_.data());
  require_ok(buffers_.stage(host, nullptr));
  require_ok(cudaDeviceSynchronize());
  view_.device = &buffers_.batch();
  view_.tokens = view_.device->tokens;
  view_.output_rows = view_.device->output_rows;
}

}  // namespace specdec::kernels::test
