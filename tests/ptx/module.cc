#include "tests/ptx/module.h"

#include <algorithm>
#include <cstring>

namespace specdec::ptx {
namespace {

constexpr std::size_t kVariableAlign = 256;

std::size_t round_up(std::size_t value, std::size_t to) { return (value + to - 1) / to * to; }

// The end of a comment that starts at `at`, or `at`.
std::size_t skip_comment(std::string_view text, std::size_t at) {
  if (text.substr(at, 2) == "//") return std::min(text.find('\n', at), text.size());
  if (text.substr(at, 2) == "/*") return std::min(text.find("*/", at) + 2, text.size());
  return at;
}

// A walk over the outermost level: directives, declarations, routines.
class Scan {
 public:
  Scan(std::string_view text, ModuleScope* scope) : text_(text), scope_(scope) {}

  void run() {
    for (skip_space(); at_ < text_.size() && text_[at_] != '\0'; skip_space()) item();
  }

 private:
  void step() { line_ += text_[at_++] == '\n'; }

  void skip_space() {
    while (at_ < text_.size()) {
      const std::size_t end = skip_comment(text_, at_);
      if (end != at_) {
        while (at_ < end) step();
      } else if (std::isspace(static_cast<unsigned char>(text_[at_]))) {
        step();
      } else {
        return;
      }
    }
  }

  // Up to a character of `ends`, outside comments.
  std::string_view until(std::string_view ends) {
    const std::size_t begin = at_;
    while (at_ < text_.size() && ends.find(text_[at_]) == ends.npos) {
      const std::size_t end = skip_comment(text_, at_);
      if (end == at_) {
        step();
      } else {
        while (at_ < end) step();
      }
    }
    return text_.substr(begin, at_ - begin);
  }

  void skip_body() {
    for (int depth = 0;;) {
      until("{}");
      if (at_ >= text_.size()) throw SyntaxError(line_, "a body without end");
      depth += text_[at_] == '{' ? 1 : -1;
      step();
      if (depth == 0) return;
    }
  }

  void item() {
    const int line = line_;
    const std::size_t begin = at_;
    for (std::string_view directive : {".version", ".target", ".address_size", ".file"}) {
      if (text_.substr(at_, directive.size()) == directive) {
        until("\n");
        return;
      }
    }
    const std::string_view header = until(";{=");
    if (at_ >= text_.size()) throw SyntaxError(line, "a declaration without end");
    const bool is_routine =
        header.find(".entry") != header.npos || header.find(".func") != header.npos;
    if (is_routine) {
      const bool has_body = text_[at_] == '{';
      if (has_body) {
        skip_body();
      } else {
        step();
      }
      routine(header, has_body ? text_.substr(begin, at_ - begin) : std::string_view(), line);
      return;
    }
    until(";");
    variable(text_.substr(begin, at_ - begin), line);
    step();
  }

  void routine(std::string_view header, std::string_view text, int line) {
    const std::vector<Token> tokens = tokenize(header, line);
    Reader reader(tokens);
    Routine routine;
    while (!reader.peek().is(".entry") && !reader.peek().is(".func")) reader.next();
    routine.is_entry = reader.next().is(".entry");
    if (reader.accept("(")) {  // the returned value
      while (!reader.accept(")")) reader.next();
    }
    routine.kernel.name = reader.name();
    if (reader.accept("(")) {
      while (!reader.accept(")")) {
        reader.expect(".param");
        const Declaration declaration = read_declaration(reader);
        KernelParam param{round_up(routine.kernel.params_size, declaration.align), declaration.size,
                          declaration.align};
        routine.kernel.params_size = param.offset + param.size;
        routine.kernel.params.push_back(param);
        reader.accept(",");
      }
    }
    while (reader.peek().kind != Token::Kind::kEnd) {
      if (!reader.accept(".maxntid")) {
        reader.next();
        continue;
      }
      unsigned threads = static_cast<unsigned>(reader.integer());
      while (reader.accept(",")) threads *= static_cast<unsigned>(reader.integer());
      routine.kernel.max_threads = threads;
    }
    routine.text = text;
    routine.line = line;
    const auto known = scope_->routines.find(routine.kernel.name);
    if (known == scope_->routines.end()) {
      scope_->routines.emplace(routine.kernel.name, std::move(routine));
    } else if (!text.empty()) {
      known->second = std::move(routine);
    }
  }

