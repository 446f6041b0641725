#pragma once

#include "engine/sequence.h"
#include "specdec/tokenizer.h"

namespace specdec {

struct EmitLimits {
  int max_context = 0;  // longest sequence, prompt and output together
};

/// Adds sequence.path to sequence.output token by token, exactly as plain decoding would have
/// met them: text, stop strings, stop tokens, max_tokens and the callback. Where one of them ends
/// the request the path is cut after that token, so that neither KV nor counters hold anything
/// beyond it. Sets output.finish_reason.
void emit_path(Sequence& sequence, const Tokenizer& tokenizer, const EmitLimits& limits);

}  // namespace specdec
