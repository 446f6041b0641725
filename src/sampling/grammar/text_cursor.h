#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace specdec::grammar {

/// Reads a grammar's source, character by character, and knows where it is.
class TextCursor {
 public:
  /// `name` opens every message. Throws Error(invalid_argument) unless `text` is UTF-8.
  TextCursor(std::string_view text, std::string_view name);

  bool done() const noexcept { return at_ == text_.size(); }
  std::size_t offset() const noexcept { return at_; }
  std::string_view rest() const noexcept { return text_.substr(at_); }
  /// The byte here; 0 at the end.
  char peek(std::size_t ahead = 0) const noexcept {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : '\0';
  }
  bool starts_with(std::string_view prefix) const noexcept { return rest().starts_with(prefix); }
  /// Steps over `prefix` if it stands here.
  bool take(std::string_view prefix) noexcept;
  void skip(std::size_t bytes) noexcept { at_ += bytes; }
  /// The character here, stepped over; there is one.
  char32_t next() noexcept;
  /// Exactly `digits` hexadecimal digits, stepped over; nothing happens if they are not there.
  std::optional<char32_t> take_hex(std::size_t digits) noexcept;
  /// A decimal number, stepped over. Throws above `limit`; no value if no digit stands here.
  std::optional<std::uint32_t> take_number(std::uint32_t limit);
  void seek(std::size_t offset) noexcept { at_ = offset; }

  /// Throws Error(invalid_argument): "name:line:column: what".
  [[noreturn]] void fail(const std::string& what) const { fail_at(at_, what); }
  [[noreturn]] void fail_at(std::size_t offset, const std::string& what) const;
  /// "expected `what`, found ..." at this place.
  [[noreturn]] void expected(const std::string& what) const;

 private:
  std::string_view text_;
  std::string_view name_;
  std::size_t at_ = 0;
};

}  // namespace specdec::grammar
