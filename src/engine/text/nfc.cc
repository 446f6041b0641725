#include "engine/text/nfc.h"

#include <algorithm>
#include <vector>

#include "engine/text/nfc_tables.h"
#include "engine/text/utf8.h"

namespace specdec {
namespace {

// Hangul syllables, by arithmetic: The Unicode Standard, section 3.12.
constexpr char32_t kHangul = 0xAC00, kLead = 0x1100, kVowel = 0x1161, kTrail = 0x11A7;
constexpr char32_t kLeads = 19, kVowels = 21, kTrails = 28;
constexpr char32_t kSyllables = kLeads * kVowels * kTrails;

struct Scalar {
  char32_t code_point;
  std::uint8_t combining_class;
};

std::uint8_t combining_class(char32_t c) {
  if (c < 0x300) return 0;
  const auto classes = combining_classes();
  const auto found =
      std::ranges::lower_bound(classes, c, {}, [](const CombiningClass& k) { return k.last; });
  return found != classes.end() && found->first <= c ? found->value : std::uint8_t{0};
}

void append_decomposed(char32_t c, std::vector<Scalar>& out) {
  if (c - kHangul < kSyllables) {
    const char32_t index = c - kHangul;
    out.push_back({kLead + index / (kVowels * kTrails), 0});
    out.push_back({kVowel + index / kTrails % kVowels, 0});
    if (index % kTrails != 0) out.push_back({kTrail + index % kTrails, 0});
    return;
  }
  if (c >= 0xC0) {
    const auto table = canonical_decompositions();
    const auto found = std::ranges::lower_bound(table, c, {}, &CanonicalDecomposition::code_point);
    if (found != table.end() && found->code_point == c) {
      append_decomposed(found->first, out);  // at most four deep
      if (found->second != 0) append_decomposed(found->second, out);
      return;
    }
  }
  out.push_back({c, combining_class(c)});
}

// The composite of a pair, or 0.
char32_t composed(char32_t first, char32_t second) {
  if (first - kLead < kLeads && second - kVowel < kVowels) {
    return kHangul + ((first - kLead) * kVowels + second - kVowel) * kTrails;
  }
  if (first - kHangul < kSyllables && (first - kHangul) % kTrails == 0 && second > kTrail &&
      second < kTrail + kTrails) {
    return first + (second - kTrail);
  }
  static const auto by_pair = [] {
    std::vector<CanonicalDecomposition> pairs;
    for (const CanonicalDecomposition& entry : canonical_decompositions()) {
      if (entry.composes) pairs.push_back(entry);
    }
    std::ranges::sort(pairs, {}, [](const auto& e) { return std::pair(e.first, e.second); });
    return pairs;
  }();
  const auto found = std::ranges::lower_bound(by_pair, std::pair(first, second), {},
                                              [](auto& e) { return std::pair(e.first, e.second); });
  return found != by_pair.end() && found->first == first && found->second == second
             ? found->code_point
             : 0;
}

void reorder(std::vector<Scalar>& text) {
  for (auto at = text.begin(); at != text.end();) {
    if (at->combining_class == 0) {
      ++at;
      continue;
    }
    const auto end = std::find_if(at, text.end(), [](auto& s) { return s.combining_class == 0; });
    std::stable_sort(at, end,
                     [](auto& a, auto& b) { return a.combining_class < b.combining_class; });
    at = end;
  }
}

// UAX 15: a mark joins the last starter unless another of its class or above stands between.
void compose(std::vector<Scalar>& text) {
  std::size_t kept = 0;
  std::size_t starter = text.size();  // none yet
  for (const Scalar scalar : text) {
    if (starter < kept) {
      const bool adjacent = starter + 1 == kept;
      const bool blocked =
          text[kept - 1].combining_class >= std::max<std::uint8_t>(scalar.combining_class, 1);
      const char32_t whole = blocked || (!adjacent && scalar.combining_class == 0)
                                 ? 0
                                 : composed(text[starter].code_point, scalar.code_point);
      if (whole != 0) {
        text[starter].code_point = whole;
        continue;
      }
    }
    if (scalar.combining_class == 0) starter = kept;
    text[kept++] = scalar;
  }
  text.resize(kept);
}

void append_utf8(char32_t c, std::string& out) {
  const auto byte = [&](char32_t b) { out.push_back(static_cast<char>(b)); };
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

}  // namespace

bool is_trivially_nfc(std::string_view text) noexcept {
  // U+0300 is the first code point with NFC_Quick_Check other than Yes; its lead byte is 0xCC.
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0xCC; });
}

std::string to_nfc(std::string_view text) {
  std::string out;
  std::vector<Scalar> run;
  for (std::size_t at = 0; at < text.size();) {
    run.clear();
    while (at < text.size()) {
      const std::size_t length = utf8_sequence_length(text.substr(at));
      if (length == 0) break;
      append_decomposed(utf8_code_point(text.substr(at, length)), run);
      at += length;
    }
    reorder(run);
    compose(run);
    for (const Scalar scalar : run) append_utf8(scalar.code_point, out);
    if (at < text.size()) out.push_back(text[at++]);
  }
  return out;
}

}  // namespace specdec
