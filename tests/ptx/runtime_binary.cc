// Fat binaries: what nvcc's host code registers before main, and its look-up.
#include <cstring>
#include <stdexcept>

#include "tests/ptx/runtime.h"

namespace specdec::ptx {
namespace {

// fatbinary_section.h describes the wrapper, nothing public the rest: the layout is what
// CUDA 12 and 13 write (cuobjdump shows the same fields).
constexpr int kWrapperMagic = 0x466243B1;
constexpr std::uint32_t kMagic = 0xBA55ED50;
constexpr std::uint16_t kVersion = 1;
constexpr std::uint16_t kPtx = 1;
constexpr std::uint64_t kCompressed = 0x2000 | 0x8000 | 0x1000;

struct Wrapper {
  int magic, version;
  const std::byte* data;
  void* prelinked;
};
struct Header {
  std::uint32_t magic;
  std::uint16_t version, header_size;
  std::uint64_t size;  // of the entries behind the header
};
struct Entry {
  std::uint16_t kind, version;
  std::uint32_t header_size;
  std::uint64_t size;
  std::uint32_t compressed_size, options_offset;
  std::uint16_t minor, major;
  std::uint32_t architecture;
  std::uint32_t name_offset, name_size;
  std::uint64_t flags;
};
static_assert(sizeof(Header) == 16 && sizeof(Entry) == 48);

/// The PTX of the highest architecture that an sm_80 runs.
std::string find_ptx(const void* registered) {
  Wrapper wrapper;
  std::memcpy(&wrapper, registered, sizeof wrapper);
  if (wrapper.magic != kWrapperMagic) throw std::runtime_error("a fat binary without its wrapper");
  Header header;
  std::memcpy(&header, wrapper.data, sizeof header);
  if (header.magic != kMagic || header.version != kVersion || header.header_size < sizeof header)
    throw std::runtime_error("a fat binary of an unknown format");
  std::string found;
  std::uint32_t best = 0;
  std::string seen;
  const std::byte* at = wrapper.data + header.header_size;
  const std::byte* const end = at + header.size;
  while (at < end) {
    Entry entry;
    if (static_cast<std::size_t>(end - at) < sizeof entry)
      throw std::runtime_error("a fat binary that ends within an entry");
    std::memcpy(&entry, at, sizeof entry);
    if (entry.header_size < sizeof entry ||
        entry.size > static_cast<std::size_t>(end - at) - entry.header_size)
      throw std::runtime_error("a fat binary whose entries do not fit");
    seen += (entry.kind == kPtx ? " compute_" : " sm_") + std::to_string(entry.architecture);
    if (entry.kind == kPtx && entry.architecture <= 80 && entry.architecture > best) {
      if ((entry.flags & kCompressed) != 0 || entry.compressed_size != 0)
        throw std::runtime_error(
            "a fat binary whose PTX is compressed: compile with -Xfatbin=-compress=false");
      const auto* const text = reinterpret_cast<const char*>(at + entry.header_size);
      found.assign(text, strnlen(text, entry.size));  // padded with zeros
      best = entry.architecture;
    }
    at += entry.header_size + entry.size;
  }
  if (best == 0)
    throw std::runtime_error("a fat binary without PTX for compute_80; it has:" + seen);
  return found;
}

Runtime& locked(std::unique_lock<std::mutex>& hold) {
  Runtime& runtime = Runtime::get();
  hold = std::unique_lock<std::mutex>(runtime.lock);
  return runtime;
}

}  // namespace

Module& Runtime::module(Binary& binary) {
  if (!binary.wrong.empty()) throw NoImage(binary.wrong);
  if (binary.module) return *binary.module;
  binary.module = std::make_unique<Module>(std::move(binary.text));
  for (const std::span<std::byte> variable : binary.module->variables())
    memory.adopt(variable.data(), variable.size());
  return *binary.module;
}

CUkern_st* Runtime::function(const void* stub) {
  auto found = functions.find(stub);
  if (found == functions.end())  // not a stub, but a handle of __cudaGetKernel?
    for (auto each = functions.begin(); each != functions.end(); ++each)
      if (&each->second == stub) found = each;
  if (found == functions.end()) return nullptr;
  CUkern_st& function = found->second;
  if (function.kernel == nullptr) {
    Module& from = module(*function.binary);
    const Kernel* const kernel = from.find(function.name);
    if (kernel == nullptr) return nullptr;
    function.static_shared = from.resources(*kernel).static_shared;
    function.kernel = kernel;
  }
  return &function;
}

}  // namespace specdec::ptx

using namespace specdec::ptx;

extern "C" {

void** CUDARTAPI __cudaRegisterFatBinary(void* registered) {
  std::unique_lock<std::mutex> hold;
  Runtime& runtime = locked(hold);
  auto binary = std::make_unique<Binary>();
  try {
    binary->text = find_ptx(registered);
  } catch (const std::exception& wrong) {
    binary->wrong = wrong.what();  // whoever uses it hears of it
  }
  runtime.binaries.push_back(std::move(binary));
  return reinterpret_cast<void**>(runtime.binaries.back().get());
}

void CUDARTAPI __cudaRegisterFatBinaryEnd(void** /*handle*/) {}

// Programs end with their binaries registered: static objects may still call the runtime then.
void CUDARTAPI __cudaUnregisterFatBinary(void** /*handle*/) {}

char CUDARTAPI __cudaInitModule(void** /*handle*/) { return 1; }

void CUDARTAPI __cudaRegisterFunction(void** handle, const char* stub, char* /*device_stub*/,
                                      const char* name, int /*thread_limit*/, uint3* /*thread*/,
                                      uint3* /*block*/, dim3* /*block_dim*/, dim3* /*grid_dim*/,
                                      int* /*warp_size*/) {
  std::unique_lock<std::mutex> hold;
  Runtime& runtime = locked(hold);
  CUkern_st& function = runtime.functions[stub];
  function.binary = reinterpret_cast<Binary*>(handle);
  function.name = name;
}

void CUDARTAPI __cudaRegisterVar(void** handle, char* shadow, char* /*device_address*/,
                                 const char* name, int /*is_external*/, size_t bytes,
                                 int /*is_constant*/, int /*is_global*/) {
  std::unique_lock<std::mutex> hold;
  Runtime& runtime = locked(hold);
  runtime.symbols[shadow] = {reinterpret_cast<Binary*>(handle), name, bytes};
}

}  // extern "C"
