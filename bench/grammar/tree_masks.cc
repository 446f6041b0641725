// Times the masks of whole draft trees over MaskBench: the nodes' matchers, forked from their
// parents', and then a mask for each; a tree on one thread, as the engine's MaskMaker does it, or
// each node on any thread. The trees are drawn with a second copy of
// the grammar, so the one that is timed meets every state for the first time in a tree.

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <random>
#include <string>
#include <vector>

#include "kernels/cpu/thread_pool.h"
#include "sampling/grammar/json_schema/json_value.h"
#include "specdec/error.h"
#include "specdec/grammar.h"
#include "tools/specdec_grammar/schema_case.h"

namespace {

using namespace specdec;
using Clock = std::chrono::steady_clock;

struct Node {
  int parent = -1;
  TokenId token = -1;
};

/// A tree below a place of a text: the text goes on along one branch, and all other tokens are
/// drawn evenly from those that the grammar allows, which a draft model's would hardly be.
class TreeMaker {
 public:
  TreeMaker(const Grammar& grammar, const GrammarVocabulary& vocabulary,
            std::span<const TokenId> text, int num_nodes)
      : text_(text), num_nodes_(num_nodes), bits_(vocabulary.mask_words()) {
    place_.emplace(grammar, vocabulary);
  }

  /// Below the place before text[at]; node 0 is the place.
  std::vector<Node> below(std::size_t at, std::mt19937_64& random) {
    std::vector<Node> nodes(1);
    std::vector<GrammarMatcher> matchers{*place_};
    int trunk = 0;  // the last node of the text's branch
    for (int tries = 0; std::ssize(nodes) < num_nodes_ && tries < 4 * num_nodes_; ++tries) {
      const bool on_trunk = random() % 2 == 0;
      const int parent = on_trunk ? trunk : static_cast<int>(random() % nodes.size());
      const bool goes_on = on_trunk && at < text_.size();
      const TokenId token = goes_on ? text_[at] : draw(matchers[parent], random);
      GrammarMatcher matcher = matchers[parent];
      if (token < 0 || !matcher.accept(token) || matcher.finished()) continue;
      if (goes_on) trunk = static_cast<int>(nodes.size()), ++at;
      nodes.push_back({parent, token});
      matchers.push_back(std::move(matcher));
    }
    return nodes;
  }

  bool take(TokenId token) { return place_->accept(token); }

 private:
  TokenId draw(const GrammarMatcher& matcher, std::mt19937_64& random) {
    matcher.fill_mask(bits_);
    std::vector<TokenId> allowed;
    for (std::size_t word = 0; word < bits_.size(); ++word)
      for (std::uint64_t rest = bits_[word]; rest != 0; rest &= rest - 1)
        allowed.push_back(static_cast<TokenId>(word * 64) + std::countr_zero(rest));
    return allowed.empty() ? -1 : allowed[random() % allowed.size()];
  }

  std::span<const TokenId> text_;
  int num_nodes_;
  std::vector<std::uint64_t> bits_;
  std::optional<GrammarMatcher> place_;
};

struct Times {
  std::vector<int> schemas;  // line of the file that a tree is from
  std::vector<double> forks_us;
  std::vector<double> masks_us;
  std::vector<double> both_us;
};

double microseconds(Clock::time_point begin, Clock::time_point end) {
  return std::chrono::duration<double, std::micro>(end - begin).count();
}

class TreeTimer {
 public:
  TreeTimer(int threads, bool node_by_node) : pool_(threads), node_by_node_(node_by_node) {}

  void time(const GrammarMatcher& place, const std::vector<Node>& nodes, Times& times) {
    std::vector<GrammarMatcher> matchers;
    matchers.reserve(nodes.size());
    std::vector<GrammarMask> masks(nodes.size());
    const Clock::time_point begin = Clock::now();
    matchers.push_back(place);
    for (std::size_t i = 1; i < nodes.size(); ++i) {
      matchers.push_back(matchers[nodes[i].parent]);
      matchers.back().accept(nodes[i].token);
    }
    const Clock::time_point forked = Clock::now();
    const auto make = [&](int i) {
      try {
        masks[i] = matchers[i].mask();
      } catch (const Error&) {  // a limit; the engine would fail the request
      }
    };
    const int count = static_cast<int>(nodes.size());
    pool_.parallel_for(node_by_node_ ? count : 1, [&](int task) {
      if (node_by_node_) return make(task);
      for (int i = 0; i < count; ++i) make(i);
    });
    const Clock::time_point end = Clock::now();
    times.forks_us.push_back(microseconds(begin, forked));
    times.masks_us.push_back(microseconds(forked, end));
    times.both_us.push_back(microseconds(begin, end));
  }

