#include "tools/specdec_grammar/schema_case.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "engine/model/gguf.h"
#include "engine/model/gguf_model.h"
#include "engine/model/mapped_file.h"
#include "engine/text/tokenizer_data.h"
#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/token_index.h"
#include "sampling/grammar/token_masks.h"
#include "specdec/error.h"
#include "tools/specdec_grammar/isolated.h"

namespace specdec::grammar_tool {
namespace {

using grammar::CompiledGrammar;
using grammar::GrammarState;
using nlohmann::json;
using Clock = std::chrono::steady_clock;

double microseconds_since(Clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(Clock::now() - begin).count();
}

/// How far the text goes, and what was expected there.
std::string describe_refusal(CompiledGrammar& grammar, const std::string& text) {
  GrammarState state = grammar.start();
  std::size_t at = 0;
  for (; at < text.size(); ++at) {
    const GrammarState next = grammar.advance(state, static_cast<unsigned char>(text[at]));
    if (grammar.is_dead(next)) break;
    state = next;
  }
  return "at byte " + std::to_string(at) + " of " + text.substr(0, 400) + ": expected " +
         grammar.describe_next(state);
}

void time_masks(CompiledGrammar& grammar, grammar::TokenMasks& masks, const Vocabulary& vocabulary,
                const std::string& text, std::vector<double>& times) {
  const Tokenizer& tokenizer = vocabulary.tokenizer();
  std::vector<std::uint64_t> bits(vocabulary.index().words());
  GrammarState state = grammar.start();
  for (const TokenId token : tokenizer.encode(text, false)) {
    const std::string_view bytes = tokenizer.token_bytes(token);
    if (bytes.empty()) continue;
    const Clock::time_point begin = Clock::now();
    masks.fill(state, bits);
    times.push_back(microseconds_since(begin));
    state = grammar.advance(state, bytes);
    if (grammar.is_dead(state)) return;
  }
}

/// A schema is compiled in a fresh copy of the process, whose pages are mapped as they are first
/// touched. A compilation of another schema takes those faults, or half the time would be theirs.
void touch_pages() {
  constexpr const char* kSchema =
      R"({"properties":{"a":{"type":"string","maxLength":9},"b":{"items":{"enum":["c",1.5]}}}})";
  const CompiledGrammar compiled(std::move(grammar::compile_json_schema(kSchema, {}).spec));
}

json run(const SchemaCase& schema_case, const grammar::JsonSchemaOptions& options,
         const Vocabulary* vocabulary, const std::function<void()>& next_step) {
  json row;
  std::optional<CompiledGrammar> compiled;
  touch_pages();
  const Clock::time_point begin = Clock::now();
  try {
    grammar::JsonSchemaGrammar made = compile_json_schema(schema_case.schema, options);
    row["unenforced"] = made.unenforced;
    compiled.emplace(std::move(made.spec));
  } catch (const grammar::UnsatisfiableSchema& error) {
    // Then every instance is refused, and that is known.
    row["result"] = "ok";
    row["error"] = error.what();
    row["compile_us"] = microseconds_since(begin);
    row["verdicts"] = std::vector<bool>(schema_case.instances.size(), false);
    row["masks_us"] = json::array();
    row["memory_bytes"] = 0;
    return row;
  } catch (const Error& error) {
    row["result"] = "refused";
    row["error"] = error.what();
    row["compile_us"] = microseconds_since(begin);
    return row;
  }
  row["result"] = "ok";
  row["compile_us"] = microseconds_since(begin);
  std::optional<grammar::TokenMasks> masks;
  if (vocabulary != nullptr) {
    masks.emplace(*compiled, vocabulary->index(), vocabulary->tokenizer().eos_tokens());
  }
  row["verdicts"] = json::array();
  std::vector<double> times;
  for (const Instance& instance : schema_case.instances) {
    next_step();
    const std::string compact = write_json(instance.value);
    const std::string spaced = write_json(instance.value, {.spaces = true, .ascii_only = true});
    try {
      const bool accepts_compact = compiled->matches(compact);
      const bool accepts_spaced = compiled->matches(spaced);
      row["verdicts"].push_back(instance.valid ? accepts_compact && accepts_spaced
                                               : accepts_compact || accepts_spaced);
      if (instance.valid && !(accepts_compact && accepts_spaced)) {
        row["places"].push_back(describe_refusal(*compiled, accepts_compact ? spaced : compact));
      }
      if (instance.valid && masks.has_value()) {
        time_masks(*compiled, *masks, *vocabulary, compact, times);
      }
    } catch (const Error& error) {  // a limit
      row["verdicts"].push_back(!instance.valid);
      row["places"].push_back(error.what());
    }
  }
  row["masks_us"] = times;
  row["memory_bytes"] = compiled->memory_bytes() + (masks.has_value() ? masks->memory_bytes() : 0);
  return row;
}

}  // namespace

Vocabulary::Vocabulary(const std::string& gguf) {
  const GgufFile file(MappedFile::open(gguf));
  const auto tokens = file.strings("tokenizer.ggml.tokens");
  if (!tokens.has_value()) throw Error(ErrorCode::invalid_model, gguf + ": has no tokenizer");
  tokenizer_ = make_bpe_tokenizer(read_gguf_tokenizer(file, static_cast<int>(tokens->size())));
  std::vector<std::string_view> bytes;
  for (TokenId token = 0; token < tokenizer_->vocab_size(); ++token) {
    bytes.push_back(tokenizer_->token_bytes(token));
  }
  index_ = std::make_unique<grammar::TokenIndex>(bytes);
}

json run_case(const SchemaCase& schema_case, const grammar::JsonSchemaOptions& options,
              const Vocabulary* vocabulary, double limit_s) {
  const IsolatedRun isolated = run_isolated(
      [&](const std::function<void()>& next_step) {
        return run(schema_case, options, vocabulary, next_step)
            .dump(-1, ' ', false, json::error_handler_t::replace);
      },
      limit_s);
  json row;
  if (isolated.end == IsolatedRun::End::finished) {
    row = json::parse(isolated.output);
  } else {
    row["result"] = isolated.end == IsolatedRun::End::timed_out ? "timeout" : "crash";
  }
  row["name"] = schema_case.name;
  return row;
}

double percentile(std::vector<double> values, double share) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const auto rank = static_cast<std::size_t>(std::ceil(share * static_cast<double>(values.size())));
  return values[std::max<std::size_t>(rank, 1) - 1];
}

}  // namespace specdec::grammar_tool
