#pragma once

#include <memory>
#include <vector>

#include "engine/model/mapped_file.h"
#include "engine/model/tensor_view.h"

namespace specdec {

/// The tensors of a safetensors file (https://github.com/huggingface/safetensors#format), sorted by
/// name. Header length, JSON, types, shapes and offsets are checked; the tensors tile the data
/// section without overlap or hole, as the format demands. Throws Error (invalid_model,
/// unsupported) naming file and tensor.
std::vector<TensorView> read_safetensors(const MappedFile& file);

}  // namespace specdec
