#include "examples/speculative_chat/tree_view.h"

#include <algorithm>
#include <string>
#include <vector>

namespace specdec::chat {
namespace {

using cli::Style;

class TreePainter {
 public:
  TreePainter(const TreeSnapshot& tree, const Tokenizer& tokenizer, const cli::Painter& paint)
      : tree_(tree), tokenizer_(tokenizer), paint_(paint), children_(tree.tokens.size()) {
    for (std::size_t node = 1; node < tree.tokens.size(); ++node)
      children_[static_cast<std::size_t>(tree.parents[node])].push_back(static_cast<int>(node));
    accepted_.resize(tree.tokens.size(), false);
    for (const int node : tree.accepted_path) accepted_[static_cast<std::size_t>(node)] = true;
  }

  std::string draw() {
    out_ = paint_(Style::dim, "root ") + text(tree_.tokens[0]) + '\n';
    below(0, "");
    return out_;
  }

 private:
  std::string text(TokenId token) const {
    return cli::quoted(tokenizer_.token_bytes(token, /*special=*/true));
  }

  // Depth-first. A draft is at most some dozens of levels deep, so recursion is safe.
  void below(int node, const std::string& indent) {
    const std::vector<int>& children = children_[static_cast<std::size_t>(node)];
    const bool last_accepted =
        tree_.accepted_path.empty() ? node == 0 : tree_.accepted_path.back() == node;
    const bool bonus = last_accepted && tree_.bonus_token >= 0;
    for (std::size_t i = 0; i < children.size(); ++i) {
      const int child = children[i];
      const bool last = i + 1 == children.size() && !bonus;
      const TokenId token = tree_.tokens[static_cast<std::size_t>(child)];
      const bool accepted = accepted_[static_cast<std::size_t>(child)];
      out_ += indent + (last ? "└─" : "├─");
      out_ += accepted ? paint_(Style::green, "✔ " + text(token))
                       : paint_(Style::dim, "✘ " + text(token));
      out_ += '\n';
      below(child, indent + (last ? "  " : "│ "));
    }
    if (bonus)
      out_ +=
          indent + "└─" + paint_(Style::yellow, "★ " + text(tree_.bonus_token) + " (bonus)") + '\n';
  }

  const TreeSnapshot& tree_;
  const Tokenizer& tokenizer_;
  const cli::Painter& paint_;
  std::vector<std::vector<int>> children_;
  std::vector<bool> accepted_;
  std::string out_;
};

}  // namespace

std::string draw_tree(const TreeSnapshot& tree, const Tokenizer& tokenizer,
                      const cli::Painter& paint) {
  if (tree.tokens.empty()) return {};
  return TreePainter(tree, tokenizer, paint).draw();
}

std::string mark_accepted(std::span<const OutputToken> tokens, const Tokenizer& tokenizer,
                          const cli::Painter& paint) {
  std::string out;
  std::string bytes;  // of a run of tokens of one kind; never cut inside a character
  bool run_is_draft = false;
  const auto flush = [&] {
    const std::string shown = cli::printable(bytes);
    if (paint.colour())
      out += paint(run_is_draft ? Style::green : Style::yellow, shown);
    else
      out += run_is_draft && !shown.empty() ? '[' + shown + ']' : shown;
    bytes.clear();
  };
  for (const OutputToken& token : tokens) {
    if (token.drafted != run_is_draft && cli::whole_utf8(bytes) == bytes.size()) {
      flush();
      run_is_draft = token.drafted;
    }
    bytes += tokenizer.token_bytes(token.token);
  }
  flush();
  return out;
}

}  // namespace specdec::chat
