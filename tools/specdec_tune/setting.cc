#include "tools/specdec_tune/setting.h"

#include <algorithm>
#include <array>
#include <cmath>

namespace specdec::tune {
namespace {

/// How a method drafts: decides which lengths and trees are tried.
enum class Kind { text, window, model };

struct Method {
  std::string_view name;
  Kind kind;
};

/// A method that drafts with a model or a window needs its line here; any other copies text.
constexpr std::array kMethods = {
    Method{"draft_model", Kind::model}, Method{"eagle3", Kind::model},
    Method{"early_exit", Kind::model},  Method{"medusa", Kind::model},
    Method{"ngram", Kind::text},        Method{"suffix", Kind::text},
    Method{"lookahead", Kind::window},
};

Kind kind_of(std::string_view name) {
  const auto found =
      std::ranges::find_if(kMethods, [name](const Method& method) { return method.name == name; });
  return found == kMethods.end() ? Kind::text : found->kind;
}

struct Tree {
  int topk;
  int nodes;
};
constexpr std::array kTrees = {Tree{2, 8}, Tree{2, 16}, Tree{4, 16}};

}  // namespace

std::string Setting::drafter() const {
  return exit_layer > 0 && drafts_with_model(method) ? method + " at " + std::to_string(exit_layer)
                                                     : method;
}

std::string Setting::label() const {
  if (method == "none") return method;
  std::string text = drafter() + (mode == "adaptive" ? ", up to " : ", ") + std::to_string(length);
  if (topk > 1) text += ", tree " + std::to_string(topk) + "x" + std::to_string(nodes);
  if (verify != "coupled") text += ", " + verify;
  return text;
}

Config Setting::applied_to(const Config& config) const {
  Config applied = config;
  // What belongs to another draft model does not come along.
  if (draft_model != config.draft.model) applied.draft.vocabulary_list.clear();
  applied.draft.model = draft_model;
  applied.draft.early_exit.exit_layer = exit_layer;
  applied.draft.method = method;
  applied.draft.length.mode = mode;
  applied.draft.length.num_speculative_tokens = length;
  applied.draft.tree.topk = topk;
  applied.draft.tree.num_draft_tokens = nodes;
  applied.verify.method = verify;
  return applied;
}

bool Setting::shares_engine(const Setting& other) const {
  return shares_drafter(other) && mode == other.mode && topk == other.topk &&
         nodes == other.nodes && verify == other.verify;
}

bool drafts_with_model(std::string_view method) {
  const std::size_t plus = method.find('+');
  if (kind_of(method.substr(0, plus)) == Kind::model) return true;
  return plus != std::string_view::npos && drafts_with_model(method.substr(plus + 1));
}

std::vector<int> exit_layers(int layer) {
  std::vector<int> layers = {layer};
  for (const double share : {0.5, 0.75, 1.25, 1.5}) {
    const auto other = static_cast<int>(std::lround(share * layer));
    if (other > 0 && std::ranges::find(layers, other) == layers.end()) layers.push_back(other);
  }
  return layers;
}

std::vector<Setting> search_space(std::span<const std::string> methods,
                                  const std::string& draft_model, bool sampled) {
  std::vector<std::string> texts;
  std::vector<std::string> models;
  std::vector<std::string> windows;
  for (const std::string& name : methods) {
    if (name == "none") continue;
    const Kind kind = kind_of(name);
    (kind == Kind::text ? texts : kind == Kind::window ? windows : models).push_back(name);
  }

  std::vector<Setting> settings;
  const auto add = [&](const std::string& method, const char* mode, std::vector<int> lengths,
                       Tree tree = {1, 16}, const char* verify = "coupled") {
    for (const int length : lengths)
      settings.push_back({.draft_model = draft_model,
                          .method = method,
                          .mode = mode,
                          .length = length,
                          .topk = tree.topk,
                          .nodes = tree.nodes,
                          .verify = verify});
  };
  for (const std::string& text : texts) {
    add(text, "fixed", {2, 3, 4, 6, 8, 12});
    add(text, "adaptive", {8, 16});
  }
  // Alone: beside a draft model a window only costs.
  for (const std::string& window : windows) {
    add(window, "fixed", {6});
    add(window, "adaptive", {6});
  }
  for (const std::string& model : models) {
    add(model, "fixed", {1, 2, 3, 4, 5, 6, 8});
    add(model, "adaptive", {8});
    for (const Tree& tree : kTrees) add(model, "adaptive", {8}, tree);
    add(model, "fixed", {4}, kTrees[0]);
    if (sampled) {
      add(model, "fixed", {2, 4}, {1, 16}, "rejection");
      add(model, "fixed", {2, 4}, {1, 16}, "block");
      add(model, "fixed", {3}, kTrees[0], "traversal");
    }
    for (const std::string& text : texts) {
      const std::string mixture = text + "+" + model;
      add(mixture, "fixed", {3, 5});
      add(mixture, "adaptive", {5, 8, 12});
      for (const Tree& tree : kTrees) add(mixture, "adaptive", {8}, tree);
    }
  }
  return settings;
}

}  // namespace specdec::tune
