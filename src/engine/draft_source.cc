#include "engine/draft_source.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "engine/model/token_list.h"
#include "specdec/error.h"

namespace specdec {

namespace {

constexpr const char* kOtherVocabulary =
    "use a draft model made for this target, or set draft.vocabulary = \"translate\"";

/// The drafter must speak the target's tokens: an id means the same in both.
void require_same_vocabulary(const Tokenizer& target, const Tokenizer& draft,
                             const std::string& draft_path) {
  const int common = std::min(target.vocab_size(), draft.vocab_size());
  for (TokenId id = 0; id < common; ++id) {
    if (target.token_bytes(id, true) == draft.token_bytes(id, true)) continue;
    throw Error(ErrorCode::invalid_config,
                draft_path + ": its vocabulary is not the target's: token " + std::to_string(id) +
                    " is \"" + std::string(draft.token_bytes(id, true)) + "\", the target has \"" +
                    std::string(target.token_bytes(id, true)) + "\"; " + kOtherVocabulary);
  }
  if (target.vocab_size() != draft.vocab_size())
    throw Error(ErrorCode::invalid_config,
                draft_path + ": its vocabulary has " + std::to_string(draft.vocab_size()) +
                    " tokens, the target's " + std::to_string(target.vocab_size()) + "; " +
                    kOtherVocabulary);
}

void check_exit_layer(const Config& config, const ModelConfig& target) {
  const int layer = config.draft.early_exit.exit_layer;
  if (layer >= target.num_layers)
    throw Error(ErrorCode::invalid_config,
                "draft.early_exit.exit_layer is " + std::to_string(layer) + ", and " +
                    config.target.model + " has " + std::to_string(target.num_layers) +
                    " layers: a draft must leave some out; give 1 to " +
                    std::to_string(target.num_layers - 1));
}

/// What draft.model holds: the method that drafts with it, and its name in messages.
struct DraftKind {
  std::string_view method;
  std::string_view what;
};
constexpr std::array kDraftKinds = {DraftKind{"draft_model", "a language model"},
                                    DraftKind{"eagle3", "an EAGLE-3 head"},
                                    DraftKind{"medusa", "a folder of Medusa heads"}};

const DraftKind& kind_of(const std::string& path) {
  return kDraftKinds[is_eagle_head(path) ? 1 : is_medusa(path) ? 2 : 0];
}

void check_draft_kind(const Config& config, const DraftKind& kind) {
  const std::string& path = config.draft.model;
  for (const DraftKind& other : kDraftKinds) {
    const std::string method(other.method);
    if (other.method == kind.method ||
        ("+" + config.draft.method + "+").find("+" + method + "+") == std::string::npos)
      continue;
    throw Error(ErrorCode::invalid_config,
                path + " is " + std::string(kind.what) + ", and draft.method is \"" + method +
                    "\": set draft.method = \"" + std::string(kind.method) + "\"");
  }
  if (!config.draft.vocabulary_list.empty() && kind.method != "draft_model")
    throw Error(ErrorCode::invalid_config, "draft.vocabulary_list is for draft models, and " +
                                               path + " is " + std::string(kind.what) +
                                               ": leave it out");
}

HeadWeights head_weights(const std::string& type) {
  if (type == "file") return HeadWeights::as_stored;
  return type == "q4_1" ? HeadWeights::q4_1 : HeadWeights::q8_0;
}

}  // namespace

DraftSource open_draft(const Config& config, const ModelConfig& target,
                       const Tokenizer& tokenizer) {
  check_exit_layer(config, target);
  DraftSource source;
  const std::string& path = config.draft.model;
  if (path.empty()) return source;
  const DraftKind& kind = kind_of(path);
  check_draft_kind(config, kind);
  const HeadWeights weights = head_weights(config.draft.weight_type);
  if (kind.method == "eagle3") {
    source.head = open_eagle_head(path, target, weights);
    return source;
  }
  if (kind.method == "medusa") {
    source.medusa = open_medusa(path, target, weights);
    return source;
  }
  const std::string& list = config.draft.vocabulary_list;
  source.model = open_model(path);
  if (config.draft.vocabulary == "translate") {
    if (!list.empty())
      throw Error(ErrorCode::invalid_config,
                  "draft.vocabulary_list names the target's tokens, and " + path +
                      " is translated from tokens of its own: leave out one of the two");
    source.tokenizer = source.model->load_tokenizer();
    return source;
  }
  require_same_vocabulary(tokenizer, *source.model->load_tokenizer(), path);
  if (source.model->config().vocab_size != target.vocab_size)
    throw Error(ErrorCode::invalid_config,
                path + ": its head has " + std::to_string(source.model->config().vocab_size) +
                    " rows, the target's " + std::to_string(target.vocab_size) +
                    "; use a draft model made for this target");
  if (!list.empty()) source.tokens = read_token_list(list, target.vocab_size);
  return source;
}

void DraftSource::install(DraftStage& drafts, const Parts& parts) {
  if (model && tokenizer)
    drafts.set_model(std::make_unique<TranslatedDrafter>(
        parts.backend,
        make_transformer(parts.backend, *model, parts.config, parts.shape.num_blocks),
        std::move(tokenizer), parts.tokenizer, cache_options(parts.config, parts.shape),
        parts.shape.max_context, parts.config.draft.length.min_confidence));
  else if (model)
    drafts.set_model(
        make_transformer(parts.backend, *model, parts.config, parts.shape.num_blocks, tokens));
  if (head)
    drafts.set_model(std::make_unique<EagleHead>(parts.backend, *head, parts.target.embedding(),
                                                 make_pool(parts.backend, head->layer, parts.config,
                                                           parts.shape.num_blocks),
                                                 parts.config.scheduler.max_num_batched_tokens),
                     parts.target);
  if (medusa)
    drafts.set_model(
        std::make_unique<MedusaHeads>(parts.backend, *medusa, parts.target_source.config(),
                                      parts.target_source.output_norm()),
        parts.target);
  if (parts.config.draft.early_exit.exit_layer > 0)
    drafts.set_early_exit(parts.target, parts.config.draft.early_exit.exit_layer);
}

}  // namespace specdec
