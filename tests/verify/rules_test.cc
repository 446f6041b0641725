#include <doctest/doctest.h>

#include <cmath>

#include "specdec/error.h"
#include "toy_model.h"
#include "verify/verify.h"

using namespace specdec;

namespace {

constexpr VerifyMethod kMethods[] = {VerifyMethod::coupled, VerifyMethod::rejection,
                                     VerifyMethod::block, VerifyMethod::traversal,
                                     VerifyMethod::typical};

void check_path(const AcceptedPath& path, const DraftTree& tree, const toy::Model& model) {
  REQUIRE(path.nodes.size() == path.tokens.size());
  REQUIRE_FALSE(path.nodes.empty());
  REQUIRE(path.nodes[0] == 0);
  toy::Prefix prefix;
  for (std::size_t i = 0; i < path.nodes.size(); ++i) {
    const bool last = i + 1 == path.nodes.size();
    REQUIRE(path.tokens[i].drafted == !last);
    if (!last) {
      REQUIRE(tree.parents[path.nodes[i + 1]] == path.nodes[i]);
      REQUIRE(tree.tokens[path.nodes[i + 1]] == path.tokens[i].token);
    }
    REQUIRE(model.target(prefix)[path.tokens[i].token] > 0);
    prefix.push_back(path.tokens[i].token);
  }
}

AcceptedPath run(const DraftTree& tree, const toy::Model& model, VerifyParams params) {
  toy::ToyRows rows(model, tree, params.seed, params.position);
  return verify(tree, rows, params);
}

bool same(const AcceptedPath& a, const AcceptedPath& b) {
  if (a.nodes != b.nodes) return false;
  for (std::size_t i = 0; i < a.tokens.size(); ++i) {
    if (a.tokens[i].token != b.tokens[i].token) return false;
  }
  return true;
}

}  // namespace

TEST_CASE("method names") {
  for (const VerifyMethod method : kMethods) {
    CHECK(parse_verify_method(to_string(method)) == method);
    CHECK(is_lossless(method) == (method != VerifyMethod::typical));
  }
  CHECK_FALSE(parse_verify_method("Coupled").has_value());
  CHECK_FALSE(parse_verify_method("").has_value());
  CHECK(wants_sampled_draft(VerifyMethod::rejection));
  CHECK_FALSE(wants_sampled_draft(VerifyMethod::coupled));
}

TEST_CASE("paths are well-formed and a function of their inputs alone") {
  for (const toy::Kind kind : toy::kKinds) {
    const toy::Model model{kind, 5, 1};
    for (const VerifyMethod method : kMethods) {
      for (std::uint64_t seed = 0; seed < 40; ++seed) {
        const toy::Shape shape =
            method == VerifyMethod::block ? toy::Shape{1, 1, 1} : toy::Shape{3, 2, 1};
        for (const DraftSampling sampling :
             {DraftSampling::deterministic, DraftSampling::without_replacement}) {
          const DraftTree tree = toy::draw_tree(model, shape, sampling, seed, 9);
          const VerifyParams params{.method = method, .seed = seed, .position = 9};
          const AcceptedPath path = run(tree, model, params);
          check_path(path, tree, model);
          run(tree, model, {.method = method, .seed = seed + 1, .position = 3});
          REQUIRE(same(run(tree, model, params), path));
        }
      }
    }
  }
}

TEST_CASE("traversal verification is block verification on a chain, path by path") {
  int longer = 0;
  for (const toy::Kind kind : toy::kKinds) {
    const toy::Model model{kind, 4, 2};
    for (std::uint64_t seed = 0; seed < 500; ++seed) {
      const DraftTree tree =
          toy::draw_tree(model, {1, 1, 1, 1}, DraftSampling::with_replacement, seed, 50);
      const AcceptedPath block =
          run(tree, model, {.method = VerifyMethod::block, .seed = seed, .position = 50});
      const AcceptedPath traversal =
          run(tree, model, {.method = VerifyMethod::traversal, .seed = seed, .position = 50});
      REQUIRE(same(block, traversal));
      longer += block.nodes.size() > 2;
    }
  }
  CHECK(longer > 500);
}

TEST_CASE("greedy requests walk the target's own tokens under every rule") {
  const toy::Model model{toy::Kind::random, 4, 3};
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const DraftTree tree =
        toy::draw_tree(model, {1, 1, 1}, DraftSampling::with_replacement, seed, 2);
    const AcceptedPath coupled =
        run(tree, model, {.method = VerifyMethod::coupled, .seed = seed, .position = 2});
    for (const VerifyMethod method : kMethods) {
      REQUIRE(
          same(run(tree, model, {.method = method, .seed = seed, .position = 2, .greedy = true}),
               coupled));
    }
  }
}

TEST_CASE("a tree without draft tokens is plain decoding") {
  const toy::Model model{toy::Kind::random, 4, 4};
  const DraftTree tree(3);
  for (const VerifyMethod method : kMethods) {
    const AcceptedPath path = run(tree, model, {.method = method, .seed = 5, .position = 6});
    CHECK(path.nodes == std::vector<std::int32_t>{0});
    REQUIRE(path.tokens.size() == 1);
    CHECK_FALSE(path.tokens[0].drafted);
  }
}

