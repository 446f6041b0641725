#pragma once

#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/draft_pacing.h"
#include "engine/sequence.h"
#include "specdec/config.h"
#include "specdec/drafter.h"

namespace specdec {

/// What a drafter is told of a sequence. `chain_only`: the acceptance rule takes no trees.
DraftContext context_of(const Sequence& sequence, bool chain_only);

/// The drafters that read nothing but tokens, the library's and the embedder's. One that throws or
/// breaks the rules of Drafter costs its sequences a draft, never a token. Belongs to the stepping
/// thread, but for knows() and names().
class HostDrafters {
 public:
  HostDrafters(const DraftConfig& config, int vocab_size);

  void add(std::unique_ptr<Drafter> drafter);
  bool knows(std::string_view name) const;
  std::vector<std::string> names() const;

  int size() const noexcept { return static_cast<int>(drafters_.size()); }
  std::string_view name(int index) const {
    return drafters_[static_cast<std::size_t>(index)].drafter->name();
  }
  /// Adds what drafter `index` proposes to the host_drafts of these sequences, as drafter
  /// index + 1.
  void propose(int index, std::span<Sequence* const> sequences, bool chain_only);
  /// Joins the host_drafts to the sequence's tree: equal paths become one, and what goes beyond the
  /// step's nodes is left out.
  static void graft(Sequence& sequence, const DraftPacing& pacing);
  /// Tells drafters what the target gave behind the nodes that they watch.
  void tell_watchers(const Sequence& sequence);
  /// The request is over: they may forget it.
  void finished(RequestId id);

 private:
  struct HostDrafter {
    std::unique_ptr<Drafter> drafter;
    bool complained = false;  // its first fault is logged as a warning, later ones at debug level
  };
  static void complain(HostDrafter& host, std::string_view fault);

  mutable std::mutex mutex_;  // guards additions against lookups from other threads
  std::vector<HostDrafter> drafters_;
  int vocab_size_;
};

}  // namespace specdec
