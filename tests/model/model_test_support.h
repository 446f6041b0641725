#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/mapped_file.h"
#include "engine/model/weights.h"
#include "specdec/error.h"
#include "support/model_writer.h"

namespace specdec::testing {

/// A folder of its own under the system's temporary folder, removed at the end.
class TemporaryFolder {
 public:
  TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  ~TemporaryFolder();
  const std::filesystem::path& path() const noexcept { return path_; }

 private:
  std::filesystem::path path_;
};

std::shared_ptr<const MappedFile> in_memory(std::vector<std::byte> bytes, std::string name);

/// Every row of a matrix as floats, q and k rows back in the halves layout: [rows, cols].
std::vector<float> matrix_values(const MatrixSource& matrix);
/// A tensor's values after a trip through `type`.
std::vector<float> rounded(const RandomTensor& tensor, kernels::DataType type);

/// Checks that `source` holds `model`'s weights, matrices rounded to `type`, tables to
/// `table_type`.
void check_same_model(const ModelSource& source, const RandomModel& model, kernels::DataType type,
                      kernels::DataType table_type);

/// Checks what must hold of anything that open_model returns: sizes agree, row sources lie in
/// `files`.
void check_valid(const ModelSource& source,
                 const std::vector<std::shared_ptr<const MappedFile>>& files);

/// Runs `action`, which must throw Error with this code and every one of the fragments in its
/// message.
void check_error(const std::function<void()>& action, ErrorCode code,
                 const std::vector<std::string>& fragments);

/// A bend of a good GGUF file that must be refused, with `fragments` in the message.
struct GgufCase {
  std::string name;
  ErrorCode code;
  std::function<void(GgufFileSpec&)> bend;
  std::vector<std::string> fragments;  // beside the file's name
};

/// A micro model with Q4_0 layers and a Q8_0 embedding.
GgufFileSpec good_gguf_spec();
void check_gguf_cases(const std::vector<GgufCase>& cases,
                      const std::function<void(std::shared_ptr<const MappedFile>)>& open);

}  // namespace specdec::testing
