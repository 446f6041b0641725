#pragma once

#include <span>

#include "sampling/sampler.h"

namespace specdec {

/// Whether penalties, bias or bans change any logit of this row.
bool has_edits(const RowContext& context);

/// Applies repetition, frequency and presence penalties, then logit_bias, then the ban on end
/// tokens while fewer than min_tokens are out. Counts are those of the committed tokens plus the
/// path. Ids outside the row are ignored (a draft model may have the smaller vocabulary).
void apply_edits(const RowContext& context, std::span<float> scores);

}  // namespace specdec
