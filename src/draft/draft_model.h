#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "specdec/types.h"

namespace specdec {

/// One token to run through the draft model.
struct DraftRow {
  TokenId token = 0;
  int position = 0;
  std::vector<std::int32_t>
      path_slots;  // slots of positions context_len..position; empty: slot = position
  bool wants_logits = false;
};

/// The rows of one sequence in a draft forward.
struct DraftRows {
  int sequence = 0;     // index into the sequences that the drafter was given
  int context_len = 0;  // draft KV in place
  std::vector<DraftRow> rows;
};

/// A draft model as the drafter sees it: one ragged forward that also appends to the draft's KV
/// slices.
class DraftModel {
 public:
  virtual ~DraftModel() = default;

  virtual int vocab_size() const = 0;  // the target's
  /// The target's tokens that logits are of; empty: all of them.
  virtual std::span<const TokenId> tokens() const { return {}; }
  virtual int max_rows() const = 0;
  virtual int max_position() const = 0;
  /// Logits [rows that want them, tokens() or all of the vocabulary], in order; valid until the
  /// next call.
  virtual std::span<const float> forward(std::span<const DraftRows> batch) = 0;
};

}  // namespace specdec
