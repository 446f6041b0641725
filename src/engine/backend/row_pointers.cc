#include "engine/backend/row_pointers.h"

#include "kernels/cpu/row_format.h"

namespace specdec {

std::vector<RowPointer> row_pointers(const MatrixSource& source) {
  std::vector<RowPointer> pointers;
  pointers.reserve(static_cast<std::size_t>(source.rows()));
  for (const RowSource& part : source.parts) {
    const std::size_t bytes = kernels::row_bytes(part.type, part.cols);
    for (int row = 0; row < part.num_rows; ++row) {
      int in_file = row;
      if (const int dim = part.interleaved_head_dim; dim > 0) {
        const int in_head = row % dim;
        in_file = row - in_head + (in_head < dim / 2 ? 2 * in_head : 2 * (in_head - dim / 2) + 1);
      }
      pointers.push_back({&part, part.data + static_cast<std::size_t>(in_file) * bytes});
    }
  }
  return pointers;
}

}  // namespace specdec
