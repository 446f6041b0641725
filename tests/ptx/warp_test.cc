// Lanes, warps and blocks: who waits for whom.
#include <doctest/doctest.h>

#include <numeric>

#include "tests/ptx/ptx_fixture.h"

namespace specdec::ptx::testing {
namespace {

constexpr int kNoFault = -1;
int code(Fault::Kind kind) { return static_cast<int>(kind); }

// Each thread stores %r9 to its place in pb.
const std::string kStore = "mad.wide.u32 %rd10, %r0, 4, %rd1;\nst.global.u32 [%rd10], %r9;\n";

std::vector<std::uint32_t> results(const std::string& body, unsigned threads,
                                   const std::string& declarations = "",
                                   std::size_t dynamic_shared = 0) {
  Machine machine(kernel(body + kStore, declarations));
  std::uint32_t* out = machine.zeros<std::uint32_t>(threads);
  machine.launch(threads, nullptr, out, nullptr, nullptr, 1, dynamic_shared);
  return Machine::download(out, threads);
}

TEST_CASE("lanes diverge, loop for different times and meet again") {
  // Lane i adds 1 + 2 + ... + i, then all vote: the ballot says that all are there.
  const auto got = results(R"(
    mov.u32 %r2, 0; mov.u32 %r3, 0;
    LOOP: setp.ge.u32 %p1, %r2, %r0; @%p1 bra DONE;
    add.u32 %r2, %r2, 1; add.u32 %r3, %r3, %r2; bra LOOP;
    DONE: setp.eq.u32 %p2, %r0, %r0; vote.sync.ballot.b32 %r4, %p2, -1;
    popc.b32 %r5, %r4; mad.lo.u32 %r9, %r5, 1000, %r3;
  )",
                           32);
  for (unsigned i = 0; i < 32; ++i) CHECK(got[i] == 32'000 + i * (i + 1) / 2);
}

TEST_CASE("nested branches") {
  const auto got = results(R"(
    mov.u32 %r9, 0; and.b32 %r2, %r0, 1; and.b32 %r3, %r0, 2;
    setp.eq.u32 %p1, %r2, 0; setp.eq.u32 %p2, %r3, 0;
    @%p1 bra EVEN;
    @%p2 bra A; add.u32 %r9, %r9, 3; bra B; A: add.u32 %r9, %r9, 1; B: bra JOIN;
    EVEN: @%p2 bra C; add.u32 %r9, %r9, 2; bra D; C: add.u32 %r9, %r9, 10; D:
    JOIN: add.u32 %r9, %r9, 100;
  )",
                           70);
  for (unsigned i = 0; i < 70; ++i) {
    const std::uint32_t part[] = {10, 1, 2, 3};
    CHECK(got[i] == 100 + part[i % 4]);
  }
}

TEST_CASE("shuffles") {
  const auto shuffled = [](const std::string& mode, const std::string& b, const std::string& c) {
    return results("shfl.sync." + mode + ".b32 %r9|%p1, %r0, " + b + ", " + c +
                       ", -1; @%p1 add.u32 %r9, %r9, 1000;\n",
                   32);
  };
  const auto up = shuffled("up", "3", "0"), down = shuffled("down", "5", "31"),
             cross = shuffled("bfly", "6", "31");
  const auto eighths = shuffled("down", "3", "6175");  // 0x181F: segments of 8
  const auto from = shuffled("idx", "9", "4127");      // 0x101F: lane 9 % 16 of each half
  for (unsigned i = 0; i < 32; ++i) {
    CAPTURE(i);
    CHECK(up[i] == (i >= 3 ? i - 3 + 1000 : i));
    CHECK(down[i] == (i + 5 < 32 ? i + 5 + 1000 : i));
    CHECK(cross[i] == (i ^ 6u) + 1000);
    CHECK(eighths[i] == (i % 8 + 3 < 8 ? i + 3 + 1000 : i));
    CHECK(from[i] == i / 16 * 16 + 9 + 1000);
  }
}

TEST_CASE("a shuffle among half of the lanes waits for these alone") {
  const auto got = results(R"(
    mov.u32 %r9, 7; setp.ge.u32 %p1, %r0, 16; @%p1 bra END;
    shfl.sync.bfly.b32 %r9, %r0, 1, 31, 0xffff;
    END:
  )",
                           32);
  for (unsigned i = 0; i < 32; ++i) CHECK(got[i] == (i < 16 ? (i ^ 1u) : 7u));
  // Both halves at the same instruction with masks of their own.
  const auto halves = results(R"(
    setp.ge.u32 %p1, %r0, 16; selp.b32 %r2, 0xffff0000, 0x0000ffff, %p1;
    vote.sync.ballot.b32 %r9, %p1, %r2;
  )",
                              32);
  for (unsigned i = 0; i < 32; ++i) CHECK(halves[i] == (i < 16 ? 0u : 0xFFFF0000u));
}

