// Tensor core instructions against a plain product, by the fragment tables of the PTX ISA, and
// asynchronous copies.
#include <doctest/doctest.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "tests/ptx/ptx_fixture.h"

namespace specdec::ptx::testing {
namespace {

int code(Fault::Kind kind) { return static_cast<int>(kind); }

// Small integers and quarters: exact in both 16-bit formats, and so are sums of their products in
// float.
float small_value(std::mt19937& random) {
  return static_cast<float>(static_cast<int>(random() % 33) - 16) / 4.0F;
}

std::uint16_t to_bfloat(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return static_cast<std::uint16_t>(bits >> 16u);
}
std::uint16_t to_half(float value) {  // of a value that has one
  if (value == 0) return 0;
  int exponent = 0;
  const float fraction = std::frexp(std::fabs(value), &exponent);  // in [1/2, 1)
  const auto digits = static_cast<std::uint16_t>(fraction * 2048.0F);
  return static_cast<std::uint16_t>(
      (value < 0 ? 0x8000u : 0u) | static_cast<unsigned>(exponent + 14) << 10u | (digits & 0x3FFu));
}

template <std::size_t kRows, std::size_t kColumns>
void fill(float (&matrix)[kRows][kColumns], std::mt19937& random) {
  for (auto& row : matrix)
    for (float& x : row) x = small_value(random);
}

/// D of an mma, four registers a lane: `fragments` has each lane's four of A, two of B, four of C.
/// `shape`: of the instruction, with its types.
std::vector<float> run_mma(const std::string& shape, const std::vector<std::uint32_t>& fragments) {
  std::string body = "mad.wide.u32 %rd10, %r0, 40, %rd0;\n";
  for (int i = 0; i < 10; ++i)
    body += (i < 6 ? "ld.global.u32 %r" + std::to_string(10 + i)
                   : "ld.global.f32 %f" + std::to_string(i - 6)) +
            ", [%rd10+" + std::to_string(4 * i) + "];\n";
  body += "mma.sync.aligned." + shape +
          " {%f0,%f1,%f2,%f3}, {%r10,%r11,%r12,%r13}, {%r14,%r15}, {%f0,%f1,%f2,%f3};\n"
          "mad.wide.u32 %rd11, %r0, 16, %rd1; st.global.v4.f32 [%rd11], {%f0,%f1,%f2,%f3};\n";
  Machine machine(kernel(body));
  const float* const out = machine.zeros<float>(128);
  machine.launch(32, machine.upload(fragments), out);
  return {out, out + 128};
}

TEST_CASE("mma m16n8k16 is a product of matrices") {
  for (const bool bfloat : {false, true}) {
    std::mt19937 random(5);
    float a[16][16], b[16][8], c[16][8];
    fill(a, random);
    fill(b, random);
    fill(c, random);
    const auto pair = [&](float low, float high) {
      return bfloat ? to_bfloat(low) | static_cast<std::uint32_t>(to_bfloat(high)) << 16u
                    : to_half(low) | static_cast<std::uint32_t>(to_half(high)) << 16u;
    };
    // Per lane: four registers of A, two of B, four of C; PTX ISA, "Matrix fragments for
    // mma.m16n8k16".
    std::vector<std::uint32_t> fragments(32 * 10);
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned group = lane >> 2u, in_group = lane % 4;
      for (unsigned i = 0; i < 8; i += 2) {
        const unsigned row = (i < 2 || (i >= 4 && i < 6)) ? group : group + 8;
        const unsigned column = in_group * 2 + (i >= 4 ? 8 : 0);
        fragments[lane * 10 + i / 2] = pair(a[row][column], a[row][column + 1]);
      }
      for (unsigned i = 0; i < 4; i += 2) {
        const unsigned row = in_group * 2 + (i >= 2 ? 8 : 0);
        fragments[lane * 10 + 4 + i / 2] = pair(b[row][group], b[row + 1][group]);
      }
      for (unsigned i = 0; i < 4; ++i) {
        const float x = c[i < 2 ? group : group + 8][in_group * 2 + (i & 1u)];
        std::memcpy(&fragments[lane * 10 + 6 + i], &x, 4);
      }
    }
    const std::vector<float> out =
        run_mma(bfloat ? "m16n8k16.row.col.f32.bf16.bf16.f32" : "m16n8k16.row.col.f32.f16.f16.f32",
                fragments);
    for (unsigned lane = 0; lane < 32; ++lane) {
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = (i < 2 ? 0 : 8) + lane / 4, column = 2 * (lane % 4) + i % 2;
        float sum = c[row][column];
        for (unsigned k = 0; k < 16; ++k) sum += a[row][k] * b[k][column];
        CHECK(out[lane * 4 + i] == sum);
      }
    }
  }
  CHECK(fault_of("setp.lt.u32 %p1, %r0, 8; @%p1 mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
                 "{%f0,%f1,%f2,%f3}, "
                 "{%r10,%r11,%r12,%r13}, {%r14,%r15}, {%f0,%f1,%f2,%f3};") ==
        code(Fault::Kind::kDeadlock));
}

