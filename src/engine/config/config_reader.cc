#include "engine/config/config_reader.h"

#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <string>

#include "specdec/error.h"

namespace specdec {
namespace {

// toml++ bounds the depth of values (256) but not of dotted keys, and it destroys tables
// recursively: a line of "a.a.a.a..." must not overflow the stack.
constexpr std::ptrdiff_t kMaxDots = 4096;

bool has_too_many_dots(std::string_view text) { return std::ranges::count(text, '.') > kMaxDots; }

[[noreturn]] void fail(const std::string& where, const std::string& what) {
  throw Error(ErrorCode::invalid_config, where + ": " + what);
}

[[noreturn]] void fail(const std::string& where, const ConfigKey& key, const std::string& problem) {
  fail(where, std::string(key.name) + " " + problem + "; expected " + expectation(key));
}

/// Where a value stands: "specdec.toml:12:5", or the flag or variable it comes from.
struct Place {
  std::string_view name;
  bool has_lines = true;

  std::string at(const toml::source_region& region) const {
    if (!has_lines) return std::string(name);
    return std::string(name) + ":" + std::to_string(region.begin.line) + ":" +
           std::to_string(region.begin.column);
  }
  std::string origin(const toml::source_region& region) const {
    if (!has_lines) return std::string(name);
    return std::string(name) + ":" + std::to_string(region.begin.line);
  }
};

const char* type_name(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "a list";
    case toml::node_type::string:
      return "a text";
    case toml::node_type::integer:
      return "a whole number";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "true or false";
    case toml::node_type::date:
    case toml::node_type::time:
    case toml::node_type::date_time:
      return "a date or time";
    case toml::node_type::none:
      break;
  }
  return "nothing";
}

template <class T>
bool parse_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

toml::table parse(std::string_view text, const Place& place) {
  if (has_too_many_dots(text))
    fail(std::string(place.name), "more than " + std::to_string(kMaxDots) +
                                      " dots; this is no configuration that specdec can need");
  try {
    return toml::parse(text, place.name);
  } catch (const toml::parse_error& error) {
    fail(place.at(error.source()), "not valid TOML: " + std::string(error.description()));
  }
}

/// Reads one TOML value into one key's field, checked.
class NodeReader {
 public:
  NodeReader(const ConfigKey& key, const toml::node& node, const Place& place)
      : key_(key), node_(node), place_(place) {}

  void operator()(std::string* field) const {
    const toml::node* node = &node_;
    if (const toml::array* list = node->as_array();
        list != nullptr && key_.kind == ConfigKey::Kind::method) {
      std::string joined;
      for (const toml::node& name : *list)
        joined += (joined.empty() ? "" : "+") + typed<std::string>(name);
      return assign(field, std::move(joined));
    }
    assign(field, typed<std::string>(*node));
  }
  void operator()(int* field) const { assign(field, to_int(node_)); }
  void operator()(float* field) const { assign(field, to_float(node_)); }
  void operator()(bool* field) const { assign(field, typed<bool>(node_)); }
  void operator()(std::optional<std::uint64_t>* field) const {
    if (const auto text = node_.value_exact<std::string>()) {
      std::uint64_t seed = 0;
      if (*text == "random") {
        assign(field, std::optional<std::uint64_t>());
      } else if (parse_number(*text, seed)) {
        assign(field, std::optional(seed));
      } else {
        wrong(node_, "is " + quote(*text));
      }
      return;
    }
    const std::int64_t seed = typed<std::int64_t>(node_);
    if (seed < 0) wrong(node_, "is " + std::to_string(seed));
    assign(field, std::optional(static_cast<std::uint64_t>(seed)));
  }
  void operator()(std::vector<std::string>* field) const {
    std::vector<std::string> texts;
    for (const toml::node& item : list(node_)) texts.push_back(typed<std::string>(item));
    assign(field, std::move(texts));
  }
  void operator()(std::vector<TokenId>* field) const {
    std::vector<TokenId> tokens;
    for (const toml::node& item : list(node_)) tokens.push_back(to_int(item));
    assign(field, std::move(tokens));
  }
  void operator()(std::unordered_map<TokenId, float>* field) const {
    const toml::table* table = node_.as_table();
    if (table == nullptr) wrong(node_, std::string("is ") + type_name(node_));
    std::unordered_map<TokenId, float> biases;
    for (const auto& [id, bias] : *table) {
      TokenId token = 0;
      if (!parse_number(id.str(), token)) wrong(bias, "names " + quote(id.str()) + " as a token");
      if (!biases.emplace(token, to_float(bias)).second)
        wrong(bias, "names token " + std::to_string(token) + " twice");
    }
    assign(field, std::move(biases));
  }
  void operator()(std::vector<std::pair<int, int>>* field) const {
    std::vector<std::pair<int, int>> pairs;
    for (const toml::node& item : list(node_)) {
      const toml::array& pair = list(item);
      if (pair.size() != 2)
        wrong(item, "holds a list of " + std::to_string(pair.size()) + " instead of a pair");
      pairs.emplace_back(to_int(*pair.get(0)), to_int(*pair.get(1)));
    }
    assign(field, std::move(pairs));
  }

