#pragma once

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>

namespace specdec {

/// Parses JSON that nobody vouches for: nesting at most 64 deep, no key twice in an object, at most
/// 4 million values, valid UTF-8. Throws Error(invalid_model) naming `file`.
nlohmann::json parse_json(std::string_view text, const std::string& file);

/// A JSON object with the names that messages need. Absent and null members are the same: unset, as
/// Python's transformers treats them.
class JsonObject {
 public:
  /// Throws Error(invalid_model) when `value` is no object. `path` is its dotted path in the file,
  /// empty for the root.
  JsonObject(const nlohmann::json& value, const std::string& file, std::string path = "");

  const nlohmann::json* find(const char* key) const;
  // Each throws Error(invalid_model) naming file and key when the value is of another kind or out
  // of range.
  std::optional<int> integer(const char* key) const;
  std::optional<double> number(const char* key) const;
  std::optional<bool> boolean(const char* key) const;
  std::optional<std::string> string(const char* key) const;
  std::optional<JsonObject> object(const char* key) const;

  int require_integer(const char* key) const;
  double require_number(const char* key) const;
  [[noreturn]] void fail_invalid(const char* key, const std::string& what) const;
  [[noreturn]] void fail_unsupported(const char* key, const std::string& what) const;

 private:
  std::string describe(const char* key, const std::string& what) const;

  const nlohmann::json* value_;
  const std::string* file_;
  std::string path_;
};

}  // namespace specdec
