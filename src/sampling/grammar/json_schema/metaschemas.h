#pragma once

#include <optional>
#include <string_view>

namespace specdec::grammar {

/// The text of a metaschema or vocabulary of drafts 4 to 2020-12, by its URI.
std::optional<std::string_view> find_metaschema(std::string_view uri);

}  // namespace specdec::grammar
