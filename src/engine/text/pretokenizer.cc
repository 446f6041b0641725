#include "engine/text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

#include "engine/text/unicode_classes.h"
#include "engine/text/utf8.h"
#include "specdec/error.h"

namespace specdec {
namespace {

// The patterns over the shadow: \p{L}, \p{N} and \s are ASCII classes there. Possessive quantifiers
// where the next item cannot match what a greedy one took: same matches, no backtracking.
// gpt2: 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
constexpr const char* kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?[A-Za-z]++| ?[0-9]++| ?[^\\t-\\r A-Za-z0-9]++|"
    "[\\t-\\r ]+(?![^\\t-\\r ])|[\\t-\\r ]++";
// llama3: (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|
//         ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
constexpr const char* kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\nA-Za-z0-9]?[A-Za-z]++|[0-9]{1,3}|"
    " ?[^\\t-\\r A-Za-z0-9]++[\\r\\n]*+|[\\t-\\r ]*[\\r\\n]+|"
    "[\\t-\\r ]+(?![^\\t-\\r ])|[\\t-\\r ]++";
// qwen2: as llama3, with \p{N} one at a time
constexpr const char* kQwen2 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\nA-Za-z0-9]?[A-Za-z]++|[0-9]|"
    " ?[^\\t-\\r A-Za-z0-9]++[\\r\\n]*+|[\\t-\\r ]*[\\r\\n]+|"
    "[\\t-\\r ]+(?![^\\t-\\r ])|[\\t-\\r ]++";

template <auto Free>
struct PcreFree {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, PcreFree<pcre2_code_free>>;
using MatchContext = std::unique_ptr<pcre2_match_context, PcreFree<pcre2_match_context_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, PcreFree<pcre2_match_data_free>>;

Code compile(const char* pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                          PCRE2_ANCHORED, &error, &offset, nullptr));
  if (!code) {
    throw Error(ErrorCode::internal, "PCRE2 refuses a pre-tokenizer pattern: error " +
                                         std::to_string(error) + " at offset " +
                                         std::to_string(offset));
  }
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);  // without JIT, pcre2_match interprets
  return code;
}

bool is_ascii(std::string_view text) {
  unsigned char all = 0;
  for (const char c : text) all |= static_cast<unsigned char>(c);
  return all < 0x80;
}

}  // namespace

struct Pretokenizer::Impl {
  Code pattern;
  MatchContext limits;
  bool single_digits = false;  // smollm: the Digits pre-tokenizer cuts first
  bool ignore_case = false;    // of contractions

  // One byte that the pattern treats as it treats the code point.
  char shadow(char32_t code_point) const {
    // The long s folds to s (CaseFolding.txt), the one non-ASCII letter that a contraction takes.
    if (code_point == 0x17F && ignore_case) return 's';
    switch (char_class(code_point)) {
      case CharClass::letter:
        return 'a';  // in no contraction
      case CharClass::number:
        return '0';
      case CharClass::digit_only:
        return single_digits ? '0' : '!';
      case CharClass::space:
        return '\t';  // neither blank nor end of line
      default:
        return '!';
    }
  }

  // `shadow` has one byte for each code point of `text`; `at` is the offset of `text`.
  void split(std::string_view shadow, std::string_view text, std::size_t at,
             pcre2_match_data* match, std::vector<std::size_t>& ends) const {
    const bool ascii = shadow.size() == text.size();
    const auto* bytes = text.data();
    const auto emit = [&](std::size_t length) {
      const char* const begin = bytes;
      if (ascii)
        bytes += length;
      else {
        for (; length > 0; --length) {
          ++bytes;
          while (bytes != text.data() + text.size() && (*bytes & 0xC0) == 0x80) ++bytes;
        }
      }
      at += static_cast<std::size_t>(bytes - begin);
      ends.push_back(at);
    };
    const auto run_pattern = [&](std::string_view run) {
      const auto* subject = reinterpret_cast<PCRE2_SPTR>(run.data());
      for (std::size_t from = 0; from < run.size();) {
        const int found =
            pcre2_match(pattern.get(), subject, run.size(), from, 0, match, limits.get());
        if (found < 0) {
          throw Error(ErrorCode::internal,
                      "PCRE2 fails in a pre-tokenizer: error " + std::to_string(found));
        }
        const std::size_t end = pcre2_get_ovector_pointer(match)[1];
        emit(end - from);
        from = end;
      }
    };
    if (!single_digits) return run_pattern(shadow);
    while (!shadow.empty()) {
      const std::size_t digit = std::min(shadow.find_first_of("0123456789"), shadow.size());
      run_pattern(shadow.substr(0, digit));
      if (digit == shadow.size()) return;
      emit(1);
      shadow.remove_prefix(digit + 1);
    }
  }
};

Pretokenizer::Pretokenizer(std::string_view name, std::string_view source)
    : impl_(std::make_unique<Impl>()) {
  if (name == "gpt2" || name == "gpt-2" || name == "default") {
    impl_->pattern = compile(kGpt2);
  } else if (name == "smollm") {
    impl_->pattern = compile(kGpt2);
    impl_->single_digits = true;
  } else if (name == "llama3" || name == "llama-bpe") {
    impl_->pattern = compile(kLlama3);
    impl_->ignore_case = true;
  } else if (name == "qwen2") {
    impl_->pattern = compile(kQwen2);
    impl_->ignore_case = true;
  } else {
    throw Error(ErrorCode::unsupported, std::string(source) + ": pre-tokenizer \"" +
                                            std::string(name) +
                                            "\" is not supported; specdec knows gpt2, smollm, "
                                            "llama3 and qwen2");
  }
  // PCRE2 counts one step for each blank that \s*[\r\n]+ gives back, which is linear here: a text
  // of 2^31 bytes stays below this limit.
  impl_->limits.reset(pcre2_match_context_create(nullptr));
  if (!impl_->limits) throw Error(ErrorCode::out_of_memory, "no memory for a pre-tokenizer");
  pcre2_set_match_limit(impl_->limits.get(), UINT32_MAX);
}

Pretokenizer::~Pretokenizer() = default;

void Pretokenizer::split(std::string_view text, std::vector<std::size_t>& ends) const {
  const MatchData match(pcre2_match_data_create(1, nullptr));
  if (!match) throw Error(ErrorCode::out_of_memory, "no memory to tokenise a text");
  if (is_ascii(text)) return impl_->split(text, text, 0, match.get(), ends);
  std::string shadow;
  for (std::size_t at = 0; at < text.size();) {
    shadow.clear();
    const std::size_t begin = at;
    while (at < text.size()) {
      const std::size_t length = utf8_sequence_length(text.substr(at));
      if (length == 0) break;
      shadow.push_back(length == 1 ? text[at]
                                   : impl_->shadow(utf8_code_point(text.substr(at, length))));
      at += length;
    }
    impl_->split(shadow, text.substr(begin, at - begin), begin, match.get(), ends);
    while (at < text.size() && utf8_sequence_length(text.substr(at)) == 0) ends.push_back(++at);
  }
}

}  // namespace specdec
