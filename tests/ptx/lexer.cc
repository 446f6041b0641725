#include "tests/ptx/lexer.h"

#include <bit>
#include <cctype>
#include <charconv>
#include <cstdlib>

namespace specdec::ptx {
namespace {

bool starts_name(char c) {
  return std::isalpha(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' ||
         c == '.';
}
bool continues_name(char c) {
  return starts_name(c) || std::isdigit(static_cast<unsigned char>(c));
}

}  // namespace

SyntaxError::SyntaxError(int line, const std::string& what)
    : std::runtime_error("PTX line " + std::to_string(line) + ": " + what) {}

std::vector<Token> tokenize(std::string_view text, int line) {
  std::vector<Token> tokens;
  std::size_t at = 0;
  const auto take = [&](Token::Kind kind, std::size_t end) {
    tokens.push_back({kind, text.substr(at, end - at), line});
    at = end;
  };
  while (at < text.size()) {
    const char c = text[at];
    if (c == '\n') {
      ++line;
      ++at;
    } else if (std::isspace(static_cast<unsigned char>(c)) || c == '\0') {
      ++at;
    } else if (text.substr(at, 2) == "//") {
      const std::size_t end = text.find('\n', at);
      at = end == text.npos ? text.size() : end;
    } else if (text.substr(at, 2) == "/*") {
      const std::size_t end = text.find("*/", at + 2);
      if (end == text.npos) throw SyntaxError(line, "a comment without end");
      for (; at < end + 2; ++at) line += text[at] == '\n';
    } else if (c == '"') {
      const std::size_t end = text.find('"', at + 1);
      if (end == text.npos) throw SyntaxError(line, "a string without end");
      take(Token::Kind::kString, end + 1);
    } else if (std::isdigit(static_cast<unsigned char>(c))) {
      std::size_t end = at + 1;
      while (end < text.size() &&
             (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '.'))
        ++end;
      take(Token::Kind::kNumber, end);
    } else if (starts_name(c)) {
      std::size_t end = at + 1;
      while (end < text.size()) {
        if (continues_name(text[end])) {
          ++end;
        } else if (text.substr(end, 2) == "::") {  // shared::cta
          end += 2;
        } else {
          break;
        }
      }
      take(Token::Kind::kName, end);
    } else {
      take(Token::Kind::kPunctuation, at + 1);
    }
  }
  tokens.push_back({Token::Kind::kEnd, {}, line});
  return tokens;
}

std::int64_t number_value(const Token& token, bool* is_float) {
  std::string_view text = token.text;
  *is_float = false;
  const auto parsed = [&](std::string_view digits, int base) {
    std::uint64_t value = 0;
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
    if (error != std::errc() || end != digits.data() + digits.size()) {
      throw SyntaxError(token.line, "bad number " + std::string(token.text));
    }
    return static_cast<std::int64_t>(value);
  };
  if (text.size() > 2 && text[0] == '0' &&
      (text[1] == 'f' || text[1] == 'F' || text[1] == 'd' || text[1] == 'D')) {
    *is_float = true;
    return parsed(text.substr(2), 16);
  }
  if (text.find('.') != text.npos) {
    *is_float = true;
    return std::bit_cast<std::int64_t>(std::strtod(std::string(text).c_str(), nullptr));
  }
  if (text.back() == 'U') text.remove_suffix(1);
  if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
    return parsed(text.substr(2), 16);
  return parsed(text, 10);
}

const Token& Reader::peek(std::size_t ahead) const {
  const std::size_t at = at_ + ahead;
  return tokens_[at < tokens_.size() ? at : tokens_.size() - 1];
}

const Token& Reader::next() {
  const Token& token = peek();
  if (at_ < tokens_.size()) ++at_;
  return token;
}

bool Reader::accept(std::string_view text) {
  if (!peek().is(text)) return false;
  ++at_;
  return true;
}

void Reader::expect(std::string_view text) {
  if (!accept(text)) {
    throw SyntaxError(peek().line, "expected '" + std::string(text) + "', got '" +
                                       std::string(peek().text) + "'");
  }
}

std::string_view Reader::name() {
  if (peek().kind != Token::Kind::kName) {
    throw SyntaxError(peek().line, "expected a name, got '" + std::string(peek().text) + "'");
  }
  return next().text;
}

std::int64_t Reader::integer() {
  const bool minus = accept("-");
  if (peek().kind != Token::Kind::kNumber) {
    throw SyntaxError(peek().line, "expected a number, got '" + std::string(peek().text) + "'");
  }
  bool is_float = false;
  const std::int64_t value = number_value(next(), &is_float);
  if (is_float) throw SyntaxError(peek().line, "expected an integer");
  return minus ? -value : value;
}

Operand Reader::operand() {
  Operand operand;
  if (accept("[")) {
    operand.kind = Operand::Kind::kAddress;
    if (peek().kind == Token::Kind::kName) operand.name = name();
    while (!accept("]")) {
      if (accept("+")) continue;
      operand.value += integer();
    }
    return operand;
  }
  if (accept("{")) {
    operand.kind = Operand::Kind::kVector;
    while (!accept("}")) {
      operand.parts.push_back(this->operand());
      accept(",");
    }
    return operand;
  }
  if (accept("!")) operand.negated = true;
  if (peek().kind == Token::Kind::kName) {
    operand.name = name();
    if (!accept("|")) return operand;
    Operand pair;
    pair.kind = Operand::Kind::kPair;
    pair.parts.push_back(std::move(operand));
    pair.parts.push_back(this->operand());
    return pair;
  }
  operand.kind = Operand::Kind::kNumber;
  const bool minus = accept("-");
  if (peek().kind != Token::Kind::kNumber) {
    throw SyntaxError(peek().line, "expected an operand, got '" + std::string(peek().text) + "'");
  }
  operand.value = number_value(next(), &operand.is_float);
  if (minus) operand.value = operand.is_float ? operand.value ^ INT64_MIN : -operand.value;
  return operand;
}

Statement Reader::statement() {
  Statement statement;
  statement.line = peek().line;
  if (accept("@")) {
    statement.guard_negated = accept("!");
    statement.guard = name();
  }
  statement.opcode = name();
  for (std::size_t at = 0; at <= statement.opcode.size();) {
    std::size_t dot = statement.opcode.find('.', at);
    if (dot == std::string_view::npos) dot = statement.opcode.size();
    statement.parts.push_back(statement.opcode.substr(at, dot - at));
    at = dot + 1;
  }
  while (!accept(";")) {
    if (accept("(")) {  // a call's lists
      Operand list;
      list.kind = Operand::Kind::kVector;
      while (!accept(")")) {
        list.parts.push_back(operand());
        accept(",");
      }
      statement.operands.push_back(std::move(list));
    } else {
      statement.operands.push_back(operand());
    }
    accept(",");
  }
  return statement;
}

}  // namespace specdec::ptx
