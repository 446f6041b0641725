#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "specdec/export.h"
#include "specdec/sampling_options.h"
#include "specdec/types.h"

namespace specdec {

/// One sequence that wants a draft.
struct DraftContext {
  RequestId id = 0;
  std::span<const TokenId>
      tokens;  ///< prompt and output so far; never empty; valid during the call
  int num_prompt_tokens = 0;
  int max_depth = 0;        ///< longest path below the root, >= 1
  int max_nodes = 0;        ///< most draft tokens in the tree, >= max_depth
  bool chain_only = false;  ///< the acceptance rule takes no branches
  const SamplingOptions* sampling = nullptr;
  std::string_view cache_salt = {};  ///< what is learnt from one salt is kept from the others
};

/// A drafter's answer for one sequence: a tree below the last committed token. Empty = plain
/// decoding this step.
class DraftProposal {
 public:
  static constexpr int kRoot = -1;

  /// Adds `token` below `parent` (kRoot or an index that add() returned) and returns its index.
  /// `confidence` in (0, 1): how likely the drafter thinks it after its parent. It need not be
  /// right, only comparable with itself: the engine learns what it is worth, and mixed and adaptive
  /// drafts are cut by it.
  int add(TokenId token, int parent, float confidence = 0.5f) {
    tokens_.push_back(token);
    parents_.push_back(parent);
    confidences_.push_back(confidence);
    return static_cast<int>(tokens_.size()) - 1;
  }
  /// Adds a token below the one added last: a chain.
  int append(TokenId token, float confidence = 0.5f) {
    return add(token, static_cast<int>(tokens_.size()) - 1, confidence);
  }

  /// Asks for the token that the target gives behind this node, accepted or not: see
  /// Drafter::watched(). With adaptive lengths the watched nodes of a proposal are verified
  /// together, as long as what their drafter brings is worth all of their rows.
  void watch(int node) { watched_.push_back(node); }

  std::span<const TokenId> tokens() const noexcept { return tokens_; }
  std::span<const int> parents() const noexcept { return parents_; }
  std::span<const float> confidences() const noexcept { return confidences_; }
  std::span<const int> watched() const noexcept { return watched_; }
  void clear() noexcept {
    tokens_.clear();
    parents_.clear();
    confidences_.clear();
    watched_.clear();
  }

 private:
  std::vector<TokenId> tokens_;
  std::vector<int> parents_;
  std::vector<float> confidences_;
  std::vector<int> watched_;
};

/// A source of draft tokens that runs on the host. Derive from it to speculate with your own
/// method; register it with Engine::add_drafter and name it in `draft.method` or
/// SpeculationOptions::method. A bad draft costs time, never a wrong token. Called on the stepping
/// thread only. An exception, an out-of-range token or parent, or a draft past its limits makes the
/// step decode plainly and is logged.
class SPECDEC_API Drafter {
 public:
  static constexpr TokenId kNoAnswer = -1;

  virtual ~Drafter() = default;

  virtual std::string_view name() const noexcept = 0;
  /// Fills proposals[i], empty on entry, for contexts[i]; both spans have the same length. One call
  /// per step for all sequences, so that a drafter with a model can run one batch.
  virtual void propose(std::span<const DraftContext> contexts,
                       std::span<DraftProposal> proposals) = 0;
  /// What the target gives behind the nodes that the latest proposal for this request watched, in
  /// that order: the token that plain decoding would emit there. kNoAnswer: the node was left out
  /// (a grammar, no room, it did not pay), or nothing may follow it. Does not come where the
  /// proposal was refused, the step failed or the request ended.
  virtual void watched(RequestId /*id*/, std::span<const TokenId> /*answers*/) {}
  /// The request has ended: forget what is kept under its id.
  virtual void finished(RequestId /*id*/) {}
};

}  // namespace specdec
