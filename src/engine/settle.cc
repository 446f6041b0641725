#include "engine/settle.h"

#include <algorithm>
#include <exception>
#include <string>

#include "engine/emit.h"
#include "sampling/mutation.h"

namespace specdec {

void fail(Sequence& sequence, const Error& error) {
  sequence.output.finish_reason = FinishReason::error;
  sequence.output.error = error;
}

void begin_step(Sequence& sequence, const StepParts& parts) {
  sequence.output = Output{};
  sequence.output.id = sequence.id;
  sequence.output.seed = sequence.seed;
  const std::span<const BlockCopy> copies = sequence.reservation.copies();
  parts.target.pool().copy_blocks(parts.backend, copies, Stream{});
  if (const KvPoolStorage* draft = parts.drafts.draft_pool())
    draft->copy_blocks(parts.backend, copies, Stream{});
}

void emit(Sequence& sequence, const Tokenizer& tokenizer, int max_context) {
  if (sequence.output.finished()) return;
  try {
    emit_path(sequence, tokenizer, {.max_context = max_context});
  } catch (const Error& error) {
    fail(sequence, error);
  } catch (const std::exception& error) {
    fail(sequence, Error(ErrorCode::invalid_argument,
                         std::string("Request::on_token threw: ") + error.what()));
  }
}

void append_path(Sequence& sequence) {
  for (const OutputToken& token : sequence.path.tokens) {
    sequence.tokens.push_back(token.token);
    if (!(mutant_active("penalties_skip_accepted") && token.drafted))
      sequence.penalties.add_output(token.token);
  }
  sequence.stats.num_output_tokens += static_cast<int>(sequence.path.tokens.size());
}

void count_step(Sequence& sequence, int num_drafted, EngineStats& stats) {
  SpeculationStats delta;
  delta.num_spec_steps = 1;
  delta.num_output_tokens = static_cast<std::int64_t>(sequence.path.tokens.size());
  if (num_drafted > 0)
    delta.record_draft(num_drafted, std::max(0, static_cast<int>(sequence.path.nodes.size()) - 1));
  sequence.stats.speculation.merge(delta);
  stats.speculation.merge(delta);
}

void publish_prefix(Sequence& sequence, KvCacheManager& cache) {
  // The last, partly filled block as well when the request is over: a conversation's next turn
  // begins there.
  if (sequence.output.finished())
    cache.publish_all(sequence.kv, sequence.tokens);
  else
    cache.publish(sequence.kv, sequence.tokens);
}

}  // namespace specdec
