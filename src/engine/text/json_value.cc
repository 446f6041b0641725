#include "engine/text/json_value.h"

#include <limits>
#include <unordered_set>

#include "specdec/error.h"

namespace specdec {
namespace {

using nlohmann::json;

constexpr int kDeepest = 64;

const json kNull;

}  // namespace

json parse_json_document(std::string_view text, const std::string& file) {
  const auto fail = [&](const std::string& what) {
    throw Error(ErrorCode::invalid_model, file + ": " + what);
  };
  // json::parse keeps its own stack, so depth costs memory alone; the limit is for what walks the
  // document later.
  std::vector<std::unordered_set<std::string>> keys;
  const auto watch = [&](int depth, json::parse_event_t event, json& parsed) {
    if (event == json::parse_event_t::object_start || event == json::parse_event_t::array_start) {
      if (depth >= kDeepest) fail("the JSON is nested deeper than " + std::to_string(kDeepest));
    }
    if (event == json::parse_event_t::object_start) keys.emplace_back();
    if (event == json::parse_event_t::object_end) keys.pop_back();
    if (event == json::parse_event_t::key) {
      const auto& key = parsed.get_ref<const std::string&>();
      if (!keys.back().insert(key).second) fail("key \"" + key + "\" is there twice");
    }
    return true;
  };
  try {
    return json::parse(text.begin(), text.end(), watch);
  } catch (const json::exception& error) {
    throw Error(ErrorCode::invalid_model, file + ": no valid JSON: " + error.what());
  }
}

std::string JsonValue::place() const {
  return *file_ + ": " + (path_.empty() ? std::string("the document") : "key \"" + path_ + "\"");
}

void JsonValue::fail(const std::string& what) const {
  throw Error(ErrorCode::invalid_model, place() + " " + what);
}

void JsonValue::unsupported(const std::string& what) const {
  throw Error(ErrorCode::unsupported, place() + " " + what);
}

JsonValue JsonValue::operator[](const char* key) const {
  std::string path = path_.empty() ? key : path_ + "." + key;
  if (is_null()) return {kNull, *file_, std::move(path)};
  if (!is_object()) fail("must be an object");
  const auto found = value_->find(key);
  return {found == value_->end() ? kNull : *found, *file_, std::move(path)};
}

std::vector<JsonValue> JsonValue::elements() const {
  if (!is_array()) fail("must be an array");
  std::vector<JsonValue> values;
  values.reserve(value_->size());
  for (const json& element : *value_) {
    values.emplace_back(element, *file_, path_ + "[" + std::to_string(values.size()) + "]");
  }
  return values;
}

const json::object_t& JsonValue::members() const {
  if (!is_object()) fail("must be an object");
  return value_->get_ref<const json::object_t&>();
}

const std::string& JsonValue::string() const {
  if (!is_string()) fail("must be a string");
  return value_->get_ref<const std::string&>();
}

std::int32_t JsonValue::id() const {
  constexpr std::int64_t kLast = std::numeric_limits<std::int32_t>::max();
  if (!value_->is_number_integer() || *value_ < 0 || *value_ > kLast) {
    fail("must be a token id: an integer from 0 to 2147483647");
  }
  return value_->get<std::int32_t>();
}

bool JsonValue::boolean(bool otherwise) const {
  if (is_null()) return otherwise;
  if (!value_->is_boolean()) fail("must be true or false");
  return value_->get<bool>();
}

}  // namespace specdec
