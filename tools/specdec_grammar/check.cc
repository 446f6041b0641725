#include "tools/specdec_grammar/check.h"

#include <algorithm>
#include <fstream>
#include <iostream>
#include <random>
#include <sstream>

#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/gbnf.h"
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
  if (!options.gbnf.empty()) return CompiledGrammar(grammar::parse_gbnf(read_text(options.gbnf)));
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

int run_sample(const SampleOptions& options) {
  CompiledGrammar grammar = compile(options.grammar);
  std::mt19937_64 random(options.seed);
  std::size_t made = 0;
  for (std::size_t attempt = 0; made < options.count && attempt < options.count * 20; ++attempt) {
    std::string text;
    GrammarState state = grammar.start();
    bool ends = false;
    while (!ends && text.size() < options.longest) {
      const grammar::ByteSet next = grammar.next_bytes(state);
      ends = grammar.accepts(state) && (next.empty() || random() % 4 == 0);
      if (ends || next.empty()) break;
      // Half of the time what closes, so that most texts come to an end.
      grammar::ByteSet closing;
      for (const char c : {'"', '}', ']', ','}) closing.insert(static_cast<unsigned char>(c));
      closing = closing & next;
      const grammar::ByteSet& from = !closing.empty() && random() % 2 == 0 ? closing : next;
      std::vector<unsigned char> bytes;
      for (unsigned byte = 0; byte < 256; ++byte) {
        if (from.contains(byte)) bytes.push_back(static_cast<unsigned char>(byte));
      }
      text += static_cast<char>(bytes[random() % bytes.size()]);
      state = grammar.advance(state, static_cast<unsigned char>(text.back()));
    }
    if (!ends) continue;
    ++made;
    // Line breaks inside a string are escaped; those between tokens may as well be blanks.
    std::replace(text.begin(), text.end(), '\n', ' ');
    std::cout << text << '\n';
  }
  return 0;
}

int run_check(const CheckOptions& options) {
  CompiledGrammar grammar = compile(options);
  bool all = true;
  for (const std::string& path : options.instances) all = check(grammar, path) && all;
  return all ? 0 : 1;
}

}  // namespace specdec::grammar_tool
