#include "sampling/grammar/json_schema/json_value.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "specdec/error.h"

namespace specdec::grammar {
namespace {

struct Refused {
  std::string what;
};

/// Builds a JsonValue from nlohmann's events; the parser itself does not recurse.
class ValueBuilder : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit ValueBuilder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return place({}); }
  bool boolean(bool value) override {
    JsonValue result;
    result.kind = JsonValue::Kind::boolean;
    result.boolean = value;
    return place(std::move(result));
  }
  bool number_integer(number_integer_t value) override { return number(std::to_string(value)); }
  bool number_unsigned(number_unsigned_t value) override { return number(std::to_string(value)); }
  bool number_float(number_float_t, const string_t& text) override { return number(text); }
  bool string(string_t& value) override {
    JsonValue result;
    result.kind = JsonValue::Kind::string;
    result.string = std::move(value);
    return place(std::move(result));
  }
  bool binary(binary_t&) override { throw Refused{"binary values are no JSON"}; }
  bool start_object(std::size_t) override { return open(JsonValue::Kind::object); }
  bool end_object() override {
    keys_.pop_back();
    return close();
  }
  bool start_array(std::size_t) override { return open(JsonValue::Kind::array); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (!keys_.back().insert(name).second) throw Refused{"member \"" + name + "\" appears twice"};
    names_.back() = std::move(name);
    return true;
  }
  bool parse_error(std::size_t, const std::string&, const nlohmann::json::exception& e) override {
    std::string what = e.what();  // "[json.exception...] parse error at line 1, column 2: ..."
    throw Refused{what.substr(std::min(what.size(), what.find("] ") + 2))};
  }

  JsonValue take() { return std::move(root_); }

 private:
  bool number(const std::string& text) {
    const auto value = Decimal::parse(text);
    if (!value.has_value()) throw Refused{"number " + text.substr(0, 40) + " is out of range"};
    JsonValue result;
    result.kind = JsonValue::Kind::number;
    result.number = *value;
    result.string = text;
    return place(std::move(result));
  }
  bool place(JsonValue value) {
    if (++num_values_ > limits_.values) throw Refused{"more values than the limit"};
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (open_.back().is_array()) {
      open_.back().items.push_back(std::move(value));
    } else {
      open_.back().members.emplace_back(std::move(names_.back()), std::move(value));
    }
    return true;
  }
  bool open(JsonValue::Kind kind) {
    if (open_.size() >= limits_.depth) {
      throw Refused{"nested deeper than " + std::to_string(limits_.depth)};
    }
    open_.emplace_back().kind = kind;
    names_.emplace_back();
    if (kind == JsonValue::Kind::object) keys_.emplace_back();
    return true;
  }
  bool close() {
    JsonValue value = std::move(open_.back());
    open_.pop_back();
    names_.pop_back();
    return place(std::move(value));
  }

  JsonLimits limits_;
  std::size_t num_values_ = 0;
  JsonValue root_;
  std::vector<JsonValue> open_;     // arrays and objects that are not finished
  std::vector<std::string> names_;  // of the member that comes next, per open value
  std::vector<std::unordered_set<std::string>> keys_;  // per open object
};

void append(const JsonValue& value, const JsonStyle& style, std::string& out) {
  const char* comma = style.spaces ? ", " : ",";
  switch (value.kind) {
    case JsonValue::Kind::null:
      out += "null";
      return;
    case JsonValue::Kind::boolean:
      out += value.boolean ? "true" : "false";
      return;
    case JsonValue::Kind::number:
      out += value.string;
      return;
    case JsonValue::Kind::string:
      out += quote_json(value.string, style.ascii_only);
      return;
    case JsonValue::Kind::array:
      out += '[';
      for (const JsonValue& item : value.items) {
        if (&item != value.items.data()) out += comma;
        append(item, style, out);
      }
      out += ']';
      return;
    case JsonValue::Kind::object:
      out += '{';
      for (const auto& member : value.members) {
        if (&member != value.members.data()) out += comma;
        out += quote_json(member.first, style.ascii_only);
        out += style.spaces ? ": " : ":";
        append(member.second, style, out);
      }
      out += '}';
      return;
  }
}

}  // namespace

const JsonValue* JsonValue::find(std::string_view name) const noexcept {
  for (const auto& [key, value] : members) {
    if (key == name) return &value;
  }
  return nullptr;
}

JsonValue parse_json_value(std::string_view text, std::string_view name, const JsonLimits& limits) {
  const auto fail = [&](const std::string& what) -> void {
    throw Error(ErrorCode::invalid_argument, std::string(name) + ": " + what);
  };
  if (text.size() > limits.bytes) fail("larger than the limit");
  ValueBuilder builder(limits);
  try {
    nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  } catch (const Refused& refused) {
    fail(refused.what);
  }
  return builder.take();
}

bool equal(const JsonValue& a, const JsonValue& b) {
  if (a.kind != b.kind) return false;
  switch (a.kind) {
    case JsonValue::Kind::null:
      return true;
    case JsonValue::Kind::boolean:
      return a.boolean == b.boolean;
    case JsonValue::Kind::number:
      return a.number == b.number;
    case JsonValue::Kind::string:
      return a.string == b.string;
    case JsonValue::Kind::array:
      return std::equal(a.items.begin(), a.items.end(), b.items.begin(), b.items.end(), equal);
    case JsonValue::Kind::object:
      if (a.members.size() != b.members.size()) return false;
      return std::all_of(a.members.begin(), a.members.end(), [&](const auto& member) {
        const JsonValue* other = b.find(member.first);
        return other != nullptr && equal(member.second, *other);
      });
  }
  return false;
}

std::string quote_json(std::string_view text, bool ascii_only) {
  return nlohmann::json(text).dump(-1, ' ', ascii_only, nlohmann::json::error_handler_t::replace);
}

std::string write_json(const JsonValue& value, const JsonStyle& style) {
  std::string out;
  append(value, style, out);
  return out;
}

}  // namespace specdec::grammar
