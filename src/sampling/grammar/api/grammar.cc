#include "specdec/grammar.h"

#include <algorithm>
#include <mutex>
#include <utility>

#include "sampling/grammar/compiled_grammar.h"
#include "sampling/grammar/gbnf.h"
#include "sampling/grammar/json_schema/json_schema.h"
#include "sampling/grammar/mask_rows.h"
#include "sampling/grammar/regex_syntax.h"
#include "sampling/grammar/token_index.h"
#include "sampling/grammar/token_masks.h"
#include "specdec/error.h"
#include "specdec/tokenizer.h"

namespace specdec {

using grammar::CompiledGrammar;
using grammar::GrammarSpec;
using grammar::GrammarState;
using grammar::MaskRows;
using grammar::TokenMasks;

struct GrammarVocabulary::Impl {
  std::vector<std::string> bytes;  // [size]
  std::vector<TokenId> end_tokens;
  grammar::TokenIndex index;

  Impl(std::span<const std::string_view> views, std::span<const TokenId> ends)
      : bytes(views.begin(), views.end()), end_tokens(ends.begin(), ends.end()), index(views) {}
};

GrammarVocabulary::GrammarVocabulary(std::span<const std::string_view> bytes,
                                     std::span<const TokenId> end_tokens) {
  for (const TokenId token : end_tokens)
    if (token < 0 || static_cast<std::size_t>(token) >= bytes.size())
      throw Error(ErrorCode::invalid_argument,
                  "grammar: end token " + std::to_string(token) + " is not in the vocabulary");
  impl_ = std::make_shared<const Impl>(bytes, end_tokens);
}

GrammarVocabulary::GrammarVocabulary(const Tokenizer& tokenizer) {
  std::vector<std::string_view> bytes;
  for (TokenId token = 0; token < tokenizer.vocab_size(); ++token)
    bytes.push_back(tokenizer.token_bytes(token));
  *this = GrammarVocabulary(bytes, tokenizer.eos_tokens());
}

int GrammarVocabulary::size() const noexcept { return static_cast<int>(impl_->bytes.size()); }

struct Grammar::Impl {
  /// Adds the grammar to others: the symbol of its texts, and what is not enforced.
  using Source = std::function<grammar::Symbol(GrammarSpec&, std::vector<std::string>&)>;

  const Source source;
  std::mutex mutex;  // over everything below
  CompiledGrammar compiled;
  const std::vector<std::string> unenforced;
  struct Masks {
    std::shared_ptr<const GrammarVocabulary::Impl> vocabulary;
    std::shared_ptr<TokenMasks> masks;
    std::shared_ptr<MaskRows> rows;
  };
  std::vector<Masks> masks;  // one for each vocabulary that it was used with

  Impl(GrammarSpec spec, Source made_by, std::vector<std::string> not_enforced)
      : source(std::move(made_by)),
        compiled(std::move(spec)),
        unenforced(std::move(not_enforced)) {}
  /// Compiles.
  static std::shared_ptr<Impl> make(Source source);

