#include "engine/model/token_list.h"

#include <doctest/doctest.h>

#include <cstring>
#include <numeric>
#include <string>

#include "model/model_test_support.h"
#include "specdec/error.h"

using namespace specdec;
using namespace specdec::testing;

namespace {

std::vector<TokenId> read(const std::string& text) {
  const TemporaryFolder folder;
  write_file(folder.path() / "list.txt", text);
  return read_token_list(folder.path() / "list.txt", 100);
}

std::string refusal(const std::string& text) {
  try {
    read(text);
  } catch (const Error& error) {
    CHECK(error.code() == ErrorCode::invalid_config);
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("a token list is read in rising order, comments and blanks aside") {
  CHECK(read("7\n3\n99\n0\n") == std::vector<TokenId>{0, 3, 7, 99});
  CHECK(read("# most frequent first\r\n\r\n 42 # of\r\n\t5") == std::vector<TokenId>{5, 42});
}

TEST_CASE("a malformed token list is refused with file, line and fault") {
  CHECK(refusal("1\n2x\n").find("list.txt:2: expected the number") != std::string::npos);
  CHECK(refusal("1 2\n").find(":1: expected") != std::string::npos);
  CHECK(refusal("99999999999999999999\n").find(":1: expected") != std::string::npos);
  CHECK(refusal("1\n\n100\n").find(":3: token 100 is outside") != std::string::npos);
  CHECK(refusal("-1\n").find("token -1 is outside") != std::string::npos);
  CHECK(refusal("4\n5\n4\n").find(":3: token 4 is there twice") != std::string::npos);
  CHECK(refusal("# none\n").find("lists no tokens") != std::string::npos);
  CHECK_THROWS_AS(read_token_list("/nowhere/list.txt", 100), Error);
}

TEST_CASE("selected rows are those of the matrix, across its parts") {
  // Two parts, 5 rows of f32 and 4 of q8_0, 32 columns each: every byte says where it lies.
  std::vector<std::byte> first(5 * 32 * 4);
  std::vector<std::byte> second(4 * 34);
  for (std::size_t i = 0; i < first.size(); ++i) first[i] = static_cast<std::byte>(i * 7 % 251);
  for (std::size_t i = 0; i < second.size(); ++i) second[i] = static_cast<std::byte>(i * 5 % 241);
  const MatrixSource matrix{
      "head",
      {{.type = kernels::DataType::f32, .cols = 32, .num_rows = 5, .data = first.data()},
       {.type = kernels::DataType::q8_0, .cols = 32, .num_rows = 4, .data = second.data()}}};
  const auto row = [&](int at) {
    return at < 5 ? std::pair(first.data() + at * 128, std::size_t{128})
                  : std::pair(second.data() + (at - 5) * 34, std::size_t{34});
  };
  for (const std::vector<TokenId>& rows :
       {std::vector<TokenId>{0, 3, 4, 5, 8}, {6}, {1, 2}, {0, 1, 2, 3, 4, 5, 6, 7, 8}}) {
    const SelectedRows selected = select_rows(matrix, rows);
    CHECK(selected.matrix.rows() == static_cast<int>(rows.size()));
    std::size_t next = 0;
    for (const RowSource& part : selected.matrix.parts)
      for (int i = 0; i < part.num_rows; ++i) {
        const auto [data, size] = row(rows[next++]);
        CHECK(part.type == (rows[next - 1] < 5 ? kernels::DataType::f32 : kernels::DataType::q8_0));
        CHECK(std::memcmp(part.data + static_cast<std::size_t>(i) * size, data, size) == 0);
      }
    CHECK(next == rows.size());
  }
  CHECK(select_rows(matrix, {}).matrix.parts.empty());
}
