// Typed records out of free text: a C++ struct gives the JSON Schema that the answer must keep to,
// and the answer is read back into it. Text on standard input, or a sample; configuration in
// specdec.toml.

#include "examples/extract_records/record.h"

#include <specdec/specdec.h>

#include <unistd.h>

#include <exception>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

namespace {

struct Person {
  std::string name;
  std::string occupation;
  int year_of_birth = 0;
  bool alive = false;
};

const std::vector<extract::Field<Person>> kPerson = {{"name", &Person::name},
                                                     {"occupation", &Person::occupation},
                                                     {"year_of_birth", &Person::year_of_birth},
                                                     {"alive", &Person::alive}};

constexpr const char* kSample =
    "Elena Marchetti, a novelist born in 1931, died in 2004. Her friend Jonas Lindqvist, born in "
    "1968, is a composer and lives in Stockholm.";

std::vector<Person> extract_people(specdec::Engine& engine, const std::string& text) {
  specdec::Request request;
  request.messages = {{"user", "List the people in this text as JSON.\n\n" + text}};
  // Members in the struct's order and no blanks: most of what is not a value is then forced.
  request.grammar = engine.grammar(
      {specdec::GrammarSource::Kind::json_schema,
       extract::schema_of(kPerson, 4),
       {.whitespace = specdec::JsonOptions::Whitespace::none, .schema_order = true}});
  request.sampling.max_tokens = 400;
  engine.submit(request);
  std::string answer;
  while (engine.step())
    for (const specdec::Output& output : engine.take_outputs()) {
      answer += output.text;
      if (output.error) throw *output.error;
      if (output.finish_reason == specdec::FinishReason::length)
        throw specdec::Error(specdec::ErrorCode::invalid_argument, "the answer is too long");
    }
  return extract::parse_records(kPerson, answer);
}

}  // namespace

int main() {
  try {
    auto engine = specdec::Engine::load(specdec::Config::from_file("specdec.toml"));
    std::string text = kSample;
    if (isatty(STDIN_FILENO) == 0) {
      const std::string given{std::istreambuf_iterator<char>(std::cin), {}};
      if (given.find_first_not_of(" \t\r\n") != std::string::npos) text = given;
    }
    for (const Person& person : extract_people(engine, text))
      std::cout << person.name << '\t' << person.occupation << '\t' << person.year_of_birth << '\t'
                << (person.alive ? "alive" : "dead") << '\n';
  } catch (const std::exception& error) {
    std::cerr << "extract_records: " << error.what() << '\n';
    return 1;
  }
}
