#pragma once

#include <cstddef>
#include <memory>
#include <string_view>
#include <vector>

namespace specdec {

/// Cuts text into the pieces that BPE merges within: gpt2, smollm, llama3, qwen2. The patterns are
/// those of the models' tokenizer.json. Safe to use from any thread.
///
/// PCRE2 runs them over a shadow of the text, one ASCII byte per code point that stands for its
/// class (char_class), so what a letter is does not depend on PCRE2's Unicode version, matching is
/// linear and needs no UTF mode; ASCII text is its own shadow.
class Pretokenizer {
 public:
  /// Throws Error(unsupported) naming `source` and the known names.
  Pretokenizer(std::string_view name, std::string_view source);
  ~Pretokenizer();
  Pretokenizer(const Pretokenizer&) = delete;
  Pretokenizer& operator=(const Pretokenizer&) = delete;

  /// Appends the end offset of each piece of `text`, ascending; the last one is text.size(). Any
  /// bytes are taken: a byte that belongs to no well-formed UTF-8 sequence is a piece of its own,
  /// and the text on either side is cut as if it stood alone.
  void split(std::string_view text, std::vector<std::size_t>& ends) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace specdec
