#include "corpus.h"

#include <array>
#include <cstdint>
#include <random>
#include <string_view>

namespace specdec {
namespace {

using namespace std::string_view_literals;

class Writer {
 public:
  explicit Writer(std::uint64_t seed) : random_(seed) {}

  std::size_t below(std::size_t n) { return static_cast<std::size_t>(random_() % n); }
  bool chance(std::size_t one_in) { return below(one_in) == 0; }
  void text(std::string_view s) { out.append(s); }
  void byte(std::size_t b) { out.push_back(static_cast<char>(b)); }
  // Surrogates are written too, as the three bytes that CESU-8 would have: invalid UTF-8.
  void code_point(char32_t c) {
    if (c < 0x80) return byte(c);
    if (c < 0x800) {
      byte(0xC0 | c >> 6);
    } else {
      if (c < 0x10000) {
        byte(0xE0 | c >> 12);
      } else {
        byte(0xF0 | c >> 18);
        byte(0x80 | (c >> 12 & 0x3F));
      }
      byte(0x80 | (c >> 6 & 0x3F));
    }
    byte(0x80 | (c & 0x3F));
  }
  template <class List>
  void pick(const List& list) {
    text(list[below(std::size(list))]);
  }
  void random_code_point(char32_t first, char32_t last) {
    code_point(first + static_cast<char32_t>(below(last - first + 1)));
  }

  std::string out;

