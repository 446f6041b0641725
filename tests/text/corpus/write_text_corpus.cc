// Writes the corpus for compare_with_tokenizers.py: for each chunk its name, NUL, its length in
// bytes (decimal), NUL, its bytes.
#include <fstream>
#include <iostream>

#include "corpus.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: write_text_corpus FILE\n";
    return 2;
  }
  std::ofstream file(argv[1], std::ios::binary);
  for (const specdec::CorpusChunk& chunk : specdec::make_corpus()) {
    file << chunk.name << '\0' << chunk.bytes.size() << '\0' << chunk.bytes;
  }
  return file.flush() ? 0 : 1;
}