TEST_CASE("lanes meet at copies of an instruction in different branches") {
  const auto got = results(R"(
    and.b32 %r2, %r0, 7; setp.eq.u32 %p1, %r2, 0; mul.lo.u32 %r3, %r0, 3; mov.u32 %r4, -1; @%p1 bra COPY;
    shfl.sync.bfly.b32 %r9, %r0, 1, 31, -1; vote.sync.ballot.b32 %r5, %p1, %r4; redux.sync.add.u32 %r6, %r0, -1; bra END;
    COPY: shfl.sync.bfly.b32 %r9|%p2, %r3, 1, 31, %r4; vote.sync.ballot.b32 %r5, %p1, -1; redux.sync.add.u32 %r6, %r3, -1;
    END: add.u32 %r9, %r9, %r5; add.u32 %r9, %r9, %r6;
  )",
                           32);
  for (unsigned i = 0; i < 32; ++i) {
    const unsigned partner = i ^ 1u;
    const unsigned sum = 31 * 16 + 2 * (8 + 16 + 24);  // lanes 0, 8, 16 and 24 count three times
    CHECK(got[i] == (partner % 8 == 0 ? 3 * partner : partner) + 0x01010101u + sum);
  }
}

TEST_CASE("lanes that are through are not waited for") {
  const auto got = results(R"(
    setp.lt.u32 %p1, %r0, 10; mov.u32 %r9, 0; @!%p1 bra GO; ret;
    GO: setp.eq.u32 %p2, %r0, %r0; vote.sync.ballot.b32 %r9, %p2, -1; bar.sync 0;
  )",
                           64);
  CHECK(got[9] == 0);
  CHECK(got[10] == 0xFFFFFC00u);
  CHECK(got[63] == 0xFFFFFFFFu);
}

TEST_CASE("warps that are through are not waited for, whether they leave before or after") {
  for (const char* leaves : {"setp.lt.u32 %p1, %r0, 32;", "setp.ge.u32 %p1, %r0, 64;"}) {
    CHECK(fault_of(std::string(leaves) + " @%p1 ret; bar.sync 0; bar.sync 0;", 96) == kNoFault);
  }
}

TEST_CASE("votes and reductions of a warp") {
  const auto any = results(
      "setp.eq.u32 %p1, %r0, 5; vote.sync.any.pred %p2, %p1, -1; selp.u32 %r9, 1, 0, %p2;\n", 64);
  const auto all = results(
      "setp.ne.u32 %p1, %r0, 5; vote.sync.all.pred %p2, %p1, -1; selp.u32 %r9, 1, 0, %p2;\n", 64);
  const auto most = results("sub.s32 %r2, 20, %r0; redux.sync.max.s32 %r9, %r2, -1;\n", 64);
  const auto least = results("sub.s32 %r2, 20, %r0; redux.sync.min.u32 %r9, %r2, -1;\n", 64);
  CHECK(any[0] == 1);
  CHECK(any[40] == 0);
  CHECK(all[31] == 0);
  CHECK(all[32] == 1);
  CHECK(most[3] == 20);
  CHECK(static_cast<std::int32_t>(most[50]) == 20 - 32);
  CHECK(least[3] == 0);
  CHECK(least[50] == static_cast<std::uint32_t>(20 - 63));
}

TEST_CASE("a barrier orders shared memory between warps") {
  const auto got = results(R"(
    mov.u32 %r2, slots; mad.lo.u32 %r3, %r0, 4, %r2; st.shared.u32 [%r3], %r0;
    bar.sync 0;
    sub.u32 %r4, 255, %r0; mad.lo.u32 %r3, %r4, 4, %r2; ld.shared.u32 %r9, [%r3];
  )",
                           256, ".shared .align 4 .b8 slots[1024];\n");
  for (unsigned i = 0; i < 256; ++i) CHECK(got[i] == 255 - i);
}

