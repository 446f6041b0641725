// What an entry is decoded to: an array of instructions, each with the function that runs it for a
// whole warp, and rows of 32 values in place of registers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace specdec::ptx {

inline constexpr int kLanes = 32;
inline constexpr std::uint32_t kAllLanes = 0xFFFFFFFFu;
/// Addresses of the shared, local and param spaces start here: 0 is in none of them.
inline constexpr std::uint32_t kSpaceBase = 1024;

struct Warp;
struct Instr;
using Handler = void (*)(Warp&, const Instr&);

/// What the scheduler does with an instruction.
enum class Flow : std::uint8_t {
  kPlain,  ///< runs it, goes on
  kBranch,
  kExit,
  kMeet,     ///< waits for the lanes of the member mask, then runs it
  kBarrier,  ///< waits for the warp, then for the block
  kPoll      ///< runs it; if it says so (Warp::polled_in_vain), other warps have their turn
};

/// Where an operand lies: a byte offset into the warp's rows, or, if odd, into the program's
/// constants. Values of up to 32 bits lie 4 bytes apart (the low bits count), those of 64 bits 8; a
/// predicate is one word, a bit per lane.
using Place = std::int32_t;
inline constexpr Place kNowhere = -2;

struct Instr {
  Handler run = nullptr;
  Place d = kNowhere, a = kNowhere, b = kNowhere, c = kNowhere;
  Place guard = kNowhere;
  Place members = kNowhere;  ///< of a kMeet: the member masks; none: all live lanes
  bool guard_negated = false;
  Flow flow = Flow::kPlain;
  bool reads_predicate = false;  ///< of a kMeet: row a is a predicate
  std::uint8_t kind = 0;         ///< for the handler: a comparison, a barrier's operation, ...
  std::uint8_t width = 0;        ///< bits of an address row (32, 64), and the like
  std::uint32_t target = 0;      ///< of a branch
  std::uint32_t more = 0;        ///< further operands: Program::operands[more ...]
  std::uint32_t more_count = 0;
  std::int64_t immediate = 0;  ///< an address's offset, a lookup table
};

enum class Special : std::uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kNwarpId,
  kLaneMaskEq,
  kLaneMaskLt,
  kLaneMaskLe,
  kLaneMaskGt,
  kLaneMaskGe,
  kClusterRank,
  kClusterSize,
  kDynamicShared,
  kSmId,
  kNsmId
};

/// What a kBarrier does (Instr::kind). Rows: a the barrier, b the number of threads (none: the
/// block's), c the predicate.
enum class BarrierOp : std::uint8_t { kSync, kArrive, kPopc, kAnd, kOr };

struct Program {
  std::string name;
  std::vector<Instr> code;
  std::vector<int> lines;  ///< of each instruction in the module's text
  std::vector<Place> operands;
  std::vector<std::uint64_t> constants;  ///< rows
  std::size_t rows_bytes = 0;            ///< of one warp's registers
  std::size_t static_shared =
      0;  ///< bytes of a block's own variables; dynamic shared memory follows, aligned
  std::size_t local_bytes = 0;  ///< per thread
  std::size_t params_bytes = 0;
  std::vector<std::pair<Special, Place>> specials;  ///< rows that are set when a warp starts
  int num_registers = 0;                            ///< 32-bit ones per thread
};

}  // namespace specdec::ptx
