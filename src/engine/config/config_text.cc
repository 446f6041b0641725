#include "engine/config/config_text.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <limits>

namespace specdec {
namespace {

template <class Range, class Format>
std::string joined(const char* open, const Range& range, const char* close, Format format) {
  std::string text = open;
  bool first = true;
  for (const auto& item : range) {
    if (!std::exchange(first, false)) text += ", ";
    text += format(item);
  }
  return text + close;
}

/// Length of the UTF-8 sequence that `text` begins with; 0 when it is none (RFC 3629).
std::size_t utf8_length(std::string_view text) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead < 0xc2   ? 0
                             : lead < 0xe0 ? 2
                             : lead < 0xf0 ? 3
                             : lead < 0xf5 ? 4
                                           : 0;
  if (length == 0 || length > text.size()) return 0;
  unsigned code = lead & (0x7fu >> length);
  for (std::size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0u) != 0x80u) return 0;
    code = code << 6 | (byte(i) & 0x3fu);
  }
  const bool overlong = (length == 3 && code < 0x800) || (length == 4 && code < 0x10000);
  const bool surrogate = code >= 0xd800 && code < 0xe000;
  return overlong || surrogate || code > 0x10ffff ? 0 : length;
}

}  // namespace

std::string float_text(float value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  std::array<char, 32> buffer{};
  const auto [end, error] = std::to_chars(buffer.data(), buffer.data() + buffer.size(), value);
  std::string text(buffer.data(), end);
  if (text.find_first_of(".e") == std::string::npos) text += ".0";
  return text;
}

std::string quote(std::string_view text, std::size_t limit) {
  static constexpr char kHex[] = "0123456789abcdef";
  std::string result = "\"";
  std::size_t i = 0;
  while (i < text.size() && i < limit) {
    const std::size_t length = utf8_length(text.substr(i));
    const auto byte = static_cast<unsigned char>(text[i]);
    if (length == 0) {
      result += "\\ufffd";
      ++i;
      continue;
    }
    if (byte == '"' || byte == '\\') {
      result += '\\';
      result += text[i];
    } else if (byte == '\n') {
      result += "\\n";
    } else if (byte == '\t') {
      result += "\\t";
    } else if (byte < 0x20 || byte == 0x7f) {
      result += "\\u00";
      result += kHex[byte >> 4];
      result += kHex[byte & 15];
    } else {
      result += text.substr(i, length);
    }
    i += length;
  }
  result += '"';
  if (i < text.size()) result += "...";
  return result;
}

bool is_valid_utf8(std::string_view text) {
  while (!text.empty()) {
    const std::size_t length = utf8_length(text);
    if (length == 0) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::string pair_text(const std::pair<int, int>& pair) {
  std::string text = "[";
  text += std::to_string(pair.first);
  text += ", ";
  text += std::to_string(pair.second);
  text += "]";
  return text;
}

std::string toml_text(const FieldRef& field) {
  constexpr std::size_t kWhole = std::numeric_limits<std::size_t>::max();
  struct Visitor {
    std::string operator()(const std::string* value) const { return quote(*value, kWhole); }
    std::string operator()(const int* value) const { return std::to_string(*value); }
    std::string operator()(const float* value) const { return float_text(*value); }
    std::string operator()(const bool* value) const { return *value ? "true" : "false"; }
    std::string operator()(const std::optional<std::uint64_t>* value) const {
      if (!*value) return "\"random\"";
      const std::string text = std::to_string(**value);
      // TOML's integers are signed.
      return **value <= std::uint64_t{std::numeric_limits<std::int64_t>::max()} ? text
                                                                                : quote(text);
    }
    std::string operator()(const std::vector<std::string>* value) const {
      return joined("[", *value, "]", [](const std::string& s) { return quote(s, kWhole); });
    }
    std::string operator()(const std::vector<TokenId>* value) const {
      return joined("[", *value, "]", [](TokenId token) { return std::to_string(token); });
    }
    std::string operator()(const std::unordered_map<TokenId, float>* value) const {
      std::vector<std::pair<TokenId, float>> sorted(value->begin(), value->end());
      std::ranges::sort(sorted, {}, &std::pair<TokenId, float>::first);
      if (sorted.empty()) return "{}";
      return joined("{ ", sorted, " }", [](const auto& entry) {
        return std::to_string(entry.first) + " = " + float_text(entry.second);
      });
    }
    std::string operator()(const std::vector<std::pair<int, int>>* value) const {
      return joined("[", *value, "]", pair_text);
    }
  };
  return std::visit(Visitor{}, field);
}

}  // namespace specdec
