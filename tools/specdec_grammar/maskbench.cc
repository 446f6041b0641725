#include <string>

#include "specdec/error.h"
#include "tools/specdec_grammar/suites.h"

namespace specdec::grammar_tool {
namespace {

using grammar::JsonValue;
using nlohmann::json;

const JsonValue& member(const JsonValue& object, const char* name, std::size_t line) {
  const JsonValue* value = object.find(name);
  if (value == nullptr) {
    throw Error(ErrorCode::invalid_argument,
                "line " + std::to_string(line) + ": no \"" + name + "\"");
  }
  return *value;
}

}  // namespace

json run_maskbench(std::istream& lines, const SuiteOptions& options) {
  json rows = json::array();
  std::size_t fully_right = 0;
  std::size_t invalid_accepted = 0;
  std::size_t valid_rejected = 0;
  std::size_t refused = 0;
  std::size_t crashes = 0;
  std::size_t timeouts = 0;
  std::vector<double> compile_us;
  std::vector<double> masks_us;
  std::vector<double> memory;
  std::string text;
  for (std::size_t line = 1; std::getline(lines, text); ++line) {
    if (text.empty()) continue;
    if (options.most > 0 && rows.size() >= options.most) break;
    const JsonValue parsed = grammar::parse_json_value(text, "line " + std::to_string(line));
    SchemaCase schema_case;
    schema_case.name = member(parsed, "name", line).string;
    schema_case.schema = write_json(member(parsed, "schema", line));
    for (const JsonValue& test : member(parsed, "tests", line).items) {
      const JsonValue* description = test.find("description");
      schema_case.instances.push_back({description == nullptr ? "" : description->string,
                                       member(test, "valid", line).boolean,
                                       member(test, "data", line)});
    }
    json row = run_case(schema_case, {}, options.vocabulary, options.limit_s);
    bool right = row["result"] == "ok";
    if (row["result"] == "refused") ++refused;
    if (row["result"] == "crash") ++crashes;
    if (row["result"] == "timeout") ++timeouts;
    if (row["result"] == "ok") {
      for (std::size_t i = 0; i < schema_case.instances.size(); ++i) {
        const Instance& instance = schema_case.instances[i];
        if (row["verdicts"][i] == instance.valid) continue;
        right = false;
        ++(instance.valid ? valid_rejected : invalid_accepted);
        row["wrong"].push_back({{"description", instance.description},
                                {"valid", instance.valid},
                                {"data", write_json(instance.value).substr(0, 2000)}});
      }
      compile_us.push_back(row["compile_us"].get<double>());
      memory.push_back(row["memory_bytes"].get<double>());
      for (const json& time : row["masks_us"]) masks_us.push_back(time.get<double>());
    }
    if (right) ++fully_right;
    row["fully_right"] = right;
    row.erase("masks_us");
    row.erase("verdicts");
    rows.push_back(std::move(row));
  }
  json summary = {{"schemas", rows.size()},
                  {"fully_right", fully_right},
                  {"invalid_accepted", invalid_accepted},
                  {"valid_rejected", valid_rejected},
                  {"compile_errors", refused},
                  {"crashes", crashes},
                  {"timeouts", timeouts},
                  {"compile_p50_us", percentile(compile_us, 0.5)},
                  {"compile_p99_us", percentile(compile_us, 0.99)},
                  {"mask_p50_us", percentile(masks_us, 0.5)},
                  {"mask_p99_us", percentile(masks_us, 0.99)},
                  {"masks", masks_us.size()},
                  {"memory_p99_bytes", percentile(memory, 0.99)}};
  return {{"summary", std::move(summary)}, {"rows", std::move(rows)}};
}

}  // namespace specdec::grammar_tool
