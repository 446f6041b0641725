#include <algorithm>

#include "tests/ptx/decoder.h"
#include "tests/ptx/module.h"

namespace specdec::ptx {
namespace {

const OpTable& table() {
  static const OpTable ops = [] {
    OpTable made;
    add_arithmetic(made);
    add_conversions(made);
    add_memory(made);
    add_warp(made);
    add_matrix(made);
    add_async(made);
    add_control(made);
    return made;
  }();
  return ops;
}

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

// Values of up to 32 bits share one kind of row, predicates and 64 bits have their own.
int row_bits(int bits) { return bits == 1 ? 1 : bits <= 32 ? 32 : 64; }

}  // namespace

bool parse_type(std::string_view text, Type* type) {
  using Kind = Type::Kind;
  static const std::unordered_map<std::string_view, Type> types = {
      {"u8", {Kind::kUnsigned, 8}},     {"u16", {Kind::kUnsigned, 16}},
      {"u32", {Kind::kUnsigned, 32}},   {"u64", {Kind::kUnsigned, 64}},
      {"s8", {Kind::kSigned, 8}},       {"s16", {Kind::kSigned, 16}},
      {"s32", {Kind::kSigned, 32}},     {"s64", {Kind::kSigned, 64}},
      {"b8", {Kind::kBits, 8}},         {"b16", {Kind::kBits, 16}},
      {"b32", {Kind::kBits, 32}},       {"b64", {Kind::kBits, 64}},
      {"f16", {Kind::kFloat, 16}},      {"f32", {Kind::kFloat, 32}},
      {"f64", {Kind::kFloat, 64}},      {"bf16", {Kind::kBfloat, 16}},
      {"f16x2", {Kind::kFloat, 32, 2}}, {"bf16x2", {Kind::kBfloat, 32, 2}},
      {"pred", {Kind::kPredicate, 1}}};
  const auto found = types.find(text);
  if (found == types.end()) return false;
  *type = found->second;
  return true;
}

Words::Words(const Statement& statement)
    : statement_(&statement), left_(statement.parts.begin() + 1, statement.parts.end()) {}

bool Words::take(std::string_view word) {
  const auto found = std::find(left_.begin(), left_.end(), word);
  if (found == left_.end()) return false;
  left_.erase(found);
  return true;
}

bool Words::has_type() const {
  Type type;
  return std::any_of(left_.begin(), left_.end(),
                     [&](std::string_view word) { return parse_type(word, &type); });
}

Type Words::type() {
  Type type;
  for (auto word = left_.begin(); word != left_.end(); ++word) {
    if (parse_type(*word, &type)) {
      left_.erase(word);
      return type;
    }
  }
  throw SyntaxError(statement_->line, "no type in " + std::string(statement_->opcode));
}

Space Words::space() {
  if (take("global")) return Space::kGlobal;
  if (take("shared") || take("shared::cta")) return Space::kShared;
  if (take("local")) return Space::kLocal;
  if (take("param")) return Space::kParam;
  if (take("const")) return Space::kConst;
  return Space::kGeneric;
}

void Words::done() const {
  if (left_.empty()) return;
  throw SyntaxError(statement_->line, "unknown '." + std::string(left_.front()) + "' in " +
                                          std::string(statement_->opcode));
}

Decoder::Decoder(const ModuleScope& module) : module_(module) {}

void Decoder::unknown(const Statement& statement, const std::string& why) const {
  throw SyntaxError(statement.line, "unknown instruction " + std::string(statement.opcode) +
                                        (why.empty() ? "" : ": " + why));
}

Place Decoder::new_register(int bits) {
  registers.push_back({row_bits(bits)});
  return static_cast<Place>(2 * (registers.size() - 1));
}

Place Decoder::constant(std::uint64_t value, int bits) {
  const bool wide = bits == 64;
  if (!wide) value &= 0xFFFFFFFFu;
  auto& known = wide ? constants64_ : constants32_;
  const auto found = known.find(value);
  if (found != known.end()) return found->second;
  if (!wide) value |= value << 32u;
  const std::size_t words = wide ? kLanes : kLanes / 2;
  const std::size_t at = program.constants.size() * sizeof(std::uint64_t);
  program.constants.insert(program.constants.end(), words, value);
  const auto place =
      static_cast<Place>(at + 1);  // rows begin at multiples of 128: the low bit is free
  known.emplace(wide ? value : value & 0xFFFFFFFFu, place);
  return place;
}

const Decoder::Symbol* Decoder::find(std::string_view name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope) {
    const auto found = scope->symbols.find(name);
    if (found != scope->symbols.end()) return &found->second;
    if (scope->is_function) break;
  }
  return nullptr;
}

