#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/ops.h"

namespace specdec {

/// One tensor of a model file, checked to lie inside it. Alive as long as its file.
struct TensorView {
  std::string name;
  std::string file;                       // for messages
  std::string type_name;                  // as the format spells it
  std::optional<kernels::DataType> type;  // empty: a type that no weight may have
  std::vector<std::int64_t> shape;        // row-major: [rows, cols] or [n]
  std::span<const std::byte> data;
};

/// Bytes of `elements` elements; `elements` is a multiple of the type's block (32 for q8_0, q4_0,
/// q4_1; else 1).
std::size_t tensor_bytes(kernels::DataType type, std::size_t elements) noexcept;
int block_elements(kernels::DataType type) noexcept;
std::string_view to_string(kernels::DataType type) noexcept;
/// "[49152, 576]"
std::string shape_text(std::span<const std::int64_t> shape);

/// Elements of an f32, f16 or bf16 tensor as floats. Alignment does not matter.
std::vector<float> read_floats(const TensorView& tensor);

/// Well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms, at most U+10FFFF).
bool is_utf8(std::string_view text) noexcept;
/// `text` as it may stand in a message: cut at 80 bytes, everything but printable ASCII as \xNN.
std::string in_quotes(std::string_view text);

}  // namespace specdec