TEST_CASE("mma m16n8k8 of TF32 is a product of matrices") {
  std::mt19937 random(6);
  float a[16][8], b[8][8], c[16][8];
  fill(a, random);
  fill(b, random);
  fill(c, random);
  // Ten bits of fraction count, and float's exponents.
  a[3][5] = 0x1.FFCp100F;
  b[5][6] = 0x1.004p-90F;
  const auto bits = [](float x) {
    std::uint32_t word;
    std::memcpy(&word, &x, 4);
    return word;
  };
  // Below them nothing does: whatever lies there is ignored.
  const auto factor = [&](float x) {
    return bits(x) | static_cast<std::uint32_t>(random() % 8192);
  };
  // Per lane: four registers of A, two of B, four of C; PTX ISA, "Matrix fragments for
  // mma.m16n8k8", .tf32.
  std::vector<std::uint32_t> fragments(32 * 10);
  for (unsigned lane = 0; lane < 32; ++lane) {
    const unsigned group = lane >> 2u, in_group = lane % 4;
    std::uint32_t* own = &fragments[lane * std::size_t{10}];
    own[0] = factor(a[group][in_group]);
    own[1] = factor(a[group + 8][in_group]);
    own[2] = factor(a[group][in_group + 4]);
    own[3] = factor(a[group + 8][in_group + 4]);
    own[4] = factor(b[in_group][group]);
    own[5] = factor(b[in_group + 4][group]);
    own[6] = bits(c[group][in_group * 2]);
    own[7] = bits(c[group][in_group * 2 + 1]);
    own[8] = bits(c[group + 8][in_group * 2]);
    own[9] = bits(c[group + 8][in_group * 2 + 1]);
  }
  const std::vector<float> out = run_mma("m16n8k8.row.col.f32.tf32.tf32.f32", fragments);
  for (unsigned lane = 0; lane < 32; ++lane)
    for (unsigned i = 0; i < 4; ++i) {
      const unsigned row = (i < 2 ? 0 : 8) + lane / 4, column = 2 * (lane % 4) + i % 2;
      float sum = c[row][column];
      for (unsigned k = 0; k < 8; ++k) sum = std::fma(a[row][k], b[k][column], sum);
      CHECK(out[lane * 4 + i] == sum);
    }
}