  const Masks& masks_for(const std::shared_ptr<const GrammarVocabulary::Impl>& vocabulary) {
    for (const Masks& entry : masks)
      if (entry.vocabulary == vocabulary) return entry;
    masks.push_back(
        {vocabulary,
         std::make_shared<TokenMasks>(compiled, vocabulary->index, vocabulary->end_tokens),
         std::make_shared<MaskRows>(vocabulary->index.words())});
    return masks.back();
  }
};

namespace {

grammar::JsonSchemaOptions internal_options(const JsonOptions& options) {
  grammar::JsonSchemaOptions result;
  result.assert_formats = options.assert_formats;
  result.whitespace = static_cast<grammar::JsonWhitespace>(options.whitespace);
  result.schema_order = options.schema_order;
  if (options.load_schema) result.loader = options.load_schema;
  return result;
}

}  // namespace

std::shared_ptr<Grammar::Impl> Grammar::Impl::make(Source source) {
  GrammarSpec spec;
  std::vector<std::string> unenforced;
  {
    const grammar::RegexPool::Budget budget = spec.budget();
    spec.set_start(source(spec, unenforced));
  }
  return std::make_shared<Impl>(std::move(spec), std::move(source), std::move(unenforced));
}

Grammar Grammar::regex(std::string_view pattern) {
  return Grammar(Impl::make([pattern = std::string(pattern)](GrammarSpec& spec, auto&) {
    return spec.add_lexeme(grammar::parse_regex(spec.regexes(), pattern));
  }));
}

Grammar Grammar::choice(std::span<const std::string> options) {
  return Grammar(Impl::make(
      [list = std::vector<std::string>(options.begin(), options.end())](GrammarSpec& spec, auto&) {
        const std::vector<std::string_view> views(list.begin(), list.end());
        return spec.add_lexeme(spec.regexes().any_literal(views));
      }));
}

Grammar Grammar::gbnf(std::string_view text) {
  return Grammar(Impl::make([text = std::string(text)](GrammarSpec& spec, auto&) {
    return grammar::add_gbnf(spec, text);
  }));
}

Grammar Grammar::json(const JsonOptions& options) { return json_schema("true", options); }

Grammar Grammar::json_schema(std::string_view schema, const JsonOptions& options) {
  return Grammar(Impl::make([schema = std::string(schema), options = internal_options(options)](
                                GrammarSpec& spec, std::vector<std::string>& unenforced) {
    return grammar::add_json_schema(spec, schema, options, unenforced);
  }));
}

Grammar Grammar::triggered(std::span<const GrammarTrigger> triggers) {
  for (const GrammarTrigger& trigger : triggers)
    if (trigger.tag.empty())
      throw Error(ErrorCode::invalid_argument, "grammar: the tag of a trigger is empty");
  return Grammar(Impl::make([list = std::vector<GrammarTrigger>(triggers.begin(), triggers.end())](
                                GrammarSpec& spec, std::vector<std::string>& unenforced) {
    grammar::RegexPool& regexes = spec.regexes();
    std::vector<std::string_view> tags;
    for (const GrammarTrigger& trigger : list) tags.emplace_back(trigger.tag);
    const grammar::RegexRef any_tag = regexes.concat(regexes.anything(), regexes.any_literal(tags));
    const grammar::RegexRef some = regexes.byte_class(grammar::ByteSet::all());
    const grammar::RegexRef tag_before_the_end =
        regexes.concat({any_tag, some, regexes.anything()});
    const grammar::Symbol text = spec.add_nonterminal();
    spec.add_production(
        text, {spec.add_lexeme(regexes.complement(regexes.concat(any_tag, regexes.anything())))});
    for (const GrammarTrigger& trigger : list) {
      // Free text up to the end of the first tag, and all that it starts.
      const grammar::Symbol begin = spec.add_lexeme(
          regexes.all_of(regexes.concat(regexes.anything(), regexes.literal(trigger.tag)),
                         regexes.complement(tag_before_the_end)));
      const grammar::Symbol content = trigger.content.impl_->source(spec, unenforced);
      const grammar::Symbol end = spec.add_literal(trigger.end);
      spec.add_production(text, {begin, content, end, text});
    }
    return text;
  }));
}

Grammar GrammarSource::compile() const {
  switch (kind) {
    case Kind::json:
      return Grammar::json(options);
    case Kind::json_schema:
      return Grammar::json_schema(text, options);
    case Kind::regex:
      return Grammar::regex(text);
    case Kind::gbnf:
      return Grammar::gbnf(text);
    case Kind::choice:
      break;
  }
  std::vector<std::string> lines(1);
  for (const char c : text)
    if (c == '\n')
      lines.emplace_back();
    else
      lines.back() += c;
  return Grammar::choice(lines);
}

const std::vector<std::string>& Grammar::unenforced() const noexcept { return impl_->unenforced; }

std::optional<GrammarRefusal> Grammar::check(std::string_view text) const {
  const std::lock_guard lock(impl_->mutex);
  CompiledGrammar& compiled = impl_->compiled;
  GrammarState state = compiled.start();
  for (std::size_t i = 0; i < text.size(); ++i) {
    const GrammarState next = compiled.advance(state, static_cast<unsigned char>(text[i]));
    if (compiled.is_dead(next)) return GrammarRefusal{i, compiled.describe_next(state)};
    state = next;
  }
  if (compiled.accepts(state)) return std::nullopt;
  return GrammarRefusal{text.size(), compiled.describe_next(state)};
}

std::size_t Grammar::memory_bytes() const {
  const std::lock_guard lock(impl_->mutex);
  std::size_t total = impl_->compiled.memory_bytes();
  for (const Impl::Masks& entry : impl_->masks)
    total += entry.masks->memory_bytes() + entry.rows->memory_bytes();
  return total;
}

/// What the matchers of one grammar under one vocabulary share.
struct GrammarMatcher::Session {
  std::shared_ptr<Grammar::Impl> grammar;
  std::shared_ptr<const GrammarVocabulary::Impl> vocabulary;
  std::shared_ptr<TokenMasks> masks;
  std::shared_ptr<MaskRows> rows;