  void variable(std::string_view text, int line) {
    const std::vector<Token> tokens = tokenize(text, line);
    Reader reader(tokens);
    bool is_extern = false;
    while (reader.peek().is(".extern") || reader.peek().is(".visible") ||
           reader.peek().is(".weak") || reader.peek().is(".common")) {
      is_extern |= reader.next().is(".extern");
    }
    Variable variable;
    if (reader.accept(".global")) {
      variable.space = Space::kGlobal;
    } else if (reader.accept(".const")) {
      variable.space = Space::kConst;
    } else if (reader.accept(".shared")) {
      variable.space = Space::kShared;
    } else {
      throw SyntaxError(line, "what is '" + std::string(reader.peek().text) + "'?");
    }
    const Declaration declaration = read_declaration(reader);
    variable.size = declaration.size;
    variable.align = declaration.align;
    if (variable.space == Space::kShared) {
      variable.is_dynamic = is_extern;
    } else {
      if (is_extern || declaration.is_unsized)
        throw SyntaxError(line, "a variable of another module");
      variable.storage.reset(new std::byte[variable.size + kVariableAlign]());
      const auto start = reinterpret_cast<std::uintptr_t>(variable.storage.get());
      variable.data = reinterpret_cast<std::byte*>(round_up(start, kVariableAlign));
      if (reader.accept("=")) initialise(reader, declaration, variable);
    }
    if (reader.peek().kind != Token::Kind::kEnd) {
      throw SyntaxError(line, "unexpected '" + std::string(reader.peek().text) + "'");
    }
    scope_->variables.emplace(declaration.name, std::move(variable));
  }

  // Numbers, or nested lists of them, in order.
  static void initialise(Reader& reader, const Declaration& declaration, Variable& variable) {
    const std::size_t bytes = static_cast<std::size_t>(declaration.type.bits) / 8;
    std::size_t at = 0;
    int depth = 0;
    do {
      if (reader.accept("{")) {
        ++depth;
      } else if (reader.accept("}")) {
        --depth;
        reader.accept(",");
      } else {
        const int line = reader.peek().line;
        const Operand value = reader.operand();
        if (value.kind != Operand::Kind::kNumber)
          throw SyntaxError(line, "an initial value that is not a number");
        if (at + bytes > variable.size)
          throw SyntaxError(line, "more initial values than the variable holds");
        std::memcpy(variable.data + at, &value.value, bytes);
        at += bytes;
        reader.accept(",");
      }
    } while (depth > 0);
  }

  std::string_view text_;
  ModuleScope* scope_;
  std::size_t at_ = 0;
  int line_ = 1;
};

}  // namespace

Declaration read_declaration(Reader& reader) {
  Declaration declaration;
  for (;;) {
    const int line = reader.peek().line;
    if (reader.accept(".align")) {
      declaration.align = static_cast<std::size_t>(reader.integer());
      continue;
    }
    if (reader.accept(".ptr")) {  // what a pointer parameter points to
      reader.accept(".global");
      if (reader.accept(".align")) reader.integer();
      continue;
    }
    const std::string_view word = reader.name();
    if (word[0] != '.') {
      declaration.name = word;
      break;
    }
    if (!parse_type(word.substr(1), &declaration.type)) {
      throw SyntaxError(line, "unknown type " + std::string(word));
    }
  }
  const std::size_t bytes = static_cast<std::size_t>(declaration.type.bits) / 8;
  declaration.align = std::max(declaration.align, bytes);
  declaration.size = bytes;
  while (reader.accept("[")) {
    if (reader.accept("]")) {
      declaration.is_unsized = true;
      declaration.size = 0;
      continue;
    }
    declaration.size *= static_cast<std::size_t>(reader.integer());
    reader.expect("]");
  }
  return declaration;
}

Module::Module(std::string text) : state_(std::make_unique<State>()) {
  state_->text = std::move(text);
  Scan(state_->text, &state_->scope).run();
}

Module::~Module() = default;

const Kernel* Module::find(std::string_view name) const {
  const auto found = state_->scope.routines.find(name);
  if (found == state_->scope.routines.end() || !found->second.is_entry) return nullptr;
  return &found->second.kernel;
}

std::vector<const Kernel*> Module::kernels() const {
  std::vector<const Kernel*> all;
  for (const auto& [name, routine] : state_->scope.routines) {
    if (routine.is_entry) all.push_back(&routine.kernel);
  }
  return all;
}

std::span<std::byte> Module::variable(std::string_view name) {
  const auto found = state_->scope.variables.find(name);
  if (found == state_->scope.variables.end() || found->second.data == nullptr) return {};
  return {found->second.data, found->second.size};
}

std::vector<std::span<std::byte>> Module::variables() {
  std::vector<std::span<std::byte>> all;
  for (const auto& [name, variable] : state_->scope.variables) {
    if (variable.data != nullptr) all.emplace_back(variable.data, variable.size);
  }
  return all;
}

const Program& Module::program(const Kernel& kernel) {
  std::unique_ptr<Program>& program = state_->programs[&kernel];
  if (!program) {
    Decoder decoder(state_->scope);
    decoder.decode_entry(kernel.name);
    allocate_rows(decoder);
    program = std::make_unique<Program>(std::move(decoder.program));
    program->params_bytes = kernel.params_size;
  }
  return *program;
}

std::string_view Module::line(int number) const {
  std::string_view text = state_->text;
  for (int line = 1; line < number; ++line) {
    const std::size_t end = text.find('\n');
    if (end == text.npos) return {};
    text.remove_prefix(end + 1);
  }
  text = text.substr(0, text.find('\n'));
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())))
    text.remove_prefix(1);
  return text;
}

KernelResources Module::resources(const Kernel& kernel) {
  const Program& decoded = program(kernel);
  return {decoded.static_shared, decoded.local_bytes, decoded.num_registers};
}

}  // namespace specdec::ptx