Decoder::Symbol Decoder::special(std::string_view name) {
  static const std::unordered_map<std::string_view, Special> names = {
      {"%tid.x", Special::kTidX},
      {"%tid.y", Special::kTidY},
      {"%tid.z", Special::kTidZ},
      {"%ntid.x", Special::kNtidX},
      {"%ntid.y", Special::kNtidY},
      {"%ntid.z", Special::kNtidZ},
      {"%ctaid.x", Special::kCtaidX},
      {"%ctaid.y", Special::kCtaidY},
      {"%ctaid.z", Special::kCtaidZ},
      {"%nctaid.x", Special::kNctaidX},
      {"%nctaid.y", Special::kNctaidY},
      {"%nctaid.z", Special::kNctaidZ},
      {"%laneid", Special::kLaneId},
      {"%warpid", Special::kWarpId},
      {"%nwarpid", Special::kNwarpId},
      {"%lanemask_eq", Special::kLaneMaskEq},
      {"%lanemask_lt", Special::kLaneMaskLt},
      {"%lanemask_le", Special::kLaneMaskLe},
      {"%lanemask_gt", Special::kLaneMaskGt},
      {"%lanemask_ge", Special::kLaneMaskGe},
      {"%smid", Special::kSmId},
      {"%nsmid", Special::kNsmId},
      {"%cluster_ctarank", Special::kClusterRank},
      {"%cluster_nctarank", Special::kClusterSize}};
  const auto known = specials_.find(name);
  if (known != specials_.end()) return known->second;
  const auto found = names.find(name);
  if (found == names.end())
    throw SyntaxError(statement_->line, "unknown name " + std::string(name));
  Symbol symbol{Symbol::Kind::kRegister, new_register(32), 32};
  program.specials.emplace_back(found->second, symbol.place);
  specials_.emplace(found->first, symbol);
  return symbol;
}

Place Decoder::use_any(const Operand& operand, int* bits) {
  if (operand.kind == Operand::Kind::kNumber) {
    *bits = 64;
    return constant(static_cast<std::uint64_t>(operand.value), 64);
  }
  if (operand.kind != Operand::Kind::kName)
    throw SyntaxError(statement_->line, "unexpected operand");
  if (const Symbol* symbol = find(operand.name)) {
    if (symbol->kind == Symbol::Kind::kRegister) {
      *bits = symbol->bits;
      if (!operand.negated) return symbol->place;
      if (symbol->bits != 1) throw SyntaxError(statement_->line, "! of what is no predicate");
      const Place negated = new_register(1);
      Instr instr;
      instr.run = &negate_predicate;
      instr.d = negated;
      instr.a = symbol->place;
      emit(instr);
      return negated;
    }
    *bits = 64;
    return constant(static_cast<std::uint64_t>(symbol->at), 64);
  }
  if (module_.variables.contains(operand.name)) {
    Operand address;
    address.kind = Operand::Kind::kAddress;
    address.name = operand.name;
    const Address at = this->address(address, Space::kGeneric);
    *bits = at.width;
    return at.width == 32 ? at.base : constant(static_cast<std::uint64_t>(at.offset), 64);
  }
  const Symbol symbol = special(operand.name);
  *bits = 32;
  return symbol.place;
}

Place Decoder::use(const Operand& operand, Type type) {
  if (operand.kind == Operand::Kind::kNumber) {
    std::uint64_t value = static_cast<std::uint64_t>(operand.value);
    if (type.is_predicate()) value = value != 0 ? 0xFFFFFFFFu : 0;
    return constant(value, type.bits == 64 ? 64 : 32);
  }
  int bits = 0;
  const Place place = use_any(operand, &bits);
  if (row_bits(bits) == row_bits(type.bits)) return place;
  if (place & 1) {  // the address of a variable
    return constant(program.constants[static_cast<std::size_t>(place) / sizeof(std::uint64_t)],
                    type.bits == 64 ? 64 : 32);
  }
  throw SyntaxError(statement_->line, "width of " + std::string(operand.name) + " does not fit " +
                                          std::string(statement_->opcode));
}

