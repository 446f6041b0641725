#include "engine/model/json_reader.h"

#include <cmath>
#include <unordered_set>
#include <utility>
#include <vector>

#include "engine/model/tensor_view.h"
#include "specdec/error.h"

namespace specdec {
namespace {

using nlohmann::json;

constexpr int kDeepest = 64;
constexpr std::size_t kMostValues = 4'000'000;

}  // namespace

json parse_json(std::string_view text, const std::string& file) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::invalid_model, file + ": " + what);
  };
  std::vector<std::unordered_set<std::string>> keys;  // of the objects that are open
  std::size_t num_values = 0;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    switch (event) {
      case json::parse_event_t::object_start:
        keys.emplace_back();
        [[fallthrough]];
      case json::parse_event_t::array_start:
        if (depth >= kDeepest) fail("the JSON is nested deeper than " + std::to_string(kDeepest));
        break;
      case json::parse_event_t::object_end:
        keys.pop_back();
        break;
      case json::parse_event_t::key:
        if (!keys.back().insert(parsed.get_ref<const std::string&>()).second) {
          fail("key " + in_quotes(parsed.get_ref<const std::string&>()) + " appears twice");
        }
        break;
      case json::parse_event_t::array_end:
      case json::parse_event_t::value:
        break;
    }
    if (++num_values > kMostValues) fail("the JSON has too many values");
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::exception& error) {
    // nlohmann's message quotes the text it stumbled over, whatever bytes that are.
    throw Error(ErrorCode::invalid_model,
                file + ": the JSON is malformed: " + in_quotes(error.what()));
  }
}

JsonObject::JsonObject(const json& value, const std::string& file, std::string path)
    : value_(&value), file_(&file), path_(std::move(path)) {
  if (!value.is_object()) {
    throw Error(ErrorCode::invalid_model,
                file + ": " + (path_.empty() ? "the JSON" : "key " + in_quotes(path_)) +
                    " must be an object");
  }
}

std::string JsonObject::describe(const char* key, const std::string& what) const {
  return *file_ + ": key " + in_quotes(path_.empty() ? key : path_ + "." + key) + ": " + what;
}

void JsonObject::fail_invalid(const char* key, const std::string& what) const {
  throw Error(ErrorCode::invalid_model, describe(key, what));
}

void JsonObject::fail_unsupported(const char* key, const std::string& what) const {
  throw Error(ErrorCode::unsupported, describe(key, what));
}

const json* JsonObject::find(const char* key) const {
  const auto found = value_->find(key);
  return found == value_->end() || found->is_null() ? nullptr : &*found;
}

std::optional<int> JsonObject::integer(const char* key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number_integer()) fail_invalid(key, "must be an integer");
  if (!value->is_number_unsigned() ||
      value->get<std::uint64_t>() > std::uint64_t{std::numeric_limits<int>::max()}) {
    fail_invalid(key, "is " + value->dump() + ", out of range");
  }
  return value->get<int>();
}

std::optional<double> JsonObject::number(const char* key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_number() || !std::isfinite(value->get<double>())) {
    fail_invalid(key, "must be a finite number");
  }
  return value->get<double>();
}

std::optional<bool> JsonObject::boolean(const char* key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_boolean()) fail_invalid(key, "must be true or false");
  return value->get<bool>();
}

std::optional<std::string> JsonObject::string(const char* key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (!value->is_string()) fail_invalid(key, "must be a string");
  return value->get<std::string>();
}

std::optional<JsonObject> JsonObject::object(const char* key) const {
  const json* value = find(key);
  if (value == nullptr) return std::nullopt;
  return JsonObject(*value, *file_, path_.empty() ? key : path_ + "." + key);
}

int JsonObject::require_integer(const char* key) const {
  const auto value = integer(key);
  if (!value.has_value()) fail_invalid(key, "is missing");
  return *value;
}

double JsonObject::require_number(const char* key) const {
  const auto value = number(key);
  if (!value.has_value()) fail_invalid(key, "is missing");
  return *value;
}

}  // namespace specdec
