#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "specdec/config.h"

namespace specdec::tune {

/// One way to draft: what the tuner chooses between.
struct Setting {
  std::string draft_model;  ///< path; empty: none is loaded
  std::string method = "none";
  std::string mode = "fixed";
  int length = 1;  ///< draft.length.num_speculative_tokens
  int topk = 1;
  int nodes = 16;  ///< draft.tree.num_draft_tokens
  std::string verify = "coupled";

  bool operator==(const Setting&) const = default;

  /// "suffix+eagle3, up to 8, tree 2x16": fits a table.
  std::string label() const;
  /// The configuration with these values.
  Config applied_to(const Config& config) const;
  /// Whether one engine serves both: method and length may change from request to request.
  bool shares_engine(const Setting& other) const;
};

/// Whether a method, or a part of a mixture, drafts with a model.
bool drafts_with_model(std::string_view method);

/// Every setting worth a try for an engine with these draft methods, one of which may draft with
/// `draft_model`. Under a temperature the rules against draft probabilities join in; the lossy one
/// never does.
std::vector<Setting> search_space(std::span<const std::string> methods,
                                  const std::string& draft_model, bool sampled);

}  // namespace specdec::tune
