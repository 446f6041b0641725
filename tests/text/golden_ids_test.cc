#include <doctest/doctest.h>

#include <array>
#include <cstdint>
#include <fstream>
#include <functional>
#include <sstream>

#include "corpus.h"
#include "engine/text/pretokenizer.h"
#include "test_models.h"

using namespace specdec;

namespace {

// CRC-32 (IEEE 802.3) of the ids as little-endian 32-bit words, as zlib.crc32 has it.
std::uint32_t crc32(const std::vector<TokenId>& tokens) {
  static const auto table = [] {
    std::array<std::uint32_t, 256> t{};
    for (std::uint32_t i = 0; i < 256; ++i) {
      t[i] = i;
      for (int bit = 0; bit < 8; ++bit) t[i] = t[i] >> 1 ^ (t[i] & 1 ? 0xEDB88320u : 0);
    }
    return t;
  }();
  std::uint32_t crc = ~0u;
  for (const TokenId token : tokens) {
    for (int shift = 0; shift < 32; shift += 8) {
      crc = crc >> 8 ^ table[(crc ^ static_cast<std::uint32_t>(token) >> shift) & 0xFF];
    }
  }
  return ~crc;
}

std::vector<std::int32_t> piece_lengths(const Pretokenizer& pretokenizer, const std::string& text) {
  std::vector<std::size_t> ends;
  pretokenizer.split(text, ends);
  std::vector<std::int32_t> lengths;
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    lengths.push_back(static_cast<std::int32_t>(end - begin));
    begin = end;
  }
  return lengths;
}

}  // namespace

// golden_ids.txt is written by compare_with_tokenizers.py: one line per chunk of the corpus with
// its name, its size, and for each way of tokenising number:crc of the ids (or of the lengths of
// the pre-tokenizer's pieces) that `tokenizers` gives.
TEST_CASE("the corpus: ids are those of Python's tokenizers, for every pre-tokenizer") {
  const auto corpus = make_corpus();
  std::size_t total = 0;
  for (const CorpusChunk& chunk : corpus) total += chunk.bytes.size();
  CHECK(total > 5'000'000);

  std::ifstream file(SPECDEC_SOURCE_DIR "/tests/text/golden_ids.txt");
  REQUIRE(file);
  std::string line;
  std::getline(file, line);
  std::istringstream heading(line);
  std::vector<std::function<std::vector<TokenId>(const std::string&)>> ways;
  std::vector<std::string> columns;
  for (std::string column; heading >> column;) {
    if (column == "chunk" || column == "bytes") continue;
    const std::size_t plus = std::min(column.find('+'), column.size());
    columns.push_back(column);
    if (column.substr(plus) == "+pieces") {
      const auto cutter = std::make_shared<Pretokenizer>(column.substr(0, plus), "test");
      ways.emplace_back([cutter](const std::string& text) { return piece_lengths(*cutter, text); });
      continue;
    }
    TokenizerData data = smollm2_data();
    data.pretokenizer = column.substr(0, plus);
    data.ignore_merges = column.substr(plus) == "+ignore_merges";
    data.normalize_nfc = column.substr(plus) == "+nfc";
    const std::shared_ptr<Tokenizer> tokenizer = make_bpe_tokenizer(std::move(data));
    ways.emplace_back([tokenizer](const std::string& text) { return tokenizer->encode(text); });
  }
  REQUIRE(ways.size() == 10);
  for (std::size_t i = 0; i < corpus.size(); ++i) {
    std::string name;
    std::size_t bytes = 0;
    file >> name >> bytes;
    REQUIRE(name == corpus[i].name);
    REQUIRE(bytes == corpus[i].bytes.size());
    for (std::size_t t = 0; t < ways.size(); ++t) {
      const auto tokens = ways[t](corpus[i].bytes);
      std::string golden;
      file >> golden;
      std::ostringstream got;
      got << tokens.size() << ':' << std::hex << crc32(tokens);
      INFO("chunk " << i << " " << name << ", " << columns[t]);
      CHECK(got.str() == golden);
    }
  }
  file >> line;
  CHECK(file.eof());
}
