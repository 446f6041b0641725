#include <doctest/doctest.h>

#include <fstream>
#include <string>

#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/json_schema/json_schema.h"

using namespace specdec;
using namespace specdec::grammar;

namespace {

struct Tally {
  int schemas = 0;
  int refused = 0;  // schemas that were not compiled
  int cases = 0;
  int exact = 0;
  int invalid_accepted = 0;
  int valid_rejected = 0;
};

/// tests/data/json_schema: a schema a line, with instances.
Tally run(const std::string& file, JsonSchemaOptions options) {
  Tally tally;
  std::ifstream lines(std::string(SPECDEC_SOURCE_DIR) + "/tests/data/json_schema/" + file);
  REQUIRE(lines);
  for (std::string line; std::getline(lines, line);) {
    const JsonValue row = parse_json_value(line, file);
    CAPTURE(row.find("name")->string);
    ++tally.schemas;
    std::optional<CompiledGrammar> grammar;
    bool refused = false;
    try {
      grammar.emplace(compile_json_schema(write_json(*row.find("schema")), options).spec);
    } catch (const UnsatisfiableSchema&) {
    } catch (const Error& error) {
      CHECK(std::string(error.what()).size() > 10);
      refused = true;
      ++tally.refused;
    }
    for (const JsonValue& test : row.find("tests")->items) {
      ++tally.cases;
      if (refused) continue;
      const bool valid = test.find("valid")->boolean;
      for (const bool spaced : {false, true}) {
        const std::string text =
            write_json(*test.find("data"), {.spaces = spaced, .ascii_only = spaced});
        CAPTURE(text);
        const bool accepted = grammar.has_value() && grammar->matches(text);
        CHECK(accepted == valid);
        if (accepted && !valid) ++tally.invalid_accepted;
        if (!accepted && valid) ++tally.valid_rejected;
        if (spaced && accepted == valid) ++tally.exact;
      }
    }
  }
  return tally;
}

}  // namespace

TEST_CASE("JSON-Schema-Test-Suite, draft 2020-12") {
  const Tally tally =
      run("suite_2020_12.jsonl", {.draft = Draft::draft2020, .assert_formats = false});
  CHECK(tally.cases == 1242);
  CHECK(tally.invalid_accepted == 0);
  CHECK(tally.valid_rejected == 0);
  CHECK(tally.exact >= 1170);
}

TEST_CASE("JSON-Schema-Test-Suite, draft 4") {
  const Tally tally = run("suite_draft4.jsonl", {.draft = Draft::draft4, .assert_formats = false});
  CHECK(tally.invalid_accepted == 0);
  CHECK(tally.valid_rejected == 0);
  CHECK(tally.refused == 1);  // the metaschema: uniqueItems of strings
}

TEST_CASE("MaskBench, hand-written schemas") {
  const Tally tally = run("maskbench_handwritten.jsonl", {});
  CHECK(tally.invalid_accepted == 0);
  CHECK(tally.valid_rejected == 0);
  CHECK(tally.refused <= 2);
}
