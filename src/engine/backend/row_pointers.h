#pragma once

#include <cstddef>
#include <vector>

#include "engine/model/weights.h"

namespace specdec {

/// A row of a matrix as it lies in its file.
struct RowPointer {
  const RowSource* part = nullptr;
  const std::byte* data = nullptr;
};

/// Every row of `source`, in the order that the engine wants (halves layout for rotated heads).
std::vector<RowPointer> row_pointers(const MatrixSource& source);

}  // namespace specdec
