#pragma once

#include <list>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "draft/suffix_index.h"
#include "specdec/config.h"
#include "specdec/drafter.h"

namespace specdec {

/// SuffixDecoding (arXiv 2411.04975): continues the end of a sequence as it went on before, in the
/// sequence itself or in outputs that have ended under the same cache_salt. Where it went on in
/// several ways the draft branches, by the frequency of each. Costs no model pass.
class SuffixDrafter final : public Drafter {
 public:
  explicit SuffixDrafter(const SuffixConfig& options) : options_(options) {}

  std::string_view name() const noexcept override { return "suffix"; }
  void propose(std::span<const DraftContext> contexts, std::span<DraftProposal> proposals) override;
  /// Its output is now there for others to draw on.
  void finished(RequestId id) override;

  /// Bytes that the outputs of ended requests take.
  std::size_t cached_bytes() const noexcept;

 private:
  /// Outputs of one salt; a full segment gets no more, the least recently used goes first.
  struct Segment {
    std::string salt;
    SuffixIndex index;
  };
  struct Request {
    std::string salt;
    int num_prompt_tokens = 0;
    SuffixIndex index;  // prompt and output
  };

  void remember(const Request& request);

  SuffixConfig options_;
  std::unordered_map<RequestId, Request> requests_;
  std::list<Segment> segments_;  // the most recently used first
};

/// One index's best draft for a context.
struct SuffixDraft {
  DraftProposal proposal;
  double score = 0;  // expected accepted tokens: the sum of the nodes' path probabilities
};

/// For every length of match that occurs: the tree of what followed those places, grown best path
/// first to at most max_spec_factor * match + max_spec_offset tokens and `max_nodes`. Returns the
/// one of the highest score; `chain`: without branches.
SuffixDraft suffix_draft(const SuffixIndex& index, std::span<const TokenId> context, int max_depth,
                         int max_nodes, bool chain, const SuffixConfig& options);

}  // namespace specdec
