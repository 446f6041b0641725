#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "mask_oracle.h"
#include "sampling/grammar/json_schema/json_schema.h"
#include "specdec/error.h"

using namespace specdec;
using namespace specdec::grammar;
using namespace specdec::testing;

namespace {

struct SchemaWithTexts {
  std::string name;
  std::string schema;
  std::vector<std::string> texts;  // valid
};

/// Every `step`-th line of a file of tests/data/json_schema.
void read_schemas(const std::string& file, std::size_t step, std::vector<SchemaWithTexts>& into) {
  std::ifstream lines(std::string(SPECDEC_SOURCE_DIR) + "/tests/data/json_schema/" + file);
  REQUIRE(lines);
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    if (number++ % step != 0) continue;
    const JsonValue row = parse_json_value(line, file);
    SchemaWithTexts made{row.find("name")->string, write_json(*row.find("schema")), {}};
    for (const JsonValue& test : row.find("tests")->items)
      if (test.find("valid")->boolean) made.texts.push_back(write_json(*test.find("data")));
    into.push_back(std::move(made));
  }
}

bool full() { return std::getenv("SPECDEC_TEST_FULL") != nullptr; }

void compare(const SchemaWithTexts& schema, const Vocabulary& vocabulary, const TokenIndex& index,
             std::mt19937_64& random, int& compared) {
  CAPTURE(schema.name);
  CAPTURE(schema.schema);
  try {
    CompiledGrammar grammar(compile_json_schema(schema.schema, {}).spec);
    std::vector<GrammarState> states{grammar.start()};
    for (std::size_t i = 0; i < 2 && !schema.texts.empty(); ++i) {
      const std::string& text = schema.texts[random() % schema.texts.size()];
      const GrammarState state =
          grammar.advance(grammar.start(), text.substr(0, random() % (text.size() + 1)));
      if (!grammar.is_dead(state)) states.push_back(state);
    }
    states.push_back(random_state(grammar, random, static_cast<int>(1 + random() % 24)));
    compare_masks(grammar, vocabulary, index, states);
    ++compared;
  } catch (const Error&) {  // unsatisfiable, or refused
  }
}

}  // namespace

TEST_CASE("masks of JSON Schemas are those of brute force, under three vocabularies") {
  std::vector<SchemaWithTexts> schemas;
  read_schemas("maskbench_handwritten.jsonl", 1, schemas);
  read_schemas("suite_2020_12.jsonl", full() ? 1 : 8, schemas);
  if (full()) read_schemas("suite_draft4.jsonl", 1, schemas);
  std::mt19937_64 random(8);
  for (const Vocabulary& vocabulary :
       {smollm2_vocabulary(), made_vocabulary(), random_vocabulary(9)}) {
    CAPTURE(vocabulary.name);
    const TokenIndex index = vocabulary.index();
    int compared = 0;
    for (const SchemaWithTexts& schema : schemas)
      compare(schema, vocabulary, index, random, compared);
    CHECK(compared > (full() ? 300 : 50));
  }
}

TEST_CASE("masks at names and strings of every kind") {
  const char* const schemas[] = {
      // Names that begin alike, are each other's beginning, or have escapes; any other name.
      R"({"properties":{"a":true,"ab":true,"abc\n":{"type":"null"},"\u00e4":{"type":"boolean"},
          "name":{"const":1},"names":{"const":2}},"additionalProperties":{"const":3}})",
      R"({"properties":{"name":true,"the":true},"required":["name"],"additionalProperties":false})",
      R"({"patternProperties":{"^a":{"const":1},"b$":true},"properties":{"aab":{"minimum":0}}})",
      // Patterns and formats beside lengths, near and far.
      R"({"type":"string","pattern":"^[a-z]{2,}$","maxLength":40})",
      R"({"type":"string","pattern":"e[a-z ]+d","minLength":3,"maxLength":70000})",
      R"({"type":"string","format":"uri","maxLength":65536})",
      R"({"type":"string","not":{"enum":["the","name","a\"b",""]},"minLength":1})",
      R"({"type":"string","not":{"enum":["the","then"]},"maxLength":5})",
      // Endlessly many strings taken away.
      R"({"type":"string","not":{"pattern":"^a"}})", R"({"type":"string","not":{"pattern":"the"}})",
      R"({"anyOf":[{"type":"string","maxLength":3},{"enum":["abc","abcabc",12,null]}]})",
      R"({"anyOf":[{"type":"string"},{"type":"string","pattern":"a"},{"const":"abab"}]})"};
  std::mt19937_64 random(10);
  for (const Vocabulary& vocabulary :
       {smollm2_vocabulary(), made_vocabulary(), random_vocabulary(11)}) {
    CAPTURE(vocabulary.name);
    const TokenIndex index = vocabulary.index();
    for (const char* schema : schemas) {
      CAPTURE(schema);
      for (const bool ordered : {false, true}) {
        JsonSchemaOptions options;
        options.schema_order = ordered;
        options.whitespace = ordered ? JsonWhitespace::single : JsonWhitespace::any;
        CompiledGrammar grammar(compile_json_schema(schema, options).spec);
        std::vector<GrammarState> states{grammar.start()};
        for (const char* begin : {"{", "{\"", "{\"a", "{\"ab", "{\"name", "{\"name\"", "{\"x", "\"",
                                  "\"the", "\"ab", "\"http:", "\"\\", "{\"name\":1,", "\"\xC3"})
          states.push_back(grammar.advance(grammar.start(), begin));
        for (int i = 0; i < 3; ++i) states.push_back(random_state(grammar, random, 8));
        std::erase_if(states, [&](GrammarState state) { return grammar.is_dead(state); });
        compare_masks(grammar, vocabulary, index, states);
      }
    }
  }
}
