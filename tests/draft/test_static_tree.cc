#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "draft/static_tree.h"
#include "specdec/error.h"

using namespace specdec;

namespace {

StaticTree parse(const std::vector<std::string>& paths) { return StaticTree::parse(paths); }

std::string refusal(const std::vector<std::string>& paths) {
  try {
    parse(paths);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a static tree has parents before children and better siblings first") {
  const StaticTree tree = parse({"0.2", "3", "0", "0.2.0", "0.0"});
  const std::vector<std::vector<int>> expected = {
      // parent, rank, depth
      {-1, 0, 0}, {0, 0, 1}, {0, 3, 1}, {1, 0, 2}, {1, 2, 2}, {4, 0, 3}};
  REQUIRE(tree.nodes.size() == expected.size());
  for (std::size_t i = 0; i < expected.size(); ++i) {
    CAPTURE(i);
    CHECK(std::vector<int>{tree.nodes[i].parent, tree.nodes[i].rank, tree.nodes[i].depth} ==
          expected[i]);
  }
  CHECK(tree.nodes[0].children == std::vector<int>{1, 2});
  CHECK(tree.nodes[1].children == std::vector<int>{3, 4});
  CHECK(tree.num_nodes(1) == 2);
  CHECK(tree.num_nodes(2) == 4);
  CHECK(tree.num_nodes(64) == 5);
  CHECK_FALSE(tree.is_chain());
  CHECK(parse({"0", "0.0", "0.0.0"}).is_chain());
  CHECK(parse({}).nodes.size() == 1);
}

TEST_CASE("malformed paths of a static tree are refused with what is wrong") {
  for (const char* bad :
       {"", ".", "0.", ".0", "0..1", "a", "0,1", "-1", "64", "0 1", "99999999999"})
    CHECK(refusal({"0", bad}).find("\"" + std::string(bad) + "\" is no path") != std::string::npos);
  CHECK(refusal({"0", "1.0"}).find("\"1.0\" has no parent") != std::string::npos);
  CHECK(refusal({"1", "0", "1"}).find("\"1\" is there twice") != std::string::npos);
}
