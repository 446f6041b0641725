// Constrained answers of the real model at temperature 1, under every drafter and several policies
// for whitespace: what check_generations.py validates.
//
//   generate_records TARGET DRAFT COUNT SCHEMAS.jsonl... > ANSWERS.jsonl
//
// A line of SCHEMAS has "schema"; one of ANSWERS the schema's index over all files, "text" and
// "finish_reason". A schema of which something is left to a validator (Grammar::unenforced) gets no
// answers, but a line with what that is.
// COUNT answers are complete; those that max_tokens cuts off come on top, three for each at most.

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "specdec/specdec.h"

namespace {

using namespace specdec;
using nlohmann::ordered_json;

Request make_request(Engine& engine, const std::string& schema, std::size_t index) {
  constexpr const char* kMethods[] = {"none", "ngram", "suffix", "draft_model",
                                      "suffix+draft_model"};
  constexpr std::size_t kLongestShown = 1200;  // bytes of the schema in the prompt
  GrammarSource source{GrammarSource::Kind::json_schema, schema, {}};
  source.options.whitespace = static_cast<JsonOptions::Whitespace>(index % 3);
  source.options.schema_order = index % 2 == 0;
  Request request;
  request.messages = {{"user", "Write a short JSON value that this JSON Schema accepts.\n\n" +
                                   schema.substr(0, kLongestShown)}};
  request.grammar = engine.grammar(source);
  request.sampling.temperature = 1.0f;
  request.sampling.seed = index + 1;
  request.sampling.max_tokens = 200;
  request.speculation.method = kMethods[index % std::size(kMethods)];
  return request;
}

void run(const std::string& target, const std::string& draft, std::size_t count,
         std::span<char*> schema_paths) {
  std::vector<std::string> schemas;
  for (const char* path : schema_paths) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);)
      schemas.push_back(ordered_json::parse(line).at("schema").dump());
  }
  if (schemas.empty()) throw Error(ErrorCode::io, "no schemas in the files");

  Config config;
  config.target.model = target;
  config.draft.model = draft;
  config.draft.tree.topk = 2;
  Engine engine = Engine::load(config);
  constexpr std::size_t kBatch = 8;
  struct Answer {
    std::size_t schema;
    std::string text;
  };
  std::vector<std::size_t> enforced;  // schemas
  for (std::size_t i = 0; i < schemas.size(); ++i) {
    const std::vector<std::string> left = Grammar::json_schema(schemas[i]).unenforced();
    if (left.empty())
      enforced.push_back(i);
    else
      std::cout << ordered_json{{"schema", i}, {"unenforced", left}}.dump() << std::endl;
  }
  std::map<RequestId, Answer> running;
  std::size_t missing = count;
  for (std::size_t next = 0; missing > 0 || !running.empty();) {
    for (; running.size() < std::min(missing, kBatch) && next < 4 * count; ++next) {
      // A sample of the schemas when the answers are fewer.
      const std::size_t schema =
          enforced[next * std::max<std::size_t>(1, enforced.size() / count) % enforced.size()];
      running[engine.submit(make_request(engine, schemas[schema], next))] = {schema, {}};
    }
    if (running.empty()) return;
    engine.step();
    for (const Output& output : engine.take_outputs()) {
      Answer& answer = running.at(output.id);
      answer.text += output.text;
      if (!output.finished()) continue;
      if (output.error) throw *output.error;
      std::cout << ordered_json{{"schema", answer.schema},
                                {"text", answer.text},
                                {"finish_reason", to_string(output.finish_reason)}}
                       .dump()
                << std::endl;
      if (output.finish_reason != FinishReason::length) --missing;
      running.erase(output.id);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) {
    std::fprintf(stderr, "usage: generate_records TARGET DRAFT COUNT SCHEMAS.jsonl...\n");
    return 2;
  }
  try {
    run(argv[1], argv[2], static_cast<std::size_t>(std::atoi(argv[3])),
        {argv + 4, static_cast<std::size_t>(argc - 4)});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "generate_records: %s\n", error.what());
    return 1;
  }
}
