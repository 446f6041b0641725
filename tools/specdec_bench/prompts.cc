#include "tools/specdec_bench/prompts.h"

#include <fstream>
#include <nlohmann/json.hpp>

#include "specdec/error.h"

namespace specdec::bench {
namespace {

Prompt parse_line(const std::string& line) {
  using nlohmann::json;
  const json object = json::parse(line, nullptr, /*allow_exceptions=*/false);
  const auto fail = [](const std::string& what) { throw Error(ErrorCode::invalid_argument, what); };
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
