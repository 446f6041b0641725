#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/config.h"

namespace specdec::tune {

/// One way to draft: what the tuner chooses between.
struct Setting {
  std::string draft_model = {};  ///< path; empty: none is loaded
  int exit_layer = 0;            ///< draft.early_exit.exit_layer; 0: the target does not draft
  std::string method = "none";
  std::string mode = "fixed";
  int length = 1;  ///< draft.length.num_speculative_tokens
  int topk = 1;
  int nodes = 16;  ///< draft.tree.num_draft_tokens
  std::string verify = "coupled";

  bool operator==(const Setting&) const = default;

  /// The method, and the layer after which it drafts where there is a choice: "early_exit at 8".
  std::string drafter() const;
  /// "suffix+eagle3, up to 8, tree 2x16": fits a table.
  std::string label() const;
  /// The configuration with these values.
  Config applied_to(const Config& config) const;
  /// Whether both have the same model, or layers, to draft with.
  bool shares_drafter(const Setting& other) const {
    return draft_model == other.draft_model && exit_layer == other.exit_layer;
  }
  /// Whether one engine serves both: method and length may change from request to request.
  bool shares_engine(const Setting& other) const;
};

/// Whether a method, or a part of a mixture, drafts with a model.
bool drafts_with_model(std::string_view method);

/// The exit layers worth a try where a configuration asks for `layer`, that one first; some may be
/// more than the target has. 0: early exit is not asked for, and 0 is the only one.
std::vector<int> exit_layers(int layer);

/// Every setting worth a try for an engine with these draft methods, one of which may draft with
/// `draft_model`. Under a temperature the rules against draft probabilities join in; the lossy one
/// never does. Exit layers are not set.
std::vector<Setting> search_space(std::span<const std::string> methods,
                                  const std::string& draft_model, bool sampled);

}  // namespace specdec::tune