TEST_CASE("barriers that count, and barriers of some warps") {
  const auto counted = results(R"(
    and.b32 %r2, %r0, 3; setp.eq.u32 %p1, %r2, 0; bar.red.popc.u32 %r9, 0, %p1;
    bar.red.or.pred %p2, 0, %p1; bar.red.and.pred %p3, 0, %p1;
    @%p2 add.u32 %r9, %r9, 1000; @%p3 add.u32 %r9, %r9, 5000;
  )",
                               128);
  for (unsigned i = 0; i < 128; ++i) CHECK(counted[i] == 1032);
  // Warps 0 and 1 meet twice at barrier 1 without the others; warp 2 only announces itself at
  // barrier 2 to warp 3.
  const auto some = results(R"(
    mov.u32 %r9, 1; setp.ge.u32 %p1, %r0, 64; @%p1 bra OTHERS;
    bar.sync 1, 64; bar.sync 1, 64; mov.u32 %r9, 2; bra END;
    OTHERS: setp.ge.u32 %p2, %r0, 96; @%p2 bra LAST; bar.arrive 2, 64; bra END;
    LAST: bar.sync 2, 64; mov.u32 %r9, 3;
    END: bar.sync 0;
  )",
                            128);
  CHECK(some[0] == 2);
  CHECK(some[70] == 1);
  CHECK(some[100] == 3);
}

TEST_CASE("what never meets is a deadlock") {
  std::string text;
  // Warp 1 never comes to the barrier that counts it in.
  CHECK(fault_of("setp.ge.u32 %p1, %r0, 32; @%p1 bra END; bar.sync 1, 64; END:", 64, 256, "",
                 &text) == code(Fault::Kind::kDeadlock));
  CHECK(text.find("bar.sync 1, 64") != text.npos);
  CHECK(text.find("kernel k") != text.npos);
  // Lanes of one warp wait for each other at different places.
  CHECK(fault_of(R"(
    setp.ge.u32 %p1, %r0, 16; @%p1 bra OTHER; bar.warp.sync -1; bra END;
    OTHER: vote.sync.any.pred %p2, %p1, -1; END:
  )") == code(Fault::Kind::kDeadlock));
  CHECK(fault_of("setp.ge.u32 %p1, %r0, 16; @%p1 bra END; bar.sync 0; bar.sync 0; END: "
                 "bar.warp.sync -1;") == code(Fault::Kind::kDeadlock));
  // An mbarrier that nobody arrives at.
  CHECK(fault_of(R"(
    mov.u32 %r2, bar; setp.ne.u32 %p1, %r0, 0; @%p1 bra W; mbarrier.init.shared.b64 [%r2], 1; W: bar.sync 0;
    again: mbarrier.test_wait.parity.shared.b64 %p2, [%r2], 0; @!%p2 bra again;
  )",
                 64, 256, ".shared .align 8 .b8 bar[8];\n") == code(Fault::Kind::kDeadlock));
}

TEST_CASE("wrong member masks and barriers") {
  CHECK(fault_of("setp.eq.u32 %p1, %r0, 0; vote.sync.any.pred %p2, %p1, 0xff;") ==
        code(Fault::Kind::kUndefined));
  CHECK(fault_of("bar.sync 0, 33;") == code(Fault::Kind::kUndefined));
  CHECK(fault_of("bar.sync 16;") == code(Fault::Kind::kUndefined));
  CHECK(fault_of("and.b32 %r2, %r0, 1; bar.sync %r2;") == code(Fault::Kind::kUndefined));
  CHECK(fault_of("bar.sync 15;") == kNoFault);
}

TEST_CASE("a lane that spins lets the lane it waits for go on") {
  // Lane 0 waits in a loop that lies before the store it waits for.
  const auto got = results(R"(
    mov.u32 %r2, flag; setp.eq.u32 %p1, %r0, 0; st.shared.u32 [%r2], 0;
    bar.warp.sync -1;
    @!%p1 bra SET;
    SPIN: ld.volatile.shared.u32 %r9, [%r2]; setp.eq.u32 %p2, %r9, 0; @%p2 bra SPIN; bra END;
    SET: mov.u32 %r9, 6; st.volatile.shared.u32 [%r2], 5;
    END:
  )",
                           32, ".shared .align 4 .b8 flag[4];\n");
  CHECK(got[0] == 5);
  CHECK(got[1] == 6);
}

