#include "engine/model/head_tensors.h"

#include <algorithm>
#include <utility>

#include "engine/model/quantise.h"
#include "specdec/error.h"

namespace specdec {

using kernels::DataType;

HeadTensors::HeadTensors(const std::vector<TensorView>& tensors, std::string file, std::string kind,
                         HeadWeights weights, std::vector<std::vector<std::byte>>& converted)
    : file_(std::move(file)), kind_(std::move(kind)), weights_(weights), converted_(converted) {
  for (const TensorView& tensor : tensors) tensors_.emplace(tensor.name, &tensor);
}

void HeadTensors::fail(const std::string& what) const {
  throw Error(ErrorCode::invalid_model, file_ + ": " + what);
}

const TensorView& HeadTensors::take(const std::string& name,
                                    std::initializer_list<std::int64_t> shape) {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) fail("tensor " + in_quotes(name) + " is missing");
  used_.insert(name);
  const TensorView& tensor = *found->second;
  if (!std::ranges::equal(tensor.shape, shape))
    fail("tensor " + in_quotes(name) + " has shape " + shape_text(tensor.shape) +
         ", the configuration asks for " + shape_text(std::vector<std::int64_t>(shape)));
  return tensor;
}

const TensorView& HeadTensors::take_weights(const std::string& name,
                                            std::initializer_list<std::int64_t> shape) {
  const TensorView& tensor = take(name, shape);
  if (!tensor.type.has_value())
    throw Error(ErrorCode::unsupported, file_ + ": tensor " + in_quotes(name) + " has type " +
                                            tensor.type_name +
                                            "; convert the head to F32, F16 or BF16");
  return tensor;
}

std::vector<float> HeadTensors::vector(const std::string& name, int size) {
  return read_floats(take_weights(name, {size}));
}

RowSource HeadTensors::rows(const TensorView& tensor, int num_rows, int cols, int offset,
                            int stride, Bits least) {
  RowSource result{.type = *tensor.type, .cols = cols, .num_rows = num_rows};
  const std::size_t element = tensor_bytes(*tensor.type, 1);
  const DataType type =
      weights_ == HeadWeights::q4_1 && least == Bits::four ? DataType::q4_1 : DataType::q8_0;
  const bool quantise = weights_ != HeadWeights::as_stored && cols % block_elements(type) == 0;
  const bool aligned = reinterpret_cast<std::uintptr_t>(tensor.data.data()) % element == 0;
  if (!quantise && aligned && stride == cols) {
    result.data = tensor.data.data();
    return result;
  }
  std::vector<std::byte>& to = converted_.emplace_back();
  if (quantise) {
    result.type = type;
    to.reserve(
        tensor_bytes(type, static_cast<std::size_t>(num_rows) * static_cast<std::size_t>(cols)));
  }
  TensorView row = tensor;
  for (int r = 0; r < num_rows; ++r) {
    const std::size_t begin = static_cast<std::size_t>(r) * static_cast<std::size_t>(stride) +
                              static_cast<std::size_t>(offset);
    row.shape = {cols};
    row.data = tensor.data.subspan(begin * element, static_cast<std::size_t>(cols) * element);
    if (quantise)
      append_quantised(type, read_floats(row), to);
    else
      to.insert(to.end(), row.data.begin(), row.data.end());
  }
  result.data = to.data();
  return result;
}

MatrixSource HeadTensors::matrix(std::string name, int cols, const std::vector<Part>& parts,
                                 Bits least) {
  MatrixSource result{std::move(name), {}};
  for (const Part& part : parts)
    result.parts.push_back(
        rows(take_weights(part.name, {part.rows, cols}), part.rows, cols, 0, cols, least));
  return result;
}

void HeadTensors::check_unused() const {
  for (const auto& [name, tensor] : tensors_)
    if (!used_.contains(name)) fail("tensor " + in_quotes(name) + " is no part of " + kind_);
}

}  // namespace specdec
