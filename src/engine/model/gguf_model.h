#pragma once

#include <memory>

#include "engine/model/gguf.h"
#include "engine/model/weights.h"
#include "engine/text/tokenizer_data.h"

namespace specdec {

/// A GGUF file of architecture `llama` as a model. Throws as open_model does.
std::unique_ptr<ModelSource> open_gguf_model(std::shared_ptr<const MappedFile> file);

/// The tokenizer that a GGUF file's `tokenizer.*` metadata describes, for a model with `vocab_size`
/// embedding rows. Throws Error (invalid_model, unsupported) naming file and key.
TokenizerData read_gguf_tokenizer(const GgufFile& file, int vocab_size);

}  // namespace specdec