Place Decoder::define_any(const Operand& operand, int* bits) {
  if (operand.kind == Operand::Kind::kName) {
    if (operand.name == "_") {
      *bits = 0;
      return kNowhere;
    }
    const Symbol* symbol = find(operand.name);
    if (symbol != nullptr && symbol->kind == Symbol::Kind::kRegister && !operand.negated) {
      *bits = symbol->bits;
      return symbol->place;
    }
  }
  throw SyntaxError(statement_->line, "cannot be written: " + std::string(operand.name));
}

Place Decoder::define(const Operand& operand, Type type) {
  int bits = 0;
  const Place place = define_any(operand, &bits);
  if (bits == 0) return new_register(type.bits);
  if (row_bits(bits) != row_bits(type.bits)) {
    throw SyntaxError(statement_->line, "width of " + std::string(operand.name) + " does not fit " +
                                            std::string(statement_->opcode));
  }
  return place;
}

Address Decoder::address(const Operand& operand, Space space) {
  Address address;
  address.space = space;
  address.offset = operand.value;
  if (operand.kind != Operand::Kind::kAddress)
    throw SyntaxError(statement_->line, "expected an address");
  if (operand.name.empty()) {
    address.base = constant(0, 64);
    return address;
  }
  if (const Symbol* symbol = find(operand.name)) {
    if (symbol->kind == Symbol::Kind::kRegister) {
      address.base = symbol->place;
      address.width = symbol->bits;
      return address;
    }
    address.base = constant(0, 64);
    address.offset += symbol->at;
    address.space = symbol->space;
    return address;
  }
  const auto found = module_.variables.find(operand.name);
  if (found == module_.variables.end())
    throw SyntaxError(statement_->line, "unknown name " + std::string(operand.name));
  const Variable& variable = found->second;
  address.space = variable.space;
  address.base = constant(0, 64);
  if (variable.space != Space::kShared) {
    address.offset += static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(variable.data));
  } else if (!variable.is_dynamic) {
    auto known = shared_variables_.find(found->first);
    if (known == shared_variables_.end()) {
      const std::size_t at =
          round_up(program.static_shared, std::max<std::size_t>(variable.align, 1));
      program.static_shared = at + variable.size;
      Symbol symbol{Symbol::Kind::kVariable, kNowhere, 64, Space::kShared,
                    static_cast<std::int64_t>(at + kSpaceBase)};
      known = shared_variables_.emplace(found->first, symbol).first;
    }
    address.offset += known->second.at;
  } else {  // where it begins is known when all static variables are
    const auto known = specials_.find("dynamic shared");
    Symbol symbol{Symbol::Kind::kRegister, kNowhere, 32};
    if (known == specials_.end()) {
      symbol.place = new_register(32);
      program.specials.emplace_back(Special::kDynamicShared, symbol.place);
      specials_.emplace("dynamic shared", symbol);
    } else {
      symbol = known->second;
    }
    address.base = symbol.place;
    address.width = 32;
  }
  return address;
}

void Decoder::set_address(Instr& instr, const Operand& operand, Space space) {
  const Address address = this->address(operand, space);
  instr.a = address.base;
  instr.immediate = address.offset;
  instr.width = static_cast<std::uint8_t>(address.width);
  instr.kind = static_cast<std::uint8_t>(address.space);
}

Instr& Decoder::emit(Instr instr, bool defines_d) {
  if (statement_ != nullptr && !statement_->guard.empty() && instr.guard == kNowhere) {
    Operand guard;
    guard.name = statement_->guard;
    int bits = 0;
    instr.guard = use_any(guard, &bits);
    instr.guard_negated = statement_->guard_negated;
    if (bits != 1) throw SyntaxError(statement_->line, "a guard that is no predicate");
  }
  if (drafts.size() <= program.code.size()) drafts.resize(program.code.size() + 1);
  drafts.back().defines_d = defines_d;
  program.code.push_back(instr);
  program.lines.push_back(statement_ != nullptr ? statement_->line : 0);
  return program.code.back();
}