 private:
  [[noreturn]] void wrong(const toml::node& node, const std::string& problem) const {
    fail(place_.at(node.source()), key_, problem);
  }
  [[noreturn]] void wrong_type(const toml::node& node) const {
    wrong(node, std::string(&node == &node_ ? "is " : "holds ") + type_name(node));
  }
  template <class T>
  void assign(T* field, T value) const {
    if (const std::string problem = value_problem(key_, value); !problem.empty())
      wrong(node_, problem);
    *field = std::move(value);
  }
  template <class T>
  T typed(const toml::node& node) const {
    auto value = node.value_exact<T>();
    if (!value) wrong_type(node);
    return *std::move(value);
  }
  int to_int(const toml::node& node) const {
    const auto value = typed<std::int64_t>(node);
    if (value != static_cast<int>(value))
      wrong(node, (&node == &node_ ? "is " : "holds ") + std::to_string(value));
    return static_cast<int>(value);
  }
  float to_float(const toml::node& node) const {
    if (!node.is_number()) wrong_type(node);
    return static_cast<float>(*node.value<double>());
  }
  const toml::array& list(const toml::node& node) const {
    const toml::array* array = node.as_array();
    if (array == nullptr) wrong_type(node);
    return *array;
  }

  const ConfigKey& key_;
  const toml::node& node_;
  const Place& place_;
};

void resolve(const ConfigKey& key, const std::filesystem::path& folder, Config& config) {
  if (key.kind != ConfigKey::Kind::path || folder.empty()) return;
  std::string& path = *std::get<std::string*>(key.field(config));
  if (!path.empty() && std::filesystem::path(path).is_relative())
    path = (folder / path).lexically_normal().string();
}

/// Descends as deep as known sections go, which bounds the recursion.
void read_table(const toml::table& table, const std::string& prefix, const Place& place,
                const std::filesystem::path& folder, Config& config) {
  for (const auto& [key_node, node] : table) {
    const std::string name = prefix + std::string(key_node.str());
    if (const ConfigKey* key = find_config_key(name)) {
      std::visit(NodeReader(*key, node, place), key->field(config));
      resolve(*key, folder, config);
      config.origins[name] = place.origin(key_node.source());
    } else if (!is_config_section(name)) {
      fail(place.at(key_node.source()), "unknown key " + quote(name) + "; did you mean " +
                                            quote(nearest_config_name(name)) + "?");
    } else if (const toml::table* section = node.as_table()) {
      read_table(*section, name + ".", place, folder, config);
    } else {
      fail(place.at(key_node.source()), name + " is " + type_name(node) +
                                            "; expected a table: write [" + name +
                                            "] and its keys below");
    }
  }
}

bool read_bool(std::string_view text, bool& value) {
  value = text == "true" || text == "on" || text == "1";
  return value || text == "false" || text == "off" || text == "0";
}

}  // namespace

void read_toml(std::string_view toml, std::string_view name, const std::filesystem::path& folder,
               Config& config) {
  const Place place{name};
  read_table(parse(toml, place), "", place, folder, config);
}

void read_text(const ConfigKey& key, std::string_view text, std::string_view origin,
               Config& config) {
  const std::string where(origin);
  const auto wrong = [&](const std::string& problem) { fail(where, key, problem); };
  const auto assign = [&](auto* field, auto value) {
    if (const std::string problem = value_problem(key, value); !problem.empty()) wrong(problem);
    *field = std::move(value);
  };
  const auto as_toml = [&](const std::string& value) {
    const Place place{origin, false};
    toml::table table;
    try {
      if (!has_too_many_dots(value)) table = toml::parse("value = " + value);
    } catch (const toml::parse_error&) {
      wrong("is " + quote(text));
    }
    // A line break in the text could bring in other keys.
    if (table.size() != 1 || table.get("value") == nullptr) wrong("is " + quote(text));
    std::visit(NodeReader(key, *table.get("value"), place), key.field(config));
  };
  const auto bracketed = [&](char open, char close) {
    const bool has = text.find_first_not_of(' ') != std::string_view::npos &&
                     text[text.find_first_not_of(' ')] == open;
    as_toml(has ? std::string(text) : open + std::string(text) + close);
  };
  const FieldRef field = key.field(config);
  if (const auto* string = std::get_if<std::string*>(&field)) {
    assign(*string, std::string(text));
  } else if (const auto* number = std::get_if<int*>(&field)) {
    int value = 0;
    if (!parse_number(text, value)) wrong("is " + quote(text));
    assign(*number, value);
  } else if (const auto* real = std::get_if<float*>(&field)) {
    double value = 0;
    if (!parse_number(text, value)) wrong("is " + quote(text));
    assign(*real, static_cast<float>(value));
  } else if (const auto* flag = std::get_if<bool*>(&field)) {
    bool value = false;
    if (!read_bool(text, value)) wrong("is " + quote(text));
    assign(*flag, value);
  } else if (std::holds_alternative<std::optional<std::uint64_t>*>(field)) {
    as_toml(text.starts_with('"') ? std::string(text) : quote(text, text.size()));
  } else if (const auto* texts = std::get_if<std::vector<std::string>*>(&field)) {
    if (text.starts_with('[') && text.ends_with(']')) {
      as_toml(std::string(text));
    } else {
      assign(*texts, std::vector<std::string>{std::string(text)});
    }
  } else if (std::holds_alternative<std::unordered_map<TokenId, float>*>(field)) {
    bracketed('{', '}');
  } else if (std::holds_alternative<std::vector<std::pair<int, int>>*>(field)) {
    // "[1, 5], [8, 3]" begins with a bracket, too, but not with the outer one.
    const bool outer = text.starts_with("[[") || text == "[]";
    as_toml(outer ? std::string(text) : std::string("[") + std::string(text) + "]");
  } else {
    bracketed('[', ']');
  }
  config.origins[std::string(key.name)] = where;
}

}  // namespace specdec
