#pragma once

#include <string>

#include "specdec/engine.h"
#include "tools/cli/terminal.h"

namespace specdec::chat {

/// A draft tree as lines of text: one node a line, children below their parent; accepted nodes are
/// marked, and the bonus token stands below the last of them.
std::string draw_tree(const TreeSnapshot& tree, const Tokenizer& tokenizer,
                      const cli::Painter& paint);

/// An answer's text with the accepted draft tokens in one colour and the target's own in another;
/// without colours, accepted draft tokens stand in [brackets].
std::string mark_accepted(std::span<const OutputToken> tokens, const Tokenizer& tokenizer,
                          const cli::Painter& paint);

}  // namespace specdec::chat