void Decoder::more(Instr& instr, const std::vector<Place>& reads,
                   const std::vector<Place>& writes) {
  instr.more = static_cast<std::uint32_t>(program.operands.size());
  instr.more_count = static_cast<std::uint32_t>(reads.size() + writes.size());
  program.operands.insert(program.operands.end(), reads.begin(), reads.end());
  program.operands.insert(program.operands.end(), writes.begin(), writes.end());
  drafts.resize(program.code.size() + 1);
  drafts.back().more_reads = static_cast<std::uint32_t>(reads.size());
}

void Decoder::declare_registers(Reader& reader) {
  const int line = reader.peek().line;
  Type type;
  if (!parse_type(reader.name().substr(1), &type)) throw SyntaxError(line, "unknown register type");
  do {
    const std::string_view name = reader.name();
    Scope& scope = scopes_.back();
    if (reader.accept("<")) {
      const std::int64_t count = reader.integer();
      reader.expect(">");
      for (std::int64_t i = 0; i < count; ++i) {
        const std::string& full = names_.emplace_back(std::string(name) + std::to_string(i));
        scope.symbols[full] = {Symbol::Kind::kRegister, new_register(type.bits), type.bits};
      }
    } else {
      scope.symbols[name] = {Symbol::Kind::kRegister, new_register(type.bits), type.bits};
    }
  } while (reader.accept(","));
  reader.expect(";");
}

void Decoder::declare_variable(Reader& reader, Space space) {
  const Declaration declaration = read_declaration(reader);
  reader.expect(";");
  Symbol symbol;
  symbol.kind = Symbol::Kind::kVariable;
  // What a call passes lies in local memory, like any other array of a thread.
  std::size_t& used = space == Space::kShared ? program.static_shared : program.local_bytes;
  const std::size_t at = round_up(used, std::max<std::size_t>(declaration.align, 1));
  used = at + declaration.size;
  symbol.space = space == Space::kShared ? Space::kShared : Space::kLocal;
  symbol.at = static_cast<std::int64_t>(at + kSpaceBase);
  scopes_.back().symbols[declaration.name] = symbol;
}

void Decoder::open_scope(bool is_function) {
  scopes_.emplace_back();
  scopes_.back().is_function = is_function;
}

void Decoder::close_scope() {
  Scope scope = std::move(scopes_.back());
  scopes_.pop_back();
  for (const auto& [label, instr] : scope.branches) {
    const auto found = scope.labels.find(label);
    if (found != scope.labels.end()) {
      program.code[instr].target = found->second;
    } else if (scope.is_function || scopes_.empty()) {
      throw SyntaxError(program.lines[instr], "no label " + std::string(label));
    } else {
      scopes_.back().branches.emplace_back(label, instr);
    }
  }
}

void Decoder::branch(const Statement& statement, std::string_view label) {
  Instr instr;
  instr.flow = Flow::kBranch;
  scopes_.back().branches.emplace_back(label, program.code.size());
  statement_ = &statement;
  emit(instr, false);
}

void Decoder::call(const Statement& statement) {
  if (!statement.guard.empty()) unknown(statement, "a call with a guard");
  std::size_t at = 0;
  std::vector<Operand> results, arguments;
  if (statement.operands.size() > 1 && statement.operands[0].kind == Operand::Kind::kVector) {
    results = statement.operands[at++].parts;
  }
  const std::string_view name = statement.operands.at(at++).name;
  if (at < statement.operands.size()) arguments = statement.operands[at].parts;
  std::vector<Symbol> bound;
  for (const std::vector<Operand>* list : {&results, &arguments}) {
    for (const Operand& operand : *list) {
      const Symbol* symbol = find(operand.name);
      if (symbol == nullptr || symbol->kind != Symbol::Kind::kVariable)
        unknown(statement, "not a variable");
      bound.push_back(*symbol);
    }
  }
  if (name == "cudaGraphSetConditional") {
    Instr instr;
    instr.run = &set_conditional;
    instr.immediate = bound.at(0).at;
    instr.target = static_cast<std::uint32_t>(bound.at(1).at);
    emit(instr, false);
    return;
  }
  const auto found = module_.routines.find(name);
  if (found == module_.routines.end() || found->second.text.empty())
    unknown(statement, "no such function");
  if (++depth_ > 16) unknown(statement, "calls nested too deeply");
  // The function's text takes the call's place.
  const std::vector<Token> tokens = tokenize(found->second.text, found->second.line);
  tokens_.push_back(std::make_unique<std::vector<Token>>(tokens));
  Reader reader(*tokens_.back());
  std::vector<std::uint32_t> returns;
  returns_.push_back(&returns);
  open_scope(true);
  while (!reader.accept(".func")) reader.next();
  read_params(reader, bound);
  while (!reader.peek().is("{")) reader.next();
  body(reader);
  close_scope();
  returns_.pop_back();
  for (const std::uint32_t instr : returns)
    program.code[instr].target = static_cast<std::uint32_t>(program.code.size());
  --depth_;
  statement_ = &statement;
}

