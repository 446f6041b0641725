#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/export.h"
#include "specdec/types.h"

namespace specdec {

class Tokenizer;

/// A vocabulary as grammars see it: the bytes of its tokens. A handle to something immutable: cheap
/// to copy, safe to use from any thread. Make one per tokenizer (some milliseconds) and keep it.
class SPECDEC_API GrammarVocabulary {
 public:
  /// Special tokens have no bytes, so no grammar allows them but to end a text.
  explicit GrammarVocabulary(const Tokenizer& tokenizer);
  /// `bytes`: of each token, by id; empty for special and unused ones. `end_tokens`: allowed where
  /// a text may end. Throws Error(invalid_argument) when an end token is no id.
  GrammarVocabulary(std::span<const std::string_view> bytes, std::span<const TokenId> end_tokens);

  int size() const noexcept;
  /// 64-bit words of a mask: one bit a token.
  std::size_t mask_words() const noexcept { return (static_cast<std::size_t>(size()) + 63) / 64; }

  struct Impl;

 private:
  friend class GrammarMatcher;
  std::shared_ptr<const Impl> impl_;
};

/// How JSON texts may look.
struct JsonOptions {
  enum class Whitespace : std::uint8_t {
    none,    ///< {"a":1}
    single,  ///< {"a": 1, "b": 2}: one blank after ',' and ':', or none
    any,     ///< as JSON allows
  };
  Whitespace whitespace = Whitespace::any;
  /// Members in the schema's order only, others last. Off: in any order.
  bool schema_order = false;
  /// Whether a schema's `format` is checked; the drafts leave it open.
  bool assert_formats = true;
  /// Schemas that $ref may name by URI: the text, or no value for an unknown one.
  std::function<std::optional<std::string>(std::string_view uri)> load_schema = {};
};

/// Why and where a text is refused.
struct GrammarRefusal {
  std::size_t offset = 0;  ///< of the first byte that cannot stand there; the text's size: it ends
                           ///< too early
  std::string expected;    ///< what could: "a digit ',' or ']'"
};

struct GrammarTrigger;

/// The texts that a request may be answered with. A handle: cheap to copy, safe to use from any
/// thread; copies share what has been worked out, so compile once and use it for many requests.
///
/// What compiles throws Error(invalid_argument) with line, column and what was expected, also when
/// no text matches or a limit is exceeded, and Error(unsupported) for what no grammar can enforce.
class SPECDEC_API Grammar {
 public:
  /// The whole text matches `pattern` (ECMA-262 syntax; anchors implied). No look-behind, no
  /// back-references.
  static Grammar regex(std::string_view pattern);
  /// The text is one of `options`.
  static Grammar choice(std::span<const std::string> options);
  /// llama.cpp's GBNF; the text is what `root` derives.
  static Grammar gbnf(std::string_view text);
  /// Any JSON value.
  static Grammar json(const JsonOptions& options = {});
  /// A JSON value that `schema` (draft 4 to 2020-12, as JSON text) accepts. What a grammar cannot
  /// enforce is refused, or listed by unenforced().
  static Grammar json_schema(std::string_view schema, const JsonOptions& options = {});

  /// Free text in which each of the tags starts a part that follows a grammar, for tool calls.
  /// Whatever is no complete tag is free. The text may end where it is free.
  static Grammar triggered(std::span<const GrammarTrigger> triggers);

  /// What json_schema() had to leave to a validator, a sentence each.
  const std::vector<std::string>& unenforced() const noexcept;
  bool matches(std::string_view text) const { return !check(text).has_value(); }
  /// No value: the text matches.
  std::optional<GrammarRefusal> check(std::string_view text) const;
  std::size_t memory_bytes() const;

  struct Impl;

 private:
  friend class GrammarMatcher;
  explicit Grammar(std::shared_ptr<Impl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<Impl> impl_;
};

/// In free text: `tag`, then a text of `content`, then `end`.
struct GrammarTrigger {
  std::string tag;  ///< not empty; its first occurrence counts
  Grammar content;
  std::string end = {};
};

/// A grammar as text, say of a request that came over a wire.
struct GrammarSource {
  enum class Kind : std::uint8_t {
    json,  ///< any JSON; no text
    json_schema,
    regex,
    gbnf,
    choice,  ///< an option a line
  };
  Kind kind = Kind::json;
  std::string text = {};
  JsonOptions options = {};

  /// Throws what Grammar's functions throw.
  SPECDEC_API Grammar compile() const;
};

/// Compiled grammars, kept for requests to come: the least recently used go first once all together
/// take more than `max_bytes` or are more than `max_entries`. Grammars grow as they are used, up to
/// a limit: one that alone takes a quarter of `max_bytes` makes way for itself compiled anew. A
/// grammar in use lives on without the cache. Thread-safe; two threads may compile the same grammar
/// at the same time, one of them wins.
class SPECDEC_API GrammarCache {
 public:
  explicit GrammarCache(std::size_t max_bytes = std::size_t{256} << 20,
                        std::size_t max_entries = 1000);
  ~GrammarCache();

  /// The grammar kept under `key`, say the kind and the source text, else what `compile` returns.
  /// What it throws is thrown, and nothing is kept.
  Grammar get(std::string_view key, const std::function<Grammar()>& compile);
  /// The grammar of `source`. With a schema loader it is compiled each time: only the caller knows
  /// what that would load.
  Grammar get(const GrammarSource& source);
  std::size_t size() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// Bit t % 64 of word t / 64 tells whether token t may come next. [vocabulary.mask_words()]
using GrammarMask = std::shared_ptr<const std::vector<std::uint64_t>>;

/// One text on its way through a grammar, token by token. A small value: a copy is a fork and costs
/// nanoseconds; there is nothing to roll back. One matcher is for one thread at a time; matchers of
/// one grammar may be used from many threads (they take turns).
///
/// Members that advance or make masks throw Error(invalid_argument) when following the text takes
/// more memory or time than the limits allow; the matcher is then as it was.
class SPECDEC_API GrammarMatcher {
 public:
  /// At the beginning. Throws Error(invalid_argument) when the vocabulary has no token to begin
  /// with.
  GrammarMatcher(const Grammar& grammar, const GrammarVocabulary& vocabulary);

  /// Bit t % 64 of word t / 64 is set exactly for the tokens t that accept() would take.
  /// [vocabulary.mask_words()]
  void fill_mask(std::span<std::uint64_t> bits) const;
  /// The same as a shared row, never null: where a grammar stands again as it stood lately, this is
  /// the same row. A grammar keeps up to 4 MiB of them for each vocabulary.
  GrammarMask mask() const;
  bool allows(TokenId token) const;
  /// Appends a token. False: it cannot stand here, nothing changes. An end token finishes the text.
  bool accept(TokenId token);
  /// Appends text, all or nothing.
  bool accept(std::string_view text);
  /// The text may end here.
  bool can_end() const noexcept;
  /// It must: no byte may follow.
  bool must_end() const;
  /// An end token was accepted: no token may follow.
  bool finished() const noexcept { return finished_; }
  /// The only way to go on, as far as there is no choice; at most `max_bytes`.
  std::string forced_text(std::size_t max_bytes = 256) const;

  bool operator==(const GrammarMatcher&) const = default;

 private:
  struct Session;
  std::shared_ptr<Session> session_;
  std::uint32_t state_ = 0;
  bool finished_ = false;
};

}  // namespace specdec
