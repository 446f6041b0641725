#include "engine/text/utf8_stream.h"

#include "engine/text/utf8.h"

namespace specdec {

namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

/// Bytes that `lead` announces: 1 for ASCII and for bytes that cannot lead.
std::size_t announced_length(unsigned char lead) {
  if (lead < 0xC2 || lead > 0xF4) return 1;
  return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

/// Length of the longest prefix of `text` that could still begin a character (the "maximal subpart"
/// of Unicode 3.9).
std::size_t possible_prefix(std::string_view text) {
  const std::size_t announced = announced_length(static_cast<unsigned char>(text.front()));
  std::size_t length = 1;
  for (; length < announced && length < text.size(); ++length) {
    // Complete the prefix with every kind of continuation; if none is well-formed, the byte at
    // `length` breaks it.
    bool possible = false;
    for (const char filler : {'\x80', '\x90', '\xA0', '\xBF'}) {
      std::string whole(text.substr(0, length + 1));
      while (whole.size() < announced) whole.push_back(filler);
      possible = possible || utf8_sequence_length(whole) == announced;
    }
    if (!possible) break;
  }
  return length;
}

}  // namespace

void Utf8Stream::feed(std::string_view bytes, std::string& out) {
  pending_.append(bytes);
  std::string_view rest = pending_;
  while (!rest.empty()) {
    if (const std::size_t length = utf8_sequence_length(rest); length > 0) {
      out.append(rest.substr(0, length));
      rest.remove_prefix(length);
      continue;
    }
    const std::size_t prefix = possible_prefix(rest);
    const bool unfinished = prefix == rest.size() &&
                            prefix < announced_length(static_cast<unsigned char>(rest.front()));
    if (unfinished) break;
    out.append(kReplacement);
    rest.remove_prefix(prefix);
  }
  pending_.erase(0, pending_.size() - rest.size());
}

void Utf8Stream::flush(std::string& out) {
  if (!pending_.empty()) out.append(kReplacement);
  pending_.clear();
}

}  // namespace specdec
