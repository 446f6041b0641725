#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/cpu/cpu_ops.h"

namespace specdec::kernels {
namespace {

struct Leaf {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};

Leaf cpuid(unsigned leaf, unsigned subleaf) noexcept {
  Leaf out;
  if (__get_cpuid_count(leaf, subleaf, &out.eax, &out.ebx, &out.ecx, &out.edx) == 0) return {};
  return out;
}

/// Which register states the operating system saves (XCR0); 0 without OSXSAVE.
std::uint64_t enabled_states() noexcept {
  if ((cpuid(1, 0).ecx >> 27 & 1u) == 0) return 0;
  unsigned low = 0;
  unsigned high = 0;
  __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return std::uint64_t{high} << 32 | low;
}

/// Linux gives a process the AMX tile state only when it asks (Documentation/arch/x86/xstate.rst).
bool may_use_tiles() noexcept {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  static const bool granted = syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
  return granted;
}

constexpr bool has(unsigned word, int bit) noexcept { return (word >> bit & 1u) != 0; }

struct Features {
  bool avx2 = false;
  bool avx512_vnni = false;
  bool amx = false;
};

// Bits of CPUID leaves 1 and 7 and of XCR0: Intel SDM volume 2A, CPUID; volume 1, section 13.3.
Features detect() noexcept {
  const Leaf one = cpuid(1, 0);
  const Leaf seven = cpuid(7, 0);
  const std::uint64_t states = enabled_states();
  Features features;
  features.avx2 = (states & 0x6) == 0x6 && has(one.ecx, 28) && has(one.ecx, 12) &&
                  has(one.ecx, 29) && has(seven.ebx, 5);
  features.avx512_vnni = features.avx2 && (states & 0xe6) == 0xe6 && has(seven.ebx, 16) &&
                         has(seven.ebx, 17) && has(seven.ebx, 30) && has(seven.ebx, 31) &&
                         has(seven.ecx, 11);
  features.amx = features.avx512_vnni && (states & 0x60000) == 0x60000 && has(seven.edx, 24) &&
                 has(seven.edx, 25);
  return features;
}

}  // namespace

const char* to_string(Isa isa) noexcept {
  switch (isa) {
    case Isa::avx2:
      return "avx2";
    case Isa::avx512_vnni:
      return "avx512";
    case Isa::amx:
      return "amx";
  }
  return "?";
}

bool supported(Isa isa) noexcept {
  const Features features = detect();
  switch (isa) {
    case Isa::avx2:
      return features.avx2;
    case Isa::avx512_vnni:
      return features.avx512_vnni;
    case Isa::amx:
      return features.amx && may_use_tiles();
  }
  return false;
}

Isa best_isa() noexcept { return detect().avx512_vnni ? Isa::avx512_vnni : Isa::avx2; }

}  // namespace specdec::kernels
