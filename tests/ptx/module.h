// What a module's text declares at its outermost level.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tests/ptx/decoder.h"
#include "tests/ptx/machine.h"

namespace specdec::ptx {

/// An entry or a function with a body.
struct Routine {
  Kernel kernel;
  std::string_view text;  ///< from its parameters to the closing brace; empty: only declared
  int line = 0;           ///< of the text's start
  bool is_entry = false;
};

struct Variable {
  Space space = Space::kGlobal;
  std::size_t size = 0, align = 1;
  bool is_dynamic = false;  ///< .extern .shared: the launch says how large
  std::unique_ptr<std::byte[]> storage;
  std::byte* data = nullptr;  ///< of .global and .const variables
};

struct ModuleScope {
  std::map<std::string, Routine, std::less<>> routines;
  std::map<std::string, Variable, std::less<>> variables;
};

struct Module::State {
  std::string text;
  ModuleScope scope;
  std::map<const Kernel*, std::unique_ptr<Program>> programs;
};

/// A declaration of a variable or parameter after its space: alignment, type, name and dimensions.
struct Declaration {
  std::string_view name;
  Type type;
  std::size_t align = 0, size = 0;
  bool is_unsized = false;  ///< name[]
};
Declaration read_declaration(Reader& reader);

}  // namespace specdec::ptx
