// Loads, stores, atomics, and accesses that must not be.
#include <doctest/doctest.h>

#include <limits>
#include <numeric>

#include "tests/ptx/ptx_fixture.h"

namespace specdec::ptx::testing {
namespace {

constexpr int kNoFault = -1;
int code(Fault::Kind kind) { return static_cast<int>(kind); }

TEST_CASE("loads extend by the sign of their type; stores take the low bits") {
  std::vector<std::uint8_t> bytes(256);
  std::iota(bytes.begin(), bytes.end(), std::uint8_t{100});
  Machine machine(kernel(R"(
    cvt.u64.u32 %rd10, %r0; add.s64 %rd11, %rd0, %rd10;
    ld.global.s8 %r2, [%rd11+1]; ld.global.u8 %r3, [%rd11+1];
    mad.wide.u32 %rd12, %r0, 4, %rd0; ld.global.s16 %rd13, [%rd12+2]; cvt.u32.u64 %r4, %rd13;
    ld.global.v2.u16 {%rs1, %rs2}, [%rd12]; mov.b32 %r5, {%rs2, %rs1};
    mad.wide.u32 %rd14, %r0, 16, %rd1; st.global.v4.u32 [%rd14], {%r2, %r3, %r4, %r5};
    mad.wide.u32 %rd15, %r0, 2, %rd2; st.global.u8 [%rd15+1], %r5; st.global.u8 [%rd15], 7;
  )"));
  const std::uint8_t* in = machine.upload(bytes);
  std::uint32_t* out = machine.zeros<std::uint32_t>(4 * 50);
  std::uint8_t* low = machine.zeros<std::uint8_t>(100);
  machine.launch(50, in, out, low);
  for (unsigned i = 0; i < 50; ++i) {
    CAPTURE(i);
    std::int16_t second;
    std::uint16_t pair[2];
    std::memcpy(&second, in + 4 * i + 2, 2);
    std::memcpy(pair, in + 4 * i, 4);
    CHECK(out[4 * i] == static_cast<std::uint32_t>(static_cast<std::int8_t>(in[i + 1])));
    CHECK(out[4 * i + 1] == in[i + 1]);
    CHECK(out[4 * i + 2] == static_cast<std::uint32_t>(second));
    CHECK(out[4 * i + 3] == (pair[1] | static_cast<std::uint32_t>(pair[0]) << 16u));
    CHECK(low[2 * i] == 7);
    CHECK(low[2 * i + 1] == (pair[1] & 255u));
  }
}

TEST_CASE("a value that a guard keeps lives on over a loop") {
  // The second time round, lanes below 20 keep what the first one gave them; behind its last use
  // others' values come.
  Machine machine(kernel(R"(
    mov.u32 %r10, 0; mov.u32 %r11, 0; mad.wide.u32 %rd10, %r0, 8, %rd0; mad.wide.u32 %rd11, %r0, 4, %rd1;
    LOOP: setp.eq.u32 %p2, %r10, 0; setp.ge.or.u32 %p1, %r0, 20, %p2;
    @%p1 ld.global.v2.u32 {%r2, %r3}, [%rd10]; @%p1 add.u32 %r4, %r0, %r10;
    add.u32 %r11, %r11, %r2; add.u32 %r11, %r11, %r3; add.u32 %r11, %r11, %r4;
    mul.lo.u32 %r5, %r10, 7; add.u32 %r6, %r5, 9; add.u32 %r7, %r6, 1; mul.lo.u32 %r8, %r6, %r7; add.u32 %r9, %r8, %r5;
    add.u32 %r11, %r11, %r9; add.u32 %r11, %r11, %r7; sub.u32 %r11, %r11, %r6;
    add.s64 %rd10, %rd10, 320; add.u32 %r10, %r10, 1; setp.lt.u32 %p3, %r10, 2; @%p3 bra LOOP;
    st.global.u32 [%rd11], %r11;
  )"));
  std::vector<std::uint32_t> words(160);
  std::iota(words.begin(), words.end(), 500u);
  std::uint32_t* out = machine.zeros<std::uint32_t>(40);
  machine.launch(40, machine.upload(words), out);
  for (unsigned i = 0; i < 40; ++i) {
    std::uint32_t sum = 0, pair = 0, own = 0;
    for (unsigned round = 0; round < 2; ++round) {
      if (round == 0 || i >= 20) {
        pair = words[80 * round + 2 * i] + words[80 * round + 2 * i + 1];
        own = i + round;
      }
      const std::uint32_t nine = round * 7 + 9;
      sum += pair + own + nine * (nine + 1) + round * 7 + 1;
    }
    CHECK(out[i] == sum);
  }
}

TEST_CASE("local memory is each thread's own, by its own address and by a generic one") {
  Machine machine(kernel(R"(
    .local .align 8 .b8 depot[48]; .reg .b64 %SP, %SPL;
    mov.u64 %SPL, depot; cvta.local.u64 %SP, %SPL;
    st.local.u32 [%SPL+8], %r0; mul.lo.u32 %r2, %r0, 3; st.u32 [%SP+12], %r2;
    bar.warp.sync -1;
    ld.u32 %r3, [%SP+8]; ld.local.u32 %r4, [depot+12]; add.u32 %r5, %r3, %r4;
    mad.wide.u32 %rd10, %r0, 4, %rd0; st.global.u32 [%rd10], %r5;
  )"));
  std::uint32_t* out = machine.zeros<std::uint32_t>(64);
  machine.launch(64, out);
  for (unsigned i = 0; i < 64; ++i) CHECK(out[i] == 4 * i);
}

TEST_CASE("shared memory: static, dynamic, generic") {
  Machine machine(
      kernel(R"(
    mov.u32 %r2, fixed; mov.u32 %r3, open; mad.lo.u32 %r4, %r0, 4, %r3; mad.lo.u32 %r5, %r0, 4, %r2;
    st.shared.u32 [%r5], %r0; st.shared.u32 [%r4], 1000; bar.sync 0;
    cvt.u64.u32 %rd10, %r5; cvta.shared.u64 %rd11, %rd10; ld.u32 %r6, [%rd11];
    cvta.to.shared.u64 %rd12, %rd11; cvt.u32.u64 %r7, %rd12; sub.u32 %r7, %r7, %r5;
    ld.shared.u32 %r8, [%r4]; add.u32 %r9, %r6, %r8; add.u32 %r9, %r9, %r7; ld.shared.u32 %r10, [fixed+4]; add.u32 %r9, %r9, %r10;
    mad.wide.u32 %rd13, %r0, 4, %rd0; st.global.u32 [%rd13], %r9;
  )",
             ".extern .shared .align 16 .b8 open[];\n.shared .align 4 .b8 fixed[260];\n"));
  std::uint32_t* out = machine.zeros<std::uint32_t>(64);
  machine.launch(64, out, nullptr, nullptr, nullptr, 1, 256);
  for (unsigned i = 0; i < 64; ++i) CHECK(out[i] == 1001 + i);
  CHECK(machine.module.resources(*machine.module.find("k")).static_shared == 260);
  CHECK_THROWS_AS(machine.launch(64, out, nullptr, nullptr, nullptr, 1, 252), Fault);
}

TEST_CASE("module variables have their initial values and keep what kernels write") {
  Machine machine(kernel(R"(
    ld.const.u32 %r2, [fixed+4]; ld.global.u64 %rd10, [counter]; add.s64 %rd10, %rd10, 1; st.global.u64 [counter], %rd10;
    mov.u64 %rd11, counter; ld.u32 %r3, [%rd11]; add.u32 %r2, %r2, %r3; st.global.u32 [%rd0], %r2;
  )",
                         ".const .align 4 .u32 fixed[3] = {5, 600, -1};\n.global .align 8 .u64 "
                         "counter = 40;\n.const .align 1 .u8 none;\n"));
  std::uint32_t* out = machine.zeros<std::uint32_t>(1);
  machine.launch(1, out);
  CHECK(*out == 641);
  machine.launch(1, out);
  CHECK(*out == 642);
  std::uint64_t counter = 0;
  REQUIRE(machine.module.variable("counter").size() == 8);
  std::memcpy(&counter, machine.module.variable("counter").data(), 8);
  CHECK(counter == 42);
  CHECK(machine.module.variable("nothing").empty());
}

TEST_CASE("parameters of several types, and their address") {
  Machine machine(kHeader + R"(
    .visible .entry k(.param .u8 small, .param .align 8 .b8 block[24], .param .f32 real, .param .u64 out) {
    .reg .b32 %r<8>; .reg .b64 %rd<8>; .reg .f32 %f<2>;
    ld.param.u64 %rd0, [out]; ld.param.u8 %r0, [small]; ld.param.v2.u32 {%r1, %r2}, [block+8]; ld.param.f32 %f0, [real];
    mov.b64 %rd1, block; cvta.param.u64 %rd2, %rd1; ld.u32 %r3, [%rd2+20]; cvt.rzi.u32.f32 %r4, %f0;
    add.u32 %r0, %r0, %r1; add.u32 %r0, %r0, %r2; add.u32 %r0, %r0, %r3; add.u32 %r0, %r0, %r4; st.global.u32 [%rd0], %r0; ret; })");
  const Kernel& entry = *machine.module.find("k");
  REQUIRE(entry.params.size() == 4);
  CHECK(entry.params[1].offset == 8);
  CHECK(entry.params[2].offset == 32);
  CHECK(entry.params[3].offset == 40);
  CHECK(entry.params_size == 48);
  std::uint32_t* out = machine.zeros<std::uint32_t>(1);
  std::vector<std::byte> params(48);
  const auto put = [&](std::size_t at, auto value) {
    std::memcpy(params.data() + at, &value, sizeof(value));
  };
  put(0, std::uint8_t{200});
  put(16, std::uint32_t{1000});
  put(20, std::uint32_t{20'000});
  put(28, std::uint32_t{300'000});
  put(32, 7.9F);
  put(40, out);
  run(machine.module, entry, LaunchShape(), params, machine.memory, {});
  CHECK(*out == 321'207);
}

TEST_CASE("atomics of all lanes add up, and give back what was there") {
  Machine machine(kernel(R"(
    atom.global.add.u32 %r2, [%rd0], 3; atom.global.max.s32 %r3, [%rd0+4], %r0; atom.global.or.b32 %r3, [%rd0+8], %r0;
    atom.global.cas.b32 %r4, [%rd0+12], %r0, 99; cvt.rn.f32.u32 %f0, %r0; red.global.add.f32 [%rd0+16], %f0;
    cvt.u64.u32 %rd10, %r0; atom.global.min.u64 %rd11, [%rd0+24], %rd10; atom.global.exch.b32 %r5, [%rd0+32], %r0;
    atom.global.inc.u32 %r6, [%rd0+36], 6; mad.wide.u32 %rd12, %r0, 4, %rd1; st.global.u32 [%rd12], %r2;
  )"));
  std::uint32_t* words = machine.upload(
      std::vector<std::uint32_t>{1, static_cast<std::uint32_t>(-5), 256, 20, 0, 0, 7, 8, 1, 0});
  std::uint32_t* old = machine.zeros<std::uint32_t>(100);
  machine.launch(50, words, old, nullptr, nullptr, 2);
  CHECK(words[0] == 301);
  CHECK(words[1] == 49);
  CHECK(words[2] == (256 | 63));
  CHECK(words[3] == 99);
  float sum = 0;
  std::memcpy(&sum, words + 4, 4);
  CHECK(sum == 2450.0F);
  CHECK(words[6] == 0);
  CHECK(words[7] == 0);
  CHECK(words[8] == 49);
  CHECK(words[9] == 100 % 7);
  std::uint32_t total = 0;
  for (unsigned i = 0; i < 50; ++i) total += old[i];
  CHECK(total == 50 * 151 + 3 * 49 * 25);  // the second block's: 151, 154, ...
}

TEST_CASE("accesses outside live memory fault, and say where") {
  std::string text;
  CHECK(fault_of("st.global.u32 [%rd0+252], 1;", 1) == kNoFault);
  CHECK(fault_of("st.global.u32 [%rd0+256], 1;", 1, 256, "", &text) ==
        code(Fault::Kind::kIllegalAddress));
  CHECK(text.find("st.global.u32 [%rd0+256], 1;") != text.npos);
  CHECK(text.find("thread (0, 0, 0)") != text.npos);
  CHECK(fault_of("ld.global.u32 %r2, [%rd0+-4];", 1) == code(Fault::Kind::kIllegalAddress));
  CHECK(fault_of("ld.global.v4.u32 {%r2, %r3, %r4, %r5}, [%rd0+240];", 1, 255) ==
        code(Fault::Kind::kIllegalAddress));
  CHECK(fault_of("ld.global.u32 %r2, [%rd1];", 1) == code(Fault::Kind::kIllegalAddress));  // null
  // Only lane 40 of 64 is beyond the end.
  CHECK(fault_of("mad.wide.u32 %rd10, %r0, 4, %rd0; st.global.u32 [%rd10], 1;", 64, 160, "",
                 &text) == code(Fault::Kind::kIllegalAddress));
  CHECK(text.find("thread (40, 0, 0)") != text.npos);
  // A lane that does not take part may have any address.
  CHECK(fault_of("setp.lt.u32 %p1, %r0, 40; mad.wide.u32 %rd10, %r0, 4, %rd0; @%p1 st.global.u32 "
                 "[%rd10], 1;",
                 64, 160) == kNoFault);
  CHECK(fault_of("mov.u32 %r2, s; ld.shared.u32 %r3, [%r2+8];", 1, 1,
                 ".shared .align 4 .b8 s[8];\n") == code(Fault::Kind::kIllegalAddress));
  CHECK(fault_of("ld.shared.u32 %r3, [0];", 1, 1, ".shared .align 4 .b8 s[8];\n") ==
        code(Fault::Kind::kIllegalAddress));
  CHECK(fault_of(".local .align 4 .b8 l[8]; st.local.u32 [l+8], 1;", 1) ==
        code(Fault::Kind::kIllegalAddress));
}

TEST_CASE("a use after release faults") {
  Machine machine(kernel("ld.global.u32 %r2, [%rd0]; st.global.u32 [%rd1], %r2;"));
  std::uint32_t* word = machine.upload(std::vector<std::uint32_t>{17});
  std::uint32_t* out = machine.zeros<std::uint32_t>(1);
  machine.launch(1, word, out);
  CHECK(*out == 17);
  CHECK(machine.memory.release(word, Memory::Kind::kDevice));
  CHECK_FALSE(machine.memory.release(word, Memory::Kind::kDevice));
  CHECK_THROWS_AS(machine.launch(1, word, out), Fault);
  CHECK_FALSE(machine.memory.contains(word, 1));
}

TEST_CASE("fills, small and large, and what lies around them") {
  Memory memory;
  for (const std::size_t bytes : {std::size_t{100}, std::size_t{30} << 20u}) {
    const std::size_t total = bytes + 7000;
    auto* block = static_cast<std::uint8_t*>(memory.allocate(total, Memory::Kind::kDevice));
    CHECK(block[total - 1] == 0xA5);
    memory.fill(block + 3000, 0x7C, bytes);
    block[3001] = 1;
    std::size_t wrong = 0;
    for (std::size_t i = 0; i < total; ++i) {
      const bool inside = i >= 3000 && i < 3000 + bytes;
      wrong += block[i] != (i == 3001 ? 1 : inside ? 0x7C : 0xA5);
    }
    CHECK(wrong == 0);
    CHECK(memory.release(block, Memory::Kind::kDevice));
  }
  CHECK(memory.device_bytes() == 0);
}

TEST_CASE("misaligned accesses and traps fault") {
  CHECK(fault_of("ld.global.u32 %r2, [%rd0+2];", 1) == code(Fault::Kind::kMisalignedAddress));
  CHECK(fault_of("ld.global.v2.u32 {%r2, %r3}, [%rd0+4];", 1) ==
        code(Fault::Kind::kMisalignedAddress));
  CHECK(fault_of("ld.global.u16 %rs2, [%rd0+2];", 1) == kNoFault);
  CHECK(fault_of("mov.u32 %r2, s; ld.shared.u64 %rd3, [%r2+4];", 1, 1,
                 ".shared .align 8 .b8 s[16];\n") == code(Fault::Kind::kMisalignedAddress));
  CHECK(fault_of("setp.eq.u32 %p1, %r0, 77; @%p1 trap;", 64) == kNoFault);
  CHECK(fault_of("setp.eq.u32 %p1, %r0, 60; @%p1 trap;", 64) == code(Fault::Kind::kTrap));
}

TEST_CASE("conditional handles reach the caller") {
  Machine machine(
      kernel(R"(
    setp.ne.u32 %p1, %r0, 3; @%p1 bra END;
    { .param .b64 h; .param .b32 v; st.param.b64 [h+0], %rd0; st.param.b32 [v+0], 5;
      call.uni cudaGraphSetConditional, (h, v); }
    END:
  )",
             ".extern .func cudaGraphSetConditional(.param .b64 p0, .param .b32 p1);\n"));
  std::vector<std::pair<std::uint64_t, unsigned>> calls;
  machine.set_conditional = [&](std::uint64_t handle, unsigned value) {
    calls.emplace_back(handle, value);
  };
  machine.launch(32, reinterpret_cast<void*>(0x1234));
  CHECK(calls == std::vector<std::pair<std::uint64_t, unsigned>>{{0x1234, 5}});
  machine.set_conditional = nullptr;
  CHECK_THROWS_AS(machine.launch(32), Fault);
}

}  // namespace
}  // namespace specdec::ptx::testing
