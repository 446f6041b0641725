#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "engine/model/mapped_file.h"
#include "engine/model/tensor_view.h"

namespace specdec {

/// Metadata value types, as the GGUF specification numbers them.
enum class GgufType : std::uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  string,
  array,
  uint64,
  int64,
  float64,
};

/// One metadata value, checked to lie inside the file. A scalar is an array of one; arrays stay in
/// the file until they are asked for.
struct GgufValue {
  GgufType type = GgufType::uint8;  // of the elements
  bool is_array = false;
  std::uint64_t count = 1;
  std::span<const std::byte> payload;  // all elements
};

/// A GGUF file (v2, v3, little-endian): https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
/// Everything is checked on opening: after it, no access can leave the file. Immutable.
class GgufFile {
 public:
  /// Throws Error (invalid_model, unsupported) naming the file and the key or tensor at fault.
  explicit GgufFile(std::shared_ptr<const MappedFile> file);

  const std::string& name() const noexcept { return file_->name(); }
  const std::shared_ptr<const MappedFile>& file() const noexcept { return file_; }
  const std::vector<TensorView>& tensors() const noexcept { return tensors_; }

  // Metadata. Each throws Error(invalid_model) naming file and key when the value is of another
  // kind or out of the result's range; an absent key is nullopt, or an error in `require_*`.
  bool has(std::string_view key) const noexcept { return values_.contains(key); }
  bool is_array(std::string_view key) const noexcept;
  std::optional<std::string_view> string(std::string_view key) const;
  std::optional<std::int64_t> integer(std::string_view key) const;
  std::optional<double> number(std::string_view key) const;  // integers and floats, finite
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::vector<std::string>> strings(std::string_view key) const;
  std::optional<std::vector<std::int64_t>> integers(std::string_view key) const;

 private:
  void read_tensors(class GgufReader& reader, std::uint64_t count);
  void place_tensors(std::span<const std::uint64_t> offsets, std::size_t data_begin,
                     std::uint64_t alignment);
  const GgufValue* find(std::string_view key, bool array) const;
  [[noreturn]] void fail(std::string_view key, const std::string& what) const;

  std::shared_ptr<const MappedFile> file_;
  std::unordered_map<std::string_view, GgufValue> values_;
  std::vector<TensorView> tensors_;
};

}  // namespace specdec