 private:
  kernels::ThreadPool pool_;
  bool node_by_node_;
};

/// The trees whose masks took longest, as [line of the file, microseconds].
nlohmann::json slowest_of(const Times& times, std::size_t count) {
  std::vector<std::pair<double, int>> trees;
  for (std::size_t i = 0; i < times.schemas.size(); ++i)
    trees.emplace_back(times.masks_us[i], times.schemas[i]);
  std::ranges::sort(trees, std::greater());
  nlohmann::json slowest = nlohmann::json::array();
  for (std::size_t i = 0; i < std::min(count, trees.size()); ++i)
    slowest.push_back({trees[i].second, trees[i].first});
  return slowest;
}

nlohmann::json summary_of(const std::vector<double>& times) {
  nlohmann::json summary;
  for (const auto& [name, share] : {std::pair("p50", 0.5), {"p90", 0.9}, {"p99", 0.99}})
    summary[name] = grammar_tool::percentile(times, share);
  return summary;
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("Times grammar masks of draft trees.", "bench_grammar");
  std::string file, path;
  int every = 10, num_nodes = 64, threads = 2, stride = 8;
  app.add_option("file", file, "MaskBench, JSON lines")->required();
  app.add_option("--tokenizer", path, "GGUF file, or folder with tokenizer.json")->required();
  app.add_option("--every", every, "Take one schema of so many");
  app.add_option("--stride", stride, "Tokens from one tree to the next");
  app.add_option("--nodes", num_nodes, "Of a tree");
  app.add_option("--threads", threads, "That make masks");
  bool node_by_node = false;
  app.add_flag("--node-by-node", node_by_node, "Any thread takes any node");
  std::size_t slowest = 0;
  app.add_option("--slowest", slowest, "How many of the slowest trees to name");
  CLI11_PARSE(app, argc, argv);

  const grammar_tool::Vocabulary source(path);
  const Tokenizer& tokenizer = source.tokenizer();
  const GrammarVocabulary vocabulary(tokenizer);
  TreeTimer timer(threads, node_by_node);
  Times times;
  std::mt19937_64 random(1);
  std::ifstream lines(file);
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    if (number++ % every != 0) continue;
    const grammar::JsonValue row = grammar::parse_json_value(line, "line");
    const std::string schema = write_json(*row.find("schema"));
    try {
      const Grammar grammar = Grammar::json_schema(schema), copy = Grammar::json_schema(schema);
      for (const grammar::JsonValue& test : row.find("tests")->items) {
        if (!test.find("valid")->boolean) continue;
        const std::vector<TokenId> text = tokenizer.encode(write_json(*test.find("data")), false);
        GrammarMatcher place(grammar, vocabulary);
        TreeMaker maker(copy, vocabulary, text, num_nodes);
        for (std::size_t at = 0; at < text.size(); ++at) {
          if (at % static_cast<std::size_t>(stride) == 0) {
            timer.time(place, maker.below(at, random), times);
            times.schemas.push_back(number);
          }
          if (!place.accept(text[at]) || !maker.take(text[at])) break;
        }
      }
    } catch (const Error&) {  // refused, or past a limit
    }
  }
  nlohmann::json report = {{"vocabulary", tokenizer.vocab_size()},
                           {"nodes", num_nodes},
                           {"threads", threads},
                           {"node_by_node", node_by_node},
                           {"trees", times.both_us.size()},
                           {"forks_us", summary_of(times.forks_us)},
                           {"masks_us", summary_of(times.masks_us)},
                           {"forks_and_masks_us", summary_of(times.both_us)}};
  if (slowest > 0) report["slowest"] = slowest_of(times, slowest);
  std::cout << report.dump(2) << '\n';
}