// Names of results and parameters, bound in order to the caller's variables.
void Decoder::read_params(Reader& reader, const std::vector<Symbol>& bound) {
  std::size_t next = 0;
  const auto list = [&] {
    while (!reader.accept(")")) {
      reader.expect(".param");
      const int line = reader.peek().line;
      const Declaration declaration = read_declaration(reader);
      if (next >= bound.size()) throw SyntaxError(line, "fewer arguments than parameters");
      scopes_.back().symbols[declaration.name] = bound[next++];
      reader.accept(",");
    }
  };
  if (reader.accept("(")) list();
  reader.name();
  if (reader.accept("(")) list();
}

void Decoder::return_from(const Statement& statement) {
  Instr instr;
  if (returns_.empty()) {
    instr.flow = Flow::kExit;
  } else {
    instr.flow = Flow::kBranch;
    returns_.back()->push_back(static_cast<std::uint32_t>(program.code.size()));
  }
  statement_ = &statement;
  emit(instr, false);
}

void Decoder::instruction(const Statement& statement) {
  statement_ = &statement;
  const std::string_view root = statement.parts[0];
  if (root == "bra") {
    branch(statement, statement.operands.at(0).name);
  } else if (root == "ret" || root == "exit") {
    return_from(statement);
  } else if (root == "call") {
    call(statement);
  } else {
    const auto found = table().find(root);
    if (found == table().end()) unknown(statement);
    Words words(statement);
    try {
      found->second(*this, statement, words);
    } catch (const std::out_of_range&) {
      unknown(statement, "too few operands");
    }
    words.done();
  }
  statement_ = nullptr;
}

void Decoder::body(Reader& reader) {
  reader.expect("{");
  while (!reader.accept("}")) {
    const Token& token = reader.peek();
    if (token.kind == Token::Kind::kEnd) throw SyntaxError(token.line, "a body without end");
    if (token.is("{")) {
      open_scope(false);
      body(reader);
      close_scope();
    } else if (reader.accept(".reg")) {
      declare_registers(reader);
    } else if (reader.accept(".shared")) {
      declare_variable(reader, Space::kShared);
    } else if (reader.accept(".local")) {
      declare_variable(reader, Space::kLocal);
    } else if (reader.accept(".param")) {
      declare_variable(reader, Space::kParam);
    } else if (token.is(".pragma") || token.is(".loc")) {
      const bool to_line_end = token.is(".loc");
      const int line = token.line;
      while (to_line_end ? reader.peek().line == line : !reader.accept(";")) reader.next();
    } else if (reader.peek(1).is(":")) {
      scopes_.back().labels[reader.name()] = static_cast<std::uint32_t>(program.code.size());
      reader.expect(":");
    } else if (!reader.accept(";")) {
      instruction(reader.statement());
    }
  }
}

void Decoder::decode_entry(const std::string& name) {
  const Routine& routine = module_.routines.find(name)->second;
  program.name = name;
  tokens_.push_back(std::make_unique<std::vector<Token>>(tokenize(routine.text, routine.line)));
  Reader reader(*tokens_.back());
  open_scope(true);
  while (!reader.accept(".entry")) reader.next();
  reader.name();
  if (reader.accept("(")) {
    for (std::size_t i = 0; !reader.accept(")"); ++i) {
      reader.expect(".param");
      const Declaration declaration = read_declaration(reader);
      Symbol symbol{Symbol::Kind::kVariable, kNowhere, 64, Space::kParam};
      symbol.at = static_cast<std::int64_t>(routine.kernel.params[i].offset + kSpaceBase);
      scopes_.back().symbols[declaration.name] = symbol;
      reader.accept(",");
    }
  }
  while (!reader.peek().is("{")) reader.next();
  body(reader);
  statement_ = nullptr;
  Instr exit;  // of a body that ends without ret
  exit.flow = Flow::kExit;
  emit(exit, false);
  close_scope();
}

}  // namespace specdec::ptx
