#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

namespace specdec::testing {

/// Raw bytes with typed appends, little-endian.
class Bytes {
 public:
  std::vector<std::byte> data;

  template <typename T>
  Bytes& add(T value) {
    const auto* begin = reinterpret_cast<const std::byte*>(&value);
    data.insert(data.end(), begin, begin + sizeof value);
    return *this;
  }
  Bytes& add_text(std::string_view text) {
    const auto* begin = reinterpret_cast<const std::byte*>(text.data());
    data.insert(data.end(), begin, begin + text.size());
    return *this;
  }
  /// A GGUF string: 64-bit length, then the bytes.
  Bytes& add_string(std::string_view text) {
    return add<std::uint64_t>(text.size()).add_text(text);
  }
  Bytes& append(const std::vector<std::byte>& other) {
    data.insert(data.end(), other.begin(), other.end());
    return *this;
  }
};

/// A GGUF file as data, so that a test can bend any field before it is written. Sizes and counts
/// follow from the contents unless they are set.
struct GgufFileSpec {
  static constexpr std::uint64_t kAuto = UINT64_MAX;

  struct Value {
    std::string key;
    std::uint32_t type = 0;          // as the specification numbers them
    std::vector<std::byte> payload;  // what follows the type
  };
  struct Tensor {
    std::string name;
    std::vector<std::uint64_t> dimensions;  // ggml's order: the row's length first
    std::uint32_t type = 0;
    std::vector<std::byte> data;
    std::uint64_t offset = kAuto;
  };

  std::string magic = "GGUF";
  std::uint32_t version = 3;
  std::uint64_t num_tensors = kAuto;
  std::uint64_t num_values = kAuto;
  std::uint64_t alignment = 32;
  std::vector<Value> values;
  std::vector<Tensor> tensors;

  void set_u32(const std::string& key, std::uint32_t value);
  void set_u64(const std::string& key, std::uint64_t value);
  void set_i32(const std::string& key, std::int32_t value);
  void set_f32(const std::string& key, float value);
  void set_bool(const std::string& key, bool value);
  void set_string(const std::string& key, std::string_view value);
  void set_strings(const std::string& key, const std::vector<std::string>& values);
  void set_i32s(const std::string& key, const std::vector<std::int32_t>& values);
  /// Replaces the value of a key, or adds it.
  void set(const std::string& key, std::uint32_t type, std::vector<std::byte> payload);
  void erase(std::string_view key);
  Value& value(std::string_view key);
  Tensor& tensor(std::string_view name);
  void erase_tensor(std::string_view name);

  std::vector<std::byte> bytes() const;
  /// Bytes before the tensor data.
  std::size_t header_size() const;
};

}  // namespace specdec::testing
