#include "draft/static_tree.h"

#include <algorithm>
#include <charconv>
#include <map>

#include "specdec/error.h"

namespace specdec {

namespace {

constexpr int kMostRanks = 64;

[[noreturn]] void fail(const std::string& path, const std::string& what) {
  throw Error(ErrorCode::invalid_config, "draft.tree.choices: \"" + path + "\" " + what);
}

std::vector<int> parse_path(const std::string& path) {
  std::vector<int> ranks;
  const char* at = path.data();
  const char* const end = at + path.size();
  for (;; ++at) {
    int rank = 0;
    const auto [next, error] = std::from_chars(at, end, rank);
    if (error != std::errc() || rank < 0 || rank >= kMostRanks || (next != end && *next != '.'))
      fail(path, "is no path of ranks from 0 to " + std::to_string(kMostRanks - 1) +
                     " with dots between them, such as \"0.2\"");
    ranks.push_back(rank);
    at = next;
    if (at == end) return ranks;
  }
}

}  // namespace

StaticTree StaticTree::parse(std::span<const std::string> paths) {
  // By length, then in order of ranks: parents come before children, better siblings first.
  std::map<std::pair<std::size_t, std::vector<int>>, const std::string*> sorted;
  for (const std::string& path : paths) {
    std::vector<int> ranks = parse_path(path);
    const std::size_t depth = ranks.size();
    if (!sorted.try_emplace({depth, std::move(ranks)}, &path).second) fail(path, "is there twice");
  }
  StaticTree tree;
  std::map<std::vector<int>, int> known = {{{}, 0}};
  for (const auto& [key, path] : sorted) {
    std::vector<int> above = key.second;
    above.pop_back();
    const auto parent = known.find(above);
    if (parent == known.end()) fail(*path, "has no parent: list the path without its last rank");
    const auto index = static_cast<int>(tree.nodes.size());
    tree.nodes.push_back({.parent = parent->second,
                          .rank = key.second.back(),
                          .depth = static_cast<int>(key.first)});
    tree.nodes[static_cast<std::size_t>(parent->second)].children.push_back(index);
    known.emplace(key.second, index);
  }
  return tree;
}

int StaticTree::num_nodes(int depth) const noexcept {
  return static_cast<int>(std::ranges::count_if(
             nodes, [depth](const Node& node) { return node.depth <= depth; })) -
         1;
}

bool StaticTree::is_chain() const noexcept {
  return std::ranges::all_of(nodes, [](const Node& node) { return node.children.size() <= 1; });
}

}  // namespace specdec
