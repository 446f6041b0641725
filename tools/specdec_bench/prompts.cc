#include "tools/specdec_bench/prompts.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "specdec/error.h"

namespace specdec::bench {
namespace {

// Members stand as the line has them: their order is the schema's.
using json = nlohmann::ordered_json;

[[noreturn]] void fail(const std::string& what) { throw Error(ErrorCode::invalid_argument, what); }

std::string text_of(const json& value, const std::string& name) {
  if (!value.is_string()) fail("\"" + name + "\" is not a string");
  return value.get<std::string>();
}

JsonOptions::Whitespace whitespace_of(const json& value) {
  using Whitespace = JsonOptions::Whitespace;
  const std::string name = text_of(value, "whitespace");
  if (name == "none") return Whitespace::none;
  if (name == "single") return Whitespace::single;
  if (name != "any") fail("\"whitespace\" is none of \"none\", \"single\" and \"any\"");
  return Whitespace::any;
}

GrammarSource parse_grammar(const json& object) {
  using Kind = GrammarSource::Kind;
  if (!object.is_object()) fail("\"grammar\" is not an object");
  GrammarSource source;
  int kinds = 0;
  for (const auto& [name, value] : object.items()) {
    if (name == "whitespace") {
      source.options.whitespace = whitespace_of(value);
    } else if (name == "schema_order") {
      if (!value.is_boolean()) fail("\"schema_order\" is neither true nor false");
      source.options.schema_order = value.get<bool>();
    } else if (name == "json_schema") {
      source.kind = Kind::json_schema;
      source.text = value.dump();
      ++kinds;
    } else if (name == "gbnf" || name == "regex") {
      source.kind = name == "gbnf" ? Kind::gbnf : Kind::regex;
      source.text = text_of(value, name);
      ++kinds;
    } else if (name == "choice") {
      if (!value.is_array() || value.empty()) fail("\"choice\" is not a list with an option");
      source.kind = Kind::choice;
      for (const json& option : value)
        source.text += (&option == &value.front() ? "" : "\n") + text_of(option, "choice");
      ++kinds;
    } else if (name == "json" && value == true) {
      source.kind = Kind::json;
      ++kinds;
    } else {
      fail("\"grammar\" has a member \"" + name + "\" that means nothing here");
    }
  }
  if (kinds != 1) fail("\"grammar\" must have one of json_schema, gbnf, regex, choice and json");
  return source;
}

Prompt parse_line(const std::string& line) {
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (object.is_discarded() || !object.is_object()) fail("this line is not a JSON object");
  Prompt prompt;
  prompt.category = "all";
  if (const auto category = object.find("category"); category != object.end()) {
    if (!category->is_string()) fail("\"category\" is not a string");
    prompt.category = category->get<std::string>();
  }
  if (const auto turns = object.find("turns"); turns != object.end()) {
    if (!turns->is_array() || turns->empty()) fail("\"turns\" is not a list with a first turn");
    for (const json& turn : *turns) {
      if (!turn.is_string()) fail("a turn is not a string");
      prompt.turns.push_back(turn.get<std::string>());
    }
  } else if (const auto text = object.find("prompt"); text != object.end()) {
    if (!text->is_string()) fail("\"prompt\" is not a string");
    prompt.turns.push_back(text->get<std::string>());
  } else {
    fail("neither \"turns\" nor \"prompt\" is here");
  }
  if (const auto grammar = object.find("grammar"); grammar != object.end())
    prompt.grammar = parse_grammar(*grammar);
  else if (const auto schema = object.find("json_schema"); schema != object.end())
    prompt.grammar = parse_grammar({{"json_schema", *schema}});
  return prompt;
}

}  // namespace

std::vector<Prompt> read_prompts(std::istream& input, std::string_view name) {
  std::vector<Prompt> prompts;
  std::string line;
  for (int number = 1; std::getline(input, line); ++number) {
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    try {
      prompts.push_back(parse_line(line));
    } catch (const Error& error) {
      throw Error(error.code(),
                  std::string(name) + ":" + std::to_string(number) + ": " + error.what());
    }
  }
  if (prompts.empty())
    throw Error(ErrorCode::invalid_argument, std::string(name) + " holds no prompts");
  return prompts;
}

std::vector<Prompt> read_prompts_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw Error(ErrorCode::io, "cannot read " + path + "; --prompts takes a .jsonl file");
  return read_prompts(file, path);
}

std::vector<Prompt> spread(const std::vector<Prompt>& prompts, std::size_t limit) {
  if (limit == 0 || limit >= prompts.size()) return prompts;
  std::vector<Prompt> chosen;
  for (std::size_t i = 0; i < limit; ++i) chosen.push_back(prompts[i * prompts.size() / limit]);
  return chosen;
}

}  // namespace specdec::bench