TEST_CASE("ldmatrix and movmatrix") {
  for (const bool transposed : {false, true}) {
    // Four matrices with rows of 48 bytes; element (m, row, column) is 64 m + 8 row + column.
    std::vector<std::uint16_t> tile(4 * 8 * 24, 9999);
    for (unsigned i = 0; i < 256; ++i) tile[i / 8 * 24 + i % 8] = static_cast<std::uint16_t>(i);
    Machine machine(kernel(std::string(R"(
      mov.u32 %r2, s; mad.lo.u32 %r3, %r0, 48, %r2; mad.wide.u32 %rd10, %r0, 48, %rd0;
      ld.global.v4.u32 {%r4, %r5, %r6, %r7}, [%rd10]; st.shared.v4.u32 [%r3], {%r4, %r5, %r6, %r7};
      bar.warp.sync -1;
      ldmatrix.sync.aligned.m8n8.x4)") +
                               (transposed ? ".trans" : "") +
                               R"(.shared.b16 {%r8, %r9, %r10, %r11}, [%r3];
      mad.wide.u32 %rd11, %r0, 16, %rd1; st.global.v4.u32 [%rd11], {%r8, %r9, %r10, %r11};
      movmatrix.sync.aligned.m8n8.trans.b16 %r12, %r8; mad.wide.u32 %rd12, %r0, 4, %rd2; st.global.u32 [%rd12], %r12;
    )",
                           ".shared .align 16 .b8 s[1536];\n"));
    std::uint32_t* out = machine.zeros<std::uint32_t>(128);
    std::uint32_t* moved = machine.zeros<std::uint32_t>(32);
    machine.launch(32, machine.upload(tile), out, moved);
    for (unsigned lane = 0; lane < 32; ++lane) {
      const unsigned row = lane / 4, column = 2 * (lane % 4);
      const std::uint32_t straight = (8 * row + column) | (8 * row + column + 1) << 16u;
      const std::uint32_t turned = (8 * column + row) | (8 * (column + 1) + row) << 16u;
      for (unsigned m = 0; m < 4; ++m) {
        CHECK(out[4 * lane + m] == (transposed ? turned : straight) + m * 0x00400040u);
      }
      CHECK(moved[lane] == (transposed ? straight : turned));
    }
  }
}

// Reads pa's words by cp.async and gives what is in shared memory before and after the wait.
constexpr const char* kCopy = R"(
  mov.u32 %r2, s; mad.lo.u32 %r3, %r0, 16, %r2; mad.wide.u32 %rd10, %r0, 16, %rd0;
  st.shared.u32 [%r3], 1; st.shared.u32 [%r3+12], 1;
  and.b32 %r4, %r0, 3; shl.b32 %r4, %r4, 2;
  cp.async.cg.shared.global [%r3], [%rd10], 16, %r4;
  cp.async.commit_group;
  ld.shared.u32 %r5, [%r3];
  cp.async.cg.shared.global [%r3+512], [%rd10], 16; cp.async.commit_group;
  cp.async.wait_group 1;
  ld.shared.u32 %r6, [%r3]; ld.shared.u32 %r7, [%r3+12]; ld.shared.u32 %r8, [%r3+512];
  cp.async.wait_group 0; ld.shared.u32 %r9, [%r3+512];
  mad.wide.u32 %rd11, %r0, 32, %rd1; st.global.v4.u32 [%rd11], {%r5, %r6, %r7, %r8}; st.global.u32 [%rd11+16], %r9;
)";

TEST_CASE("cp.async is seen when it has been waited for, not before") {
  for (const bool early : {false, true}) {
    setenv("SPECDEC_PTX_COPIES", early ? "early" : "late", 1);
    std::vector<std::uint32_t> words(128);
    for (unsigned i = 0; i < 128; ++i) words[i] = 100 + i;
    Machine machine(kernel(kCopy, ".shared .align 16 .b8 s[1024];\n"));
    std::uint32_t* out = machine.zeros<std::uint32_t>(256);
    machine.launch(32, machine.upload(words), out);
    for (unsigned i = 0; i < 32; ++i) {
      const std::uint32_t first =
          i % 4 == 0 ? 0 : 100 + 4 * i;  // the copy's source has 0, 4, 8 or 12 bytes
      CHECK(out[8 * i] == (early ? first : 1));
      CHECK(out[8 * i + 1] == first);
      CHECK(out[8 * i + 2] == 0);
      CHECK(out[8 * i + 3] == (early ? 100 + 4 * i : 0xA5A5A5A5u));
      CHECK(out[8 * i + 4] == 100 + 4 * i);
    }
    unsetenv("SPECDEC_PTX_COPIES");
  }
}

