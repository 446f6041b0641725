// A machine for PTX, the assembly that nvcc makes of CUDA kernels: it runs them on the host's
// processor. Slow, but it needs no GPU, and it checks what a GPU does not: that every access lies
// inside a live allocation and is aligned, that the lanes of a warp meet where they must, that no
// barrier waits for ever.
//
// What it is not: a model of a GPU's timing or of its weak memory order (blocks and warps take
// turns, memory is sequentially consistent), nor of the last bits of approximate instructions and
// tensor cores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace specdec::ptx {

struct Dim3 {
  unsigned x = 1, y = 1, z = 1;
};

/// A kernel's parameter: where it lies in the parameter bytes of a launch.
struct KernelParam {
  std::size_t offset = 0, size = 0, align = 0;
};

/// What an entry's header says.
struct Kernel {
  std::string name;
  std::vector<KernelParam> params;
  std::size_t params_size = 0;  ///< bytes of all parameters
  unsigned max_threads = 1024;  ///< per block (.maxntid)
};

/// What only an entry's body says: bytes per block and per thread, registers per thread (32-bit, as
/// this machine allots them: not what ptxas would need).
struct KernelResources {
  std::size_t static_shared = 0, local = 0;
  int registers = 0;
};

/// How a Memory's storage is given back.
struct GiveBack {
  std::size_t mapped = 0;  ///< bytes; 0: of new[]
  void operator()(std::byte* storage) const;
};

/// Live memory that kernels may touch. Addresses are the host's own. Around each allocation lies a
/// zone that belongs to nobody, and a released block stays out of use for a while, so accesses
/// outside or after release are found. Not thread-safe.
class Memory {
 public:
  enum class Kind { kDevice, kPinned, kAdopted };
  struct Region {
    std::uintptr_t begin = 0, end = 0;
    Kind kind = Kind::kDevice;
  };

  Memory();
  ~Memory();
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  /// 256-byte aligned, filled with 0xA5. At least one byte.
  void* allocate(std::size_t bytes, Kind kind);
  /// False: not the start of a live allocation of this kind.
  bool release(void* pointer, Kind kind);
  /// Memory of someone else's that kernels may touch as well (module variables, registered host
  /// memory).
  void adopt(void* pointer, std::size_t bytes);
  bool abandon(void* pointer);

  /// The region that holds `address`; null: none.
  const Region* find(const void* address) const;
  /// All of [pointer, pointer + bytes) lies in one live region.
  bool contains(const void* pointer, std::size_t bytes) const;
  /// memset of live memory; large fills of large blocks cost next to nothing.
  void fill(void* pointer, int value, std::size_t bytes);
  /// The host wrote there (copies, fills): reads of it are reads of known values.
  void mark_written(const void* pointer, std::size_t bytes);

  std::size_t device_bytes() const { return device_bytes_; }  ///< live, of kDevice
  /// Changes with every allocation and release: an answer of find() holds as long as this does.
  std::uint64_t generation() const { return generation_; }

 private:
  using Storage = std::unique_ptr<std::byte[], GiveBack>;
  struct Block {
    Region region;
    Storage storage;  // null: adopted
    std::size_t storage_bytes = 0;
  };
  static Storage make_storage(std::size_t bytes);

  std::map<std::uintptr_t, Block> live_;  // by begin
  std::deque<Storage> quarantine_;
  std::deque<std::size_t> quarantined_;
  std::size_t quarantine_bytes_ = 0, device_bytes_ = 0;
  std::uint64_t generation_ = 1;
};

struct Program;  // a decoded entry

/// One module's text (one fat binary entry): kernels and module-scope variables.
class Module {
 public:
  /// Reads headers and variables; throws std::runtime_error with the line at what it does not know.
  explicit Module(std::string text);
  ~Module();
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  /// Null: none of that name. Lives as long as the module.
  const Kernel* find(std::string_view name) const;
  std::vector<const Kernel*> kernels() const;
  /// Storage of a .global or .const variable of module scope; empty: none of that name. Adopt it in
  /// a Memory before a kernel that uses it runs.
  std::span<std::byte> variable(std::string_view name);
  std::vector<std::span<std::byte>> variables();

  /// Decodes the entry if that has not been done. Throws std::runtime_error with line and text at
  /// an instruction that the machine does not know.
  const Program& program(const Kernel& kernel);
  KernelResources resources(const Kernel& kernel);
  /// The text of a line, without the space around it; empty: none of that number.
  std::string_view line(int number) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct LaunchShape {
  Dim3 grid, block, cluster;
  std::size_t dynamic_shared = 0;  ///< bytes
};

/// What went wrong in a kernel. The text names kernel, block, thread, line and text of the
/// instruction.
struct Fault : std::runtime_error {
  enum class Kind {
    kIllegalAddress,  ///< outside live memory
    kMisalignedAddress,
    kTrap,      ///< the kernel gave up itself
    kDeadlock,  ///< nothing can move, or one launch runs without end
    kUndefined  ///< something that PTX leaves undefined: barriers or warps used wrongly
  };
  Fault(Kind k, const std::string& text) : std::runtime_error(text), kind(k) {}
  Kind kind;
};

/// What a kernel's cudaGraphSetConditional calls.
using SetConditional = std::function<void(std::uint64_t handle, unsigned value)>;

/// Runs a whole grid and returns when it is done. `params`: Kernel::params_size bytes.
/// `set_conditional` may be empty: a kernel that calls it then faults. Throws Fault;
/// std::invalid_argument at a shape that cannot be run (0 threads, more than Kernel::max_threads,
/// wrong size of the parameters). One launch at a time per Memory.
void run(Module& module, const Kernel& kernel, const LaunchShape& shape,
         std::span<const std::byte> params, Memory& memory, const SetConditional& set_conditional);

/// Of this process, all launches together.
struct Counts {
  std::uint64_t launches = 0, warp_instructions = 0, lane_instructions = 0;
};
Counts counts();

}  // namespace specdec::ptx