 private:
  std::mt19937_64 random_;
};

constexpr std::string_view kSpaces[] = {
    " ", " ", " ", "  ", "\n", "\n\n", "\r\n", "\r", "\t", "\v", "\f", "\xC2\x85", "\xC2\xA0",
    "\xE1\x9A\x80", "\xE2\x80\x80", "\xE2\x80\x83", "\xE2\x80\x8A", "\xE2\x80\xA8", "\xE2\x80\xA9",
    "\xE2\x80\xAF", "\xE2\x81\x9F", "\xE3\x80\x80",
    // No white space, though they look it: U+180E, U+200B, U+FEFF, U+001C.
    "\xE1\xA0\x8E", "\xE2\x80\x8B", "\xEF\xBB\xBF", "\x1C"};
constexpr std::string_view kContractions[] = {"'s",
                                              "'t",
                                              "'re",
                                              "'ve",
                                              "'m",
                                              "'ll",
                                              "'d",
                                              "'S",
                                              "'T",
                                              "'RE",
                                              "'Ve",
                                              "'M",
                                              "'lL",
                                              "'D",
                                              "'\xC5\xBF",
                                              "'\xE2\x84\xAA",
                                              "\xE2\x80\x99s",
                                              "\xE2\x80\x99ll",
                                              "''s",
                                              "' s",
                                              "'r",
                                              "'l",
                                              "'v",
                                              "'\xC3\xA9",
                                              "'\xEF\xAC\x86",
                                              "'\xEF\xAC\x85",
                                              "'1",
                                              "'sx",
                                              "'dd"};
constexpr std::string_view kWords[] = {"the",
                                       "speculative",
                                       "token",
                                       "river",
                                       "don",
                                       "we",
                                       "You",
                                       "I",
                                       "HELLO",
                                       "it",
                                       "is",
                                       "of",
                                       "engine",
                                       "naive",
                                       "na\xC3\xAFve",
                                       "Stra\xC3\x9F"
                                       "e",
                                       "caf\xC3\xA9",
                                       "tokeniser",
                                       "quickly",
                                       "42",
                                       "a",
                                       "GPU",
                                       "x86_64",
                                       "internationalisation",
                                       "and",
                                       "to",
                                       "in",
                                       "world",
                                       "Hawaii"};
constexpr std::string_view kMarks[] = {
    ".", ",",  "!", "?", ";", ":", "-", "...", "\xE2\x80\x94", "\"", "(", ")", "'", "\xE2\x80\x9C",
    "/", "--", "@", "#"};
constexpr std::string_view kCode[] = {"int ",
                                      "return ",
                                      "std::vector<",
                                      ">",
                                      "(",
                                      ")",
                                      "{\n",
                                      "}\n",
                                      ";\n",
                                      "    ",
                                      "\t",
                                      "\t\t",
                                      "->",
                                      "==",
                                      "!=",
                                      "+=",
                                      "// ",
                                      "/* ",
                                      " */",
                                      "#include <",
                                      "0x",
                                      "1e-5",
                                      "def ",
                                      "self.",
                                      "__init__",
                                      "\"\"\"",
                                      "'",
                                      "\\n",
                                      "&&",
                                      "||",
                                      "i++",
                                      "for (",
                                      "template <class T>\n",
                                      "=> ",
                                      "$",
                                      "%d",
                                      "@",
                                      "[",
                                      "]",
                                      "\r\n",
                                      "  ",
                                      "        ",
                                      "<div class=\"",
                                      "</div>",
                                      "SELECT * FROM ",
                                      "`",
                                      "~",
                                      "^",
                                      "camelCase",
                                      "snake_case",
                                      "foo",
                                      "bar",
                                      "x",
                                      "T",
                                      "1",
                                      "42",
                                      "3.14"};
constexpr std::string_view kSpecial[] = {"<|endoftext|>",  "<|im_start|>",  "<|im_end|>",
                                         "<repo_name>",    "<reponame>",    "<file_sep>",
                                         "<filename>",     "<gh_stars>",    "<issue_start>",
                                         "<jupyter_text>", "<empty_output>"};
constexpr std::string_view kNearlySpecial[] = {
    "<|im_start", "|>",          "<|",     "<",          "<|im_start|", "<<|im_end|>",
    "<|IM_END|>", "<| im_end|>", "im_end", "<repo_name", "<|im_end|>>", "<|endoftext|"};
constexpr char32_t kScripts[][2] = {
    {0xC0, 0x17F},    {0x370, 0x3FF},   {0x400, 0x45F},   {0x531, 0x586},   {0x5D0, 0x5EA},
    {0x620, 0x669},   {0x900, 0x97F},   {0x980, 0x9EF},   {0xB80, 0xBFA},   {0xE00, 0xE5B},
    {0x10A0, 0x10FF}, {0x1100, 0x11FF}, {0x1200, 0x137C}, {0x1780, 0x17F9}, {0x1E00, 0x1FFE},
    {0x3041, 0x30FF}, {0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}, {0xFF01, 0xFFEE}, {0x1D400, 0x1D7FF}};

void every_code_point(std::vector<CorpusChunk>& chunks) {
  constexpr char32_t kRun = 4096;
  for (char32_t first = 0; first < 0x110000; first += kRun) {
    const char32_t plane = first >> 16;
    const bool whole = plane <= 3 || plane == 14;
    Writer bare(first), among(first + 1);
    for (char32_t c = first; c < first + kRun; c += whole ? 1 : 16) {
      bare.code_point(c);
      // In company: what precedes and follows decides what a piece is.
      if (plane == 2 || plane == 3) continue;
      if (among.chance(2)) among.pick(kSpaces);
      if (among.chance(3))
        among.pick(std::array{"a"sv, "1"sv, "!"sv, "\xC3\xA9"sv, "'"sv, "\xE4\xB8\xAD"sv});
      among.code_point(c);
      if (among.chance(4)) among.pick(kContractions);
    }
    chunks.push_back({"plane-" + std::to_string(plane) + "-bare", std::move(bare.out)});
    if (!among.out.empty()) {
      chunks.push_back({"plane-" + std::to_string(plane) + "-among", std::move(among.out)});
    }
  }
}

void scripts(Writer& w) {
  const auto& range = kScripts[w.below(std::size(kScripts))];
  for (std::size_t words = 1 + w.below(12); words > 0; --words) {
    for (std::size_t n = 1 + w.below(9); n > 0; --n) w.random_code_point(range[0], range[1]);
    if (w.chance(5)) w.random_code_point(0x300, 0x36F);
    if (w.chance(6)) w.pick(kMarks);
    if (w.chance(8)) w.text(std::to_string(w.below(3000)));
    w.text(w.chance(20) ? "\n" : " ");
  }
}

void prose(Writer& w) {
  w.pick(kWords);
  if (w.chance(4)) w.pick(kContractions);
  if (w.chance(9)) w.pick(kWords);
  if (w.chance(4)) w.pick(kMarks);
  w.text(w.chance(15) ? "\n\n" : w.chance(20) ? "  " : " ");
}

void code(Writer& w) { w.pick(kCode); }

void numbers(Writer& w) {
  constexpr char32_t kZeros[] = {'0',     '0',    '0',    0x660, 0x966,  0xFF10,
                                 0x1D7CE, 0x2460, 0x2160, 0xBC,  0x11DE0};
  const char32_t zero = kZeros[w.below(std::size(kZeros))];
  for (std::size_t n = 1 + w.below(12); n > 0; --n)
    w.random_code_point(zero, zero + (zero == 0xBC ? 2 : 9));
  w.pick(std::array{" "sv, ""sv, ","sv, "."sv, "  "sv, "a"sv, "\n"sv, "\xC2\xB2"sv, "%"sv, "'s"sv});
}

void white_space(Writer& w) {
  for (std::size_t n = 1 + w.below(8); n > 0; --n) w.pick(kSpaces);
  if (w.chance(2)) w.pick(kWords);
  if (w.chance(5)) w.pick(kMarks);
}

void emoji(Writer& w) {
  w.random_code_point(0x1F300, 0x1FAFF);
  if (w.chance(3)) w.random_code_point(0x1F3FB, 0x1F3FF);
  if (w.chance(3)) w.text("\xEF\xB8\x8F");
  if (w.chance(2)) w.text("\xE2\x80\x8D");
  if (w.chance(6)) w.random_code_point(0x1F1E6, 0x1F1FF);
  if (w.chance(8)) w.text("3\xEF\xB8\x8F\xE2\x83\xA3");
  if (w.chance(5)) w.pick(kSpaces);
  if (w.chance(9)) w.pick(kWords);
}

void combining(Writer& w) {
  w.random_code_point('a', 'z');
  for (std::size_t n = w.below(5); n > 0; --n) w.random_code_point(0x300, 0x36F);
  if (w.chance(4)) w.random_code_point(0x1AB0, 0x1ACE);
  if (w.chance(6)) w.random_code_point(0x20D0, 0x20F0);
  if (w.chance(3)) w.random_code_point(0x1100, 0x11FF);
  if (w.chance(3)) {
    w.random_code_point(0xAC00, 0xD7A3);
    w.random_code_point(0x11A7, 0x11C3);
  }
  if (w.chance(3)) w.pick(kSpaces);
}

void invalid(Writer& w) {
  switch (w.below(8)) {
    case 0:
      w.random_code_point(0xD800, 0xDFFF);
      break;
    case 1:
      w.byte(0xC0 + w.below(2));
      w.byte(0x80 + w.below(64));
      break;
    case 2: {  // cut short
      const std::size_t before = w.out.size();
      w.random_code_point(0x800, 0x10FFFF);
      w.out.resize(before + 1 + w.below(w.out.size() - before));
      break;
    }
    case 3:
      w.byte(0xF4 + w.below(12));
      break;
    case 4:
      w.byte(0x80 + w.below(128));
      break;
    case 5:
      w.byte(0xE0);
      w.byte(0x80 + w.below(0x20));
      w.byte(0x80);
      break;
    case 6:
      w.pick(kSpecial);
      break;
    default:
      w.pick(kContractions);
      w.pick(kSpaces);
  }
  if (w.chance(3)) w.pick(kWords);
  if (w.chance(3)) w.pick(kSpaces);
}

void random_bytes(Writer& w) { w.byte(w.below(256)); }

void ascii(Writer& w) { w.byte(w.chance(12) ? '\n' : 0x20 + w.below(95)); }

void special(Writer& w) {
  if (w.chance(3)) w.pick(kSpecial);
  if (w.chance(4)) w.pick(kNearlySpecial);
  if (w.chance(3)) w.pick(kSpaces);
  if (w.chance(3)) w.pick(kWords);
  if (w.chance(9)) w.byte(0x80 + w.below(128));
}

}  // namespace

std::vector<CorpusChunk> make_corpus() {
  std::vector<CorpusChunk> chunks;
  every_code_point(chunks);
  struct Kind {
    std::string_view name;
    void (*write)(Writer&);
    std::size_t kib;
  };
  constexpr Kind kKinds[] = {
      {"scripts", scripts, 768},     {"prose", prose, 384},        {"code", code, 256},
      {"numbers", numbers, 192},     {"spaces", white_space, 256}, {"emoji", emoji, 192},
      {"combining", combining, 192}, {"invalid", invalid, 256},    {"bytes", random_bytes, 256},
      {"ascii", ascii, 256},         {"special", special, 192}};
  constexpr std::size_t kChunk = 16 * 1024;
  for (const Kind& kind : kKinds) {
    for (std::size_t i = 0; i < kind.kib * 1024 / kChunk; ++i) {
      Writer w(1000 * i + kind.name.size() + static_cast<unsigned char>(kind.name[0]));
      while (w.out.size() < kChunk) kind.write(w);
      chunks.push_back({std::string(kind.name), std::move(w.out)});
    }
  }
  for (const std::string_view unit : {"a"sv,        " "sv,
                                      "\n"sv,       "="sv,
                                      "ab"sv,       "aaab"sv,
                                      "the"sv,      "7"sv,
                                      "\xC3\xA9"sv, "\xE4\xB8\xAD"sv,
                                      "\r\n"sv,     " \n"sv,
                                      "\t "sv,      "'s"sv,
                                      "'"sv,        "\xE3\x80\x80"sv,
                                      "<"sv,        "<|im_end|>"sv,
                                      "\xCC\x81"sv, "\xFF"sv}) {
    std::string run;
    while (run.size() < 2 * kChunk) run += unit;
    chunks.push_back({"run", std::move(run)});
  }
  return chunks;
}

}  // namespace specdec
