#pragma once

#include <string>
#include <string_view>

namespace specdec::grammar {

/// `reference` relative to `base`, as RFC 3986 section 5.2 resolves it. Nothing is validated.
std::string resolve_uri(std::string_view base, std::string_view reference);

struct SplitUri {
  std::string resource;  ///< without '#'
  std::string fragment;  ///< percent-decoded
};
SplitUri split_fragment(std::string_view uri);

}  // namespace specdec::grammar
