#pragma once

#include <string>
#include <string_view>

namespace specdec::cli {

/// Whether a file descriptor is a terminal that takes colours: NO_COLOR (no-color.org) and
/// TERM=dumb say no.
bool is_terminal(int descriptor) noexcept;
bool wants_colour(int descriptor) noexcept;
/// Columns of the terminal on standard output; 80 when it is none.
int terminal_width() noexcept;

enum class Style { plain, bold, dim, red, green, yellow, cyan };

/// Wraps text in the escape sequences of a style, or leaves it alone when colours are off.
class Painter {
 public:
  explicit Painter(bool colour) noexcept : colour_(colour) {}

  bool colour() const noexcept { return colour_; }
  std::string operator()(Style style, std::string_view text) const;

 private:
  bool colour_;
};

/// Text as a terminal may be given it: a model's or a file's control characters, escape sequences
/// among them, are left out, but for newline and tab.
std::string printable(std::string_view text);
/// The same in double quotes on one line, with newlines and the like as \n, and bytes that are no
/// whole UTF-8 as \xNN: for a token's text.
std::string quoted(std::string_view bytes);
/// Size in bytes of the character at the front of `bytes`, which are not empty; 1 for a byte that
/// is part of none.
std::size_t character_size(std::string_view bytes) noexcept;
/// The code point of one whole UTF-8 character; U+FFFD for a byte that is part of none.
char32_t code_point(std::string_view character) noexcept;
/// Length in bytes of the longest prefix that ends on a whole UTF-8 character.
std::size_t whole_utf8(std::string_view bytes) noexcept;

/// Routes SIGINT to a flag while it lives; restores what was there before. One at a time.
class InterruptGuard {
 public:
  InterruptGuard();
  ~InterruptGuard();
  InterruptGuard(const InterruptGuard&) = delete;
  InterruptGuard& operator=(const InterruptGuard&) = delete;

  /// Ctrl-C was pressed since the guard was made or the press was taken.
  static bool interrupted() noexcept;
  /// The same, and the press counts as dealt with.
  static bool take() noexcept;
};

}  // namespace specdec::cli
