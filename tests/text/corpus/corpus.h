#pragma once

#include <string>
#include <vector>

namespace specdec {

struct CorpusChunk {
  std::string name;
  std::string bytes;
};

/// The text that tokenisation is compared on: over 5 MB, the same on every machine. Every code
/// point of planes 0 to 3 and 14, every 16th of the others; scripts, code, numbers, white space,
/// emoji, combining marks, contractions, special tokens of SmolLM2, invalid UTF-8, random bytes,
/// long runs.
std::vector<CorpusChunk> make_corpus();

}  // namespace specdec
