#pragma once

#include <memory>
#include <string>

#include "engine/model/gguf.h"
#include "engine/model/gguf_model.h"
#include "engine/text/tokenizer_data.h"

namespace specdec {

/// The tokenizer of the draft model in the repository; it is the target's too.
inline TokenizerData smollm2_data() {
  const std::string path = SPECDEC_SOURCE_DIR "/models/smollm2-135m-draft.Q8_0.gguf";
  return read_gguf_tokenizer(GgufFile(MappedFile::open(path)), 49152);
}

}  // namespace specdec
