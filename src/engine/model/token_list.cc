#include "engine/model/token_list.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <string>
#include <string_view>

#include "engine/model/tensor_view.h"
#include "specdec/error.h"

namespace specdec {
namespace {

/// The line without its comment and the blanks around what is left.
std::string_view content_of(std::string_view line) {
  constexpr std::string_view kBlanks = " \t\r";
  line = line.substr(0, line.find('#'));
  const std::size_t first = line.find_first_not_of(kBlanks);
  if (first == std::string_view::npos) return {};
  return line.substr(first, line.find_last_not_of(kBlanks) + 1 - first);
}

}  // namespace

std::vector<TokenId> read_token_list(const std::filesystem::path& path, int vocab_size) {
  std::ifstream file(path, std::ios::binary);
  if (!file || std::filesystem::is_directory(path))
    throw Error(ErrorCode::io, path.string() +
                                   ": cannot be opened; a vocabulary list is a text "
                                   "file with the number of a token on each line");
  std::vector<bool> listed(static_cast<std::size_t>(vocab_size));
  std::string line;
  for (int number = 1; std::getline(file, line); ++number) {
    const auto fail = [&](const std::string& what) {
      throw Error(ErrorCode::invalid_config,
                  path.string() + ":" + std::to_string(number) + ": " + what);
    };
    const std::string_view text = content_of(line);
    if (text.empty()) continue;
    TokenId token = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), token);
    if (error != std::errc() || end != text.data() + text.size())
      fail("expected the number of a token");
    if (token < 0 || token >= vocab_size)
      fail("token " + std::to_string(token) + " is outside the vocabulary, which has " +
           std::to_string(vocab_size) + "; make the list with this model's tokenizer");
    if (listed[static_cast<std::size_t>(token)])
      fail("token " + std::to_string(token) + " is there twice");
    listed[static_cast<std::size_t>(token)] = true;
  }
  if (file.bad()) throw Error(ErrorCode::io, path.string() + ": cannot be read");
  std::vector<TokenId> tokens;
  for (TokenId token = 0; token < vocab_size; ++token)
    if (listed[static_cast<std::size_t>(token)]) tokens.push_back(token);
  if (tokens.empty()) throw Error(ErrorCode::invalid_config, path.string() + ": lists no tokens");
  return tokens;
}

SelectedRows select_rows(const MatrixSource& from, std::span<const TokenId> rows) {
  SelectedRows selected{.matrix = {.name = from.name, .parts = {}}, .bytes = {}};
  const auto row_bytes = [](const RowSource& part) {
    return tensor_bytes(part.type, static_cast<std::size_t>(part.cols));
  };
  int first = 0;  // row of the part
  auto next = rows.begin();
  for (const RowSource& part : from.parts) {
    const auto end =
        std::find_if(next, rows.end(), [&](TokenId row) { return row >= first + part.num_rows; });
    if (end != next) {
      RowSource chosen = part;
      chosen.num_rows = static_cast<int>(end - next);
      selected.matrix.parts.push_back(chosen);
    }
    for (; next != end; ++next) {
      const std::byte* const row =
          part.data + static_cast<std::size_t>(*next - first) * row_bytes(part);
      selected.bytes.insert(selected.bytes.end(), row, row + row_bytes(part));
    }
    first += part.num_rows;
  }
  const std::byte* data = selected.bytes.data();
  for (RowSource& part : selected.matrix.parts) {
    part.data = data;
    data += static_cast<std::size_t>(part.num_rows) * row_bytes(part);
  }
  return selected;
}

}  // namespace specdec
