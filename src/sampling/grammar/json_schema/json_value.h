#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sampling/grammar/json_schema/decimal.h"

namespace specdec::grammar {

/// A parsed JSON text. Numbers are exact, members keep their order.
struct JsonValue {
  enum class Kind : std::uint8_t { null, boolean, number, string, array, object };

  Kind kind = Kind::null;
  bool boolean = false;
  Decimal number;
  std::string string;  ///< valid UTF-8; of a number, its text
  std::vector<JsonValue> items;
  std::vector<std::pair<std::string, JsonValue>> members;

  JsonValue() = default;
  explicit JsonValue(bool value) : kind(Kind::boolean), boolean(value) {}

  bool is(Kind wanted) const noexcept { return kind == wanted; }
  bool is_object() const noexcept { return kind == Kind::object; }
  bool is_array() const noexcept { return kind == Kind::array; }
  bool is_string() const noexcept { return kind == Kind::string; }
  bool is_number() const noexcept { return kind == Kind::number; }
  bool is_boolean() const noexcept { return kind == Kind::boolean; }

  /// The member of that name, or null; of a value that is no object, null.
  const JsonValue* find(std::string_view name) const noexcept;
};

struct JsonLimits {
  std::size_t depth = 256;
  std::size_t values = 2'000'000;
  std::size_t bytes = std::size_t{64} << 20;
};

/// Throws Error(invalid_argument), naming `name`, line and column, for what is no JSON, has a
/// member twice, or is past a limit.
JsonValue parse_json_value(std::string_view text, std::string_view name,
                           const JsonLimits& limits = {});

/// Equal as JSON Schema sees it: 1 and 1.0 are equal, members have no order.
bool equal(const JsonValue& a, const JsonValue& b);

struct JsonStyle {
  bool spaces = false;      ///< after ',' and ':'
  bool ascii_only = false;  ///< other characters as \uXXXX
};

/// The string as JSON text, in quotes.
std::string quote_json(std::string_view text, bool ascii_only = false);
/// The value as JSON text, numbers as they were written.
std::string write_json(const JsonValue& value, const JsonStyle& style = {});

}  // namespace specdec::grammar
