#include "engine/model/gguf_model.h"
#include "engine/model/hf_folder.h"
#include "engine/model/weights.h"
#include "specdec/error.h"

namespace specdec {

std::unique_ptr<ModelSource> open_model(const std::filesystem::path& path) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (!std::filesystem::exists(status)) {
    throw Error(ErrorCode::io, path.string() +
                                   ": no such model; give a GGUF file or a Hugging Face folder" +
                                   (error ? " (" + error.message() + ")" : ""));
  }
  if (std::filesystem::is_directory(status)) return open_hf_folder(path);
  return open_gguf_model(MappedFile::open(path));
}

}  // namespace specdec
