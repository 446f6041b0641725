#pragma once

#include <memory>
#include <vector>

#include "engine/draft_stage.h"
#include "engine/model/eagle_source.h"
#include "engine/model/medusa_source.h"
#include "engine/model_memory.h"
#include "specdec/config.h"
#include "specdec/tokenizer.h"

namespace specdec {

/// The file of draft.model, opened and checked against the target; at most one of the three is set.
struct DraftSource {
  std::unique_ptr<ModelSource> model;
  std::unique_ptr<EagleSource> head;
  std::unique_ptr<MedusaSource> medusa;
  std::vector<TokenId> tokens = {};      // that the model's head is to know; empty: all
  std::unique_ptr<Tokenizer> tokenizer;  // the model's, when its text is to be translated

  /// The shape of what has KV of its own; null: nothing has.
  const ModelConfig* config() const {
    return model != nullptr ? &model->config() : head != nullptr ? &head->layer : nullptr;
  }

  struct Parts {
    Backend& backend;
    const ModelSource& target_source;
    Transformer& target;
    const Tokenizer& tokenizer;
    const Config& config;
    CacheShape shape;
  };
  /// Loads what is there and makes it the drafter of `drafts`. Throws Error.
  void install(DraftStage& drafts, const Parts& parts);
};

/// Opens what draft.model names; early exits of the target need no file. Throws
/// Error(invalid_config, invalid_model, unsupported, io).
DraftSource open_draft(const Config& config, const ModelConfig& target, const Tokenizer& tokenizer);

}  // namespace specdec
