#include "engine/text/utf8_stream.h"

#include <doctest/doctest.h>

#include <random>

#include "engine/text/utf8.h"

using namespace specdec;

namespace {

// U+FFFD per maximal subpart, straight from the table of well-formed sequences (Unicode 3.9, table
// 3-7): a state machine, unlike the code under test.
std::string replaced(std::string_view bytes) {
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    const auto byte = [&](std::size_t i) {
      return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0u;
    };
    const unsigned lead = byte(at);
    std::size_t need = lead < 0x80   ? 0
                       : lead < 0xC2 ? 9
                       : lead < 0xE0 ? 1
                       : lead < 0xF0 ? 2
                       : lead < 0xF5 ? 3
                                     : 9;
    std::size_t taken = 1;
    if (need != 9) {
      unsigned low = 0x80, high = 0xBF;
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
      while (need > 0 && byte(at + taken) >= low && byte(at + taken) <= high) {
        ++taken;
        --need;
        low = 0x80;
        high = 0xBF;
      }
    }
    if (need == 0)
      out.append(bytes.substr(at, taken));
    else
      out.append("\xEF\xBF\xBD");
    at += taken;
  }
  return out;
}

std::string streamed(std::string_view bytes, std::mt19937_64& random) {
  Utf8Stream stream;
  std::string out;
  for (std::size_t at = 0; at < bytes.size();) {
    const std::size_t n = std::min<std::size_t>(random() % 6, bytes.size() - at);
    std::string part;
    stream.feed(bytes.substr(at, n), part);
    CHECK(utf8_valid_prefix(part) == part.size());
    out += part;
    at += n;
  }
  stream.flush(out);
  return out;
}

}  // namespace

TEST_CASE("any bytes in any parts give what errors=\"replace\" gives") {
  // Expected by Python 3.11: bytes.decode("utf-8", "replace").
  CHECK(replaced("\xF0\x9F\x98") == "\xEF\xBF\xBD");
  CHECK(replaced("\xF0\x80\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(replaced("\xED\xA0\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(replaced("\xE1\x80"
                 "A\xC3") ==
        "\xEF\xBF\xBD"
        "A\xEF\xBF\xBD");
  CHECK(replaced("\xC0\xAF\xF5") == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");

  std::mt19937_64 random(3);
  // Bytes at the borders of the table, so that partial sequences abound.
  constexpr unsigned char kBytes[] = {'a',  0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC2,
                                      0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF};
  for (int round = 0; round < 20000; ++round) {
    std::string bytes;
    for (std::size_t n = random() % 12; n > 0; --n) {
      bytes.push_back(static_cast<char>(kBytes[random() % std::size(kBytes)]));
    }
    REQUIRE(streamed(bytes, random) == replaced(bytes));
  }
}

TEST_CASE("a character comes out with its last byte, not before and not after") {
  for (const std::string_view character : {"a", "\xC3\xA9", "\xE2\x82\xAC", "\xF0\x9F\x98\x80"}) {
    Utf8Stream stream;
    std::string out;
    for (std::size_t i = 0; i + 1 < character.size(); ++i) {
      stream.feed(character.substr(i, 1), out);
      CHECK(out.empty());
    }
    stream.feed(character.substr(character.size() - 1), out);
    CHECK(out == character);
    stream.flush(out);
    CHECK(out == character);
  }
}
