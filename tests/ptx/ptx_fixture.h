// Small PTX kernels on arrays, for the tests of the machine.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "tests/ptx/machine.h"

namespace specdec::ptx::testing {

inline const std::string kHeader = ".version 8.0\n.target sm_80\n.address_size 64\n";

/// A kernel `k` with the parameters pa, pb, pc, pd (addresses) and registers of every kind: %p,
/// %rs, %r, %rd, %f, %fd. At its start %rd0 ... %rd3 hold the parameters, %r0 the thread's number
/// in its block, %r1 the block's.
inline std::string kernel(const std::string& body, const std::string& declarations = "") {
  return kHeader + declarations +
         ".visible .entry k(.param .u64 pa, .param .u64 pb, .param .u64 pc, .param .u64 pd)\n{\n"
         ".reg .pred %p<16>;\n.reg .b16 %rs<16>;\n.reg .b32 %r<64>;\n.reg .b64 %rd<32>;\n.reg .f32 "
         "%f<32>;\n.reg .f64 %fd<16>;\n"
         "ld.param.u64 %rd0, [pa];\nld.param.u64 %rd1, [pb];\nld.param.u64 %rd2, "
         "[pc];\nld.param.u64 %rd3, [pd];\n"
         "mov.u32 %r0, %tid.x;\nmov.u32 %r1, %ctaid.x;\n" +
         body + "\nret;\n}\n";
}

/// Device memory and a module.
class Machine {
 public:
  explicit Machine(const std::string& text) : module(text) {
    for (const auto& variable : module.variables()) memory.adopt(variable.data(), variable.size());
  }

  template <class T>
  T* upload(const std::vector<T>& values) {
    T* copy = static_cast<T*>(memory.allocate(values.size() * sizeof(T), Memory::Kind::kDevice));
    if (!values.empty()) std::memcpy(copy, values.data(), values.size() * sizeof(T));
    return copy;
  }
  template <class T>
  T* zeros(std::size_t count) {
    return upload(std::vector<T>(count, T{}));
  }
  template <class T>
  static std::vector<T> download(const T* values, std::size_t count) {
    return {values, values + count};
  }

  void launch(unsigned threads, const void* a = nullptr, const void* b = nullptr,
              const void* c = nullptr, const void* d = nullptr, unsigned blocks = 1,
              std::size_t dynamic_shared = 0) {
    const void* pointers[4] = {a, b, c, d};
    LaunchShape shape;
    shape.grid.x = blocks;
    shape.block.x = threads;
    shape.dynamic_shared = dynamic_shared;
    run(module, *module.find("k"), shape, std::as_bytes(std::span(pointers)), memory,
        set_conditional);
  }

  Module module;
  Memory memory;
  SetConditional set_conditional;
};

/// The kind of the fault that `body` ends with; -1: none. One block of `threads`, `bytes` of memory
/// at %rd0.
inline int fault_of(const std::string& body, unsigned threads = 32, std::size_t bytes = 256,
                    const std::string& declarations = "", std::string* text = nullptr) {
  Machine machine(kernel(body, declarations));
  void* memory = machine.memory.allocate(bytes, Memory::Kind::kDevice);
  try {
    machine.launch(threads, memory);
  } catch (const Fault& fault) {
    if (text != nullptr) *text = fault.what();
    return static_cast<int>(fault.kind);
  }
  return -1;
}

template <class T>
const char* suffix() {
  if constexpr (std::is_same_v<T, float>) return "f32";
  if constexpr (std::is_same_v<T, double>) return "f64";
  if constexpr (std::is_same_v<T, std::int32_t>) return "s32";
  if constexpr (std::is_same_v<T, std::uint32_t>) return "u32";
  if constexpr (std::is_same_v<T, std::int64_t>) return "s64";
  if constexpr (std::is_same_v<T, std::uint64_t>) return "u64";
  if constexpr (std::is_same_v<T, std::int16_t>) return "s16";
  if constexpr (std::is_same_v<T, std::uint16_t>) return "u16";
  if constexpr (std::is_same_v<T, std::int8_t>) return "s8";
  if constexpr (std::is_same_v<T, std::uint8_t>) return "u8";
  return nullptr;
}

/// What `line`, which computes %d of %a, %b and %c, gives for each element; at most 1024.
template <class D, class A, class B = std::uint32_t, class C = std::uint32_t>
std::vector<D> apply(const std::string& line, const std::vector<A>& a, std::vector<B> b = {},
                     std::vector<C> c = {}) {
  b.resize(a.size());
  c.resize(a.size());
  const auto declare = [](const char* name, const char* type) {
    const std::string bits =
        std::string(type).substr(1) == "8" ? "b16" : "b" + std::string(type).substr(1);
    return ".reg ." + bits + " " + name + ";\n";
  };
  std::string body = declare("%a", suffix<A>()) + declare("%b", suffix<B>()) +
                     declare("%c", suffix<C>()) + declare("%d", suffix<D>());
  const auto at = [](int parameter, std::size_t size) {
    return "mad.wide.u32 %rd10, %r0, " + std::to_string(size) + ", %rd" +
           std::to_string(parameter) + ";\n";
  };
  body += at(0, sizeof(A)) + "ld.global." + suffix<A>() + " %a, [%rd10];\n";
  body += at(1, sizeof(B)) + "ld.global." + suffix<B>() + " %b, [%rd10];\n";
  body += at(2, sizeof(C)) + "ld.global." + suffix<C>() + " %c, [%rd10];\n";
  body += line + "\n" + at(3, sizeof(D)) + "st.global." + suffix<D>() + " [%rd10], %d;\n";
  Machine machine(kernel(body));
  D* d = machine.zeros<D>(a.size());
  machine.launch(static_cast<unsigned>(a.size()), machine.upload(a), machine.upload(b),
                 machine.upload(c), d);
  return Machine::download(d, a.size());
}

}  // namespace specdec::ptx::testing
