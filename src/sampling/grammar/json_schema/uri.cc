#include "sampling/grammar/json_schema/uri.h"

#include <cctype>
#include <optional>

namespace specdec::grammar {
namespace {

struct Uri {
  std::optional<std::string> scheme;
  std::optional<std::string> authority;
  std::string path;
  std::optional<std::string> query;
  std::optional<std::string> fragment;
};

bool is_scheme(std::string_view text) {
  if (text.empty() || std::isalpha(static_cast<unsigned char>(text[0])) == 0) return false;
  for (const char c : text) {
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '+' && c != '-' && c != '.') {
      return false;
    }
  }
  return true;
}

/// RFC 3986, appendix B.
Uri parse(std::string_view text) {
  Uri uri;
  const auto cut_from = [&text](char mark) -> std::optional<std::string> {
    const std::size_t at = text.find(mark);
    if (at == std::string_view::npos) return std::nullopt;
    std::string part(text.substr(at + 1));
    text = text.substr(0, at);
    return part;
  };
  uri.fragment = cut_from('#');
  uri.query = cut_from('?');
  const std::size_t colon = text.find(':');
  if (colon != std::string_view::npos && is_scheme(text.substr(0, colon))) {
    uri.scheme = std::string(text.substr(0, colon));
    text.remove_prefix(colon + 1);
  }
  if (text.starts_with("//")) {
    text.remove_prefix(2);
    const std::size_t slash = std::min(text.find('/'), text.size());
    uri.authority = std::string(text.substr(0, slash));
    text.remove_prefix(slash);
  }
  uri.path = std::string(text);
  return uri;
}

std::string write(const Uri& uri) {
  std::string text;
  if (uri.scheme.has_value()) text += *uri.scheme + ":";
  if (uri.authority.has_value()) text += "//" + *uri.authority;
  text += uri.path;
  if (uri.query.has_value()) text += "?" + *uri.query;
  if (uri.fragment.has_value()) text += "#" + *uri.fragment;
  return text;
}

/// RFC 3986, section 5.2.4.
std::string remove_dots(std::string_view path) {
  std::string result;
  const bool absolute = path.starts_with('/');
  while (!path.empty()) {
    const std::size_t slash = path.find('/', 1);
    std::string_view segment = path.substr(0, slash);  // with its leading slash, if it has one
    path = slash == std::string_view::npos ? std::string_view{} : path.substr(slash);
    const std::string_view name = segment.starts_with('/') ? segment.substr(1) : segment;
    if (name == "." || name == "..") {
      if (name == "..") {
        const std::size_t last = result.rfind('/');
        result.erase(last == std::string::npos ? 0 : last);
      }
      if (path.empty()) result += '/';
    } else {
      result += segment;
    }
  }
  if (!absolute && result.starts_with('/')) result.erase(0, 1);
  return result;
}

}  // namespace

std::string resolve_uri(std::string_view base_text, std::string_view reference) {
  const Uri base = parse(base_text);
  Uri target = parse(reference);
  if (target.scheme.has_value()) {
    if (target.path.starts_with('/')) target.path = remove_dots(target.path);
    return write(target);
  }
  target.scheme = base.scheme;
  if (target.authority.has_value()) {
    target.path = remove_dots(target.path);
    return write(target);
  }
  target.authority = base.authority;
  if (target.path.empty()) {
    target.path = base.path;
    if (!target.query.has_value()) target.query = base.query;
  } else if (target.path.starts_with('/')) {
    target.path = remove_dots(target.path);
  } else if (base.authority.has_value() && base.path.empty()) {
    target.path = remove_dots("/" + target.path);
  } else {
    const std::size_t slash = base.path.rfind('/');
    const std::string folder = slash == std::string::npos ? "" : base.path.substr(0, slash + 1);
    target.path = remove_dots(folder + target.path);
  }
  return write(target);
}

SplitUri split_fragment(std::string_view uri) {
  const std::size_t hash = uri.find('#');
  SplitUri result{std::string(uri.substr(0, hash)), ""};
  if (hash == std::string_view::npos) return result;
  const std::string_view encoded = uri.substr(hash + 1);
  const auto hex = [](char c) {
    const int lower = std::tolower(static_cast<unsigned char>(c));
    return lower <= '9' ? lower - '0' : lower - 'a' + 10;
  };
  for (std::size_t at = 0; at < encoded.size(); ++at) {
    if (encoded[at] == '%' && at + 2 < encoded.size() &&
        std::isxdigit(static_cast<unsigned char>(encoded[at + 1])) != 0 &&
        std::isxdigit(static_cast<unsigned char>(encoded[at + 2])) != 0) {
      result.fragment += static_cast<char>(hex(encoded[at + 1]) * 16 + hex(encoded[at + 2]));
      at += 2;
    } else {
      result.fragment += encoded[at];
    }
  }
  return result;
}

}  // namespace specdec::grammar
