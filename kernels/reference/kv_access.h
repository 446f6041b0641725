#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/ops.h"

namespace specdec::kernels::reference {

/// One element of a KV layer, addressed literally as kernels/ops.h has it.
std::size_t key_index(const KvLayer& kv, int block, int head, int dim, int offset);
std::size_t value_index(const KvLayer& kv, int block, int head, int offset, int dim);
double load_element(const void* base, DataType type, std::size_t index);
void store_element(void* base, DataType type, std::size_t index, double value);

}  // namespace specdec::kernels::reference
