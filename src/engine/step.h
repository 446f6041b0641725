#pragma once

#include <memory>
#include <span>
#include <vector>

#include "engine/backend/backend.h"
#include "engine/cache/kv_cache_manager.h"
#include "engine/draft_stage.h"
#include "engine/forced_text.h"
#include "engine/mask_maker.h"
#include "engine/model/transformer.h"
#include "engine/sequence.h"
#include "sampling/sampler.h"
#include "specdec/stats.h"
#include "verify/verify.h"

namespace specdec {

/// What a step works with. Everything outlives it.
struct StepParts {
  const Config& config;
  Backend& backend;
  Transformer& target;
  DraftStage& drafts;
  KvCacheManager& cache;
  const Tokenizer& tokenizer;
  int max_context = 0;
};

class StepSampler;

/// One step of decoding over a ragged batch. Nothing flows back: each stage reads what the stages
/// before it left in the sequences.
class Step {
 public:
  explicit Step(const StepParts& parts);
  ~Step();

  /// Advances every sequence. Afterwards sequence.output holds what it emitted; finish_reason is
  /// set for the ones that ended. A fault of one sequence (its callback, its logits) ends that
  /// sequence alone.
  void run(std::span<Sequence* const> batch, EngineStats& stats);

 private:
  void draft_forced(std::span<Sequence* const> batch);
  MaskMaker::Due constrain(std::span<Sequence* const> batch, EngineStats& stats);
  void forward(std::span<Sequence* const> batch);
  void sample_and_accept(std::span<Sequence* const> batch);
  void commit(Sequence& sequence);
  void publish(Sequence& sequence, EngineStats& stats);

  StepParts parts_;
  VerifyParams verify_;
  ForcedText forced_text_;
  MaskMaker masks_;
  ForwardBatch batch_;
  std::vector<std::int32_t> states_;  // [rows of batch_] as EarlyExitAdapter::verify() takes them
  std::unique_ptr<StepSampler> device_sampler_;  // null: the host draws
  bool draws_on_device_ = false;                 // this step's tokens
  std::span<const float> logits_;                // [outputs of this step, vocab], backend memory
  std::span<const float> host_logits_;           // the same for the host, where it draws
  std::vector<RowSampler> samplers_;             // one per thread
};

}  // namespace specdec
