// GBNF grammars: the text up to a zero byte is the grammar, the rest picks a text that the matcher
// follows.
#include "fuzz_grammar.h"
#include "fuzz_input.h"
#include "sampling/grammar/gbnf.h"
#include "specdec/error.h"

using namespace specdec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size > 4000) return 0;
  const std::string text(fuzz::text_of(data, size));
  const std::size_t end = text.find('\0');
  const std::string_view choices =
      end == std::string::npos ? std::string_view() : std::string_view(text).substr(end + 1);
  const fuzz::TimeLimit limit;
  try {
    grammar::CompiledGrammar compiled(
        grammar::parse_gbnf(std::string_view(text).substr(0, end), fuzz::small_limits()));
    fuzz::follow(compiled, choices);
  } catch (const Error&) {
  }
  return 0;
}
