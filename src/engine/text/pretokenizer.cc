#include "engine/text/pretokenizer.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <string>

#include "engine/text/utf8.h"
#include "specdec/error.h"

namespace specdec {
namespace {

// Oniguruma's \s (which Python's `tokenizers` runs) is the White_Space property; PCRE2's has U+180E
// on top. So the class is spelt out.
#define SPECDEC_WHITE_SPACE                                                                       \
  "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{" \
  "205f}\\x{3000}"
#define SPECDEC_S "[" SPECDEC_WHITE_SPACE "]"
#define SPECDEC_NOT_S "[^" SPECDEC_WHITE_SPACE "]"
#define SPECDEC_PUNCTUATION "[^\\p{L}\\p{N}" SPECDEC_WHITE_SPACE "]"
#define SPECDEC_SPACES SPECDEC_S "+(?!" SPECDEC_NOT_S ")|" SPECDEC_S "+"

constexpr const char* kGpt2 =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?" SPECDEC_PUNCTUATION "+|" SPECDEC_SPACES;
// Digits(individual_digits) cuts first; what is left between digits goes through the gpt2 pattern.
constexpr const char* kLlama3 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|"
    " ?" SPECDEC_PUNCTUATION "+[\\r\\n]*|" SPECDEC_S "*[\\r\\n]+|" SPECDEC_SPACES;
constexpr const char* kQwen2 =
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}|"
    " ?" SPECDEC_PUNCTUATION "+[\\r\\n]*|" SPECDEC_S "*[\\r\\n]+|" SPECDEC_SPACES;

template <auto Free>
struct PcreFree {
  template <class T>
  void operator()(T* pointer) const {
    Free(pointer);
  }
};
using Code = std::unique_ptr<pcre2_code, PcreFree<pcre2_code_free>>;
using MatchData = std::unique_ptr<pcre2_match_data, PcreFree<pcre2_match_data_free>>;

Code compile(const char* pattern) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  Code code(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP | PCRE2_ANCHORED, &error, &offset, nullptr));
  if (!code) {
    throw Error(ErrorCode::internal, "PCRE2 refuses a pre-tokenizer pattern: error " +
                                         std::to_string(error) + " at offset " +
                                         std::to_string(offset));
  }
  pcre2_jit_compile(code.get(), PCRE2_JIT_COMPLETE);
  return code;
}

}  // namespace

struct Pretokenizer::Impl {
  Code pattern;
  Code digit;  // smollm only

  // `text` is well-formed UTF-8.
  void split_pattern(std::string_view text, std::size_t base, pcre2_match_data* match,
                     std::vector<std::size_t>& ends) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    for (std::size_t at = 0; at < text.size();) {
      const int found =
          pcre2_match(pattern.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK, match, nullptr);
      std::size_t end = found > 0 ? pcre2_get_ovector_pointer(match)[1] : at;
      if (end <= at) end = at + utf8_sequence_length(text.substr(at));
      ends.push_back(base + end);
      at = end;
    }
  }

  void split_digits(std::string_view text, std::size_t base, pcre2_match_data* match,
                    std::vector<std::size_t>& ends) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    std::size_t from = 0;
    for (std::size_t at = 0; at < text.size();) {
      const int found =
          pcre2_match(digit.get(), subject, text.size(), at, PCRE2_NO_UTF_CHECK, match, nullptr);
      const std::size_t next = at + utf8_sequence_length(text.substr(at));
      if (found > 0) {
        split_pattern(text.substr(from, at - from), base + from, match, ends);
        ends.push_back(base + next);
        from = next;
      }
      at = next;
    }
    split_pattern(text.substr(from), base + from, match, ends);
  }
};

Pretokenizer::Pretokenizer(std::string_view name, std::string_view source)
    : impl_(std::make_unique<Impl>()) {
  if (name == "gpt2" || name == "gpt-2" || name == "default") {
    impl_->pattern = compile(kGpt2);
  } else if (name == "smollm") {
    impl_->pattern = compile(kGpt2);
    impl_->digit = compile("\\p{N}");
  } else if (name == "llama3" || name == "llama-bpe") {
    impl_->pattern = compile(kLlama3);
  } else if (name == "qwen2") {
    impl_->pattern = compile(kQwen2);
  } else {
    throw Error(ErrorCode::unsupported, std::string(source) + ": pre-tokenizer \"" +
                                            std::string(name) +
                                            "\" is not supported; specdec knows gpt2, smollm, "
                                            "llama3 and qwen2");
  }
}

Pretokenizer::~Pretokenizer() = default;

void Pretokenizer::split(std::string_view text, std::vector<std::size_t>& ends) const {
  const MatchData match(pcre2_match_data_create(1, nullptr));
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = utf8_valid_prefix(text.substr(at));
    const std::string_view piece = text.substr(at, length);
    if (impl_->digit)
      impl_->split_digits(piece, at, match.get(), ends);
    else
      impl_->split_pattern(piece, at, match.get(), ends);
    at += length;
    if (at < text.size()) ends.push_back(++at);
    while (at < text.size() && utf8_sequence_length(text.substr(at)) == 0) ends.push_back(++at);
  }
}

}  // namespace specdec
