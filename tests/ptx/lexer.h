// PTX text to statements. Nothing here knows what an instruction does.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace specdec::ptx {

/// Text that is not PTX, or PTX that the machine does not know.
struct SyntaxError : std::runtime_error {
  SyntaxError(int line, const std::string& what);
};

struct Token {
  enum class Kind { kName, kNumber, kString, kPunctuation, kEnd };
  Kind kind = Kind::kEnd;
  std::string_view text;
  int line = 0;

  bool is(std::string_view expected) const { return text == expected && kind != Kind::kString; }
};

/// Tokens of `text`, whose first line has the number `line`; the last one is kEnd.
std::vector<Token> tokenize(std::string_view text, int line);

struct Operand {
  enum class Kind {
    kName,     ///< register, variable, label or special register
    kNumber,   ///< `value`; floats as their bits
    kAddress,  ///< [name + value], either may be missing
    kVector,   ///< {parts}
    kPair      ///< parts[0] | parts[1]
  };
  Kind kind = Kind::kName;
  std::string_view name;
  std::int64_t value = 0;
  bool is_float = false;  ///< a kNumber written as a float
  bool negated = false;   ///< !name
  std::vector<Operand> parts;
};

/// One instruction as it is written.
struct Statement {
  int line = 0;
  std::string_view guard;  ///< predicate register, or empty
  bool guard_negated = false;
  std::string_view opcode;              ///< whole
  std::vector<std::string_view> parts;  ///< opcode, split at dots
  std::vector<Operand> operands;
};

/// Reads tokens one after the other.
class Reader {
 public:
  explicit Reader(const std::vector<Token>& tokens, std::size_t at = 0)
      : tokens_(tokens), at_(at) {}

  const Token& peek(std::size_t ahead = 0) const;
  const Token& next();
  bool accept(std::string_view text);
  void expect(std::string_view text);
  std::string_view name();
  std::int64_t integer();
  std::size_t position() const { return at_; }

  /// From an optional guard to the semicolon.
  Statement statement();
  Operand operand();

 private:
  const std::vector<Token>& tokens_;
  std::size_t at_;
};

/// Value of a number's text; `is_float` says which kind (0f and 0d: their bits; a decimal point: a
/// double's).
std::int64_t number_value(const Token& token, bool* is_float);

}  // namespace specdec::ptx