  std::unique_lock<std::mutex> lock() const { return std::unique_lock(grammar->mutex); }
  CompiledGrammar& compiled() const { return grammar->compiled; }
  bool is_end(TokenId token) const {
    return std::ranges::find(vocabulary->end_tokens, token) != vocabulary->end_tokens.end();
  }
  std::string_view bytes(TokenId token) const {
    const auto& all = vocabulary->bytes;
    return token >= 0 && static_cast<std::size_t>(token) < all.size()
               ? std::string_view(all[static_cast<std::size_t>(token)])
               : std::string_view();
  }
};

GrammarMatcher::GrammarMatcher(const Grammar& grammar, const GrammarVocabulary& vocabulary) {
  const std::lock_guard lock(grammar.impl_->mutex);
  const Grammar::Impl::Masks& shared = grammar.impl_->masks_for(vocabulary.impl_);
  session_ = std::make_shared<Session>(
      Session{grammar.impl_, vocabulary.impl_, shared.masks, shared.rows});
  state_ = session_->compiled().start().id;
  std::vector<std::uint64_t> bits(vocabulary.mask_words());
  session_->masks->fill({state_}, bits);
  if (std::ranges::all_of(bits, [](std::uint64_t word) { return word == 0; }))
    throw Error(ErrorCode::invalid_argument,
                "grammar: no token of the vocabulary can begin a text of it");
}

void GrammarMatcher::fill_mask(std::span<std::uint64_t> bits) const {
  if (finished_) {
    std::ranges::fill(bits, 0);
    return;
  }
  const auto lock = session_->lock();
  session_->masks->fill({state_}, bits);
}

GrammarMask GrammarMatcher::mask() const {
  const auto lock = session_->lock();
  return finished_ ? session_->rows->none() : session_->rows->of({state_}, *session_->masks);
}

bool GrammarMatcher::allows(TokenId token) const { return GrammarMatcher(*this).accept(token); }

bool GrammarMatcher::accept(TokenId token) {
  if (finished_) return false;
  if (session_->is_end(token) && can_end()) {
    finished_ = true;
    return true;
  }
  const std::string_view bytes = session_->bytes(token);
  return !bytes.empty() && accept(bytes);
}

bool GrammarMatcher::accept(std::string_view text) {
  if (finished_) return text.empty();
  const auto lock = session_->lock();
  const GrammarState next = session_->compiled().advance({state_}, text);
  if (session_->compiled().is_dead(next)) return false;
  state_ = next.id;
  return true;
}

bool GrammarMatcher::can_end() const noexcept {
  const auto lock = session_->lock();
  return finished_ || session_->compiled().accepts({state_});
}

bool GrammarMatcher::must_end() const {
  const auto lock = session_->lock();
  return finished_ || !session_->compiled().can_continue({state_});
}

std::string GrammarMatcher::forced_text(std::size_t max_bytes) const {
  if (finished_) return {};
  const auto lock = session_->lock();
  return session_->compiled().forced_text({state_}, max_bytes);
}

}  // namespace specdec