TEST_CASE("cp.async reads no source of no bytes, and faults at a bad one") {
  const std::string shared = ".shared .align 16 .b8 s[1024];\n";
  CHECK(
      fault_of("mov.u32 %r2, s; cp.async.cg.shared.global [%r2], [%rd1], 16, 0; cp.async.wait_all;",
               1, 1, shared) == -1);
  CHECK(
      fault_of("mov.u32 %r2, s; cp.async.cg.shared.global [%r2], [%rd1], 16, 4; cp.async.wait_all;",
               1, 1, shared) == code(Fault::Kind::kIllegalAddress));
  CHECK(fault_of("mov.u32 %r2, s; cp.async.cg.shared.global [%r2+8], [%rd0], 16;", 1, 256,
                 shared) == code(Fault::Kind::kMisalignedAddress));
}

TEST_CASE("mbarriers: phases, and arrivals of copies") {
  // Warp 1 copies, four times over, into one slot; warp 0 adds up what it finds. Two barriers:
  // filled, used.
  std::vector<std::uint32_t> words(4 * 128);
  for (unsigned i = 0; i < words.size(); ++i) words[i] = i * i;
  Machine machine(kernel(R"(
    mov.u32 %r2, filled; mov.u32 %r3, used; mov.u32 %r4, s;
    setp.ne.u32 %p1, %r0, 0; @%p1 bra READY;
    mbarrier.init.shared.b64 [%r2], 32; mbarrier.init.shared.b64 [%r3], 32;
    READY: bar.sync 0;
    and.b32 %r5, %r0, 31; mad.lo.u32 %r6, %r5, 16, %r4; mad.wide.u32 %rd10, %r5, 16, %rd0;
    mov.u32 %r7, 0; mov.u32 %r8, 0;
    setp.ge.u32 %p2, %r0, 32; @%p2 bra COPY;
    READ: and.b32 %r9, %r7, 1;
    { .reg .pred done;
    again: mbarrier.test_wait.parity.shared.b64 done, [%r2], %r9;
    @!done bra again; }
    ld.shared.u32 %r10, [%r6+4]; add.u32 %r8, %r8, %r10;
    { .reg .b64 state; mbarrier.arrive.shared.b64 state, [%r3]; }
    add.u32 %r7, %r7, 1; setp.lt.u32 %p3, %r7, 4; @%p3 bra READ;
    mad.wide.u32 %rd11, %r5, 4, %rd1; st.global.u32 [%rd11], %r8; bra END;
    COPY: setp.eq.u32 %p4, %r7, 0; @%p4 bra FIRST;
    sub.u32 %r9, %r7, 1; and.b32 %r9, %r9, 1;
    { .reg .pred done;
    again: mbarrier.test_wait.parity.shared.b64 done, [%r3], %r9;
    @!done bra again; }
    FIRST: cp.async.cg.shared.global [%r6], [%rd10], 16; cp.async.mbarrier.arrive.noinc.shared.b64 [%r2];
    add.s64 %rd10, %rd10, 512; add.u32 %r7, %r7, 1; setp.lt.u32 %p3, %r7, 4; @%p3 bra COPY;
    END:
  )",
                         ".shared .align 16 .b8 s[512];\n.shared .align 8 .b8 filled[8];\n.shared "
                         ".align 8 .b8 used[8];\n"));
  std::uint32_t* out = machine.zeros<std::uint32_t>(32);
  machine.launch(64, machine.upload(words), out);
  for (unsigned i = 0; i < 32; ++i) {
    std::uint32_t sum = 0;
    for (unsigned round = 0; round < 4; ++round) sum += words[round * 128 + 4 * i + 1];
    CHECK(out[i] == sum);
  }
  const std::string shared = ".shared .align 8 .b8 b[8];\n";
  CHECK(fault_of("mov.u32 %r2, b; mbarrier.arrive.shared.b64 %rd3, [%r2];", 1, 1, shared) ==
        code(Fault::Kind::kUndefined));
  CHECK(fault_of("mov.u32 %r2, b; mbarrier.init.shared.b64 [%r2], 1; mbarrier.arrive.shared.b64 "
                 "%rd3, [%r2], 2;",
                 1, 1, shared) == code(Fault::Kind::kUndefined));
}

}  // namespace
}  // namespace specdec::ptx::testing
