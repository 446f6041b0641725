#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace specdec {

/// A JSON value of a file that nobody vouches for, with its place, for messages: every access
/// checks the kind and throws Error(invalid_model) naming file and key. A view: the document
/// outlives it.
class JsonValue {
 public:
  JsonValue(const nlohmann::json& value, const std::string& file, std::string path = "")
      : value_(&value), file_(&file), path_(std::move(path)) {}

  /// Null when the member is absent or null, or when this is.
  JsonValue operator[](const char* key) const;
  std::vector<JsonValue> elements() const;  // of an array
  const nlohmann::json::object_t& members() const;

  bool is_null() const { return value_->is_null(); }
  bool is_string() const { return value_->is_string(); }
  bool is_array() const { return value_->is_array(); }
  bool is_object() const { return value_->is_object(); }
  const std::string& string() const;
  /// An id: 0 to 2^31 - 1.
  std::int32_t id() const;
  bool boolean(bool otherwise) const;  // null: `otherwise`
  /// The string, or empty for null.
  std::string_view string_or_empty() const {
    return is_null() ? std::string_view() : std::string_view(string());
  }

  [[noreturn]] void fail(const std::string& what) const;         // invalid_model
  [[noreturn]] void unsupported(const std::string& what) const;  // unsupported

 private:
  std::string place() const;

  const nlohmann::json* value_;
  const std::string* file_;
  std::string path_;
};

/// Parses a document: nesting at most 64 deep, no key twice in an object, UTF-8. Throws
/// Error(invalid_model) naming `file`.
nlohmann::json parse_json_document(std::string_view text, const std::string& file);

}  // namespace specdec