TEST_CASE("emitted tokens carry logprobs of the node they follow") {
  const toy::Model model{toy::Kind::near_equal, 4, 4};
  for (const VerifyMethod method :
       {VerifyMethod::rejection, VerifyMethod::block, VerifyMethod::traversal}) {
    const DraftTree tree = toy::draw_tree(model, {1, 1, 1}, DraftSampling::with_replacement, 1, 2);
    const AcceptedPath path = run(tree, model, {.method = method, .seed = 1, .position = 2});
    toy::Prefix prefix;
    for (const OutputToken& token : path.tokens) {
      CHECK(token.logprob == std::log(model.target(prefix)[token.token]));
      prefix.push_back(token.token);
    }
  }
}

TEST_CASE("typical acceptance takes the deepest run of typical tokens") {
  const toy::Model model{toy::Kind::random, 4, 5};
  DraftTree tree;
  const auto likely = [&](const toy::Prefix& prefix) {
    const toy::Dist& dist = model.target(prefix);
    return static_cast<TokenId>(std::max_element(dist.begin(), dist.end()) - dist.begin());
  };
  const TokenId first = likely({});
  tree.add(first, 0);
  tree.add((first + 1) % 4, 0);
  tree.add(likely({(first + 1) % 4}), 2);
  const VerifyParams open{.method = VerifyMethod::typical, .typical_epsilon = 0};
  CHECK(run(tree, model, open).nodes == std::vector<std::int32_t>{0, 2, 3});
  const VerifyParams shut{
      .method = VerifyMethod::typical, .typical_epsilon = 1, .typical_delta = 100};
  CHECK(run(tree, model, shut).nodes == std::vector<std::int32_t>{0});
  // Between: the threshold is min(epsilon, delta * exp(-entropy)) of the target at the parent.
  double entropy = 0;
  for (const float prob : model.target(toy::Prefix{})) entropy -= prob * std::log(double{prob});
  const double second = model.target(toy::Prefix{})[(first + 1) % 4];
  const auto delta = static_cast<float>(second * std::exp(entropy) * 1.001);
  CHECK(run(tree, model,
            {.method = VerifyMethod::typical, .typical_epsilon = 1, .typical_delta = delta})
            .nodes == std::vector<std::int32_t>{0, 1});
}

TEST_CASE("trees that a rule cannot take are errors") {
  const toy::Model model{toy::Kind::random, 4, 6};
  const auto code_of = [&](const DraftTree& tree, VerifyMethod method) {
    try {
      run(tree, model, {.method = method});
    } catch (const Error& error) {
      return error.code();
    }
    return ErrorCode::io;  // no error
  };
  DraftTree branching;
  branching.add(1, 0);
  branching.add(2, 0);
  CHECK(code_of(branching, VerifyMethod::block) == ErrorCode::invalid_argument);
  CHECK(code_of(branching, VerifyMethod::traversal) == ErrorCode::io);
  DraftTree sampled = branching;
  sampled.sampling = DraftSampling::with_replacement;
  for (const VerifyMethod method : {VerifyMethod::rejection, VerifyMethod::traversal}) {
    CHECK(code_of(sampled, method) == ErrorCode::invalid_argument);
  }
  sampled.draft_probs = {{0.5f, 0.5f, 0.0f}};
  CHECK(code_of(sampled, VerifyMethod::rejection) == ErrorCode::invalid_argument);
  sampled.draft_probs = {{0.0f, 0.5f, 0.5f, 0.0f}};
  CHECK(code_of(sampled, VerifyMethod::rejection) == ErrorCode::io);
  sampled.draft_probs = {{0.5f, 0.5f, 0.0f, 0.0f}};  // token 2 was never drawn from that
  CHECK(code_of(sampled, VerifyMethod::rejection) == ErrorCode::invalid_argument);
  DraftTree outside;
  outside.add(4, 0);
  CHECK(code_of(outside, VerifyMethod::traversal) == ErrorCode::invalid_argument);
  CHECK(code_of(outside, VerifyMethod::coupled) == ErrorCode::io);  // never matches
}

TEST_CASE("draft tree queries") {
  DraftTree tree(7);
  CHECK(tree.is_chain());
  CHECK(tree.max_depth() == 0);
  const int a = tree.add(1, 0);
  const int b = tree.add(2, a);
  CHECK(tree.is_chain());
  const int c = tree.add(3, 0);
  const int d = tree.add(1, b);
  CHECK_FALSE(tree.is_chain());
  CHECK(tree.max_depth() == 3);
  CHECK(tree.find_child(0, 1) == a);
  CHECK(tree.find_child(0, 3) == c);
  CHECK(tree.find_child(0, 2) == -1);
  CHECK(tree.find_child(d, 1) == -1);
  CHECK(tree.path_to(d) == std::vector<std::int32_t>{0, a, b, d});
  CHECK(tree.path_to(0) == std::vector<std::int32_t>{0});
  CHECK(tree.num_draft_tokens() == 4);
}
