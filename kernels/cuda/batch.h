#pragma once

#include <cstdint>

/// The device's side of a step: where a captured graph finds the rows of the forward pass that it
/// is about to run. Everything that changes from step to step lies behind these pointers, so one
/// graph serves every step of its shape: the host fills the buffers by one copy (BatchBuffers), or
/// a kernel of the loop writes them where they lie.
namespace specdec::kernels::cuda {

/// A row whose slot is this is padding: its K and V are written nowhere and its outputs are never
/// looked at. Its token must be a valid id, its position 0 and its row_sequence a valid index.
inline constexpr std::int32_t kPaddingSlot = -1;

/// kernels/ops.h's BatchView and SequenceRows in device memory. Passed to kernels by value.
struct DeviceBatch {
  int num_rows = 0;     // rows that kernels are launched for, padding included
  int num_outputs = 0;  // rows that get logits
  int num_sequences = 0;
  int max_context = 0;  // no position of any row is this or more: how far attention is launched
  int table_stride = 0;
  bool has_paths = true;  // some rows may have a path (trees)

  std::int32_t* tokens = nullptr;         // [num_rows]
  std::int32_t* positions = nullptr;      // [num_rows] absolute
  std::int32_t* slots = nullptr;          // [num_rows] own K and V go there; kPaddingSlot: nowhere
  std::int32_t* row_sequences = nullptr;  // [num_rows] index of the row's sequence
  std::int32_t* sequence_begins = nullptr;  // [num_sequences + 1] first row of each; then: padding
  std::int32_t* path_offsets = nullptr;     // [num_rows] < 0: slot = position all the way
  std::int32_t* output_rows = nullptr;      // [num_outputs]
  std::int32_t* context_lens = nullptr;     // [num_sequences] committed positions
  std::int32_t* path_slots = nullptr;    // slots of positions context_len.. of each path, in turn
  std::int32_t* block_tables = nullptr;  // [num_sequences, table_stride]
};

/// How many of each a set of buffers holds.
struct BatchCapacity {
  int rows = 0;
  int sequences = 0;
  int path_slots = 0;
  int blocks_per_sequence = 0;
};

}  // namespace specdec::kernels::cuda
