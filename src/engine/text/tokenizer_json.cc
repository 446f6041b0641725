#include "engine/text/tokenizer_data.h"
#include "specdec/error.h"

namespace specdec {

TokenizerData read_tokenizer_json(const std::filesystem::path& folder) {
  throw Error(ErrorCode::unsupported, folder.string() + ": tokenizer.json cannot be read yet");
}

}  // namespace specdec
