#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <vector>

#include "engine/model/weights.h"
#include "specdec/types.h"

namespace specdec {

/// The tokens of a file that lists a number a line; empty lines and what follows a '#' do not
/// count. Rising, whatever order the file has. Throws Error (io, invalid_config) naming file, line
/// and what is wrong: no number, outside [0, vocab_size), there twice, an empty list.
std::vector<TokenId> read_token_list(const std::filesystem::path& path, int vocab_size);

/// Some rows of a matrix.
struct SelectedRows {
  MatrixSource matrix;           // points into `bytes`
  std::vector<std::byte> bytes;  // in the types of the file
};

/// Copies `rows` (rising) of `from`, whose parts have no interleaved heads.
SelectedRows select_rows(const MatrixSource& from, std::span<const TokenId> rows);

}  // namespace specdec
