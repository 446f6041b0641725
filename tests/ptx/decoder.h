// From statements to instructions. The families of opcodes (ops_*.cc) each say in an OpTable how
// their statements are decoded; they see operands as Places of virtual registers, which allocate.cc
// then maps to rows.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tests/ptx/lexer.h"
#include "tests/ptx/program.h"

namespace specdec::ptx {

/// A type suffix.
struct Type {
  enum class Kind : std::uint8_t { kUnsigned, kSigned, kBits, kFloat, kBfloat, kPredicate };
  Kind kind = Kind::kBits;
  int bits = 0;
  int packed = 1;  ///< 2: f16x2, bf16x2 (bits is 32)

  bool is_float() const { return kind == Kind::kFloat || kind == Kind::kBfloat; }
  bool is_signed() const { return kind == Kind::kSigned; }
  bool is_predicate() const { return kind == Kind::kPredicate; }
};
/// False: not a type.
bool parse_type(std::string_view text, Type* type);

enum class Space : std::uint8_t { kGeneric, kGlobal, kShared, kLocal, kParam, kConst };

/// An address operand: a row (or constant) plus Instr::immediate.
struct Address {
  Place base = kNowhere;
  std::int64_t offset = 0;
  int width = 64;                 ///< bits of the row's values
  Space space = Space::kGeneric;  ///< where a variable's name says it lies, else as asked
};

struct Register {
  int bits = 0;  ///< 1: predicate
};

class Decoder;

/// The words of an opcode after the first; each must be taken by whoever decodes it.
class Words {
 public:
  explicit Words(const Statement& statement);
  /// Takes the word if it is there, at any position.
  bool take(std::string_view word);
  /// Takes the first word that is a type, or the next one after it; throws if there is none.
  Type type();
  bool has_type() const;
  Space space();  ///< .global, .shared (::cta too), ...; kGeneric: none
  /// Throws if a word is left.
  void done() const;

 private:
  const Statement* statement_;
  std::vector<std::string_view> left_;
};

using Decode = void (*)(Decoder&, const Statement&, Words&);
using OpTable = std::unordered_map<std::string_view, Decode>;

void add_arithmetic(OpTable& table);
void add_bits(OpTable& table);
void add_conversions(OpTable& table);
void add_memory(OpTable& table);
void add_warp(OpTable& table);
void add_matrix(OpTable& table);
void add_async(OpTable& table);
void add_control(OpTable& table);

/// d = not a, of predicates.
void negate_predicate(Warp& warp, const Instr& instr);
/// The call of cudaGraphSetConditional: its arguments lie in local memory at `immediate` and
/// `target`.
void set_conditional(Warp& warp, const Instr& instr);

/// What a statement may name outside its own entry.
struct ModuleScope;

class Decoder {
 public:
  explicit Decoder(const ModuleScope& module);

  /// Places during decoding: 2 * number for a register; constants have their final places.
  Place use(const Operand& operand, Type type);
  Place use_any(const Operand& operand,
                int* bits);  ///< whatever width the register has (numbers: 64)
  Place define(const Operand& operand, Type type);
  Place define_any(const Operand& operand, int* bits);
  Place constant(std::uint64_t value, int bits);
  Place new_register(int bits);
  Address address(const Operand& operand, Space space);
  /// Makes it the address that the instruction reads or writes.
  void set_address(Instr& instr, const Operand& operand, Space space);

  /// Emits; the guard is the present statement's. `defines_d`: d is written (else read as well as
  /// a, b, c).
  Instr& emit(Instr instr, bool defines_d = true);
  /// Adds further operands to the instruction that is emitted next.
  void more(Instr& instr, const std::vector<Place>& reads, const std::vector<Place>& writes);

  [[noreturn]] void unknown(const Statement& statement, const std::string& why = "") const;

  // The rest is decode.cc's and allocate.cc's.
  struct Draft {
    bool defines_d = true;
    std::uint32_t more_reads = 0;  ///< the first ones of Instr::more are read, the rest written
  };
  Program program;
  std::vector<Draft> drafts;
  std::vector<Register> registers;
  void decode_entry(const std::string& name);

 private:
  struct Symbol {
    enum class Kind { kRegister, kVariable } kind = Kind::kRegister;
    Place place = kNowhere;
    int bits = 0;
    Space space = Space::kGeneric;
    std::int64_t at = 0;  // a variable's address in its space
  };
  struct Scope {
    std::unordered_map<std::string_view, Symbol> symbols;
    std::unordered_map<std::string_view, std::uint32_t> labels;
    std::vector<std::pair<std::string_view, std::uint32_t>>
        branches;              // not resolved yet: label, instruction
    bool is_function = false;  // names of enclosing scopes are not seen
  };

  const Symbol* find(std::string_view name) const;
  Symbol special(std::string_view name);
  void declare_registers(Reader& reader);
  void declare_variable(Reader& reader, Space space);
  void read_params(Reader& reader, const std::vector<Symbol>& bound);
  void body(Reader& reader);
  void open_scope(bool is_function);
  void close_scope();
  void instruction(const Statement& statement);
  void branch(const Statement& statement, std::string_view label);
  void call(const Statement& statement);
  void return_from(const Statement& statement);

  const ModuleScope& module_;
  std::vector<Scope> scopes_;
  std::deque<std::string> names_;                            // of registers declared as a range
  std::vector<std::unique_ptr<std::vector<Token>>> tokens_;  // names point into them
  std::vector<std::vector<std::uint32_t>*>
      returns_;  // of functions being expanded: branches to their ends
  std::unordered_map<std::string_view, Symbol> specials_;
  std::unordered_map<std::string_view, Symbol> shared_variables_;
  std::unordered_map<std::uint64_t, Place> constants32_, constants64_;
  const Statement* statement_ = nullptr;
  int depth_ = 0;
};

/// Maps virtual registers to rows: registers that are never live at the same time share one.
void allocate_rows(Decoder& decoder);

}  // namespace specdec::ptx
