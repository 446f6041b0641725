#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "specdec/error.h"
#include "tools/specdec_grammar/suites.h"

namespace specdec::grammar_tool {
namespace {

namespace fs = std::filesystem;
using grammar::Draft;
using grammar::JsonValue;
using nlohmann::json;

std::optional<std::string> read_file(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) return std::nullopt;
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<Draft> draft_of(const std::string& folder) {
  if (folder == "draft4") return Draft::draft4;
  if (folder == "draft6") return Draft::draft6;
  if (folder == "draft7") return Draft::draft7;
  if (folder == "draft2019-09") return Draft::draft2019;
  if (folder == "draft2020-12") return Draft::draft2020;
  return std::nullopt;
}

struct Tally {
  std::size_t cases = 0;
  std::size_t exact = 0;
  std::size_t false_positives = 0;  // an invalid instance accepted
  std::size_t false_negatives = 0;
  std::size_t refused = 0;  // cases of schemas that were not compiled
  std::size_t crashes = 0;
  std::size_t timeouts = 0;

  json to_json() const {
    return {
        {"cases", cases},
        {"exact", exact},
        {"exact_share", cases == 0 ? 0 : static_cast<double>(exact) / static_cast<double>(cases)},
        {"false_positives", false_positives},
        {"false_negatives", false_negatives},
        {"refused", refused},
        {"crashes", crashes},
        {"timeouts", timeouts}};
  }
};

std::vector<fs::path> files_of(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file() && entry.path().extension() == ".json") {
      files.push_back(entry.path());
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

json run_jsts(const std::string& folder, const SuiteOptions& options) {
  const fs::path root(folder);
  if (!fs::is_directory(root / "tests")) {
    throw Error(ErrorCode::io, folder + ": has no folder \"tests\"");
  }
  grammar::JsonSchemaOptions base;
  base.loader = [&root](const std::string& uri) -> std::optional<std::string> {
    constexpr std::string_view kServer = "http://localhost:1234/";
    if (!uri.starts_with(kServer)) return std::nullopt;
    return read_file(root / "remotes" / uri.substr(kServer.size()));
  };
  std::map<std::string, std::map<std::string, Tally>> tallies;  // draft, required|optional|format
  json rows = json::array();
  for (const fs::path& path : files_of(root / "tests")) {
    const fs::path relative = fs::relative(path, root / "tests");
    const std::string draft = relative.begin()->string();
    const std::string inside = relative.parent_path().filename().string();
    const std::string part = inside == draft ? "required" : inside;
    grammar::JsonSchemaOptions schema_options = base;
    schema_options.draft = draft_of(draft);
    schema_options.assert_formats = part == "format";
    const JsonValue groups =
        grammar::parse_json_value(read_file(path).value_or(""), relative.string());
    for (const JsonValue& group : groups.items) {
      if (options.most > 0 && rows.size() >= options.most) break;
      SchemaCase schema_case;
      schema_case.name = relative.string() + ": " + group.find("description")->string;
      schema_case.schema = write_json(*group.find("schema"));
      for (const JsonValue& test : group.find("tests")->items) {
        schema_case.instances.push_back(
            {test.find("description")->string, test.find("valid")->boolean, *test.find("data")});
      }
      json row = run_case(schema_case, schema_options, nullptr, options.limit_s);
      Tally& tally = tallies[draft][part];
      const std::size_t size = schema_case.instances.size();
      tally.cases += size;
      if (row["result"] == "refused") tally.refused += size;
      if (row["result"] == "crash") tally.crashes += size;
      if (row["result"] == "timeout") tally.timeouts += size;
      if (row["result"] == "ok") {
        for (std::size_t i = 0; i < size; ++i) {
          const Instance& instance = schema_case.instances[i];
          if (row["verdicts"][i] == instance.valid) {
            ++tally.exact;
            continue;
          }
          ++(instance.valid ? tally.false_negatives : tally.false_positives);
          row["wrong"].push_back({{"description", instance.description},
                                  {"valid", instance.valid},
                                  {"data", write_json(instance.value).substr(0, 2000)}});
        }
      }
      row.erase("masks_us");
      row.erase("verdicts");
      rows.push_back(std::move(row));
    }
  }
  json drafts;
  for (const auto& [draft, parts] : tallies) {
    for (const auto& [part, tally] : parts) drafts[draft][part] = tally.to_json();
  }
  return {{"summary", drafts}, {"rows", std::move(rows)}};
}

}  // namespace specdec::grammar_tool