TEST_CASE("a block that spins on another block's word lets it go on") {
  Machine machine(kernel(R"(
    setp.eq.u32 %p1, %r1, 0; @!%p1 bra LATER;
    SPIN: ld.volatile.global.u32 %r2, [%rd0]; setp.lt.u32 %p2, %r2, 3; @%p2 bra SPIN; st.global.u32 [%rd1], 77; bra END;
    LATER: atom.global.add.u32 %r3, [%rd0], 1;
    END:
  )"));
  std::uint32_t* word = machine.zeros<std::uint32_t>(1);
  std::uint32_t* out = machine.zeros<std::uint32_t>(1);
  machine.launch(1, word, out, nullptr, nullptr, 4);
  CHECK(*word == 3);
  CHECK(*out == 77);
}

TEST_CASE("functions: arguments, results, each call's own registers") {
  const auto got = results(R"(
    { .param .b32 a; .param .b32 b; .param .b32 r;
    st.param.b32 [a+0], %r0; st.param.b32 [b+0], 3;
    call.uni (r), twice_and_add, (a, b);
    ld.param.b32 %r9, [r+0]; }
    { .param .b32 a; .param .b32 b; .param .b32 r;
    st.param.b32 [a+0], %r9; st.param.b32 [b+0], 100;
    call.uni (r), twice_and_add, (a, b);
    ld.param.b32 %r9, [r+0]; }
  )",
                           40, R"(
    .func (.param .b32 result) twice_and_add(.param .b32 x, .param .b32 y)
    { .reg .b32 %r<4>; .reg .pred %p<2>;
      ld.param.u32 %r0, [x]; ld.param.u32 %r1, [y]; add.u32 %r2, %r0, %r0;
      setp.gt.u32 %p0, %r2, 50; @%p0 bra BIG; add.u32 %r2, %r2, %r1; st.param.b32 [result], %r2; ret;
      BIG: st.param.b32 [result], %r2; ret; }
  )");
  for (unsigned i = 0; i < 40; ++i) {
    const auto once = [](unsigned x, unsigned y) { return 2 * x > 50 ? 2 * x : 2 * x + y; };
    CHECK(got[i] == once(once(i, 3), 100));
  }
}

TEST_CASE("the grid's coordinates") {
  Machine machine(kHeader + R"(
    .visible .entry k(.param .u64 out) .maxntid 24, 1, 1 {
    .reg .b32 %r<20>; .reg .b64 %rd<4>;
    mov.u32 %r0, %tid.x; mov.u32 %r1, %tid.y; mov.u32 %r2, %tid.z; mov.u32 %r3, %ctaid.x; mov.u32 %r4, %ctaid.y;
    mov.u32 %r5, %ctaid.z; mov.u32 %r6, %ntid.x; mov.u32 %r7, %ntid.y; mov.u32 %r8, %ntid.z; mov.u32 %r9, %nctaid.x;
    mov.u32 %r10, %nctaid.y;
    mad.lo.u32 %r11, %r5, %r10, %r4; mad.lo.u32 %r11, %r11, %r9, %r3;
    mad.lo.u32 %r11, %r11, %r8, %r2; mad.lo.u32 %r11, %r11, %r7, %r1; mad.lo.u32 %r11, %r11, %r6, %r0;
    ld.param.u64 %rd0, [out]; mad.wide.u32 %rd1, %r11, 4, %rd0; atom.global.add.u32 %r12, [%rd1], %r11;
    })");
  const std::size_t count = 24 * 30;
  std::uint32_t* out = machine.zeros<std::uint32_t>(count);
  LaunchShape shape;
  shape.grid = {2, 3, 5};
  shape.block = {4, 3, 2};
  const void* pointer = out;
  const auto params = std::as_bytes(std::span(&pointer, 1));
  run(machine.module, *machine.module.find("k"), shape, params, machine.memory, {});
  for (std::size_t i = 0; i < count; ++i) CHECK(out[i] == i);
  shape.block = {25, 1, 1};
  CHECK_THROWS_AS(run(machine.module, *machine.module.find("k"), shape, params, machine.memory, {}),
                  std::invalid_argument);
}

TEST_CASE("unknown text is refused, with its line") {
  const auto message = [](const std::string& text) -> std::string {
    try {
      Module module(text);
      for (const Kernel* entry : module.kernels()) module.program(*entry);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  };
  CHECK(message(kernel("frobnicate.u32 %r2, %r3;")).find("frobnicate") != std::string::npos);
  CHECK(message(kernel("add.rz.f32 %f0, %f1, %f2;")).find("rz") != std::string::npos);
  CHECK(message(kernel("add.u32 %r2, %r3, %nosuch;")).find("%nosuch") != std::string::npos);
  CHECK(message(kernel("add.u32 %r2, %rd3, %r4;")).find("width") != std::string::npos);
  CHECK(message(kernel("bra NOWHERE;")).find("NOWHERE") != std::string::npos);
  CHECK(message(kernel("")).empty());
}

}  // namespace
}  // namespace specdec::ptx::testing
