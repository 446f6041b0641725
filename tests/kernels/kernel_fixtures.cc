#include "kernel_fixtures.h"

#include <cmath>
#include <cstring>

#include "kernels/cpu/row_format.h"
#include "kernels/reference/kv_access.h"

namespace specdec::kernels::test {

std::uint64_t Random::next() {
  std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

float Random::uniform(float low, float high) {
  return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f;
}

float Random::normal() {
  float sum = 0;
  for (int i = 0; i < 6; ++i) sum += uniform(-1, 1);
  return sum * 0.7071f;
}

std::vector<Isa> isas() {
  std::vector<Isa> out;
  for (const Isa isa : {Isa::avx2, Isa::avx512_vnni, Isa::amx}) {
    if (supported(isa)) out.push_back(isa);
  }
  return out;
}

std::vector<DataType> weight_types() {
  return {DataType::f32,  DataType::f16,  DataType::bf16,
          DataType::q8_0, DataType::q4_0, DataType::q4_1};
}

std::string name(DataType type) {
  constexpr const char* kNames[] = {"f32", "f16", "bf16", "q8_0", "q4_0", "q4_1"};
  return kNames[static_cast<int>(type)];
}

namespace {

void put_f16(std::byte* at, float value) {
  reference::store_element(at, DataType::f16, 0, static_cast<double>(value));
}

double get_f16(const std::byte* at) { return reference::load_element(at, DataType::f16, 0); }

float random_scale(Random& random) {
  switch (random.below(16)) {
    case 0:
      return 0.0f;
    case 1:
      return -0.004f;
    case 2:
      return 3e-7f;  // subnormal in f16
    case 3:
      return 0.25f;
    default:
      return random.uniform(0.001f, 0.01f);
  }
}

}  // namespace

TestMatrix::TestMatrix(Random& random, DataType type, int rows, int cols)
    : row_bytes_(row_bytes(type, cols)), dense_{rows, cols, {}}, type_(type) {
  file_.resize(row_bytes_ * static_cast<std::size_t>(rows));
  dense_.data.resize(static_cast<std::size_t>(rows) * cols);
  for (int r = 0; r < rows; ++r) {
    std::byte* at = file_.data() + r * row_bytes_;
    float* values = dense_.data.data() + static_cast<std::size_t>(r) * cols;
    const bool zero_row = random.below(23) == 0;
    if (!is_quantised(type)) {
      const std::size_t element = type == DataType::f32 ? 4 : 2;
      for (int c = 0; c < cols; ++c, at += element) {
        float v = zero_row ? 0.0f : random.normal() * 0.05f;
        if (random.below(97) == 0) v *= 30.0f;
        if (type == DataType::f16) {
          put_f16(at, v);
          values[c] = static_cast<float>(get_f16(at));
        } else {
          std::uint32_t bits;
          std::memcpy(&bits, &v, 4);
          if (type == DataType::bf16) bits &= 0xffff0000u;
          std::memcpy(values + c, &bits, 4);
          std::memcpy(at,
                      type == DataType::f32 ? reinterpret_cast<const std::byte*>(&bits)
                                            : reinterpret_cast<const std::byte*>(&bits) + 2,
                      element);
        }
      }
      continue;
    }
    for (int c = 0; c < cols; c += 32) {
      put_f16(at, zero_row ? 0.0f : random_scale(random));
      const double d = get_f16(at);
      at += 2;
      double m = 0;
      if (type == DataType::q4_1) {
        put_f16(at, zero_row ? 0.0f : random_scale(random) * -8.0f);
        m = get_f16(at);
        at += 2;
      }
      // One group in eight is all extremes, the worst case for saturating arithmetic.
      const bool extreme = random.below(8) == 0;
      for (int i = 0; i < 32; ++i) {
        if (type == DataType::q8_0) {
          const int q = extreme ? (random.below(2) == 0 ? -128 : 127) : random.below(256) - 128;
          at[i] = static_cast<std::byte>(q & 255);
          values[c + i] = static_cast<float>(d * q);
        } else {
          const int q = extreme ? 15 : random.below(16);
          std::byte& both = at[i % 16];
          both = i < 16 ? static_cast<std::byte>(q) : both | static_cast<std::byte>(q << 4);
          values[c + i] = static_cast<float>(d * (type == DataType::q4_0 ? q - 8 : q) + m);
        }
      }
      at += type == DataType::q8_0 ? 32 : 16;
    }
  }
  packed_.resize(CpuOps::packed_bytes(type, rows, cols) + kPackAlignment);
  SerialExecutor serial;
  const CpuOps ops(Isa::avx2, serial);
  std::vector<const std::byte*> pointers;
  for (int r = 0; r < rows; ++r) pointers.push_back(row(r));
  // Two calls, so that first_row matters.
  const int first = rows > 2 * kTileRows ? 2 * kTileRows : 0;
  void* out = const_cast<void*>(packed().data);
  if (first > 0) ops.pack_rows(type, cols, 0, first, pointers.data(), out);
  ops.pack_rows(type, cols, first, rows - first, pointers.data() + first, out);
}

void TestMatrix::set(int r, int c, float value) {
  std::memcpy(file_.data() + static_cast<std::size_t>(r) * row_bytes_ +
                  static_cast<std::size_t>(c) * sizeof value,
              &value, sizeof value);
  dense_.data[static_cast<std::size_t>(r) * dense_.cols + c] = value;
}

PackedMatrix TestMatrix::packed() const {
  const auto address = reinterpret_cast<std::uintptr_t>(packed_.data());
  const std::size_t skip = (kPackAlignment - address % kPackAlignment) % kPackAlignment;
  return {type_, dense_.rows, dense_.cols, packed_.data() + skip};
}

std::vector<float> activations(Random& random, int rows, int cols) {
  std::vector<float> x(static_cast<std::size_t>(rows) * cols);
  for (int r = 0; r < rows; ++r) {
    float* row = x.data() + static_cast<std::size_t>(r) * cols;
    const bool zero_row = random.below(19) == 0;
    for (int c = 0; c < cols; ++c) row[c] = zero_row ? 0.0f : random.normal();
    if (zero_row) continue;
    row[random.below(cols)] *= 200.0f;
    row[random.below(cols)] = -row[random.below(cols)] * 50.0f;
    const int tiny = random.below(cols);
    for (int c = tiny; c < cols && c < tiny + 40; ++c) row[c] *= 1e-41f;  // subnormal
  }
  return x;
}

std::vector<float> norm_weights(Random& random, int cols) {
  std::vector<float> w(static_cast<std::size_t>(cols));
  for (float& v : w) v = random.uniform(0.3f, 1.7f);
  return w;
}

TestKv::TestKv(DataType type, int num_blocks, int num_kv_heads, int head_dim, int block_size) {
  const std::size_t count = static_cast<std::size_t>(num_blocks) * num_kv_heads * head_dim *
                            block_size * (type == DataType::f32 ? 4 : 2);
  keys_.assign(count, std::byte{0xff});  // all ones is a NaN in both types
  values_.assign(count, std::byte{0xff});
  layer_ = {keys_.data(), values_.data(), type, num_kv_heads, head_dim, block_size};
}

void TestKv::fill_slot(Random& random, const std::vector<std::int32_t>& table, int slot) {
  const int block = table[slot / layer_.block_size];
  const int offset = slot % layer_.block_size;
  for (int h = 0; h < layer_.num_kv_heads; ++h) {
    for (int d = 0; d < layer_.head_dim; ++d) {
      reference::store_element(keys_.data(), layer_.type,
                               reference::key_index(layer_, block, h, d, offset),
                               static_cast<double>(random.normal()));
      reference::store_element(values_.data(), layer_.type,
                               reference::value_index(layer_, block, h, offset, d),
                               static_cast<double>(random.normal()));
    }
  }
}

std::vector<std::int32_t> shuffled_blocks(Random& random, int n) {
  std::vector<std::int32_t> table(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) table[i] = i;
  for (int i = n - 1; i > 0; --i) std::swap(table[i], table[random.below(i + 1)]);
  return table;
}

bool same_bits(const float* a, const float* b, std::size_t count) {
  return std::memcmp(a, b, count * sizeof(float)) == 0;
}

}  // namespace specdec::kernels::test
