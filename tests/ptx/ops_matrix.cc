// Tensor core instructions of a warp. A product of two 16-bit floats, or TF32, is exact in float;
// each element of the result adds its products in the order of k, rounding to float each time. A
// device adds them in another order with other rounding: the last bits differ, but here as there an
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

// 16-bit floats of one register row each, widened eight at a time.
void widen(const std::uint16_t* from, float* to, std::size_t count, HalfFormat /*format*/) {
  for (std::size_t i = 0; i < count; i += 8) {
    _mm256_storeu_ps(to + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
  }
}
void widen(const std::uint16_t* from, float* to, std::size_t count, BfloatFormat format) {
  for (std::size_t i = 0; i < count; ++i) to[i] = format.widen(from[i]);
}

// Lane: group = lane / 4, place = lane % 4. A register of A or B is a word of four bytes: two
// neighbouring columns (of B: rows) of 16-bit floats, one of TF32; the four lanes of a group hold
// sixteen bytes in order. So A is 16 rows, B 8 columns of 32 bytes.
using WordRows = std::uint32_t[8];

void gather_factors(Warp& warp, const Place* operands, WordRows* left, WordRows* right) {
  for (std::size_t group = 0; group < 8; ++group) {
    for (std::size_t i = 0; i < 4; ++i) {
      const std::uint32_t* a = warp.row<std::uint32_t>(operands[i]);
      std::memcpy(&left[group + 8 * (i % 2)][4 * (i / 2)], a + 4 * group, 16);
    }
    for (std::size_t i = 0; i < 2; ++i) {
      const std::uint32_t* b = warp.row<std::uint32_t>(operands[4 + i]);
      std::memcpy(&right[group][4 * i], b + 4 * group, 16);
    }
  }
}

/// operands[10..13] = left x right + operands[6..9], the products in the order of k.
template <int kDepth>
void multiply_add(Warp& warp, const Place* operands, const float (&left)[16][kDepth],
                  const float (&right)[8][kDepth]) {
  alignas(32) float by_k[kDepth][8];
  __m256 sum[16];
  for (std::size_t group = 0; group < 8; ++group) {
    for (std::size_t half = 0; half < 2; ++half) {  // even and odd columns
      const __m128 even = _mm_loadu_ps(warp.row<float>(operands[6 + 2 * half]) + 4 * group);
      const __m128 odd = _mm_loadu_ps(warp.row<float>(operands[7 + 2 * half]) + 4 * group);
      sum[group + 8 * half] =
          _mm256_set_m128(_mm_unpackhi_ps(even, odd), _mm_unpacklo_ps(even, odd));
    }
  }
  for (int k = 0; k < kDepth; ++k) {
    for (int column = 0; column < 8; ++column) by_k[k][column] = right[column][k];
  }
  for (int row = 0; row < 16; row += 8) {
    __m256 own[8];
    for (int r = 0; r < 8; ++r) own[r] = sum[row + r];
    for (int k = 0; k < kDepth; ++k) {
      const __m256 b = _mm256_load_ps(by_k[k]);
#pragma GCC unroll 8
      for (int r = 0; r < 8; ++r)
        own[r] = _mm256_fmadd_ps(_mm256_broadcast_ss(&left[row + r][k]), b, own[r]);
    }
    for (int r = 0; r < 8; ++r) sum[row + r] = own[r];
  }
  for (std::size_t group = 0; group < 8; ++group) {
    for (std::size_t half = 0; half < 2; ++half) {
      const __m128 low = _mm256_castps256_ps128(sum[group + 8 * half]);
      const __m128 high = _mm256_extractf128_ps(sum[group + 8 * half], 1);
      _mm_storeu_ps(warp.row<float>(operands[10 + 2 * half]) + 4 * group,
                    _mm_shuffle_ps(low, high, 0x88));
      _mm_storeu_ps(warp.row<float>(operands[11 + 2 * half]) + 4 * group,
                    _mm_shuffle_ps(low, high, 0xDD));
    }
  }
}

template <class Format>
void mma_16816(Warp& warp, const Instr& instr) {
  require_full(warp, "mma");
  const Place* operands = &warp.launch->program->operands[instr.more];
  alignas(32) std::uint32_t left_words[16][8], right_words[8][8];
  alignas(32) std::uint16_t left16[16][16], right16[8][16];
  alignas(32) float left[16][16], right[8][16];
  gather_factors(warp, operands, left_words, right_words);
  std::memcpy(left16, left_words, sizeof left16);
  std::memcpy(right16, right_words, sizeof right16);
  widen(left16[0], left[0], 256, Format());
  widen(right16[0], right[0], 128, Format());
  multiply_add(warp, operands, left, right);
}

// Of TF32: the factors' other bits do not count.
void mma_1688(Warp& warp, const Instr& instr) {
  require_full(warp, "mma");
  const Place* operands = &warp.launch->program->operands[instr.more];
  alignas(32) std::uint32_t left_words[16][8], right_words[8][8];
  alignas(32) float left[16][8], right[8][8];
  gather_factors(warp, operands, left_words, right_words);
  for (auto& row : left_words)
    for (std::uint32_t& word : row) word &= kTf32Bits;
  for (auto& row : right_words)
    for (std::uint32_t& word : row) word &= kTf32Bits;
  std::memcpy(left, left_words, sizeof left);
  std::memcpy(right, right_words, sizeof right);
  multiply_add(warp, operands, left, right);
}

void decode_mma(Decoder& decoder, const Statement& statement, Words& words) {
  Instr instr;
  instr.flow = Flow::kMeet;
  if (!words.take("sync") || !words.take("aligned") || !words.take("row") || !words.take("col"))
    decoder.unknown(statement);
  const bool tf32 = words.take("m16n8k8");
  const bool known = tf32 ? words.take("tf32") && words.take("tf32") : words.take("m16n8k16");
  if (!known) decoder.unknown(statement);
  const Type result = words.type();
  if (tf32) {
    instr.run = &mma_1688;
  } else {
    const Type left = words.type(), right = words.type();
    if (left.bits != 16 || right.kind != left.kind || right.bits != 16) decoder.unknown(statement);
    instr.run =
        left.kind == Type::Kind::kBfloat ? &mma_16816<BfloatFormat> : &mma_16816<HalfFormat>;
  }
  const Type sum = words.type();
  if (result.bits != 32 || sum.bits != 32) decoder.unknown(statement);
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
    std::uint32_t* d = warp.row<std::uint32_t>(to[m]);
    for (int row = 0; row < 8; ++row) {  // the four lanes of a group get a row as it lies
      void* at = kTransposed ? static_cast<void*>(matrix[row]) : static_cast<void*>(d + 4 * row);
      std::memcpy(at, reinterpret_cast<const void*>(addresses[8 * m + row]), 16);
    }
    if (!kTransposed) continue;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int row = lane / 4, column = 2 * (lane % 4);
      d[lane] = matrix[column][row] | static_cast<std::uint32_t>(matrix[column + 1][row]) << 16u;
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
