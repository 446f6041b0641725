// Regular expressions: the first byte picks the mode, the text up to a zero byte is the pattern,
// the rest picks a text that the matcher follows.
#include "fuzz_grammar.h"
#include "fuzz_input.h"
#include "sampling/grammar/regex_syntax.h"
#include "specdec/error.h"

using namespace specdec;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0 || size > 2000) return 0;
  const std::string text(fuzz::text_of(data + 1, size - 1));
  const std::size_t end = text.find('\0');
  const std::string_view pattern = std::string_view(text).substr(0, end);
  const std::string_view choices =
      end == std::string::npos ? std::string_view() : std::string_view(text).substr(end + 1);
  const fuzz::TimeLimit limit;
  try {
    grammar::GrammarSpec spec(fuzz::small_limits());
    {
      const grammar::RegexPool::Budget budget = spec.budget();
      spec.set_start(spec.add_lexeme(
          grammar::parse_regex(spec.regexes(), pattern, {.anchored = data[0] % 2 == 0})));
    }
    grammar::CompiledGrammar compiled(std::move(spec));
    fuzz::follow(compiled, choices);
  } catch (const Error&) {
  }
  return 0;
}
