#include "tools/specdec_grammar/check.h"

#include <fstream>
#include <iostream>
#include <sstream>

#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/json_schema/json_schema.h"
#include "sampling/grammar/regex_syntax.h"
#include "specdec/error.h"

namespace specdec::grammar_tool {
namespace {

using grammar::CompiledGrammar;
using grammar::GrammarState;

std::string read_text(const std::string& path) {
  std::ostringstream text;
  if (path == "-") {
    text << std::cin.rdbuf();
  } else {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw Error(ErrorCode::io, "cannot read " + path);
    text << file.rdbuf();
  }
  std::string result = text.str();
  if (result.ends_with('\n')) result.pop_back();
  if (result.ends_with('\r')) result.pop_back();
  return result;
}

CompiledGrammar compile(const CheckOptions& options) {
  if (!options.json_schema.empty()) {
    grammar::JsonSchemaGrammar made = grammar::compile_json_schema(read_text(options.json_schema));
    for (const std::string& note : made.unenforced) std::cout << "not enforced: " << note << '\n';
    return CompiledGrammar(std::move(made.spec));
  }
  if (!options.gbnf.empty()) throw Error(ErrorCode::unsupported, "--gbnf is not there yet");
  grammar::GrammarSpec spec;
  const grammar::Symbol start = spec.add_nonterminal();
  spec.add_production(
      start, {spec.add_lexeme(grammar::parse_regex(spec.regexes(), read_text(options.regex), {}))});
  spec.set_start(start);
  return CompiledGrammar(std::move(spec));
}

/// Prints the verdict; true when the text matches.
bool check(CompiledGrammar& grammar, const std::string& path) {
  const std::string text = read_text(path);
  GrammarState state = grammar.start();
  std::size_t line = 1;
  std::size_t column = 1;
  for (const char c : text) {
    const GrammarState next = grammar.advance(state, static_cast<unsigned char>(c));
    if (grammar.is_dead(next)) {
      std::cout << path << ":" << line << ":" << column << ": refused; expected "
                << grammar.describe_next(state) << '\n';
      return false;
    }
    state = next;
    ++column;
    if (c == '\n') ++line, column = 1;
  }
  if (!grammar.accepts(state)) {
    std::cout << path << ":" << line << ":" << column << ": ends too early; expected "
              << grammar.describe_next(state) << '\n';
    return false;
  }
  std::cout << path << ": matches\n";
  return true;
}

}  // namespace

int run_check(const CheckOptions& options) {
  CompiledGrammar grammar = compile(options);
  bool all = true;
  for (const std::string& path : options.instances) all = check(grammar, path) && all;
  return all ? 0 : 1;
}

}  // namespace specdec::grammar_tool
