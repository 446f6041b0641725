#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace extract {

/// One member of a record: the C++ type decides what the schema asks for and how it is read back.
template <class Record>
struct Field {
  std::string_view name;
  std::variant<std::string Record::*, int Record::*, bool Record::*> member;
};

namespace detail {

inline nlohmann::ordered_json type_of(const std::string&) {
  return {{"type", "string"}, {"minLength", 1}, {"maxLength", 60}};
}
inline nlohmann::ordered_json type_of(int) {
  return {{"type", "integer"}, {"minimum", 0}, {"maximum", 1'000'000}};
}
inline nlohmann::ordered_json type_of(bool) { return {{"type", "boolean"}}; }

}  // namespace detail

/// The JSON Schema of a list of 1 to `most` records.
template <class Record>
std::string schema_of(const std::vector<Field<Record>>& fields, int most) {
  nlohmann::ordered_json properties = nlohmann::ordered_json::object();
  nlohmann::ordered_json required = nlohmann::ordered_json::array();
  const Record example{};
  for (const Field<Record>& field : fields) {
    std::visit(
        [&](auto member) {
          properties[std::string(field.name)] = detail::type_of(example.*member);
        },
        field.member);
    required.push_back(field.name);
  }
  const nlohmann::ordered_json record = {{"type", "object"},
                                         {"properties", properties},
                                         {"required", required},
                                         {"additionalProperties", false}};
  const nlohmann::ordered_json list = {
      {"type", "array"}, {"items", record}, {"minItems", 1}, {"maxItems", most}};
  return list.dump();
}

/// The records of a text that the schema accepts. Throws nlohmann::json::exception for another one.
template <class Record>
std::vector<Record> parse_records(const std::vector<Field<Record>>& fields, std::string_view text) {
  std::vector<Record> records;
  for (const nlohmann::json& object : nlohmann::json::parse(text)) {
    Record& record = records.emplace_back();
    for (const Field<Record>& field : fields)
      std::visit([&](auto member) { object.at(std::string(field.name)).get_to(record.*member); },
                 field.member);
  }
  return records;
}

}  // namespace extract
