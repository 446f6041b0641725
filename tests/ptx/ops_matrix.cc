// Tensor core instructions of a warp. A product of two 16-bit floats is exact in float; each
// element of the result adds its products in the order of k, rounding to float each time. A device
// adds them in another order with other rounding: the last bits differ, but here as there an
// element depends on its own row and column alone.
#include <array>
#include <cstring>

#include "tests/ptx/access.h"
#include "tests/ptx/dispatch.h"
#include "tests/ptx/half.h"

namespace specdec::ptx {
namespace {

void require_full(const Warp& warp, const char* what) {
  if (!warp.full())
    fail(warp, Fault::Kind::kUndefined, -1, std::string(what) + " without all lanes of the warp");
}

// m16n8k16. Lane: group = lane / 4, place = lane % 4. Registers hold two neighbouring columns (of
// B: rows).
template <class Format>
void mma_16816(Warp& warp, const Instr& instr) {
  require_full(warp, "mma");
  const Place* operands = &warp.launch->program->operands[instr.more];
  const std::uint32_t* a[4];
  const std::uint32_t* b[2];
  const float* c[4];
  float* d[4];
  for (int i = 0; i < 4; ++i) a[i] = warp.row<std::uint32_t>(operands[i]);
  for (int i = 0; i < 2; ++i) b[i] = warp.row<std::uint32_t>(operands[4 + i]);
  for (int i = 0; i < 4; ++i) c[i] = warp.row<float>(operands[6 + i]);
  for (int i = 0; i < 4; ++i) d[i] = warp.row<float>(operands[10 + i]);

  alignas(32) float left[16][16], right[16][8], sum[16][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / 4, place = lane % 4;
    for (int i = 0; i < 4; ++i) {
      const int row = group + 8 * (i % 2), column = 2 * place + 8 * (i / 2);
      left[row][column] = Format::widen(static_cast<std::uint16_t>(a[i][lane]));
      left[row][column + 1] = Format::widen(static_cast<std::uint16_t>(a[i][lane] >> 16u));
    }
    for (int i = 0; i < 2; ++i) {
      const int row = 2 * place + 8 * i;
      right[row][group] = Format::widen(static_cast<std::uint16_t>(b[i][lane]));
      right[row + 1][group] = Format::widen(static_cast<std::uint16_t>(b[i][lane] >> 16u));
    }
    for (int i = 0; i < 4; ++i) sum[group + 8 * (i / 2)][2 * place + i % 2] = c[i][lane];
  }
  for (int row = 0; row < 16; ++row) {
    for (int k = 0; k < 16; ++k) {
      for (int column = 0; column < 8; ++column) {
        sum[row][column] = __builtin_fmaf(left[row][k], right[k][column], sum[row][column]);
      }
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane / 4, place = lane % 4;
    for (int i = 0; i < 4; ++i) d[i][lane] = sum[group + 8 * (i / 2)][2 * place + i % 2];
  }
}

void decode_mma(Decoder& decoder, const Statement& statement, Words& words) {
  Instr instr;
  instr.flow = Flow::kMeet;
  if (!words.take("sync") || !words.take("aligned") || !words.take("m16n8k16") ||
      !words.take("row") || !words.take("col")) {
    decoder.unknown(statement);
  }
  const Type result = words.type(), left = words.type(), right = words.type(), sum = words.type();
  if (result.bits != 32 || sum.bits != 32 || left.bits != 16 || right.kind != left.kind ||
      right.bits != 16) {
    decoder.unknown(statement);
  }
  instr.run = left.kind == Type::Kind::kBfloat ? &mma_16816<BfloatFormat> : &mma_16816<HalfFormat>;
  std::vector<Place> reads, writes;
  const std::size_t lengths[] = {4, 4, 2, 4};
  for (std::size_t i = 0; i < 4; ++i) {
    if (statement.operands.at(i).parts.size() != lengths[i])
      decoder.unknown(statement, "number of registers");
  }
  for (std::size_t i = 1; i < 4; ++i) {
    for (const Operand& operand : statement.operands[i].parts)
      reads.push_back(decoder.use(operand, kU32));
  }
  for (const Operand& operand : statement.operands[0].parts)
    writes.push_back(decoder.define(operand, kU32));
  decoder.more(instr, reads, writes);
  decoder.emit(instr);
}

// kCount 8 x 8 matrices of 16-bit values; lane 8 m + r has the address of row r of matrix m. Lane l
// gets columns 2 (l % 4) and the next of row l / 4; transposed: of column l / 4.
template <int kCount, bool kTransposed>
void load_matrix(Warp& warp, const Instr& instr) {
  require_full(warp, "ldmatrix");
  // Addresses of lanes beyond the matrices' rows are not used.
  constexpr std::uint32_t kRows =
      kCount == 4 ? kAllLanes : (std::uint32_t{1} << (8 * kCount % 32)) - 1;
  Addresses addresses;
  warp.exec = kRows;
  resolve(warp, instr, 16, addresses);
  warp.exec = kAllLanes;
  const Place* to = &warp.launch->program->operands[instr.more];
  for (int m = 0; m < kCount; ++m) {
    std::uint16_t matrix[8][8];
    for (int row = 0; row < 8; ++row) {
      std::memcpy(matrix[row], reinterpret_cast<const void*>(addresses[8 * m + row]), 16);
    }
    std::uint32_t* d = warp.row<std::uint32_t>(to[m]);
    for (int lane = 0; lane < kLanes; ++lane) {
      const int row = lane / 4, column = 2 * (lane % 4);
      const std::uint16_t low = kTransposed ? matrix[column][row] : matrix[row][column];
      const std::uint16_t high = kTransposed ? matrix[column + 1][row] : matrix[row][column + 1];
      d[lane] = low | static_cast<std::uint32_t>(high) << 16u;
    }
  }
}

void decode_ldmatrix(Decoder& decoder, const Statement& statement, Words& words) {
  Instr instr;
  instr.flow = Flow::kMeet;
  if (!words.take("sync") || !words.take("aligned") || !words.take("m8n8"))
    decoder.unknown(statement);
  const bool transposed = words.take("trans");
  const std::size_t count = words.take("x1") ? 1 : words.take("x2") ? 2 : words.take("x4") ? 4 : 0;
  const Space space = words.space();
  if (words.type().bits != 16 || statement.operands.at(0).parts.size() != count)
    decoder.unknown(statement);
  switch (count) {
    case 1:
      instr.run = transposed ? &load_matrix<1, true> : &load_matrix<1, false>;
      break;
    case 2:
      instr.run = transposed ? &load_matrix<2, true> : &load_matrix<2, false>;
      break;
    case 4:
      instr.run = transposed ? &load_matrix<4, true> : &load_matrix<4, false>;
      break;
    default:
      decoder.unknown(statement);
  }
  const Address address = decoder.address(statement.operands.at(1), space);
  instr.a = address.base;
  instr.immediate = address.offset;
  instr.width = static_cast<std::uint8_t>(address.width);
  instr.kind = static_cast<std::uint8_t>(address.space);
  std::vector<Place> writes;
  for (const Operand& operand : statement.operands[0].parts)
    writes.push_back(decoder.define(operand, kU32));
  decoder.more(instr, {}, writes);
  decoder.emit(instr);
}

// The transposed 8 x 8 matrix, between registers.
void move_matrix(Warp& warp, const Instr& instr) {
  require_full(warp, "movmatrix");
  const std::uint32_t* a = warp.row<std::uint32_t>(instr.a);
  std::uint16_t matrix[8][8];
  for (int lane = 0; lane < kLanes; ++lane) {
    matrix[lane / 4][2 * (lane % 4)] = static_cast<std::uint16_t>(a[lane]);
    matrix[lane / 4][2 * (lane % 4) + 1] = static_cast<std::uint16_t>(a[lane] >> 16u);
  }
  std::uint32_t* d = warp.row<std::uint32_t>(instr.d);
  for (int lane = 0; lane < kLanes; ++lane) {
    const int row = lane / 4, column = 2 * (lane % 4);
    d[lane] = matrix[column][row] | static_cast<std::uint32_t>(matrix[column + 1][row]) << 16u;
  }
}

void decode_movmatrix(Decoder& decoder, const Statement& statement, Words& words) {
  if (!words.take("sync") || !words.take("aligned") || !words.take("m8n8") ||
      !words.take("trans") || words.type().bits != 16) {
    decoder.unknown(statement);
  }
  Instr instr;
  instr.flow = Flow::kMeet;
  instr.run = &move_matrix;
  instr.a = decoder.use(statement.operands.at(1), kU32);
  instr.d = decoder.define(statement.operands.at(0), kU32);
  decoder.emit(instr);
}

}  // namespace

void add_matrix(OpTable& table) {
  table["mma"] = &decode_mma;
  table["ldmatrix"] = &decode_ldmatrix;
  table["movmatrix"] = &decode_movmatrix;
}

}  // namespace specdec::ptx
